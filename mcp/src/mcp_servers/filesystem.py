"""Tools that read and change files below the task's root."""

import base64
import json
import mimetypes
import os
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    TextContent,
    ToolAnnotations,
)
from pydantic import BaseModel, Field

from mcp_servers import edits as editing
from mcp_servers import files, tree
from mcp_servers.globs import Glob
from mcp_servers.paths import explained, place, shown
from mcp_servers.root import current_root
from mcp_servers.stdio import serve

PathArgument = Annotated[
    str, Field(description="Path relative to the workspace root, or absolute inside it.")
]
Excludes = Annotated[
    Sequence[str],
    Field(
        validation_alias="excludePatterns",
        description="Glob patterns to leave out. Without a slash they match names at any depth.",
    ),
]
Lines = Annotated[int, Field(ge=1)]

_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_CREATES = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
_REPLACES = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
)
_CHANGES = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False
)

_NAMED_CUTS = 20
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_LABELS = {"directory": "[DIR]", "file": "[FILE]", "symlink": "[LINK]", "other": "[OTHER]"}


class EditOperation(BaseModel, validate_by_name=True):
    """One passage to replace."""

    old_text: str = Field(
        alias="oldText", description="Text to find. It must occur exactly once in the file."
    )
    new_text: str = Field(alias="newText", description="Text to put in its place.")


def read_text_file(
    path: PathArgument,
    head: Annotated[Lines | None, Field(description="Return only the first N lines.")] = None,
    tail: Annotated[Lines | None, Field(description="Return only the last N lines.")] = None,
) -> str:
    """Read a text file as UTF-8, up to 10 MiB. For larger files use head or tail."""
    if head is not None and tail is not None:
        raise ToolError("give head or tail, not both")
    root = current_root()
    if head is not None:
        data = files.read_head(root, path, head)
    elif tail is not None:
        data = files.read_tail(root, path, tail)
    else:
        data = files.read_bytes(root, path)
    return files.to_text(path, data)


def read_media_file(path: PathArgument) -> list[ContentBlock]:
    """Read an image, an audio file or any other binary file, up to 10 MiB."""
    data = base64.b64encode(files.read_bytes(current_root(), path)).decode("ascii")
    mime_type = mimetypes.guess_type(path)[0] or "application/octet-stream"
    if mime_type.startswith("image/"):
        return [ImageContent(data=data, mime_type=mime_type)]
    if mime_type.startswith("audio/"):
        return [AudioContent(data=data, mime_type=mime_type)]
    with place(current_root(), path) as spot:
        uri = f"file:///{shown(spot.relative)}"
    blob = BlobResourceContents(uri=uri, mime_type=mime_type, blob=data)
    return [EmbeddedResource(resource=blob)]


def read_multiple_files(
    paths: Annotated[
        list[str],
        Field(min_length=1, max_length=100, description="Paths of the text files to read."),
    ],
) -> str:
    """Read several text files, 10 MiB together. A file that cannot be read does not stop others."""
    root = current_root()
    left = files.READ_LIMIT
    parts: list[str] = []
    for path in paths:
        try:
            data = files.read_bytes(root, path, left)
            parts.append(f"{path}:\n{files.to_text(path, data)}")
            left -= len(data)
        except ToolError as error:
            parts.append(f"{path}: Error - {error}")
    return "\n---\n".join(parts)


def write_file(
    path: PathArgument,
    content: Annotated[str, Field(description="The whole new content of the file.")],
) -> str:
    """Create a file or replace its whole content. Missing directories are made."""
    data = content.encode()
    new = files.write_bytes(current_root(), path, data)
    return f"{'Created' if new else 'Replaced'} {path} ({len(data)} bytes)"


