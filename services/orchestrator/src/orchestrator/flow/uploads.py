"""Files uploaded before the tasks that use them."""

from collections.abc import Sequence

from orchestrator.domain.request import checked_file_name
from orchestrator.errors import FileNotFound
from orchestrator.ports import ObjectInfo, ObjectStore

PREFIX = "uploads/"


def upload_key(name: str) -> str:
    """The object key of an uploaded file."""
    return PREFIX + name


class Uploads:
    """Put, list and delete uploaded files by their names."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def put(self, name: str, content: bytes) -> ObjectInfo:
        """Store or replace a file."""
        return await self._objects.put(upload_key(checked_file_name(name)), content)

    async def list(self) -> Sequence[ObjectInfo]:
        """All uploaded files; their keys are their names."""
        found = await self._objects.list(PREFIX)
        return [
            ObjectInfo(each.key.removeprefix(PREFIX), each.size, each.updated_at) for each in found
        ]

    async def delete(self, name: str) -> None:
        """Delete a file.

        Raises:
            FileNotFound: There is none of this name.
        """
        if not await self._objects.delete(upload_key(checked_file_name(name))):
            raise FileNotFound(f"There is no uploaded file {name!r}.", file=name)
