"""What lies in a content beneath compression and base64: files in archives, objects of git."""

import base64
import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

MOST_DEEP = 3
MOST_BYTES = 256 * 2**20
"""More than this in one compressed part is an error: what is not read is not searched."""

# Most of what looks like a beginning is none, as the first bytes after it show.
_FIRST_STEP = 2**12
_ZIP_HEAD = 30
# Shorter runs hold no canary that is compressed, nor one that the plain search does not find.
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{32,}")
_BREAKS = re.compile(rb"(?<=[A-Za-z0-9+/_-]{60})(?:\r?\n|\\n)\+?(?=[A-Za-z0-9+/_-])")
_FOR_ADDRESSES = bytes.maketrans(b"-_", b"+/")


class _Unpacker(Protocol):
    def decompress(self, data: bytes, /) -> bytes: ...

    @property
    def eof(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Layer:
    """A content; `how` says what it lay beneath, and is empty for the outermost."""

    content: bytes
    how: str = ""


def layers(content: bytes, how: str = "", depth: int = 0) -> Iterator[Layer]:
    """The content, and everything that lies in it.

    Raises:
        ValueError: A compressed part holds more than is searched.
    """
    yield Layer(content, how)
    if depth == MOST_DEEP:
        return
    for name, inner in _beneath(content):
        yield from layers(inner, f"{how}, in {name}", depth + 1)


def _beneath(content: bytes) -> Iterator[tuple[str, bytes]]:
    for name, pattern, begin, skipped in _PACKED:
        for found in pattern.finditer(content):
            start = found.start() + skipped(content, found.start())
            inner = _unpacked(begin(), memoryview(content)[start:])
            if inner:
                yield name, inner
    # All of them together: each alone is small, and most are words.
    runs = _BASE64.findall(_BREAKS.sub(b"", content))
    # Where a run begins is not known: a letter before it looks like a part of it.
    if decoded := b"\n".join(_decoded(run[shift:]) for run in runs for shift in range(4)):
        yield "base64", decoded


def _unpacked(unpacker: _Unpacker, data: memoryview) -> bytes:
    """What a compressed part holds, until it ends or turns out to be none."""
    parts: list[bytes] = []
    length = 0
    at, step = 0, _FIRST_STEP
    while at < len(data):
        try:
            parts.append(unpacker.decompress(bytes(data[at : at + step])))
        except (zlib.error, OSError, lzma.LZMAError, EOFError):
            break
        at, step = at + step, step * 2
        length += len(parts[-1])
        if length > MOST_BYTES:
            raise ValueError(f"a compressed part holds more than {MOST_BYTES} bytes")
        if unpacker.eof:
            break
    return b"".join(parts)


def _decoded(run: bytes) -> bytes:
    whole = run[:-1] if len(run) % 4 == 1 else run
    return base64.b64decode(whole.translate(_FOR_ADDRESSES) + b"=" * (-len(whole) % 4))


def _nothing(_content: bytes, _at: int) -> int:
    return 0


def _zip_head(content: bytes, at: int) -> int:
    names = int.from_bytes(content[at + 26 : at + 28], "little")
    return _ZIP_HEAD + names + int.from_bytes(content[at + 28 : at + 30], "little")


_Kind = tuple[str, re.Pattern[bytes], Callable[[], _Unpacker], Callable[[bytes, int], int]]
# A zlib stream may begin anywhere in a pack of git; its two first bytes are divisible by 31.
_PACKED: tuple[_Kind, ...] = (
    ("gzip", re.compile(rb"\x1f\x8b\x08"), lambda: zlib.decompressobj(31), _nothing),
    ("zlib", re.compile(rb"\x78[\x01\x5e\x9c\xda]"), zlib.decompressobj, _nothing),
    (
        "zip",
        re.compile(rb"PK\x03\x04....\x08\x00", re.DOTALL),
        lambda: zlib.decompressobj(-15),
        _zip_head,
    ),
    ("bzip2", re.compile(rb"BZh[1-9]1AY&SY"), bz2.BZ2Decompressor, _nothing),
    ("xz", re.compile(rb"\xfd7zXZ\x00"), lzma.LZMADecompressor, _nothing),
)
