"""Whatever is done to a tree: its patch, applied to the start commit, gives that tree."""

import asyncio
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from tests.support.desk import Desk, applied_tree, seen_tree
from tests.support.repositories import SourceRepository, empty_repository, git

NAMES = (
    b"a",
    b"A",
    b"b c",
    b" lead",
    b"trail ",
    b'q"uote',
    b"'s",
    b"new\nline",
    b"tab\there",
    b"back\\slash",
    b"-dash",
    b"*glob?[x]",
    b"#hash",
    b"!bang",
    b"$HOME",
    b"\xff\xfe",
    "é".encode(),
    "e\u0301".encode(),
    "日本".encode(),
    b"a => b",
    b"{a,b}",
    b"a/b c",
    b"d",
    b"d/a",
    b"d/b",
    b"d/e",
    b"d/e/f",
    b"D/a",
    b"x" * 200,
)
LINES = b"".join(b"line %d\n" % number for number in range(60))
CONTENTS = (
    b"",
    b"\n",
    b"no newline at the end",
    LINES,
    LINES.replace(b"30", b"thirty"),
    LINES.replace(b"\n", b"\r\n"),
    LINES[:-1],
    "Größe 日本 🚢\n".encode(),
    b"caf\xe9 \xa4\n",
    "\u2028\x0b\x0c\x85\x1e\n".encode(),
    bytes(range(256)) * 8,
    b"text\n" * 2_000 + b"\0 a late null\n",
    b"diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1 +1 @@\n-x\n+y\n",
    b"-- \n2.39.5\n\n\\ No newline at end of file\n",
    b"<<<<<<< ours\na\n=======\nb\n>>>>>>> theirs\n",
    b"$Id$\n",
    b"lone\rreturns\r",
    b"x" * 300_000,
)
TARGETS = (b"a", b"d", b"../outside", b"/etc/passwd", b"missing", b"d/e/f", "é".encode(), b".")

Act = Callable[[Path], None]


@dataclass(frozen=True)
class Write:
    name: bytes
    content: bytes
    executable: bool = False

    def __call__(self, root: Path) -> None:
        path = at(root, self.name)
        make_way(root, self.name)
        path.write_bytes(self.content)
        path.chmod(0o755 if self.executable else 0o644)


@dataclass(frozen=True)
class Append:
    name: bytes
    content: bytes

    def __call__(self, root: Path) -> None:
        if kind(root, self.name) == stat.S_IFREG:
            with at(root, self.name).open("ab") as file:
                file.write(self.content)


@dataclass(frozen=True)
class Delete:
    name: bytes

    def __call__(self, root: Path) -> None:
        if kind(root, self.name) is not None:
            remove(at(root, self.name))


@dataclass(frozen=True)
class Move:
    name: bytes
    to: bytes

    def __call__(self, root: Path) -> None:
        if kind(root, self.name) is not None and apart(self.name, self.to):
            make_way(root, self.to)
            at(root, self.name).rename(at(root, self.to))


@dataclass(frozen=True)
class Copy:
    name: bytes
    to: bytes

    def __call__(self, root: Path) -> None:
        if kind(root, self.name) == stat.S_IFREG and apart(self.name, self.to):
            Write(self.to, at(root, self.name).read_bytes())(root)


@dataclass(frozen=True)
class Mode:
    name: bytes
    executable: bool

    def __call__(self, root: Path) -> None:
        if kind(root, self.name) == stat.S_IFREG:
            at(root, self.name).chmod(0o755 if self.executable else 0o644)


@dataclass(frozen=True)
class Link:
    name: bytes
    target: bytes

    def __call__(self, root: Path) -> None:
        make_way(root, self.name)
        link = at(root, self.name)
        link.symlink_to(os.fsdecode(self.target))
        try:
            link.exists()
            link.stat()
        except FileNotFoundError:
            pass
        except OSError:
            # A link in a circle. `git apply` cannot put a directory in its place.
            link.unlink()


@dataclass(frozen=True)
class Directory:
    name: bytes

    def __call__(self, root: Path) -> None:
        make_way(root, self.name)
        at(root, self.name).mkdir()


@dataclass(frozen=True)
class LinkToItsOwnFiles:
    """A directory moves away and a link to it takes its place: every old path still resolves."""

    name: bytes
    to: bytes

    def __call__(self, root: Path) -> None:
        if kind(root, self.name) == stat.S_IFDIR and apart(self.name, self.to):
            Move(self.name, self.to)(root)
            parent = at(root, self.name).parent
            Link(self.name, os.path.relpath(os.fsencode(at(root, self.to)), bytes(parent)))(root)


@dataclass(frozen=True)
class Read:
    """The changes are read, which must not change what is read later."""

    def __call__(self, root: Path) -> None:
        assert root.is_dir()


