"""Finds a local git repository without leaving the directories the operator allowed."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.errors import RepositoryError, RepositoryUnreachable, RepositoryUrlRefused

MAX_POINTER_BYTES = 64 * 1024


def locate(path: Path, roots: Sequence[Path]) -> Path:
    """The git directory of the repository at `path`, symbolic links followed.

    Everything git would read objects from must lie inside `roots` too: the repository a linked
    worktree belongs to, and object stores it borrows from.

    Raises:
        RepositoryUrlRefused: Outside `roots`; whether anything exists there is not told.
        RepositoryUnreachable: There is no git repository at `path`.
        RepositoryError: It is a shallow clone.
    """
    allowed = tuple(root.resolve() for root in roots)
    resolved = _resolved(path)
    if resolved is None or not _inside(resolved, allowed):
        raise RepositoryUrlRefused(
            f"{path} is not under a directory that Berth may read. Start Berth with "
            "--allow-path DIR (or BERTH_ALLOW_PATHS) for a directory that holds it.",
            path=str(path),
        )
    try:
        return _git_directory(path, resolved, allowed)
    except (OSError, RuntimeError, ValueError):
        raise RepositoryUnreachable(
            f"{path} cannot be read by the user that Berth runs as.", path=str(path)
        ) from None


def _git_directory(path: Path, resolved: Path, allowed: Sequence[Path]) -> Path:
    candidate = _pointed_at(resolved / ".git") or resolved
    # Nothing about a place outside may be looked at, not even whether it exists.
    _require_inside(path, candidate, allowed)
    common = _common_directory(candidate)
    _require_inside(path, common, allowed)
    for store in _object_stores((common / "objects").resolve()):
        _require_inside(path, store, allowed)
    is_repository = (
        (candidate / "HEAD").is_file()
        and (common / "objects").is_dir()
        and (common / "refs").is_dir()
    )
    if not is_repository:
        raise RepositoryUnreachable(f"There is no git repository at {path}.", path=str(path))
    if (common / "shallow").is_file():
        raise RepositoryError(
            f"{path} is a shallow clone, which lacks history: run `git fetch --unshallow` in it.",
            path=str(path),
        )
    return candidate


def _pointed_at(dot_git: Path) -> Path | None:
    """What `.git` is: a directory, a file that names one, or nothing."""
    if dot_git.is_symlink() or dot_git.is_dir():
        return dot_git.resolve()
    if not dot_git.is_file():
        return None
    text = _pointer(dot_git)
    if not text.startswith("gitdir:"):
        return None
    return (dot_git.parent / text.removeprefix("gitdir:").strip()).resolve()


def _common_directory(git_directory: Path) -> Path:
    pointer = git_directory / "commondir"
    if not pointer.is_file():
        return git_directory
    return (git_directory / _pointer(pointer).strip()).resolve()


def _object_stores(objects: Path) -> Iterator[Path]:
    """The object store and all that it borrows from, each named before it is looked into."""
    waiting, seen = [objects], {objects}
    while waiting:
        store = waiting.pop()
        yield store
        for lent in (*_links(store), *_links(store / "pack"), *_alternates(store)):
            if lent not in seen:
                seen.add(lent)
                waiting.append(lent)


def _links(directory: Path) -> Iterator[Path]:
    if directory.is_dir():
        yield from (entry.resolve() for entry in directory.iterdir() if entry.is_symlink())


def _alternates(store: Path) -> Iterator[Path]:
    listing = store / "info" / "alternates"
    if not listing.is_file():
        return
    for line in _pointer(listing).splitlines():
        if line.startswith('"'):
            raise ValueError("a quoted path could hide where it leads")
        if line and not line.startswith("#"):
            yield (store / line).resolve()


def _require_inside(path: Path, place: Path, allowed: Sequence[Path]) -> None:
    if not _inside(place, allowed):
        raise RepositoryUrlRefused(
            f"{path} takes its history from another directory that Berth may not read. Start "
            "Berth with --allow-path DIR (or BERTH_ALLOW_PATHS) for that directory too.",
            path=str(path),
        )


def _inside(path: Path, allowed: Sequence[Path]) -> bool:
    return any(path.is_relative_to(root) for root in allowed)


def _resolved(path: Path) -> Path | None:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return None


def _pointer(file: Path) -> str:
    with file.open("rb") as stream:
        content = stream.read(MAX_POINTER_BYTES + 1)
    if len(content) > MAX_POINTER_BYTES:
        raise ValueError("too long to be checked whole")
    return content.decode()
