"""The git directory that a task's repository has for itself.

It lies in the tree as `.git` and borrows objects from the clone. References, configuration, stash
and hooks are its own, so that no task sees those of another. Its files are those that
gitrepository-layout(5) describes.
"""

import asyncio
import os
import re
import shutil
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.errors import BadRequest
from agent.git import run_git

BRANCHES = "+refs/heads/*:refs/remotes/origin/*"
MAX_URL_LENGTH = 2_048
_REMOTE = "refs/remotes/origin/"
_LOCAL = "refs/heads/"
_TAGS = "refs/tags/"
_PACKED = "packed-refs"
_DEFAULTS = ("main", "master")
# Git takes a branch of this name for none.
_NO_BRANCH = "HEAD"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CONFIG = """[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = false
\tlogallrefupdates = true
\texcludesFile = {exclude}
[gc]
\tauto = 0
[user]
\tname = Berth
\temail = berth@localhost
[remote "origin"]
\tfetch = {branches}
"""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a clone knows of the remote.

    Args:
        url: Its address; None if the clone's configuration has none that can be used.
        branches: The commit of each branch.
        tags: The object of each tag.
    """

    url: str | None
    branches: dict[str, str]
    tags: dict[str, str]


async def read_origin(clone: Path) -> Origin:
    """Read a clone's address and references; of its configuration nothing else has a say."""
    asked = ["config", "--file", str(clone / "config"), "--get", "remote.origin.url"]
    told = await run_git(asked, clone, environment={"GIT_DIR": os.devnull}, check=False)
    found = await asyncio.to_thread(_references, clone)
    return Origin(
        told.text if told.code == 0 and _is_value(told.text) else None,
        _below(_REMOTE, found),
        _below(_TAGS, found),
    )


def make_git_directory(
    directory: Path, origin: Origin, start: str, *, objects: Path, exclude: Path, index: Path
) -> None:
    """Make the git directory of a tree that is checked out.

    Args:
        directory: Where it is to be; nothing must be there.
        origin: What it starts with: each branch is there as the remote's and as a local one.
        start: The commit that is checked out.
        objects: The object store to borrow from.
        exclude: Patterns of files that git is not to show.
        index: The index of the checked out files; with it comes the stat data, so that git need
            not read every file again.
    """
    directory.mkdir()
    for inner in ("objects/info", "refs/heads", "refs/tags", "info"):
        (directory / inner).mkdir(parents=True)
    (directory / "objects" / "info" / "alternates").write_text(f"{objects}\n")
    config = _CONFIG.format(exclude=quoted(str(exclude)), branches=BRANCHES)
    if origin.url is not None:
        config += f"\turl = {quoted(origin.url)}\n"
    (directory / "config").write_text(config)
    packed = packed_references(origin)
    (directory / "packed-refs").write_text(packed, errors="surrogateescape")
    head = first_head(origin, start)
    (directory / "HEAD").write_text(f"{head}\n", errors="surrogateescape")
    shutil.copy2(index, directory / "index")


def is_git_directory(directory: Path) -> bool:
    """True if a tree's git directory is there, and in the tree itself."""
    if directory.is_symlink() or not (directory / "config").is_file():
        return False
    inner = [directory / name for name in ("objects", "refs")]
    return all(path.is_dir() and not path.is_symlink() for path in inner)


def copy_history(source: Path, target: Path) -> None:
    """Give a git directory the objects and references of another that may be in use meanwhile."""
    (target / _PACKED).unlink(missing_ok=True)
    _copy(source / _PACKED, target / _PACKED)
    for name in ("objects", "refs"):
        for directory, _, files in os.walk(source / name):
            inner = target / os.path.relpath(directory, source)
            inner.mkdir(parents=True, exist_ok=True)
            for file in files:
                if not file.startswith("tmp_") and not file.endswith(".lock"):
                    _copy(Path(directory, file), inner / file)


def _copy(source: Path, target: Path) -> None:
    if not source.is_symlink() and not target.exists():
        with suppress(FileNotFoundError):  # gone since it was listed: packed, or deleted
            shutil.copy2(source, target)


def first_head(origin: Origin, start: str) -> str:
    """What HEAD says at the start: a branch that is at that commit, or else the commit."""
    names = sorted(name for name, commit in _local(origin).items() if commit == start)
    if not names:
        return start
    chosen = next((name for name in _DEFAULTS if name in names), names[0])
    return f"ref: {_LOCAL}{chosen}"


def packed_references(origin: Origin) -> str:
    """The content of a `packed-refs` file."""
    references = (
        {_LOCAL + name: commit for name, commit in _local(origin).items()}
        | {_REMOTE + name: commit for name, commit in origin.branches.items()}
        | {_TAGS + name: found for name, found in origin.tags.items()}
    )
    # Without the word "sorted" in its first line, git sorts the file itself, by its own order.
    return "".join(f"{found} {name}\n" for name, found in sorted(references.items()))


def quoted(value: str) -> str:
    """A value for git's configuration.

    Raises:
        BadRequest: It cannot be one.
    """
    if not _is_value(value):
        raise BadRequest("not an address of a repository")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _is_value(value: str) -> bool:
    is_text = not any(unicodedata.category(character) in ("Cc", "Cs") for character in value)
    return is_text and len(value) <= MAX_URL_LENGTH


def _local(origin: Origin) -> dict[str, str]:
    return {name: commit for name, commit in origin.branches.items() if name != _NO_BRANCH}


def _below(prefix: str, references: dict[str, str]) -> dict[str, str]:
    return {
        name.removeprefix(prefix): found
        for name, found in references.items()
        if name.startswith(prefix)
    }


def _references(clone: Path) -> dict[str, str]:
    """The references of a clone, read without git, which would read the configuration too."""
    # Loose ones first: packing writes a reference to the file before it deletes the loose one.
    loose = dict(_loose(clone, _REMOTE)) | dict(_loose(clone, _TAGS))
    try:
        packed = (clone / "packed-refs").read_text(errors="surrogateescape")
    except FileNotFoundError:
        return loose
    lines = (line.split(" ", 1) for line in packed.split("\n") if line[:1] not in ("", "#", "^"))
    found = {line[1]: line[0] for line in lines if len(line) > 1 and _COMMIT.fullmatch(line[0])}
    return found | loose


def _loose(clone: Path, prefix: str) -> list[tuple[str, str]]:
    found = []
    for directory, _, files in os.walk(clone / prefix):
        for name in files:
            path = Path(directory, name)
            if path.is_symlink() or not path.is_file() or name.endswith(".lock"):
                continue
            try:
                value = path.read_text(errors="replace").strip()
            except FileNotFoundError:
                continue  # packed meanwhile
            if _COMMIT.fullmatch(value):
                found.append((str(path.relative_to(clone)), value))
    return found
