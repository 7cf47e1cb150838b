"""Checkpoints leave a worker as bundles and come back into one that has nothing."""

import asyncio
import os
import random
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support.desk import URL, Desk, bundle, chunks
from tests.support.repositories import BINARY, SourceRepository, git, new_repository

from agent import tree_reader
from agent.calls import Calls
from agent.checkpoint_export import CheckpointExport, TaskExport
from agent.checkpoints import Checkpoints
from agent.errors import BadRequest, GitFailed, UnknownCommit
from agent.journal import Call
from agent.lacking import Lacking
from agent.tree_reader import MAX_FILE_BYTES

FILES: Mapping[str, str | bytes] = {
    "a": "1\n",
    "b": "2\n",
    "dir/c": "3\n",
    "bin": BINARY,
    ".gitignore": "*.o\nbuild/\n",
    "naïve/ünïcode name": "x\n",
}


class Place:
    """A worker's workspace, and what hands out and takes in its checkpoints."""

    def __init__(self, directory: Path) -> None:
        self.desk = Desk(directory)
        self.checkpoints = Checkpoints(self.desk.layout, self.desk.trees)
        self.export = CheckpointExport(self.desk.layout, self.checkpoints)

    @property
    def root(self) -> Path:
        return self.desk.layout.task("t")

    async def give(self, *sources: SourceRepository) -> None:
        """Prepare the task on repositories at their HEADs."""
        for source in sources:
            await self.desk.clones.receive(source.path.name, URL, chunks(bundle(source)))
        await self.desk.prepare("t", {each.path.name: each.head for each in sources})

    async def add(self, key: str) -> None:
        """Make a checkpoint, as after a call."""
        await self.checkpoints.begin("t")
        await self.checkpoints.add("t", key)

    async def tell(self) -> TaskExport:
        return await self.export.tell("t")

    async def carry_to(self, other: "Place", without: Mapping[str, str] | None = None) -> Lacking:
        """Bring the newest checkpoint to another worker that has the task's start."""
        await self.send_to(other, without)
        told = await self.tell()
        states = {part.name: part.state for part in told.parts}
        return await other.export.restore("t", told.key, states)

    async def send_to(self, other: "Place", without: Mapping[str, str] | None = None) -> None:
        """Send what there is as one bundle a repository."""
        for part in (await self.tell()).parts:
            held = [part.start] if part.start else []
            held += [without[part.name]] if without else []
            tips = [*part.checkpoints.values(), part.state]
            made = await self.export.bundle("t", part.name, tips, held)
            await other.export.receive("t", part.name, made)

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Mode and content of everything in the tree but git's own."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if {".git", ".berth"}.isdisjoint(Path(name).parts):
                found[name] = _described(path)
        return found


def _described(path: Path) -> tuple[int, bytes]:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return stat.S_IFLNK, os.fsencode(path.readlink())
    # Of a file's mode git keeps whether it can be executed.
    if stat.S_ISREG(mode):
        return stat.S_IFREG | mode & 0o100, path.read_bytes()
    return stat.S_IFDIR, b""


