"""Find the files a task is given: inline, uploaded before, or in its repositories."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from orchestrator.domain.request import InlineFile, checked_file_name, require_distinct
from orchestrator.domain.task import InputFile, StartPoint
from orchestrator.domain.workspace import FILES, Workspace
from orchestrator.errors import FileConflict, ObjectNotFound, UnknownFile
from orchestrator.flow.uploads import upload_key
from orchestrator.ports import ObjectStore, Repositories


class Attach:
    """Resolves the `files` of a request."""

    def __init__(self, objects: ObjectStore, repositories: Repositories) -> None:
        self._objects = objects
        self._repositories = repositories

    async def __call__(
        self,
        wanted: Sequence[InlineFile | str],
        workspace: Workspace,
        start: Sequence[StartPoint],
    ) -> tuple[InputFile, ...]:
        """The content of every wanted file, in order.

        Raises:
            UnknownFile: A name is neither an upload nor a path in the repositories.
            FileConflict: Two files, or a file and the repository's own, have one place.
            InvalidRequest: A name is not a relative path.
        """
        files = [await self._resolve(each, workspace, start) for each in wanted]
        require_distinct([file.name for file in files])
        for file in files:
            await self._require_free(file.name, workspace, start)
        return tuple(files)

    async def _resolve(
        self, wanted: InlineFile | str, workspace: Workspace, start: Sequence[StartPoint]
    ) -> InputFile:
        if isinstance(wanted, InlineFile):
            return InputFile(checked_file_name(wanted.name), wanted.content)
        name = checked_file_name(wanted)
        try:
            return InputFile(name, (await self._objects.read(upload_key(name))).content)
        except ObjectNotFound:
            content = await self._in_repositories(name, workspace, start)
        if content is None:
            raise UnknownFile(
                f"There is no file {name!r}: upload it with PUT /files/{name}, give its content, "
                "or name a path in the repository.",
                file=name,
            )
        return InputFile(name, content)

    async def _in_repositories(
        self, path: str, workspace: Workspace, start: Sequence[StartPoint]
    ) -> bytes | None:
        """A file of the repositories; with several, its path begins with the repository's name."""
        alone = len(workspace.repositories) == 1
        for repository, point in zip(workspace.repositories, start, strict=True):
            inner = path if alone else path.removeprefix(f"{repository.name}/")
            if not alone and inner == path:
                continue
            content = await self._repositories.read_file(repository.url, point.commit, inner)
            if content is not None:
                return content
        return None

    async def _require_free(
        self, name: str, workspace: Workspace, start: Sequence[StartPoint]
    ) -> None:
        if len(workspace.repositories) != 1:
            return  # files lie beside the repositories, not in one of them
        url, commit = workspace.repositories[0].url, start[0].commit
        place = PurePosixPath(FILES, name)
        for path in (place, *place.parents[:-1]):
            if await self._repositories.read_file(url, commit, str(path)) is not None:
                raise FileConflict(
                    f"{FILES}/{name} cannot be placed: the repository has a file {path} of its "
                    "own. Give yours another name.",
                    file=name,
                )
