"""Checkpoints of trees: what they keep, what they put back, and that nobody sees them."""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support.desk import Bench, Desk
from tests.support.repositories import BINARY, git

from agent.checkpoints import Checkpoints
from agent.errors import StorageFailed
from agent.lacking import Lacking
from agent.leftovers import end_leftovers
from agent.tree_reader import MAX_FILE_BYTES

FILES: Mapping[str, str | bytes] = {
    "a": "1\n",
    "b": "2\n",
    "dir/c": "3\n",
    "bin": BINARY,
    ".gitignore": "*.o\nbuild/\n",
}


class Kept:
    """A task with checkpoints."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.checkpoints = Checkpoints(bench.desk.layout, bench.desk.trees)
        self.root = bench.root
        self.shadow = bench.desk.layout.shadow(bench.task, bench.source.path.name)

    async def begin(self) -> None:
        await self.checkpoints.begin(self.bench.task)

    async def add(self, key: str) -> None:
        await self.begin()
        await self.checkpoints.add(self.bench.task, key)

    async def restore(self, key: str = "next") -> Lacking:
        return await self.checkpoints.restore(self.bench.task, key)

    def references(self) -> dict[str, str]:
        """The commits by key."""
        listed = git(self.shadow, "for-each-ref", "--format=%(refname) %(objectname)")
        prefix = f"refs/berth/{self.bench.task}/"
        return dict(line.removeprefix(prefix).split(" ") for line in listed.splitlines())

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Mode and content of everything in the tree."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if Path(name).parts[0] in (".git", ".berth"):
                continue
            mode = path.lstat().st_mode
            if path.is_symlink():
                found[name] = (mode, os.fsencode(path.readlink()))
            else:
                found[name] = (mode, b"" if path.is_dir() else path.read_bytes())
        return found


@pytest.fixture
async def kept(desk: Desk) -> Kept:
    return Kept(await desk.start(FILES))


def grow(path: Path) -> None:
    """Make a file too large to be carried."""
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)


def change_everything(root: Path) -> None:
    (root / "a").write_text("changed\n")
    (root / "b").unlink()
    (root / "b").symlink_to("a")
    (root / "bin").chmod(0o755)
    (root / "dir" / "c").unlink()
    (root / "dir").rmdir()
    (root / "dir").write_text("a file now\n")
    (root / "new").mkdir()
    (root / "new" / "file").write_text("new\n")
    (root / "empty" / "deep").mkdir(parents=True)
    git(root, "init", "--quiet", "nested")


class TestRestore:
    async def test_to_the_start(self, kept: Kept) -> None:
        before = kept.files()
        await kept.begin()
        change_everything(kept.root)
        assert kept.files() != before
        await kept.restore()
        assert kept.files() == before
        assert kept.bench.worktree.git("status", "--porcelain") == ""

    async def test_to_a_checkpoint_of_everything(self, kept: Kept) -> None:
        await kept.begin()
        change_everything(kept.root)
        (kept.root / "nested" / "file").write_text("in a repository of its own\n")
        before = kept.files()
        await kept.add("1")
        for name in ("a", "b", "new/file"):
            (kept.root / name).unlink()
        (kept.root / "dir").unlink()
        (kept.root / "dir").mkdir()
        (kept.root / "dir" / "c").write_text("3\n")
        (kept.root / "empty" / "deep").rmdir()
        (kept.root / "empty" / "later").write_text("x")
        (kept.root / "bin").chmod(0o644)
        await kept.restore()
        assert kept.files() == before

    async def test_the_checkpoint_of_the_interrupted_call_itself_does_not_count(
        self, kept: Kept
    ) -> None:
        await kept.add("1")
        before = kept.files()
        (kept.root / "log").write_text("a\n")
        await kept.add("2")
        await kept.restore("2")
        assert kept.files() == before
        (kept.root / "log").write_text("a\n")
        await kept.add("2")
        await kept.restore("3")
        assert (kept.root / "log").read_text() == "a\n"

    async def test_twice_is_the_same(self, kept: Kept) -> None:
        (kept.root / "x").write_text("x")
        await kept.add("1")
        before = kept.files()
        change_everything(kept.root)
        for _ in range(2):
            await kept.restore()
            assert kept.files() == before

    async def test_what_is_ignored_placed_or_ours_stays(self, desk: Desk) -> None:
        bench = await desk.start(FILES)
        await desk.prepare("u", {bench.source.path.name: bench.commit}, {"given": b"given\n"})
        kept = Kept(Bench(desk, bench.source, "u"))
        await kept.begin()
        for name in ("x.o", "build/out", ".berth/outputs/long"):
            (kept.root / name).parent.mkdir(parents=True, exist_ok=True)
            (kept.root / name).write_text("stays\n")
        (kept.root / "files" / "new").write_text("goes\n")
        await kept.restore()
        for name in ("x.o", "build/out", ".berth/outputs/long", "files/given"):
            assert (kept.root / name).exists(), name
        assert not (kept.root / "files" / "new").exists()

    async def test_a_change_of_what_is_ignored_is_undone_first(self, kept: Kept) -> None:
        await kept.begin()
        (kept.root / ".gitignore").write_text("*\n")
        (kept.root / "hidden by it").write_text("x")
        await kept.restore()
        assert not (kept.root / "hidden by it").exists()

    async def test_large_files_of_before_stay_and_new_ones_go(self, kept: Kept) -> None:
        grow(kept.root / "before")
        await kept.add("1")
        grow(kept.root / "after")
        await kept.restore()
        assert (kept.root / "before").stat().st_size == MAX_FILE_BYTES + 1
        assert not (kept.root / "after").exists()

    async def test_a_file_that_became_too_large_is_not_made_small_again(self, kept: Kept) -> None:
        await kept.begin()
        grow(kept.root / "a")
        await kept.add("1")
        await kept.restore()
        assert (kept.root / "a").stat().st_size == MAX_FILE_BYTES + 1
        (kept.root / "a").write_text("small again\n")
        await kept.add("2")
        (kept.root / "a").write_text("broken off\n")
        await kept.restore()
        assert (kept.root / "a").read_text() == "small again\n"

    async def test_a_file_that_became_too_large_is_not_deleted(self, kept: Kept) -> None:
        await kept.begin()
        grow(kept.root / "a")
        (kept.root / "b").unlink()
        await kept.add("1")
        # The later ones have it too, as long as the file is there.
        (kept.root / "new").write_text("new\n")
        await kept.add("2")
        for key in ("1", "2"):
            commit = kept.references()[key]
            assert git(kept.shadow, "show", f"{commit}:a") == "1"
            assert "b" not in git(kept.shadow, "ls-tree", "--name-only", commit).split()
        assert not await kept.restore()
        assert (kept.root / "a").stat().st_size == MAX_FILE_BYTES + 1
        (kept.root / "a").unlink()
        await kept.add("3")
        commit = kept.references()["3"]
        assert "a" not in git(kept.shadow, "ls-tree", "--name-only", commit).split()

    async def test_what_an_interrupted_call_destroyed_is_named(self, kept: Kept) -> None:
        await kept.begin()
        for name in ("a", "huge"):
            grow(kept.root / name)
        (kept.root / "b").unlink()
        git(kept.root, "init", "--quiet", "b")
        git(kept.root, "init", "--quiet", "nested")
        await kept.add("1")
        subprocess.run(["rm", "-rf", "a", "b", "huge", "nested"], cwd=kept.root, check=True)
        assert await kept.restore() == Lacking(("a", "b"), ("huge", "nested"))
        assert (kept.root / "a").read_text() == "1\n"
        assert (kept.root / "b").read_text() == "2\n"
        changes = await kept.bench.changes()
        assert (changes.changed_files, changes.left_out) == ((), ())

    async def test_what_git_takes_for_a_path_of_its_own(self, kept: Kept) -> None:
        await kept.begin()
        link = kept.root / "dir" / ".gitmodules"
        link.symlink_to("c")
        (kept.root / ".gitmodules").symlink_to("a")
        await kept.add("1")
        (kept.root / "a").write_text("broken off\n")
        await kept.restore()
        assert (kept.root / "a").read_text() == "1\n"
        assert (kept.root / ".gitmodules").is_symlink()
        assert link.is_symlink()

    async def test_a_tree_that_is_gone(self, kept: Kept) -> None:
        before = kept.files()
        await kept.begin()
        subprocess.run(["rm", "-rf", str(kept.root)], check=True)
        kept.root.symlink_to("/")
        await kept.restore()
        assert kept.files() == before
        assert kept.bench.worktree.git("status", "--porcelain") == ""

    async def test_a_scratch_task(self, desk: Desk) -> None:
        await desk.prepare("s")
        checkpoints = Checkpoints(desk.layout, desk.trees)
        root = desk.layout.task("s")
        await checkpoints.begin("s")
        (root / "a").write_text("1")
        await checkpoints.restore("s", "1")
        assert list(root.iterdir()) == []
        (root / "a").write_text("1")
        await checkpoints.add("s", "1")
        (root / "a").write_text("2")
        (root / "b").write_text("2")
        await checkpoints.restore("s", "2")
        assert [(path.name, path.read_text()) for path in root.iterdir()] == [("a", "1")]

    async def test_several_repositories(self, desk: Desk) -> None:
        one, two = await desk.start(FILES, "one"), await desk.start(FILES, "two")
        heads = {bench.source.path.name: bench.commit for bench in (one, two)}
        await desk.prepare("both", heads)
        checkpoints = Checkpoints(desk.layout, desk.trees)
        await checkpoints.begin("both")
        roots = [desk.layout.task("both") / name for name in heads]
        for root in roots:
            (root / "a").write_text("kept\n")
        await checkpoints.add("both", "1")
        for root in roots:
            change_everything(root)
        await checkpoints.restore("both", "2")
        for root in roots:
            assert git(root, "status", "--porcelain") == " M a"
            assert (root / "a").read_text() == "kept\n"

    async def test_without_a_checkpoint_nobody_goes_back(self, kept: Kept) -> None:
        await kept.add("1")
        (kept.root / "a").write_text("work\n")
        await kept.checkpoints.give_up("t", "2", "the disk is full")
        with pytest.raises(StorageFailed, match="the disk is full"):
            await kept.restore("3")
        assert (kept.root / "a").read_text() == "work\n"
        await kept.add("3")
        (kept.root / "a").write_text("broken off\n")
        await kept.restore("4")
        assert (kept.root / "a").read_text() == "work\n"

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"last": 1, "previous": null}'])
    async def test_damaged(self, kept: Kept, content: str) -> None:
        await kept.add("1")
        (kept.bench.desk.layout.record("t") / "checkpoints.json").write_text(content)
        with pytest.raises(StorageFailed, match="checkpoints of task t are damaged"):
            await kept.restore()


class TestGitsOwnState:
    async def test_a_commit_of_an_interrupted_call_is_undone(self, kept: Kept) -> None:
        worktree = kept.bench.worktree
        worktree.git("checkout", "--quiet", "-b", "work")
        (kept.root / "a").write_text("staged\n")
        worktree.git("add", "a")
        await kept.add("1")
        before = (worktree.head, worktree.git("status", "--porcelain"))
        worktree.commit("made", {"a": "committed\n", "new": "x"})
        (kept.root / ".git" / "index.lock").touch()
        await kept.restore()
        assert (worktree.head, worktree.git("status", "--porcelain")) == before
        assert before[1] == "M  a"
        assert worktree.git("symbolic-ref", "HEAD") == "refs/heads/work"
        worktree.commit("made", {"a": "committed\n"})

    async def test_a_commit_of_a_call_that_ended_stays(self, kept: Kept) -> None:
        worktree = kept.bench.worktree
        await kept.begin()
        head = worktree.commit("made", {"a": "committed\n"})
        await kept.add("1")
        (kept.root / "a").write_text("broken off\n")
        worktree.git("checkout", "--quiet", "--force", "--detach", kept.bench.commit)
        await kept.restore()
        assert worktree.head == head
        assert worktree.git("status", "--porcelain") == ""

    async def test_a_merge_under_way_is_forgotten(self, kept: Kept) -> None:
        worktree = kept.bench.worktree
        theirs = worktree.commit("theirs", {"a": "theirs\n"})
        worktree.git("checkout", "--quiet", "--detach", kept.bench.commit)
        worktree.commit("ours", {"a": "ours\n"})
        await kept.add("1")
        before = (worktree.head, worktree.git("status", "--porcelain=v2", "--branch"))
        with pytest.raises(AssertionError, match="git"):
            worktree.git("merge", theirs)
        assert (kept.root / ".git" / "MERGE_HEAD").exists()
        await kept.restore()
        assert (worktree.head, worktree.git("status", "--porcelain=v2", "--branch")) == before
        assert not (kept.root / ".git" / "MERGE_HEAD").exists()


class TestHidden:
    async def test_nothing_of_it_is_seen(self, kept: Kept) -> None:
        worktree = kept.bench.worktree
        (kept.root / "a").write_text("stashed\n")
        worktree.git("stash")
        (kept.root / "a").write_text("staged\n")
        worktree.git("add", "a")
        (kept.root / "new").write_text("new\n")
        (kept.root / ".git" / "hooks").mkdir()
        for hook in ("pre-commit", "reference-transaction", "post-checkout"):
            path = kept.root / ".git" / "hooks" / hook
            path.write_text(f"#!/bin/sh\ntouch {kept.root}/hooked\n")
            path.chmod(0o755)
        before = seen(kept)
        await kept.add("1")
        (kept.root / "new").write_text("more\n")
        await kept.add("2")
        (kept.root / "new").write_text("new\n")
        assert seen(kept) == before
        (kept.root / "new").unlink()
        await kept.restore()
        (kept.root / "new").write_text("new\n")
        assert seen(kept) == before
        assert set(kept.references()) == {"start", "2"}

    async def test_each_is_a_commit_with_the_tree_of_its_call(self, kept: Kept) -> None:
        await kept.begin()
        (kept.root / "a").write_text("first\n")
        await kept.add("1")
        (kept.root / "new").write_text("second\n")
        await kept.add("2")
        found = kept.references()
        assert git(kept.shadow, "rev-parse", f"{found['2']}^") == found["1"]
        assert git(kept.shadow, "rev-parse", f"{found['1']}^") == kept.bench.commit
        assert git(kept.shadow, "diff", "--name-only", found["1"], found["2"]) == "new"
        assert git(kept.shadow, "show", f"{found['1']}:a") == "first"

    async def test_an_unchanged_tree_adds_no_commit(self, kept: Kept) -> None:
        await kept.add("1")
        (kept.root / "a").touch()
        await kept.add("2")
        assert kept.references() == {}
        (kept.root / "a").write_text("changed\n")
        await kept.add("3")
        await kept.add("4")
        assert list(kept.references()) == ["3"]
        (kept.root / "a").write_text("1\n")
        await kept.add("5")
        assert list(kept.references()) == ["3", "5"]

    async def test_the_patch_is_what_it_was(self, kept: Kept) -> None:
        await kept.begin()
        (kept.root / "a").write_text("changed\n")
        (kept.root / "new").write_text("new\n")
        before = await kept.bench.verified()
        await kept.add("1")
        assert await kept.bench.verified() == before
        subprocess.run(["rm", "-rf", str(kept.root)], check=True)
        assert (await kept.bench.changes()).left_out == ()

    async def test_a_lock_of_a_killed_worker(self, kept: Kept) -> None:
        await kept.begin()
        (kept.root / "a").write_text("changed\n")
        (kept.shadow / "kept.lock").touch()
        await kept.add("1")
        (kept.root / "a").write_text("again\n")
        (kept.shadow / "kept.lock").touch()
        await kept.restore()
        assert (kept.root / "a").read_text() == "changed\n"

    async def test_no_more_states_than_needed(self, kept: Kept) -> None:
        for number in range(5):
            await kept.add(str(number))
        states = kept.bench.desk.layout.record("t") / "states"
        assert sorted(path.name for path in states.iterdir()) == ["3", "4"]


def seen(kept: Kept) -> list[str]:
    """What a user sees of a repository."""
    worktree = kept.bench.worktree
    return [
        worktree.git("status", "--porcelain=v2", "--branch"),
        worktree.git("log", "--all", "--format=%H"),
        worktree.git("stash", "list", "--format=%H"),
        worktree.git("for-each-ref"),
        worktree.git("ls-files", "--stage"),
        worktree.git("reflog", "--all"),
        worktree.git("count-objects"),
    ]


async def test_leftovers_of_a_tree_end_and_others_live(tmp_path: Path) -> None:
    inside, outside = tmp_path / "t", tmp_path / "t2"
    processes = []
    for directory in (inside / "deep", outside):
        directory.mkdir(parents=True)
        processes.append(subprocess.Popen(["sleep", "60"], cwd=directory))
    try:
        await end_leftovers(inside)
        assert processes[0].wait(5) == -signal.SIGKILL
        assert processes[1].poll() is None
    finally:
        for process in processes:
            process.kill()
            process.wait()
