"""One object in one file: a header, then the content.

    magic (8 bytes) · generation (8) · CRC-32 of the content (4) · size of the content (8)

Generation and content lie in one file because one rename must replace both.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from orchestrator.errors import StorageFailure

CHUNK_BYTES = 1024 * 1024

_MAGIC = b"berthob\x01"
_LAYOUT = struct.Struct(">8sQIQ")


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about the object in it; `size` in bytes."""

    generation: int
    checksum: int
    size: int


def write_object(descriptor: int, chunks: Iterable[bytes], generation: int) -> Header:
    """Write an object into an empty file; it is on the disk when this returns."""
    checksum = size = 0
    with open(descriptor, "wb", closefd=False) as file:
        file.write(bytes(_LAYOUT.size))
        for chunk in chunks:
            checksum = zlib.crc32(chunk, checksum)
            size += len(chunk)
            file.write(chunk)
    header = Header(generation, checksum, size)
    write_header(descriptor, header)
    return header


def write_header(descriptor: int, header: Header) -> None:
    """Write the header over the one there is; it is on the disk when this returns."""
    packed = _LAYOUT.pack(_MAGIC, header.generation, header.checksum, header.size)
    os.pwrite(descriptor, packed, 0)
    os.fsync(descriptor)


def read_header(file: BinaryIO, key: str) -> Header:
    """Read the header from a file's start.

    Raises:
        StorageFailure: The file is not an object, or not all of one.
    """
    packed = file.read(_LAYOUT.size)
    stored = os.fstat(file.fileno()).st_size - _LAYOUT.size
    if len(packed) == _LAYOUT.size:
        magic, generation, checksum, size = _LAYOUT.unpack(packed)
        if magic == _MAGIC and size == stored:
            return Header(generation, checksum, size)
    raise damaged(key)


def read_chunks(file: BinaryIO, header: Header, key: str) -> Iterator[bytes]:
    """The content behind the header, in pieces.

    Raises:
        StorageFailure: At the end, if the content is not what was stored.
    """
    checksum = 0
    while chunk := file.read(CHUNK_BYTES):
        checksum = zlib.crc32(chunk, checksum)
        yield chunk
    if checksum != header.checksum:
        raise damaged(key)


def damaged(key: str) -> StorageFailure:
    """A stored object does not have the checksum it was stored with."""
    return StorageFailure(
        f"The object {key!r} in object storage is damaged: restore its file from a backup.",
        key=key,
    )