def edit_file(
    path: PathArgument,
    edits: Annotated[
        list[EditOperation],
        Field(min_length=1, description="Edits, applied in order, all of them or none."),
    ],
    dry_run: Annotated[
        bool,
        Field(validation_alias="dryRun", description="Return the diff without changing the file."),
    ] = False,
) -> str:
    """Replace passages of a text file and return the change as a unified diff.

    Each oldText must occur exactly once. If it does not occur as it is, lines are compared without
    their leading and trailing blanks, and newText is indented as the place that was found.
    """
    root = current_root()
    before = files.to_text(path, files.read_bytes(root, path), strict=True)
    try:
        after = editing.apply_edits(
            before, [editing.Edit(edit.old_text, edit.new_text) for edit in edits]
        )
    except editing.EditError as error:
        raise ToolError(f"{path}: {error}; nothing was changed") from error
    if not dry_run:
        files.write_bytes(root, path, after.encode())
    return editing.unified_diff(before, after, path) or "The edits leave the file as it was."


def create_directory(path: PathArgument) -> str:
    """Create a directory and those above it. It is no error if it exists."""
    with place(current_root(), path, write=True, parents=True) as spot:
        if spot.is_directory():
            return f"{path} exists already"
        with explained(path):
            os.mkdir(spot.name, dir_fd=spot.parent)
    return f"Created directory {path}"


def list_directory(path: PathArgument = ".") -> str:
    """List a directory, one entry a line: [DIR], [FILE] or [LINK] and the name."""
    lines = [f"{_LABELS[entry.kind]} {shown(entry.name)}" for entry in _entries(path)]
    return _bounded(lines) or "(empty)"


def list_directory_with_sizes(
    path: PathArgument = ".",
    sort_by: Annotated[
        Literal["name", "size"],
        Field(validation_alias="sortBy", description="Order: by name, or largest first."),
    ] = "name",
) -> str:
    """List a directory with the sizes of its files and their sum."""
    entries = _entries(path)
    if sort_by == "size":
        entries.sort(key=lambda entry: -entry.size if entry.kind == "file" else 1)
    lines = [
        f"{_LABELS[entry.kind]} {shown(entry.name)}"
        + (f"  {_size(entry.size)}" if entry.kind == "file" else "")
        for entry in entries
    ]
    sizes = [entry.size for entry in entries if entry.kind == "file"]
    directories = sum(entry.kind == "directory" for entry in entries)
    summary = f"Total: {len(sizes)} files, {directories} directories, {_size(sum(sizes))}"
    return f"{_bounded(lines)}\n\n{summary}".lstrip()


def directory_tree(
    path: PathArgument = ".",
    exclude_patterns: Excludes = (),
) -> list[ContentBlock]:
    """Return everything below a directory as JSON: objects with name, type and children.

    Leaves out .git and .berth, does not follow links, and stops after 5,000 entries.
    """
    top = tree.build_tree(current_root(), path, _globs(exclude_patterns))
    text = json.dumps(_children(top), separators=(",", ":"), ensure_ascii=False)
    content: list[ContentBlock] = [TextContent(text=text)]
    cut = _cut(top)
    if cut:
        content.append(
            TextContent(
                text=f"Cut after {tree.ENTRY_LIMIT} entries; left out below: {', '.join(cut)}. "
                "Ask for one of these directories, or exclude some."
            )
        )
    return content


def move_file(
    source: PathArgument,
    destination: Annotated[str, Field(description="The new path. Nothing may exist there.")],
) -> str:
    """Move or rename a file or directory. Missing directories are made."""
    root = current_root()
    with (
        place(root, source, write=True, follow=False) as old,
        place(root, destination, write=True, parents=True, follow=False) as new,
    ):
        if not old.exists():
            raise ToolError(f"{source}: no such file or directory")
        if old.name == ".":
            raise ToolError(f"{source}: cannot be moved")
        if new.exists():
            raise ToolError(f"{destination}: it already exists; delete it first or choose another")
        with explained(source):
            os.rename(old.name, new.name, src_dir_fd=old.parent, dst_dir_fd=new.parent)
    return f"Moved {source} to {destination}"


