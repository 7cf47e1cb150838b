"""The files of accepted tasks, kept until the tasks have ended."""

from collections.abc import Sequence

from orchestrator.domain.task import InputFile
from orchestrator.ports import ObjectStore


class Inputs:
    """Keeps the contents of a task's files as objects, under names that only the task has."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def keep(self, task_id: str, files: Sequence[InputFile]) -> None:
        """Store the files before the task is recorded."""
        for file in files:
            await self._objects.put(_key(task_id, file.name), file.content)

    async def load(self, task_id: str, names: Sequence[str]) -> tuple[InputFile, ...]:
        """The files again.

        Raises:
            ObjectNotFound: One of them is gone.
        """
        return tuple(
            [
                InputFile(name, (await self._objects.read(_key(task_id, name))).content)
                for name in names
            ]
        )

    async def drop(self, task_id: str, names: Sequence[str]) -> None:
        """Delete the files of a task that has ended."""
        for name in names:
            await self._objects.delete(_key(task_id, name))


def _key(task_id: str, name: str) -> str:
    return f"tasks/{task_id}/files/{name}"
