"""Files uploaded before the tasks that use them."""

from collections.abc import Sequence
from dataclasses import replace

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
        """Store or replace a file; its key in the answer is its name."""
        return _upload(await self._objects.put(upload_key(checked_file_name(name)), content))

    async def list(self) -> Sequence[ObjectInfo]:
        """All uploaded files; their keys are their names."""
        return [_upload(each) for each in await self._objects.list(PREFIX)]

    async def delete(self, name: str) -> None:
        """Delete a file.

        Raises:
            FileNotFound: There is none of this name.
        """
        if not await self._objects.delete(upload_key(checked_file_name(name))):
            raise FileNotFound(f"There is no uploaded file {name!r}.", file=name)


def _upload(info: ObjectInfo) -> ObjectInfo:
    return replace(info, key=info.key.removeprefix(PREFIX))
