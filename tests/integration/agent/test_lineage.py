"""Trees of tasks that build on others, on a real workspace."""

import asyncio
import subprocess
from pathlib import Path

import pytest
from tests.support.desk import Bench, Desk
from tests.support.repositories import git

from agent.calls import Calls
from agent.checkpoints import Checkpoints
from agent.comparison import Comparer
from agent.continuing import Continuing
from agent.errors import BadRequest, Conflict, StorageFailed, UnknownTask
from agent.forking import Forking
from agent.journal import Call
from agent.lacking import Lacking
from agent.records import PlacedFile
from agent.tree_reader import MAX_FILE_BYTES

OLD = "old"
FILES = {"kept.txt": "kept\n", "gone.txt": "gone\n", ".gitignore": "venv/\n"}


class Yard:
    """A task with a tree, and what makes others from it."""

    def __init__(self, desk: Desk, bench: Bench) -> None:
        self.desk = desk
        self.bench = bench
        self.checkpoints = Checkpoints(desk.layout, desk.trees)
        self.calls = Calls(desk.layout, self.checkpoints, "instance")
        self.go_on = Continuing(desk.layout, desk.trees, self.checkpoints)
        self.fork = Forking(desk.layout, desk.trees, self.checkpoints)
        self.compare = Comparer(desk.trees, desk.reader)

    def root(self, task: str = OLD) -> Path:
        return self.desk.layout.task(task)

    async def step(self, number: int, command: str, task: str = OLD) -> None:
        """Run a command in the tree as the call of a step."""

        async def work() -> dict[str, object]:
            subprocess.run(("sh", "-ec", command), cwd=self.root(task), check=True)
            return {"content": []}

        call = Call.of(task, str(number), "bash", {"command": command}, mutating=True)
        await self.calls.run(call, work)
        await self.calls.settled(task)

    def read(self, path: str, task: str = OLD) -> str:
        return (self.root(task) / path).read_text()


@pytest.fixture
async def yard(desk: Desk) -> Yard:
    yard = Yard(desk, await desk.start(FILES, task=OLD))
    await yard.step(2, "echo two > new.txt; mkdir venv; echo x > venv/x")
    await yard.step(3, "true")
    await yard.step(5, "echo five >> new.txt; rm gone.txt; mkdir -p empty/inner")
    return yard


class TestContinuing:
    async def test_the_tree_is_the_same_one(self, yard: Yard) -> None:
        before = yard.root()
        for _ in range(2):
            await yard.go_on("next", OLD, [PlacedFile("more.txt", b"more")])
        assert yard.root("next") == before
        assert yard.read("venv/x", "next") == "x\n"
        assert yard.read("files/more.txt", "next") == "more"
        # The patch is against the same start, and has the work of both.
        await yard.step(1, "echo next >> new.txt", "next")
        changes = await yard.desk.reader.changes("next")
        assert sorted(changes.changed_files) == ["gone.txt", "new.txt"]
        assert "+two\n+five\n+next\n" in changes.diff

    async def test_its_own_changes_and_those_of_the_earlier_one(self, yard: Yard) -> None:
        earlier = await yard.compare(OLD, 0, None)
        await yard.go_on("next", OLD, [])
        await yard.step(1, "echo next >> new.txt", "next")
        assert await yard.compare(OLD, 0, None) == earlier
        own = await yard.compare("next", 0, None)
        assert own.changed_files == ("new.txt",)
        assert "+next\n" in own.diff
        assert "+five\n" not in own.diff

    async def test_one_task_at_a_time(self, yard: Yard) -> None:
        await yard.go_on("next", OLD, [])
        with pytest.raises(Conflict, match="another task goes on"):
            await yard.go_on("other", OLD, [])
        with pytest.raises(Conflict, match="made from something else"):
            await yard.go_on("next", OLD, [PlacedFile("a", b"a")])
        await yard.go_on("last", "next", [])
        assert yard.root("last") == yard.root()

    async def test_a_file_in_the_way_leaves_the_tree_free(self, yard: Yard) -> None:
        await yard.step(6, "mkdir files; echo mine > files/a")
        with pytest.raises(Conflict, match="files/a exists"):
            await yard.go_on("next", OLD, [PlacedFile("a", b"theirs")])
        assert yard.read("files/a") == "mine\n"
        await yard.go_on("other", OLD, [PlacedFile("b", b"theirs")])

    async def test_an_interrupted_call_is_begun_anew(self, yard: Yard) -> None:
        files = [PlacedFile("a", b"given")]
        await yard.go_on("next", OLD, files)
        # As if the worker had been killed before it noted that the tree was handed on.
        (yard.desk.layout.record("next") / "task.json").unlink()
        await yard.desk.trees.clear_interrupted()
        assert yard.read("new.txt") == "two\nfive\n"
        await yard.go_on("next", OLD, files)
        assert yard.read("files/a", "next") == "given"

    async def test_what_the_earlier_task_left_running_is_ended(self, yard: Yard) -> None:
        sleeper = subprocess.Popen(("sleep", "600"), cwd=yard.root())
        await yard.go_on("next", OLD, [])
        assert await asyncio.to_thread(sleeper.wait, 10) == -9

    async def test_the_state_before_a_call_comes_back_in_it(self, yard: Yard) -> None:
        await yard.go_on("next", OLD, [])
        await yard.step(1, "echo next >> new.txt", "next")
        await yard.checkpoints.restore("next", "1")
        assert yard.read("new.txt", "next") == "two\nfive\n"
        assert git(yard.root("next"), "status", "--porcelain") == " D gone.txt\n?? new.txt"

    async def test_of_nothing(self, yard: Yard) -> None:
        with pytest.raises(UnknownTask):
            await yard.go_on("next", "nobody", [])
        with pytest.raises(BadRequest):
            await yard.go_on("next", "../etc", [])


