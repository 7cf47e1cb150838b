"""Objects in memory, for tests of what is built on object storage."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from orchestrator.errors import ObjectConflict, ObjectNotFound
from orchestrator.ports import ObjectInfo, StoredObject
from orchestrator.storage.objects.keys import can_start_key, check_key


class MemoryObjectStore:
    """`ports.ObjectStore` in a dictionary; every call happens at once.

    `now` is the time that writes are stamped with; None takes the machine's.
    """

    def __init__(self) -> None:
        self.now: datetime | None = None
        self._objects: dict[str, StoredObject] = {}
        self._generations = count(1)

    async def put(
        self, key: str, content: bytes, *, if_generation: int | None = None
    ) -> ObjectInfo:
        check_key(key)
        self._require(key, if_generation)
        now = self.now or datetime.now(UTC)
        info = ObjectInfo(key, len(content), now, next(self._generations))
        self._objects[key] = StoredObject(bytes(content), info)
        return info

    async def put_file(
        self, key: str, path: Path, *, if_generation: int | None = None
    ) -> ObjectInfo:
        return await self.put(key, path.read_bytes(), if_generation=if_generation)

    async def read(self, key: str) -> StoredObject:
        check_key(key)
        try:
            return self._objects[key]
        except KeyError:
            raise ObjectNotFound(f"nothing under {key!r}", key=key) from None

    async def get_file(self, key: str, path: Path) -> ObjectInfo:
        stored = await self.read(key)
        path.write_bytes(stored.content)
        return stored.info

    async def list(self, prefix: str) -> Sequence[ObjectInfo]:
        if not can_start_key(prefix):
            return []
        return [self._objects[key].info for key in sorted(self._objects) if key.startswith(prefix)]

    async def delete(self, key: str, *, if_generation: int | None = None) -> bool:
        check_key(key)
        if key not in self._objects:
            return False
        self._require(key, if_generation)
        del self._objects[key]
        return True

    def _require(self, key: str, generation: int | None) -> None:
        stored = self._objects.get(key)
        current = stored.info.generation if stored else 0
        if generation is not None and generation != current:
            raise ObjectConflict(f"{key!r} was changed", key=key)
