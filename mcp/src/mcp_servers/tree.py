"""Listing directories below the task's root, always up to a limit."""

import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mcp.server.mcpserver.exceptions import ToolError

from mcp_servers.globs import Glob
from mcp_servers.paths import explained, place

ENTRY_LIMIT = 5000
"""Most entries that one listing returns."""

VISIT_LIMIT = 200_000
"""Most entries that one search looks at."""

HIDDEN = frozenset({".git", ".berth"})
"""Names that trees and searches leave out: git's data and the tools' own."""

_SCAN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a directory. `kind` is file, directory, symlink or other; `size` is in bytes."""

    name: str
    kind: str
    size: int


@dataclass(slots=True)
class Node:
    """A directory in a tree; `omitted` counts the entries that were cut."""

    parts: tuple[str, ...]
    entries: list[Entry] = field(default_factory=list)
    children: dict[str, "Node"] = field(default_factory=dict)
    omitted: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """Paths below the start of a search, and whether a limit ended it early."""

    paths: list[str]
    complete: bool


def list_entries(root: Path, path: str) -> list[Entry]:
    """Return the entries of one directory by name. Links are not followed.

    Raises:
        ToolError: it is not a directory inside the root.
    """
    with place(root, path) as spot:
        if not spot.exists():
            raise ToolError(f"{path}: no such directory")
        if not spot.is_directory():
            raise ToolError(f"{path}: not a directory")
        with explained(path):
            descriptor = os.open(spot.name, _SCAN, dir_fd=spot.parent)
    try:
        with explained(path), os.scandir(descriptor) as entries:
            return sorted((_entry(entry) for entry in entries), key=lambda entry: entry.name)
    finally:
        os.close(descriptor)


def build_tree(root: Path, path: str, excluded: Sequence[Glob]) -> Node:
    """Return everything below `path`, level by level until `ENTRY_LIMIT` entries."""
    top = Node(())
    pending = deque([top])
    left = ENTRY_LIMIT
    while pending:
        node = pending.popleft()
        entries = _visible(_list_below(root, path, node.parts), node.parts, excluded)
        node.entries = entries[:left]
        node.omitted = len(entries) - len(node.entries)
        left -= len(node.entries)
        for entry in node.entries:
            if entry.kind == "directory":
                child = node.children[entry.name] = Node((*node.parts, entry.name))
                pending.append(child)
    return top


def search(root: Path, path: str, wanted: Glob, excluded: Sequence[Glob]) -> Found:
    """Return the paths below `path` that match `wanted`, up to `ENTRY_LIMIT` of them."""
    found: list[str] = []
    for visited, parts in enumerate(_descend(root, path, excluded)):
        if visited >= VISIT_LIMIT or len(found) >= ENTRY_LIMIT:
            return Found(found, complete=False)
        if wanted.matches(parts):
            found.append("/".join(parts))
    return Found(found, complete=True)


def _descend(root: Path, path: str, excluded: Sequence[Glob]) -> Iterator[tuple[str, ...]]:
    pending: list[tuple[str, ...]] = [()]
    while pending:
        parts = pending.pop()
        entries = _visible(_list_below(root, path, parts), parts, excluded)
        for entry in entries:
            yield (*parts, entry.name)
        pending += [
            (*parts, entry.name) for entry in reversed(entries) if entry.kind == "directory"
        ]


def _list_below(root: Path, path: str, parts: tuple[str, ...]) -> list[Entry]:
    if not parts:
        return list_entries(root, path)
    try:
        return list_entries(root, "/".join([path, *parts]))
    except ToolError:
        # Removed or made unreadable since its parent was listed: it shows as empty.
        return []


def _visible(entries: list[Entry], parts: tuple[str, ...], excluded: Sequence[Glob]) -> list[Entry]:
    return [
        entry
        for entry in entries
        if entry.name not in HIDDEN
        and not any(glob.matches((*parts, entry.name)) for glob in excluded)
    ]


def _entry(entry: os.DirEntry[str]) -> Entry:
    try:
        info = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return Entry(entry.name, "other", 0)
    return Entry(entry.name, _kind(info.st_mode), info.st_size)


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "directory"
    if stat.S_ISREG(mode):
        return "file"
    return "symlink" if stat.S_ISLNK(mode) else "other"