class TestForking:
    @pytest.mark.parametrize(
        ("step", "content"),
        [(0, None), (1, None), (2, "two\n"), (4, "two\n"), (5, "two\nfive\n"), (9, "two\nfive\n")],
    )
    async def test_the_tree_after_a_step(self, yard: Yard, step: int, content: str | None) -> None:
        for _ in range(2):
            await yard.fork("fork", OLD, step)
        root = yard.root("fork")
        assert (root / "new.txt").exists() == (content is not None)
        assert content is None or yard.read("new.txt", "fork") == content
        assert (root / "gone.txt").exists() == (step < 5)
        assert (root / "empty" / "inner").exists() == (step >= 5)
        assert not (root / "venv").exists()  # ignored
        changes = await yard.desk.reader.changes("fork")
        assert ("new.txt" in changes.changed_files) == (content is not None)

    async def test_neither_sees_the_other(self, yard: Yard) -> None:
        await yard.fork("fork", OLD, 2)
        await yard.step(1, "echo fork > new.txt", "fork")
        await yard.step(6, "echo six > new.txt")
        assert yard.read("new.txt") == "six\n"
        assert yard.read("new.txt", "fork") == "fork\n"
        assert (await yard.compare("fork", 0, None)).diff.count("-two") == 1

    async def test_a_fork_of_a_fork(self, yard: Yard) -> None:
        await yard.fork("fork", OLD, 5)
        await yard.fork("second", "fork", 0)
        assert yard.read("new.txt", "second") == "two\nfive\n"

    async def test_of_a_task_that_another_continues(self, yard: Yard) -> None:
        await yard.go_on("next", OLD, [])
        await yard.step(1, "echo next > new.txt; echo out > files.txt", "next")
        await yard.fork("fork", OLD, 5)
        assert yard.read("new.txt", "fork") == "two\nfive\n"

    async def test_commits_of_the_newest_steps_come_along(self, yard: Yard) -> None:
        commit = "git checkout -q -b topic; git add -A; git commit -q -m mine"
        await yard.step(6, commit)
        await yard.fork("fork", OLD, 6)
        root = yard.root("fork")
        assert git(root, "log", "-1", "--format=%s %D") == "mine HEAD -> topic"
        assert git(root, "status", "--porcelain") == ""
        git(root, "commit", "-q", "--allow-empty", "-m", "theirs")
        assert git(yard.root(), "log", "-1", "--format=%s") == "mine"
        assert git(root, "fsck", "--no-dangling") == ""

    async def test_at_an_older_step_the_work_is_not_committed(self, yard: Yard) -> None:
        await yard.step(6, "git checkout -q -b topic; git add -A; git commit -q -m mine")
        await yard.step(7, "echo a > a")
        await yard.step(8, "echo b > b")
        await yard.fork("fork", OLD, 6)
        root = yard.root("fork")
        assert git(root, "rev-parse", "HEAD") == yard.bench.commit
        assert git(root, "status", "--porcelain") == " D gone.txt\n?? new.txt"

    async def test_files_and_outputs_come_along(self, desk: Desk, yard: Yard) -> None:
        await yard.go_on("next", OLD, [PlacedFile("a/b.txt", b"given")])
        outputs = yard.root() / ".berth" / "outputs"
        outputs.mkdir(parents=True)
        (outputs / "0001-bash.txt").write_text("long")
        (outputs / "0002-bash.txt").symlink_to("/etc/hostname")
        await yard.fork("fork", "next", 0)
        assert yard.read("files/a/b.txt", "fork") == "given"
        kept = yard.root("fork") / ".berth" / "outputs"
        assert [path.name for path in kept.iterdir()] == ["0001-bash.txt"]
        assert (await yard.compare("fork", 0, None)).diff == ""

    async def test_a_step_whose_tree_could_not_be_kept(self, yard: Yard) -> None:
        await yard.checkpoints.give_up(OLD, "6", "disk full")
        with pytest.raises(StorageFailed, match="no checkpoint after step 6: disk full"):
            await yard.fork("fork", OLD, 6)
        assert not yard.root("fork").exists()
        await yard.fork("fork", OLD, 5)

    async def test_what_checkpoints_could_not_keep_is_named(self, yard: Yard) -> None:
        await yard.step(7, f"truncate -s {MAX_FILE_BYTES + 1} kept.txt huge")
        await yard.step(9, "rm new.txt; mkdir new.txt; git init -q new.txt; git init -q nested")
        await yard.step(11, "rm huge; echo small > kept.txt")
        expected = {
            5: Lacking(),
            7: Lacking(("kept.txt",), ("huge",)),
            9: Lacking(("kept.txt", "new.txt"), ("huge", "nested")),
            11: Lacking(("new.txt",), ("nested",)),
        }
        for step, lacking in expected.items():
            for _ in range(2):
                assert await yard.fork(f"at-{step}", OLD, step) == lacking
            assert yard.read("kept.txt", f"at-{step}") == ("small\n" if step == 11 else "kept\n")
            assert yard.read("new.txt", f"at-{step}") == "two\nfive\n"
            changes = await yard.desk.reader.changes(f"at-{step}")
            assert changes.left_out == ()
            assert "kept.txt" not in changes.changed_files or step == 11

    async def test_several_repositories(self, desk: Desk, yard: Yard) -> None:
        name = yard.bench.source.path.name
        await desk.give(yard.bench.source, "twin")
        start = {name: yard.bench.commit, "twin": yard.bench.commit}
        await desk.prepare("both", start)
        await yard.step(1, f"echo one > {name}/one; echo two > twin/two", "both")
        await yard.step(2, "echo three > twin/two", "both")
        await yard.fork("fork", "both", 1)
        assert yard.read("twin/two", "fork") == "two\n"
        assert yard.read(f"{name}/one", "fork") == "one\n"
        told = await yard.compare("both", 1, 2)
        assert told.changed_files == ("twin/two",)
        assert "--- a/twin/two\n" in told.diff

    async def test_of_nothing(self, yard: Yard) -> None:
        with pytest.raises(UnknownTask):
            await yard.fork("fork", "nobody", 0)