name = st.sampled_from(NAMES)
content = st.sampled_from(CONTENTS) | st.binary(max_size=64)
writes = st.builds(Write, name, content, st.booleans())
links = st.builds(Link, name, st.sampled_from(TARGETS))
acts = st.one_of(
    writes,
    links,
    st.builds(Append, name, content),
    st.builds(Delete, name),
    st.builds(Move, name, name),
    st.builds(Copy, name, name),
    st.builds(Mode, name, st.booleans()),
    st.builds(Directory, name),
    st.builds(LinkToItsOwnFiles, name, name),
    st.builds(Read),
)


@settings(
    max_examples=int(os.environ.get("BERTH_TEST_EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
@given(
    st.lists(writes | links, min_size=1, max_size=8),
    st.lists(acts, min_size=1, max_size=12),
    st.booleans(),
)
@example([Write(b"d/a", LINES)], [LinkToItsOwnFiles(b"d", b"D")], False)
@example([Write(b"a", LINES), Write(b"A", b"other")], [Move(b"a", b"b c"), Move(b"A", b"a")], True)
@example([Write(b"d", LINES)], [Delete(b"d"), Write(b"d/a", LINES)], True)
@example([Write(b"d/a", LINES)], [Delete(b"d"), Write(b"d", LINES)], True)
@example([Write(b"\xff\xfe", b"caf\xe9\n")], [Move(b"\xff\xfe", b"new\nline")], True)
def test_the_patch_makes_the_tree(start: list[Act], acts: list[Act], several: bool) -> None:
    directory = Path(tempfile.mkdtemp(prefix="berth-test-"))
    try:
        asyncio.run(check(directory, start, acts, several=several))
    finally:
        shutil.rmtree(directory)


async def check(directory: Path, start: list[Act], acts: list[Act], *, several: bool) -> None:
    source = empty_repository(directory / "one")
    for act in start:
        act(source.path)
    commit = source.commit("start")
    desk = Desk(directory)
    await desk.give(source, "one")
    await desk.prepare("t", {"one": commit} | ({"two": await second(desk)} if several else {}))
    root = desk.layout.task("t") / ("one" if several else ".")
    for act in acts:
        act(root)
        if isinstance(act, Read):
            await desk.reader.changes("t")
    changes = await desk.reader.changes("t")
    assert not changes.left_out
    seen = seen_tree(source.path, commit, root, directory / "seen")
    if several:
        base = combined(source, directory / "combined")
        made = applied_tree(base.path, base.head, changes.diff, directory / "applied")
        assert git(directory / "applied", "ls-tree", "-r", made) == git(
            directory / "seen", "ls-tree", "-r", prefixed(directory / "seen", seen)
        )
    else:
        assert applied_tree(source.path, commit, changes.diff, directory / "applied") == seen


async def second(desk: Desk) -> str:
    """Another repository beside the first."""
    other = empty_repository(desk.directory / "two")
    commit = other.commit("start", {"a": "untouched\n"})
    await desk.give(other, "two")
    return commit


def combined(source: SourceRepository, path: Path) -> SourceRepository:
    """A repository that has the first one in a directory, as the parent of both worktrees."""
    parent = empty_repository(path)
    parent.git("fetch", "--quiet", str(source.path), "main")
    parent.git("read-tree", "--prefix=one/", "FETCH_HEAD")
    tree = parent.git("write-tree")
    parent.git("reset", "--quiet", "--hard", parent.git("commit-tree", tree, "-m", "start"))
    return parent


def prefixed(repository: Path, tree: str) -> str:
    """A tree that has another one in the directory `one`, or nothing if that is empty."""
    git(repository, "read-tree", "--empty")
    git(repository, "read-tree", "--prefix=one/", tree)
    return git(repository, "write-tree")


def at(root: Path, name: bytes) -> Path:
    return root / os.fsdecode(name)


def apart(one: bytes, other: bytes) -> bool:
    """True if neither name is the other or lies in it."""
    return not (one + b"/").startswith(other + b"/") and not other.startswith(one + b"/")


def parents(root: Path, name: bytes) -> list[Path]:
    """The directories on the way to a name, the outermost first."""
    return [path for path in reversed(at(root, name).parents) if path.is_relative_to(root)][1:]


def kind(root: Path, name: bytes) -> int | None:
    """What is at a name, as long as no link leads there."""
    if any(path.is_symlink() or not path.is_dir() for path in parents(root, name)):
        return None
    try:
        return stat.S_IFMT(at(root, name).lstat().st_mode)
    except FileNotFoundError:
        return None


def make_way(root: Path, name: bytes) -> None:
    """Remove what is at a name, and make directories of what is on the way to it."""
    for path in parents(root, name):
        if path.is_symlink() or path.is_file():
            path.unlink()
        path.mkdir(exist_ok=True)
    if os.path.lexists(at(root, name)):
        remove(at(root, name))


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
