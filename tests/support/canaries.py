"""Secrets that tests plant, and the search for them in whatever comes out, however encoded."""

import base64
import re
import secrets
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from tests.support.canary_layers import layers

ALPHABET = string.ascii_letters + string.digits
BRAND = "".join(secrets.choice(ALPHABET) for _ in range(12))
"""What all canaries of this process begin with, so that one search finds any of them.

Its length is a multiple of three, so that base64 of it does not depend on what follows.
"""

OWN_CHARACTERS = 18
AROUND = 60
USUAL = ("as it is", "reversed", "hexadecimal", *(f"in base64, shifted by {n}" for n in range(3)))
_BREAKS = (b"\\r\\n", b"\\n", b"\r\n+", b"\n+", b"\r", b"\n")


@dataclass(frozen=True, slots=True)
class Canary:
    """A secret, and the place it is planted in."""

    name: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Output:
    """Something that came out.

    Args:
        place: Where, as a path says it.
        content: All of it.
        is_packed: False if it is to be searched for the usual encodings only, and not for what lies
            in it compressed: in memory that would take long, and lies beside its plain form.
    """

    place: str
    content: bytes = field(repr=False)
    is_packed: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """A canary that was found."""

    canary: str
    place: str
    encoding: str
    around: bytes


@dataclass(frozen=True, slots=True)
class Rightful:
    """A place in which a canary may be.

    Args:
        canary: Its name.
        place: A regular expression that the whole place must match.
        why: The reason.
        is_rare: True if it is not found there each time.
    """

    canary: str
    place: str
    why: str
    is_rare: bool = False

    def covers(self, finding: Finding) -> bool:
        """Whether the finding is one that is no leak."""
        return finding.canary == self.canary and bool(re.fullmatch(self.place, finding.place))


def mint(name: str) -> Canary:
    """A canary that nobody can guess, of letters and digits, which no quoting changes."""
    own = "".join(secrets.choice(ALPHABET) for _ in range(OWN_CHARACTERS))
    return Canary(name, BRAND + own)


def encodings(value: str) -> dict[str, bytes]:
    """What a text becomes in the encodings in which it may come out, by their names."""
    raw = value.encode()
    pairs = [f"{byte:02x}" for byte in raw]
    found = {
        "as it is": raw,
        "reversed": raw[::-1],
        "in UTF-16": value.encode("utf-16-le"),
        **{f"in base64, shifted by {shift}": _base64(raw, shift) for shift in range(3)},
    }
    for how, joined in {
        "hexadecimal": "".join(pairs),
        "hexadecimal with blanks": " ".join(pairs),
        "hexadecimal with colons": ":".join(pairs),
        "as escapes of C": "".join(f"\\x{pair}" for pair in pairs),
        "as escapes of JSON": "".join(f"\\u00{pair}" for pair in pairs),
        "percent-encoded": "".join(f"%{pair}" for pair in pairs),
    }.items():
        found[how] = joined.encode()
        found[f"{how}, in capitals"] = re.sub(
            "[a-f]", lambda digit: digit[0].upper(), joined
        ).encode()
    for name in [name for name in found if "base64" in name]:
        found[f"{name}, for addresses"] = found[name].translate(bytes.maketrans(b"+/", b"-_"))
    return found


class Scanner:
    """Looks for canaries.

    Args:
        canaries: Those that are looked for; they need not be minted here.
    """

    def __init__(self, canaries: Iterable[Canary]) -> None:
        self._searched: dict[tuple[bool, bytes], Sequence[tuple[str, str, bytes]]] = {}
        self._known = [(each.name, encodings(each.value)) for each in canaries]
        listed = [each.value for each in canaries]
        first = [value for value in listed if not value.startswith(BRAND)]
        if len(first) < len(listed):
            first.append(BRAND)
        forms = [encodings(text) for text in first]
        self._first = sorted({needle for each in forms for needle in each.values()})
        self._usual = sorted({each[name] for each in forms for name in USUAL})

    def search(self, outputs: Iterable[Output]) -> list[Finding]:
        """All that is found, each canary once in each place."""
        found: dict[tuple[str, str], Finding] = {}
        for output in outputs:
            for name, encoding, around in self._in_content(output):
                finding = Finding(name, output.place, encoding, around)
                found.setdefault((name, output.place), finding)
        return list(found.values())

    def _in_content(self, output: Output) -> Sequence[tuple[str, str, bytes]]:
        """What is found in an output; that of equal content is known already."""
        key = output.is_packed, blake2b(output.content).digest()
        if key not in self._searched:
            self._searched[key] = list(self._hits(output))
        return self._searched[key]

    def _hits(self, output: Output) -> Iterator[tuple[str, str, bytes]]:
        if not output.is_packed:
            yield from self._in_text(output.content, "", self._usual)
            return
        for layer in layers(output.content):
            for text in _with_and_without_breaks(layer.content):
                yield from self._in_text(text, layer.how, self._first)

    def _in_text(
        self, text: bytes, how: str, first: Sequence[bytes]
    ) -> Iterator[tuple[str, str, bytes]]:
        if not any(needle in text for needle in first):
            return
        for name, forms in self._known:
            for encoding, needle in forms.items():
                at = text.find(needle)
                if at >= 0:
                    around = text[max(0, at - AROUND) : at + len(needle) + AROUND]
                    yield name, f"{encoding}{how}", around


def leaks(findings: Sequence[Finding], rightful: Sequence[Rightful]) -> list[Finding]:
    """The findings that nothing justifies."""
    return [each for each in findings if not any(right.covers(each) for right in rightful)]


def unused(findings: Sequence[Finding], rightful: Sequence[Rightful]) -> list[Rightful]:
    """The exceptions that nothing needed; they would hide a leak some day."""
    return [
        right
        for right in rightful
        if not (right.is_rare or any(right.covers(each) for each in findings))
    ]


def _base64(raw: bytes, shift: int) -> bytes:
    """The part of base64 that stands for these bytes alone, if `shift` others precede them."""
    encoded = base64.b64encode(bytes(shift) + raw)
    first = (shift * 8 + 5) // 6
    return encoded[first : (shift + len(raw)) * 8 // 6]


def _with_and_without_breaks(content: bytes) -> Iterator[bytes]:
    """The content, and what it is with its lines joined, as programs wrap what they encode."""
    yield content
    joined = content
    for mark in _BREAKS:
        joined = joined.replace(mark, b"")
    if len(joined) < len(content):
        yield joined
