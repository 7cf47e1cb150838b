"""Preparing tasks: worktrees, placed files, and what is left when it goes wrong."""

import asyncio
import os
import stat
from pathlib import Path

import pytest
from tests.support.desk import Bench, Desk, run
from tests.support.repositories import empty_repository, git, sample_repository

from agent import worktrees
from agent.errors import BadRequest, Conflict, GitFailed, StorageFailed, UnknownCommit
from agent.git import TIMEOUT_SECONDS, run_git
from agent.inside import keep_output


def nothing_is_left_of(desk: Desk, task: str) -> bool:
    found = [path for path in desk.layout.workspace.rglob("*") if path.name == task]
    return not found


class TestWorktree:
    async def test_it_is_the_start_commit(self, desk: Desk) -> None:
        source = sample_repository(desk.directory / "sample")
        bench = await desk.start_from(source)
        assert bench.worktree.git("rev-parse", "HEAD") == source.head
        assert bench.worktree.git("status", "--porcelain") == ""
        assert bench.worktree.git("ls-files") == source.git("ls-files")
        assert os.access(bench.root / "run.sh", os.X_OK)
        assert (bench.root / "link").readlink() == Path("README.md")
        assert (bench.root / "data.bin").read_bytes() == (source.path / "data.bin").read_bytes()

    async def test_the_tasks_own_git_works_in_it(self, desk: Desk) -> None:
        bench = await desk.start_from(sample_repository(desk.directory / "sample"))
        tree = bench.worktree
        assert tree.git("rev-parse", "--absolute-git-dir") == str(bench.root / ".git")
        tree.git("switch", "--quiet", "--create", "mine")
        commit = tree.commit("own", {"a": "1\n"})
        tree.git("gc", "--quiet")
        tree.git("worktree", "prune")
        assert tree.git("log", "-1", "--format=%H", "mine") == commit
        assert tree.git("branch", "--remotes").split() == ["origin/feature", "origin/main"]
        assert tree.git("fsck", "--no-dangling") == ""

    async def test_placed_files_do_not_show_in_its_status(self, desk: Desk) -> None:
        source = sample_repository(desk.directory / "sample")
        await desk.give(source)
        await desk.prepare("t", {"sample": source.head}, {"a b.txt": b"1", "*.md ": b"2"})
        bench = Bench(desk, source, "t")
        keep_output(bench.root, "long.txt", b"long")
        assert bench.worktree.git("status", "--porcelain") == ""
        (bench.root / "files" / "x.md").write_text("x")
        shown = bench.worktree.git("status", "--porcelain", "--untracked-files=all")
        assert shown == "?? files/x.md"

    async def test_tasks_on_one_clone_do_not_disturb_each_other(self, desk: Desk) -> None:
        source = sample_repository(desk.directory / "sample")
        await desk.give(source)
        tasks = [f"t{number}" for number in range(8)]
        await asyncio.gather(*(desk.prepare(task, {"sample": source.head}) for task in tasks))
        for task in tasks:
            Bench(desk, source, task).worktree.commit(task, {task: "x\n"})
        for task in tasks:
            changes = await desk.reader.changes(task)
            assert changes.changed_files == (task,)
            tree = Bench(desk, source, task).worktree
            assert tree.git("log", "--format=%s", "-1") == task

    async def test_a_new_task_starts_clean_while_another_has_changes(self, desk: Desk) -> None:
        bench = await desk.start({"a": "1\n"})
        (bench.root / "a").write_text("2\n")
        bench.worktree.git("tag", "v1")
        await desk.prepare("other", {bench.source.path.name: bench.commit})
        assert (desk.layout.task("other") / "a").read_text() == "1\n"


