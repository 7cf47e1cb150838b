"""The tool that applies patches, all of one or nothing."""

import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

from mcp_servers import files, v4a
from mcp_servers.edits import split_newlines
from mcp_servers.hunks import apply_hunks
from mcp_servers.paths import MissingParentError, place, shown
from mcp_servers.root import current_root
from mcp_servers.stdio import serve


@dataclass(frozen=True, slots=True)
class Original:
    """A file before the patch. `data` is None where there is none."""

    path: str
    data: bytes | None
    mode: int | None


@dataclass(frozen=True, slots=True)
class Change:
    """What a patch makes of one path. `data` is None to delete it."""

    original: Original
    data: bytes | None
    mode: int | None
    mark: Literal["A", "M", "D"]


def apply_patch(
    text: Annotated[
        str,
        Field(
            # The name that models were trained to use.
            validation_alias="input",
            min_length=1,
            description="The patch, from *** Begin Patch to *** End Patch.",
        ),
    ],
) -> str:
    """Add, change, move or delete text files with one patch, all of it or nothing.

    Between "*** Begin Patch" and "*** End Patch" come sections: "*** Add File: path" with all
    lines after "+"; "*** Delete File: path"; "*** Update File: path", then optionally
    "*** Move to: path", then hunks. A hunk starts with "@@" and optionally a whole line of the
    file to search from; then come kept lines after " ", removed ones after "-", added ones after
    "+". Give about three kept lines around a change. "*** End of File" ties a hunk to the end.
    """
    root = current_root()
    try:
        changes = plan(root, v4a.parse(text))
    except v4a.PatchError as error:
        raise ToolError(f"{error}\nNo file was changed.") from error
    apply(root, changes)
    return "Applied the patch:\n" + "\n".join(
        f"{change.mark} {shown(change.original.path)}" for change in changes
    )


def plan(root: Path, actions: list[v4a.Action]) -> list[Change]:
    """Return the changes that a patch makes, one for each path. Nothing is written.

    Raises:
        PatchError: a hunk does not fit, a file is in the way or missing, or named twice.
        ToolError: a path may not be read or written.
    """
    changes: list[Change] = []
    for action in actions:
        changes += _plan_one(root, action)
    seen: set[str] = set()
    for change in changes:
        if change.original.path in seen:
            path = shown(change.original.path)
            raise v4a.PatchError(f"{path}: named by two sections of the patch")
        seen.add(change.original.path)
    return changes


def apply(root: Path, changes: list[Change]) -> None:
    """Make the changes. If one fails, those before it are taken back.

    Raises:
        ToolError: a file could not be written or deleted.
    """
    done: list[Change] = []
    with ExitStack() as stack:
        # Most that can fail, a full disk above all, fails here, before any file has changed.
        staged = {
            change.original.path: stack.enter_context(
                files.staged(root, change.original.path, change.data, mode=change.mode)
            )
            for change in changes
            if change.data is not None
        }
        try:
            for change in changes:
                if change.data is None:
                    files.remove(root, change.original.path)
                else:
                    staged[change.original.path].commit()
                done.append(change)
        except ToolError:
            for change in reversed(done):
                _restore(root, change.original)
            raise


def register(server: MCPServer) -> None:
    """Add the patch tool to a server."""
    server.add_tool(
        apply_patch,
        annotations=ToolAnnotations(
            read_only_hint=False,
            destructive_hint=True,
            idempotent_hint=False,
            open_world_hint=False,
        ),
        structured_output=False,
    )


def main() -> None:
    """Serve the patch tool over stdio."""
    serve("patch", register)


def _plan_one(root: Path, action: v4a.Action) -> list[Change]:
    if isinstance(action, v4a.AddFile):
        new = _original(root, action.path, follow=True)
        if new.data is not None:
            raise v4a.PatchError(f"{action.path}: exists already; use '{v4a.UPDATE.strip()}'")
        return [Change(new, action.content.encode(), None, "A")]
    if isinstance(action, v4a.DeleteFile):
        old, _ = _existing(root, action.path, follow=False)
        return [Change(old, None, None, "D")]
    return _plan_update(root, action)


def _plan_update(root: Path, action: v4a.UpdateFile) -> list[Change]:
    old, before = _existing(root, action.path, follow=action.move_to is None)
    text, newline = split_newlines(files.to_text(action.path, before, strict=True))
    data = apply_hunks(text, action).replace("\n", newline).encode()
    if action.move_to is None:
        return [Change(old, data, old.mode, "M")]
    new = _original(root, action.move_to, follow=True)
    if new.path == old.path:
        return [Change(old, data, old.mode, "M")]
    if new.data is not None:
        raise v4a.PatchError(f"{action.move_to}: exists already, nothing can be moved there")
    return [Change(old, None, None, "D"), Change(new, data, old.mode, "A")]


def _existing(root: Path, path: str, *, follow: bool) -> tuple[Original, bytes]:
    original = _original(root, path, follow=follow)
    if original.data is None:
        raise v4a.PatchError(f"{path}: no such file")
    return original, original.data


def _original(root: Path, path: str, *, follow: bool) -> Original:
    try:
        with place(root, path, write=True, follow=follow) as spot:
            relative, info = spot.relative, spot.info
    except MissingParentError as error:
        return Original(error.relative, None, None)
    if info is None:
        return Original(relative, None, None)
    if stat.S_ISLNK(info.st_mode):
        raise ToolError(f"{path}: a symbolic link; use bash to move or delete it")
    return Original(relative, files.read_bytes(root, relative), info.st_mode & 0o777)


def _restore(root: Path, original: Original) -> None:
    if original.data is None:
        files.remove(root, original.path)
    else:
        files.write_bytes(root, original.path, original.data, mode=original.mode)


if __name__ == "__main__":
    main()