@pytest.fixture
def here(tmp_path: Path) -> Place:
    return Place(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Place:
    return Place(tmp_path / "there")


@pytest.fixture
def source(tmp_path: Path) -> SourceRepository:
    return new_repository(tmp_path / "source", FILES)


def change_everything(root: Path) -> None:
    (root / "a").write_text("changed\n")
    (root / "b").unlink()
    (root / "b").symlink_to("a")
    (root / "dangling").symlink_to("../nowhere")
    (root / "bin").chmod(0o755)
    (root / "dir" / "c").unlink()
    (root / "dir").rmdir()
    (root / "dir").write_text("a file now\n")
    (root / "new").mkdir()
    (root / "new" / "日本\tline\nbreak").write_bytes(b"\0\xff" * 100)
    (root / os.fsdecode(b"latin-\xe9")).write_text("not utf-8\n")
    (root / "empty" / "deep").mkdir(parents=True)


def contents(place: Place) -> dict[str, bytes]:
    """The contents of a tree's files and the targets of its links."""
    return {
        name: content for name, (mode, content) in place.files().items() if not stat.S_ISDIR(mode)
    }


def grow(root: Path, seed: int) -> None:
    """Make and unmake files of all kinds at random."""
    chance = random.Random(seed)
    for _ in range(60):
        depth = chance.randrange(1, 4)
        path = root.joinpath(
            *(f"{chance.choice('abcdé ')}{chance.randrange(3)}" for _ in range(depth))
        )
        if not path.parent.is_dir():
            if any(each.is_file() or each.is_symlink() for each in path.parents):
                continue
            path.parent.mkdir(parents=True)
        kind = chance.randrange(5)
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.exists():
            continue
        if kind == 0:
            path.symlink_to(chance.choice(["a", "../b", "/etc/hostname"]))
        elif kind == 1:
            path.mkdir()
        elif kind < 4:
            path.write_bytes(chance.randbytes(chance.randrange(5_000)))
            path.chmod(chance.choice([0o644, 0o755]))


class TestRoundTrip:
    async def test_everything_a_tree_can_have(
        self, here: Place, there: Place, source: SourceRepository
    ) -> None:
        await here.give(source)
        await here.checkpoints.begin("t")
        change_everything(here.root)
        await here.add("3")
        await there.give(source)
        await here.carry_to(there)
        assert there.files() == here.files()
        assert await there.desk.reader.changes("t") == await here.desk.reader.changes("t")

    @pytest.mark.parametrize("seed", range(6))
    async def test_random_trees_in_steps(
        self, here: Place, there: Place, source: SourceRepository, seed: int
    ) -> None:
        await here.give(source)
        await there.give(source)
        without: dict[str, str] = {}
        for step in range(1, 4):
            await here.checkpoints.begin("t")
            grow(here.root, seed * 10 + step)
            await here.add(str(step))
            # Each bundle builds on the one before.
            await here.carry_to(there, without)
            without = {part.name: part.state for part in (await here.tell()).parts}
            assert there.files() == here.files()

    @pytest.mark.parametrize("seed", range(6))
    async def test_random_trees_of_which_not_all_can_be_carried(
        self,
        here: Place,
        there: Place,
        source: SourceRepository,
        seed: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        limit = 2_500
        monkeypatch.setattr(tree_reader, "MAX_FILE_BYTES", limit)
        await here.give(source)
        await there.give(source)
        carried = contents(here)
        for step in range(1, 5):
            await here.checkpoints.begin("t")
            grow(here.root, seed * 10 + step)
            now = contents(here)
            large = {name for name, content in now.items() if len(content) > limit}
            # What is deleted is gone, and what cannot be carried is as it was when it could be.
            carried = {
                name: carried[name] if name in large else content
                for name, content in now.items()
                if name not in large or name in carried
            }
            await here.add(str(step))
            lacking = await here.carry_to(there)
            assert contents(there) == carried
            assert set(lacking.older) == large & carried.keys()
            assert set(lacking.missing) == large - carried.keys()

    async def test_a_scratch_task(self, here: Place, there: Place) -> None:
        for place in (here, there):
            await place.give()
        await here.checkpoints.begin("t")
        (here.root / "empty").mkdir()
        await here.add("1")
        await here.carry_to(there)
        assert there.files() == here.files() == {"empty": (stat.S_IFDIR, b"")}
        (here.root / "file").write_text("x\n")
        await here.add("2")
        await here.carry_to(there)
        assert there.files() == here.files()
        assert (await there.desk.reader.changes("t")).changed_files == ("file",)

    async def test_two_repositories(
        self, here: Place, there: Place, source: SourceRepository, tmp_path: Path
    ) -> None:
        other = new_repository(tmp_path / "other", {"x": "x\n"})
        for place in (here, there):
            await place.give(source, other)
        await here.checkpoints.begin("t")
        (here.root / "other" / "y").write_text("y\n")
        await here.add("1")
        (here.root / "source" / "a").unlink()
        await here.add("2")
        await here.carry_to(there)
        assert there.files() == here.files()

    async def test_ignored_files_stay_and_a_nested_repository_is_named(
        self, here: Place, there: Place, source: SourceRepository
    ) -> None:
        for place in (here, there):
            await place.give(source)
        await here.checkpoints.begin("t")
        (here.root / "x.o").write_text("ignored")
        git(here.root, "init", "--quiet", "nested")
        (here.root / "nested" / "file").write_text("its own\n")
        (here.root / "kept").write_text("kept\n")
        await here.add("1")
        assert await here.carry_to(there) == Lacking((), ("nested",))
        assert (there.root / "kept").read_text() == "kept\n"
        assert not (there.root / "x.o").exists()
        assert not (there.root / "nested").exists()

    async def test_what_cannot_be_carried_is_as_it_was_earlier_and_named(
        self, here: Place, there: Place, source: SourceRepository
    ) -> None:
        for place in (here, there):
            await place.give(source)
        await here.checkpoints.begin("t")
        (here.root / "a").write_text("changed\n")
        await here.add("1")
        for name in ("a", "huge é", os.fsdecode(b"huge-\xe9")):
            with (here.root / name).open("wb") as file:
                file.truncate(MAX_FILE_BYTES + 1)
        (here.root / "b").unlink()
        git(here.root, "init", "--quiet", "b")
        await here.add("2")
        (here.root / "new").write_text("new\n")
        await here.add("3")
        lacking = await here.carry_to(there)
        assert lacking == Lacking(("a", "b"), ("huge é", "huge-\\xe9"))
        assert (there.root / "a").read_text() == "changed\n"
        assert (there.root / "b").read_text() == "2\n"
        assert await there.checkpoints.lacking("t") == lacking
        changes = await there.desk.reader.changes("t")
        assert (sorted(changes.changed_files), changes.left_out) == (["a", "new"], ())
        # From the next call on the tree is what it is.
        await there.add("4")
        assert not await there.checkpoints.lacking("t")
        assert not await there.checkpoints.restore("t", "5")
        assert (there.root / "a").read_text() == "changed\n"


class TestOwnHistory:
    async def test_what_the_task_committed_comes_along(
        self, here: Place, there: Place, source: SourceRepository
    ) -> None:
        for place in (here, there):
            await place.give(source)
        await here.checkpoints.begin("t")
        git(here.root, "checkout", "--quiet", "-b", "topic")
        (here.root / "a").write_text("committed\n")
        git(here.root, "commit", "--quiet", "-a", "-m", "mine")
        (here.root / "staged").write_text("staged\n")
        git(here.root, "add", "staged")
        (here.root / "b").write_text("neither\n")
        await here.add("1")
        await here.carry_to(there)
        for asked in (
            ("log", "--format=%H %s", "-2"),
            ("status", "--porcelain", "--branch"),
            ("diff", "--cached"),
            ("symbolic-ref", "HEAD"),
        ):
            assert git(there.root, *asked) == git(here.root, *asked)
        git(there.root, "fsck", "--connectivity-only", "--no-dangling")

    async def test_a_detached_head(
        self, here: Place, there: Place, source: SourceRepository
    ) -> None:
        for place in (here, there):
            await place.give(source)
        await here.checkpoints.begin("t")
        git(here.root, "checkout", "--quiet", "--detach")
        (here.root / "a").write_text("committed\n")
        git(here.root, "commit", "--quiet", "-a", "-m", "mine")
        await here.add("1")
        await here.carry_to(there)
        assert git(there.root, "rev-parse", "HEAD") == git(here.root, "rev-parse", "HEAD")
        assert git(there.root, "status", "--porcelain") == ""


class TestAfterwards:
    async def test_calls_checkpoints_and_exports_go_on(
        self, here: Place, there: Place, source: SourceRepository, tmp_path: Path
    ) -> None:
        for place in (here, there):
            await place.give(source)
        await here.checkpoints.begin("t")
        (here.root / "a").write_text("changed\n")
        await here.add("1")
        await here.carry_to(there)
        calls = Calls(there.desk.layout, there.checkpoints, "i")
        call = Call.of("t", "2", "append", {}, mutating=True)

        async def append() -> dict[str, object]:
            with (there.root / "log").open("a") as log:
                log.write("x\n")
            return {"content": []}

        for _ in range(2):
            await calls.run(call, append)
        told = await there.tell()
        assert (told.key, told.ended) == ("2", ("2",))
        third = Place(tmp_path / "third")
        await third.give(source)
        await there.carry_to(third)
        assert third.files() == there.files()
        assert (third.root / "log").read_text() == "x\n"

    async def test_the_same_state_is_the_same_commit(
        self, here: Place, there: Place, source: SourceRepository
    ) -> None:
        for place in (here, there):
            await place.give(source)
        await here.checkpoints.begin("t")
        (here.root / "a").write_text("changed\n")
        await here.add("1")
        await here.carry_to(there)
        await here.add("2")
        again = CheckpointExport(here.desk.layout, here.checkpoints)
        states = [
            (await each.tell("t")).parts[0].state for each in (here.export, again, there.export)
        ]
        assert len(set(states)) == 1

    async def test_restoring_twice_or_after_an_interruption_is_the_same(
        self, here: Place, there: Place, source: SourceRepository
    ) -> None:
        for place in (here, there):
            await place.give(source)
        await here.checkpoints.begin("t")
        change_everything(here.root)
        await here.add("1")
        await here.send_to(there)
        told = await here.tell()
        states = {part.name: part.state for part in told.parts}
        for cut in (0.01, 0.03, 0.05):
            half = asyncio.create_task(there.export.restore("t", told.key, states))
            await asyncio.wait([half], timeout=cut)
            half.cancel()
            await asyncio.wait([half])
        await there.export.restore("t", told.key, states)
        assert there.files() == here.files()


class TestRefusals:
    async def test_nothing_is_known_of_a_task_without_a_tree(self, here: Place) -> None:
        assert await here.tell() == TaskExport(prepared=False)

    async def test_before_the_first_call_there_is_nothing_to_take(
        self, here: Place, source: SourceRepository
    ) -> None:
        await here.give(source)
        assert await here.tell() == TaskExport(prepared=True)

    async def test_unknown_commits(self, here: Place, source: SourceRepository) -> None:
        await here.give(source)
        with pytest.raises(UnknownCommit):
            await here.export.bundle("t", "source", [source.head], ["0" * 40])
        with pytest.raises(BadRequest):
            await here.export.bundle("t", "other", [source.head], [])

    async def test_a_broken_bundle_leaves_the_tree_as_it_was(
        self, here: Place, there: Place, source: SourceRepository
    ) -> None:
        for place in (here, there):
            await place.give(source)
        await here.checkpoints.begin("t")
        (here.root / "a").write_text("changed\n")
        await here.add("1")
        part = (await here.tell()).parts[0]
        made = await here.export.bundle("t", "source", [part.state], [part.start])
        content = b"".join([chunk async for chunk in made])
        before = there.files()
        with pytest.raises(GitFailed):
            await there.export.receive("t", "source", chunks(content[:-30]))
        with pytest.raises(GitFailed):
            await there.export.restore("t", "1", {"source": part.state})
        with pytest.raises(BadRequest):
            await there.export.restore("t", "1", {})
        assert there.files() == before
        assert (await there.tell()).key == ""