class TestRepeated:
    async def test_the_same_request_changes_nothing(self, desk: Desk) -> None:
        source = sample_repository(desk.directory / "sample")
        await desk.give(source)
        for _ in range(2):
            await desk.prepare("t", {"sample": source.head}, {"a.txt": b"1"})
            (desk.layout.task("t") / "kept").write_text("the task's work\n")
        assert (await desk.reader.changes("t")).changed_files == ("kept",)

    @pytest.mark.parametrize("other", ["commit", "content", "name", "no repository"])
    async def test_another_request_is_refused(self, desk: Desk, other: str) -> None:
        source = sample_repository(desk.directory / "sample")
        await desk.give(source)
        await desk.prepare("t", {"sample": source.head}, {"a.txt": b"1"})
        start = {"sample": source.commit_of("HEAD^") if other == "commit" else source.head}
        name = "b.txt" if other == "name" else "a.txt"
        content = b"2" if other == "content" else b"1"
        with pytest.raises(Conflict, match="made from something else"):
            await desk.prepare("t", {} if other == "no repository" else start, {name: content})

    async def test_identical_requests_at_once_make_one_tree(self, desk: Desk) -> None:
        source = sample_repository(desk.directory / "sample")
        await desk.give(source)
        await asyncio.gather(
            *(desk.prepare("t", {"sample": source.head}, {"a.txt": b"1"}) for _ in range(6))
        )
        assert (await desk.reader.changes("t")).diff == ""

    async def test_what_an_interrupted_attempt_left_is_cleared(self, desk: Desk) -> None:
        source = sample_repository(desk.directory / "sample")
        await desk.give(source)
        await desk.prepare("t", {"sample": source.head})
        root = desk.layout.task("t")
        (root / "half").write_text("x")
        # The record is written last.
        (desk.layout.record("t") / "task.json").unlink()
        await desk.prepare("t", {"sample": source.head})
        assert not (root / "half").exists()
        assert (await desk.reader.changes("t")).diff == ""

    async def test_a_cancelled_attempt_leaves_nothing(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = sample_repository(desk.directory / "sample")
        await desk.give(source)
        checking_out = asyncio.Event()

        async def slow(*_: object) -> None:
            checking_out.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(worktrees, "_check_out", slow)
        attempt = asyncio.create_task(desk.prepare("t", {"sample": source.head}))
        await checking_out.wait()
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        assert nothing_is_left_of(desk, "t")

    async def test_trees_without_a_record_go_when_the_worker_starts(self, desk: Desk) -> None:
        await desk.prepare("whole")
        await desk.prepare("half")
        (desk.layout.record("half") / "task.json").unlink()
        await desk.trees.clear_interrupted()
        assert desk.layout.task("whole").is_dir()
        assert not desk.layout.task("half").exists()


class TestRefused:
    async def test_a_commit_that_is_not_there(self, desk: Desk) -> None:
        source = sample_repository(desk.directory / "sample")
        await desk.give(source)
        with pytest.raises(UnknownCommit, match="clone of sample has no commit 1234"):
            await desk.prepare("t", {"sample": "1234" + "0" * 36})
        assert nothing_is_left_of(desk, "t")

    async def test_an_object_that_is_no_commit(self, desk: Desk) -> None:
        source = sample_repository(desk.directory / "sample")
        await desk.give(source)
        with pytest.raises(UnknownCommit):
            await desk.prepare("t", {"sample": source.git("rev-parse", "HEAD:README.md")})
        assert nothing_is_left_of(desk, "t")

    async def test_a_clone_that_is_not_there(self, desk: Desk) -> None:
        with pytest.raises(UnknownCommit):
            await desk.prepare("t", {"nowhere": "a" * 40})
        assert nothing_is_left_of(desk, "t")
        assert not desk.layout.clone("nowhere").exists()

    async def test_one_of_two_repositories_fails_and_nothing_is_left(self, desk: Desk) -> None:
        source = sample_repository(desk.directory / "sample")
        await desk.give(source)
        with pytest.raises(UnknownCommit):
            await desk.prepare("t", {"sample": source.head, "nowhere": "a" * 40})
        assert nothing_is_left_of(desk, "t")
        await desk.prepare("t", {"sample": source.head})

    @pytest.mark.parametrize("task", ["", ".", "..", "a/b", "-x", "a b", "é", "x.git", "t\n"])
    async def test_names_of_tasks(self, desk: Desk, task: str) -> None:
        with pytest.raises(BadRequest):
            await desk.prepare(task)

    @pytest.mark.parametrize("commit", ["HEAD", "main", "--help", "a" * 39, "A" * 40, "a" * 64])
    async def test_what_is_no_commit(self, desk: Desk, commit: str) -> None:
        with pytest.raises(BadRequest, match="not a commit"):
            await desk.prepare("t", {"sample": commit})


class TestPlacing:
    async def test_files_lie_below_their_directory(self, desk: Desk) -> None:
        await desk.prepare("t", {}, {"a.txt": b"1", "deep/er/b.bin": bytes(range(256))})
        files = desk.layout.task("t") / "files"
        assert (files / "a.txt").read_bytes() == b"1"
        assert (files / "deep" / "er" / "b.bin").read_bytes() == bytes(range(256))
        assert stat.S_IMODE((files / "a.txt").stat().st_mode) == 0o644

    @pytest.mark.parametrize(
        "own", ["files/a.txt", "files", "files/a.txt/inner"], ids=["file", "no dir", "dir"]
    )
    async def test_a_file_of_the_repository_is_never_overwritten(
        self, desk: Desk, own: str
    ) -> None:
        source = empty_repository(desk.directory / "sample")
        source.commit("start", {own: "theirs\n"})
        await desk.give(source)
        with pytest.raises(Conflict, match=r"files/a.txt exists in the repository"):
            await desk.prepare("t", {"sample": source.head}, {"a.txt": b"ours"})
        assert nothing_is_left_of(desk, "t")

    @pytest.mark.parametrize("link", ["files", "files/deep", "files/deep/a.txt"])
    async def test_no_link_is_followed_out_of_the_tree(self, desk: Desk, link: str) -> None:
        outside = desk.directory / "outside"
        outside.mkdir()
        source = empty_repository(desk.directory / "sample")
        (source.path / link).parent.mkdir(parents=True, exist_ok=True)
        (source.path / link).symlink_to(outside)
        commit = source.commit("link")
        await desk.give(source)
        with pytest.raises(Conflict):
            await desk.prepare("t", {"sample": commit}, {"deep/a.txt": b"ours"})
        assert list(outside.iterdir()) == []
        assert nothing_is_left_of(desk, "t")

    async def test_two_files_that_cannot_both_be(self, desk: Desk) -> None:
        with pytest.raises(Conflict):
            await desk.prepare("t", {}, {"a": b"1", "a/b": b"2"})
        assert nothing_is_left_of(desk, "t")

    async def test_beside_several_repositories_even_one_named_files(self, desk: Desk) -> None:
        start = {}
        for name in ("files", "other"):
            source = empty_repository(desk.directory / name)
            start[name] = source.commit("start", {"a": "1\n"})
            await desk.give(source, name)
        await desk.prepare("t", start, {"given.txt": b"x"})
        assert (desk.layout.task("t") / "files" / "given.txt").read_bytes() == b"x"
        assert (await desk.reader.changes("t")).diff == ""


class TestKeepingOutput:
    async def test_it_is_kept_and_replaced(self, desk: Desk) -> None:
        await desk.prepare("t")
        root = desk.layout.task("t")
        for text in (b"one", b"two"):
            assert keep_output(root, "0001-bash.txt", text) == ".berth/outputs/0001-bash.txt"
            assert (root / ".berth/outputs/0001-bash.txt").read_bytes() == text
        assert len(list((root / ".berth/outputs").iterdir())) == 1

    @pytest.mark.parametrize("link", [".berth", ".berth/outputs", ".berth/outputs/x.txt"])
    async def test_links_give_way(self, desk: Desk, link: str) -> None:
        await desk.prepare("t")
        root, outside = desk.layout.task("t"), desk.directory / "outside"
        outside.mkdir()
        (outside / "x.txt").write_text("theirs")
        (root / link).parent.mkdir(parents=True, exist_ok=True)
        (root / link).symlink_to(outside / "x.txt" if link.endswith("txt") else outside)
        keep_output(root, "x.txt", b"ours")
        assert (outside / "x.txt").read_text() == "theirs"
        assert (root / ".berth/outputs/x.txt").read_bytes() == b"ours"
        assert not (root / ".berth/outputs/x.txt").is_symlink()

    @pytest.mark.parametrize("file", [".berth", ".berth/outputs"])
    async def test_files_give_way(self, desk: Desk, file: str) -> None:
        await desk.prepare("t")
        root = desk.layout.task("t")
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_text("in the way")
        keep_output(root, "x.txt", b"ours")
        assert (root / ".berth/outputs/x.txt").read_bytes() == b"ours"


async def test_a_damaged_record_is_an_error_of_its_own(desk: Desk) -> None:
    await desk.prepare("t")
    (desk.layout.record("t") / "task.json").write_text('{"half')
    with pytest.raises(StorageFailed, match="record"):
        desk.trees.record("t")


class TestRunGit:
    async def test_a_command_that_takes_too_long_is_ended(self, desk: Desk) -> None:
        source = empty_repository(desk.directory / "r")
        os.mkfifo(source.path / ".gitignore")
        with pytest.raises(GitFailed, match=r"git status was ended after"):
            await run_git(["status"], source.path, timeout=0.3)
        assert TIMEOUT_SECONDS <= 60

    async def test_the_environment_of_the_worker_does_not_matter(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = empty_repository(desk.directory / "r")
        for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_CONFIG_COUNT"):
            monkeypatch.setenv(name, "/nonexistent")
        output = await run_git(["rev-parse", "--git-dir"], source.path)
        assert output.text == ".git"


async def test_submodules_of_the_start_are_known(desk: Desk) -> None:
    source = empty_repository(desk.directory / "sample")
    source.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},li b")
    source.git("commit", "--quiet", "-m", "start")
    await desk.give(source)
    await desk.prepare("t", {"sample": source.head})
    assert desk.trees.record("t").parts[0].submodules == ("li b",)
    run("rm", "-rf", str(desk.layout.task("t") / "li b"))
    assert (await desk.reader.changes("t")).changed_files == ("li b",)
    git(source.path, "status")
