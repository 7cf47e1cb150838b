"""Object storage."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object in storage.

    `size` is in bytes. `generation` is another number after every write of the key, also after
    the object was deleted and made again; it is never 0.
    """

    key: str
    size: int
    updated_at: datetime
    generation: int


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object's content and the very write it comes from."""

    content: bytes = field(repr=False)
    info: ObjectInfo


class ObjectStore(Protocol):
    """Objects by key. Keys are `/`-separated, of visible characters, without `..`.

    `if_generation` makes a write conditional: 0 means "there is no such object", any other number
    "the object is of this generation". Of writers that race with the same condition one wins.

    Every method may raise:
        InvalidRequest: The key cannot be used.
        StorageFailure: Storage does not answer, is full, or holds a damaged object.
    """

    async def put(
        self, key: str, content: bytes, *, if_generation: int | None = None
    ) -> ObjectInfo:
        """Store or replace an object; readers see the old one or the new one, never a part.

        Raises:
            ObjectConflict: The condition does not hold. Also possible after our own write, if
                its confirmation was lost and somebody has replaced it since.
        """
        ...

    async def put_file(
        self, key: str, path: Path, *, if_generation: int | None = None
    ) -> ObjectInfo:
        """As `put`, with the content of a file, however large; the file must not change.

        Raises:
            ObjectConflict: As for `put`.
        """
        ...

    async def read(self, key: str) -> StoredObject:
        """The object, whole.

        Raises:
            ObjectNotFound: There is none.
        """
        ...

    async def get_file(self, key: str, path: Path) -> ObjectInfo:
        """Write the object's content to a file, however large.

        The file appears, or is replaced, when all of it has arrived and its checksum is right.

        Raises:
            ObjectNotFound: There is none.
        """
        ...

    async def list(self, prefix: str) -> Sequence[ObjectInfo]:
        """All objects whose key starts with `prefix`, sorted by key."""
        ...

    async def delete(self, key: str, *, if_generation: int | None = None) -> bool:
        """Delete an object; False if there was none.

        Raises:
            ObjectConflict: There is one, of another generation.
        """
        ...