def search_files(
    pattern: Annotated[
        str,
        Field(
            min_length=1,
            description="Glob pattern such as *.py or src/**/*.ts. Without a slash it matches "
            "names at any depth, else paths relative to the start.",
        ),
    ],
    path: PathArgument = ".",
    exclude_patterns: Excludes = (),
) -> str:
    """Find files and directories by name. Leaves out .git and .berth."""
    wanted = _globs([pattern])[0]
    found = tree.search(current_root(), path, wanted, _globs(exclude_patterns))
    prefix = "" if path in (".", "./") else f"{path.rstrip('/')}/"
    lines = [prefix + shown(name) for name in found.paths]
    if not found.complete:
        lines.append(f"[stopped after {len(found.paths)} matches; narrow the path or the pattern]")
    return "\n".join(lines) or "No matches found"


def get_file_info(path: PathArgument) -> str:
    """Return size, times, type and permissions of a file or directory."""
    with place(current_root(), path) as spot:
        info = spot.info
    if info is None:
        raise ToolError(f"{path}: no such file or directory")
    facts = {
        "size": info.st_size,
        "created": _time(info.st_ctime),
        "modified": _time(info.st_mtime),
        "accessed": _time(info.st_atime),
        "isDirectory": str(stat.S_ISDIR(info.st_mode)).lower(),
        "isFile": str(stat.S_ISREG(info.st_mode)).lower(),
        "permissions": f"{info.st_mode & 0o777:03o}",
    }
    return "\n".join(f"{name}: {value}" for name, value in facts.items())


def list_allowed_directories() -> str:
    """Return the workspace root: the one directory that these tools may touch."""
    return f"Allowed directories:\n{current_root()}"


def register(server: MCPServer) -> None:
    """Add the file tools to a server."""
    for tool, annotations in (
        (read_text_file, _READS),
        (read_media_file, _READS),
        (read_multiple_files, _READS),
        (write_file, _REPLACES),
        (edit_file, _CHANGES),
        (create_directory, _CREATES),
        (list_directory, _READS),
        (list_directory_with_sizes, _READS),
        (directory_tree, _READS),
        (move_file, _CHANGES),
        (search_files, _READS),
        (get_file_info, _READS),
        (list_allowed_directories, _READS),
    ):
        server.add_tool(tool, annotations=annotations, structured_output=False)


def main() -> None:
    """Serve the file tools over stdio."""
    serve("filesystem", register)


def _entries(path: str) -> list[tree.Entry]:
    return tree.list_entries(current_root(), path)


def _globs(patterns: Sequence[str]) -> list[Glob]:
    try:
        return [Glob(pattern) for pattern in patterns]
    except ValueError as error:
        raise ToolError(str(error)) from error


def _bounded(lines: list[str]) -> str:
    more = len(lines) - tree.ENTRY_LIMIT
    if more > 0:
        lines = [*lines[: tree.ENTRY_LIMIT], f"[{more} more entries left out]"]
    return "\n".join(lines)


def _children(node: tree.Node) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = []
    for entry in node.entries:
        item: dict[str, object] = {"name": shown(entry.name), "type": entry.kind}
        child = node.children.get(entry.name)
        if child is not None:
            item["children"] = _children(child)
        listed.append(item)
    return listed


def _cut(node: tree.Node) -> list[str]:
    """Name the directories that lack entries, and how many each of them lacks."""
    cut: list[str] = []
    pending = [node]
    while pending:
        current = pending.pop(0)
        if current.omitted:
            cut.append(f"{shown('/'.join(current.parts)) or '.'} ({current.omitted})")
        pending += current.children.values()
    more = len(cut) - _NAMED_CUTS
    return [*cut[:_NAMED_CUTS], f"{more} more directories"] if more > 0 else cut


def _size(count: int) -> str:
    """Return a number of bytes in the largest unit that it fills."""
    power = min((count.bit_length() - 1) // 10, len(_UNITS) - 1) if count else 0
    return f"{count / 1024**power:.2f} {_UNITS[power]}" if power else f"{count} B"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    main()