class TestComparing:
    @pytest.mark.parametrize(
        ("start", "end", "changed"),
        [
            (0, None, ["gone.txt", "new.txt"]),
            (0, 1, []),
            (0, 2, ["new.txt"]),
            (2, 4, []),
            (3, 5, ["gone.txt", "new.txt"]),
            (5, None, []),
        ],
    )
    async def test_two_steps(
        self, yard: Yard, start: int, end: int | None, changed: list[str]
    ) -> None:
        told = await yard.compare(OLD, start, end)
        assert sorted(told.changed_files) == changed
        assert bool(told.diff) == bool(changed)
        shadow = next(yard.desk.layout.record(OLD).glob("*.git"))
        assert list(shadow.glob("compared-*")) == []

    async def test_the_patch_leads_from_one_to_the_other(self, yard: Yard) -> None:
        await yard.step(6, r"printf '\000\001' > binary; ln -s kept.txt link; chmod +x kept.txt")
        await yard.fork("two", OLD, 2)
        await yard.fork("six", OLD, 6)
        told = await yard.compare(OLD, 2, 6)
        git(yard.root("two"), "apply", "-", stdin=told.diff.encode())
        command = ("diff", "-r", "--no-dereference", "-x", ".git", "-x", "empty",
                   str(yard.root("two")), str(yard.root("six")))  # fmt: skip
        assert subprocess.run(command, check=False).returncode == 0

    async def test_what_the_checkpoints_could_not_carry_is_named(self, yard: Yard) -> None:
        await yard.step(7, f"truncate -s {MAX_FILE_BYTES + 1} kept.txt huge")
        await yard.step(9, "rm huge; echo more >> new.txt")
        assert (await yard.compare(OLD, 2, 5)).left_out == ()
        alone = await yard.compare(OLD, 5, 7)
        assert (alone.diff, alone.left_out) == ("", ("huge", "kept.txt"))
        after = await yard.compare(OLD, 7, 9)
        assert (after.changed_files, after.left_out) == (("new.txt",), ("huge", "kept.txt"))
        whole = await yard.compare(OLD, 0, 9)
        assert (sorted(whole.changed_files), whole.left_out) == (
            ["gone.txt", "new.txt"],
            ("kept.txt",),
        )

    async def test_a_call_done_again_that_then_changes_nothing(self, yard: Yard) -> None:
        await yard.step(6, "echo six > six")
        await yard.checkpoints.restore(OLD, "6")
        await yard.checkpoints.add(OLD, "6")
        assert (await yard.compare(OLD, 5, 6)).diff == ""

    async def test_of_nothing(self, yard: Yard) -> None:
        with pytest.raises(UnknownTask):
            await yard.compare("nobody", 0, None)
