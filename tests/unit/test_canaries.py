"""The search for canaries is worth something only if it finds them wherever they are."""

import base64
import bz2
import gzip
import io
import json
import lzma
import tarfile
import urllib.parse
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support import canary_layers
from tests.support.canaries import (
    BRAND,
    Canary,
    Output,
    Rightful,
    Scanner,
    encodings,
    leaks,
    mint,
    unused,
)
from tests.support.repositories import bare_copy, new_repository

FOREIGN = Canary("a key of the orchestrator's own", "wJalrXUtnFEMI-K7MDENG_bPxRfiCYEXAMPLEKEY0x")
CANARIES = (mint("first"), mint("second"), FOREIGN)
SCANNER = Scanner(CANARIES)


def hexadecimal(value: str) -> str:
    return value.encode().hex()


def escaped(value: str) -> str:
    return "".join(f"\\u{ord(each):04x}" for each in value)


def quoted(value: str) -> str:
    return "".join(f"%{ord(each):02X}" for each in value)


def dumped(value: str) -> str:
    """As `xxd -p -c 20` prints it."""
    digits = value.encode().hex()
    return "\n".join(digits[at : at + 40] for at in range(0, len(digits), 40))


def wrapped(value: str) -> str:
    """As `base64` prints it, in a patch."""
    lines = base64.encodebytes(b"x" * 50 + value.encode() + b"y" * 40).decode().splitlines()
    return "".join(f"+{line}\n" for line in lines)


ENCODERS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "reversed": lambda value: value[::-1],
    "in an address": lambda value: f"https://me:{urllib.parse.quote(value, safe='')}@host/path",
    "hexadecimal": hexadecimal,
    "hexadecimal in capitals": lambda value: hexadecimal(value).upper(),
    "hexadecimal with colons": lambda value: value.encode().hex(":"),
    "hexadecimal with blanks": lambda value: value.encode().hex(" "),
    "as Python shows bytes": lambda value: "".join(f"\\x{each:02x}" for each in value.encode()),
    "dumped in lines": dumped,
    "escaped as JSON": escaped,
    "quoted": quoted,
    "quoted in small letters": lambda value: quoted(value).lower(),
    "within JSON within JSON": lambda value: json.dumps(json.dumps({"é": value})),
    "wrapped in a patch": wrapped,
    **{
        f"in base64 after {before} bytes": lambda value, before=before: base64.b64encode(  # type: ignore[misc]
            b"\xff" * before + value.encode() + b"\xff\xfe"
        ).decode()
        for before in range(4)
    },
    "in base64 for addresses": lambda value: base64.urlsafe_b64encode(
        f"a?~:{value}".encode()
    ).decode(),
    "in base64 twice": lambda value: base64.b64encode(
        base64.b64encode(f"me:{value}".encode())
    ).decode(),
    "in base64 of gzip": lambda value: base64.b64encode(gzip.compress(value.encode())).decode(),
}


def zipped(text: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("other.txt", b"nothing" * 100)
        archive.writestr("directory/file.txt", text)
    return content.getvalue()


def tarred(text: bytes) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    return content.getvalue()


KINDS: dict[str, Callable[[bytes], bytes]] = {
    "text": lambda text: b"before\n" + text + b"\nafter",
    "binary": lambda text: bytes(range(256)) + text + bytes(range(256)),
    "environment": lambda text: b"A=1\0B=" + text + b"\0C=2\0",
    "server-sent event": lambda text: b'id: 1\nevent: text\ndata: {"text": "' + text + b'"}\n\n',
    "gzip": lambda text: b"head" + gzip.compress(b"x" + text) + b"tail",
    "zlib": lambda text: zlib.compress(b"blob 9\0" + text, 1),
    "zip": zipped,
    "tar": tarred,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoding", ENCODERS)
def test_each_canary_is_found_in_each_encoding_in_each_kind_of_output(
    encoding: str, kind: str
) -> None:
    for canary in CANARIES:
        content = KINDS[kind](ENCODERS[encoding](canary.value).encode())
        found = SCANNER.search([Output("somewhere", content)])
        assert {(each.canary, each.place) for each in found} == {(canary.name, "somewhere")}


def test_utf_16_is_found() -> None:
    content = f"\ufeffAnd {FOREIGN.value}".encode("utf-16-le")
    assert [each.encoding for each in SCANNER.search([Output("", content)])] == ["in UTF-16"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_canary_in_a_repository_is_found(tmp_path: Path, packed: bool) -> None:
    source = new_repository(tmp_path / "source", {"a.txt": "a\n" * 500})
    source.commit("more", {"a.txt": "a\n" * 500 + CANARIES[0].value, "b.txt": "b"})
    source.commit(f"said {CANARIES[1].value}", {"c.txt": FOREIGN.value})
    bare = bare_copy(source, tmp_path / "bare")
    if packed:
        source.git("repack", "-adq")
    for directory in (source.path / ".git", bare):
        contents = [
            Output(path.name, path.read_bytes())
            for path in (directory / "objects").rglob("*")
            if path.is_file()
        ]
        assert {each.canary for each in SCANNER.search(contents)} == {
            each.name for each in CANARIES
        }
    bundle = tmp_path / "bundle"
    source.git("bundle", "create", "--quiet", str(bundle), "--all")
    found = SCANNER.search([Output("bundle", bundle.read_bytes())])
    assert {each.canary for each in found} == {each.name for each in CANARIES}


def test_nothing_is_found_where_nothing_is() -> None:
    other = mint("never searched")
    texts = [b"", b"plain", bytes(range(256)) * 50, other.value.encode(), BRAND.encode()]
    texts += [encodings(other.value)[name] for name in encodings(other.value)]
    texts.append(FOREIGN.value[:-1].encode())
    assert SCANNER.search(Output(str(n), text) for n, text in enumerate(texts)) == []


def test_what_cannot_be_searched_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary_layers, "MOST_BYTES", 2**20)
    bomb = gzip.compress(bytes(2 * 2**20))
    with pytest.raises(ValueError, match="holds more than"):
        SCANNER.search([Output("bomb", bomb)])


def test_exceptions_are_for_one_canary_in_one_place_and_must_be_needed() -> None:
    first, second, _ = CANARIES
    both = f"{first.value} {second.value}".encode()
    found = SCANNER.search([Output("log", both), Output("log/more", both)])
    needed = Rightful(first.name, "log", "it is its place")
    idle = Rightful(second.name, "nowhere", "nobody knows")
    rare = Rightful(second.name, "seldom", "it may be seen", is_rare=True)
    left = {(each.canary, each.place) for each in leaks(found, [needed, idle])}
    assert left == {("second", "log"), ("first", "log/more"), ("second", "log/more")}
    assert unused(found, [needed, idle, rare]) == [idle]


@pytest.mark.parametrize("encoding", ["as it is", "reversed", "hexadecimal", "quoted"])
def test_memory_is_searched_for_what_is_usual(encoding: str) -> None:
    content = b"\0" + ENCODERS[encoding](FOREIGN.value).encode() + b"\0"
    found = SCANNER.search([Output("memory", content, is_packed=False)])
    assert bool(found) == (encoding != "quoted")
