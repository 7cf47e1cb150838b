"""The git directories of tasks: what they start with, and that no task sees those of another."""

import os
import time
from pathlib import Path

import pytest
from tests.support.desk import Bench, Desk, names, run
from tests.support.repositories import empty_repository, git, sample_repository

from agent.checkpoints import Checkpoints

SLACK_SECONDS = 0.5
MANY = 3_000


async def two_tasks(desk: Desk) -> tuple[Bench, Bench]:
    """Two tasks on one repository at one commit."""
    one = await desk.start({"a": "1\n", "b": "1\n"})
    await desk.prepare("u", {one.source.path.name: one.commit})
    return one, Bench(desk, one.source, "u")


class TestOwn:
    async def test_stash_branches_tags_and_configuration_are_not_shared(self, desk: Desk) -> None:
        one, two = await two_tasks(desk)
        before = (two.worktree.git("for-each-ref"), two.worktree.git("config", "--list"))
        one.worktree.write("a", "stashed\n")
        one.worktree.git("stash")
        one.worktree.git("switch", "--quiet", "--create", "fix")
        one.worktree.git("tag", "mine")
        one.worktree.git("config", "core.fsmonitor", "true")
        await desk.prepare("v", {one.source.path.name: one.commit})
        for bench in (two, Bench(desk, one.source, "v")):
            tree = bench.worktree
            assert tree.git("stash", "list") == ""
            assert tree.git("for-each-ref") == before[0]
            with pytest.raises(AssertionError, match="fsmonitor"):
                tree.git("config", "core.fsmonitor")
            tree.git("switch", "--quiet", "--create", "fix")
            assert names(await bench.changes()) == []
        assert two.worktree.git("config", "--list") == before[1]
        one.worktree.git("stash", "pop")
        assert names(await one.verified()) == ["a"]

    async def test_objects_are_borrowed_and_new_ones_are_its_own(self, desk: Desk) -> None:
        one, two = await two_tasks(desk)
        held = sorted(path for path in one.clone.rglob("*"))
        commit = one.worktree.commit("mine", {"new": "x\n"})
        assert sorted(path for path in one.clone.rglob("*")) == held
        with pytest.raises(AssertionError):
            two.worktree.git("cat-file", "-e", commit)

    async def test_a_hostile_configuration_runs_nothing_in_the_next_task(self, desk: Desk) -> None:
        one = await desk.start({".gitattributes": "* filter=evil\n", "a": "1\n"})
        proof = desk.directory / "proof"
        hook = desk.directory / "hook"
        hook.write_text(f"#!/bin/sh\ntouch {proof}\ncat\n")
        hook.chmod(0o755)
        for key in ("core.fsmonitor", "filter.evil.clean", "filter.evil.smudge", "diff.external"):
            one.worktree.git("config", key, str(hook))
        (one.root / ".git" / "hooks").mkdir()
        for name in ("post-checkout", "pre-commit", "reference-transaction"):
            (one.root / ".git" / "hooks" / name).symlink_to(hook)
        proof.unlink(missing_ok=True)
        await desk.prepare("u", {one.source.path.name: one.commit})
        two = Bench(desk, one.source, "u")
        two.worktree.git("status")
        two.worktree.git("diff", "main")
        two.worktree.commit("mine", {"a": "2\n"})
        assert names(await two.verified()) == ["a"]
        await Checkpoints(desk.layout, desk.trees).begin("t")
        assert names(await one.changes()) == []
        assert not proof.exists()


class TestStart:
    async def test_branches_can_be_named(self, desk: Desk) -> None:
        bench = await desk.start_from(sample_repository(desk.directory / "sample"))
        tree = bench.worktree
        assert tree.git("symbolic-ref", "HEAD") == "refs/heads/main"
        assert tree.git("log", "-1", "--format=%H", "main") == bench.commit
        assert tree.git("diff", "main") == ""
        tree.git("checkout", "--quiet", "feature")
        assert tree.head == bench.source.commit_of("feature")
        tree.git("checkout", "--quiet", "main")
        assert tree.git("status", "--porcelain") == ""
        assert tree.git("describe", "--tags", "v1") == "v1"
        assert tree.git("fsck", "--no-dangling") == ""

    async def test_another_branch(self, desk: Desk) -> None:
        source = sample_repository(desk.directory / "sample")
        source.git("switch", "--quiet", "feature")
        source.commit("more", {"more": "x\n"})
        source.git("branch", "zz/same")
        bench = await desk.start_from(source)
        assert bench.worktree.git("symbolic-ref", "HEAD") == "refs/heads/feature"
        assert bench.worktree.git("rev-parse", "zz/same") == bench.commit

    async def test_a_commit_that_no_branch_is_at(self, desk: Desk) -> None:
        source = empty_repository(desk.directory / "sample")
        first = source.commit("first", {"a": "1\n"})
        source.git("tag", "v0")
        source.commit("second", {"a": "2\n"})
        await desk.give(source)
        await desk.prepare("t", {"sample": first})
        tree = Bench(desk, source, "t").worktree
        with pytest.raises(AssertionError):
            tree.git("symbolic-ref", "HEAD")
        assert tree.head == first == tree.commit_of("v0")
        assert tree.git("diff", "--name-only", "main") == "a"
        assert tree.git("status", "--porcelain") == ""

    async def test_odd_names_and_new_commits_of_the_remote(self, desk: Desk) -> None:
        source = empty_repository(desk.directory / "sample")
        source.commit("first", {"a": "1\n"})
        odd = ["main-2", "main.x", "a/b/c", "é", 'q"uote', "%s"]
        for name in odd:
            source.git("branch", name)
        source.git("update-ref", "refs/heads/HEAD", source.head)
        await desk.give(source)
        source.commit("second", {"a": "2\n"})
        await desk.give(source)
        await desk.prepare("t", {"sample": source.head})
        tree = Bench(desk, source, "t").worktree
        assert tree.git("symbolic-ref", "HEAD") == "refs/heads/main"
        listed = tree.git("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads")
        assert sorted(listed.splitlines()) == sorted([*odd, "main"])
        for name in odd:
            assert tree.commit_of(f"refs/heads/{name}") == source.commit_of("HEAD^")
            assert tree.commit_of(f"refs/remotes/origin/{name}") == source.commit_of("HEAD^")

    async def test_thousands_of_branches_cost_little(self, desk: Desk) -> None:
        source = empty_repository(desk.directory / "sample")
        head = source.commit("first", {"a": "1\n"})
        lines = "".join(f"create refs/heads/b/{number} {head}\n" for number in range(MANY))
        source.git("update-ref", "--stdin", stdin=lines.encode())
        await desk.give(source)
        began = time.perf_counter()
        await desk.prepare("t", {"sample": head})
        assert time.perf_counter() - began < SLACK_SECONDS
        tree = Bench(desk, source, "t").worktree
        assert len(tree.git("for-each-ref", "refs/heads").splitlines()) == MANY + 1


class TestGone:
    @pytest.mark.parametrize("instead", ["nothing", "a file", "a link", "a broken one"])
    async def test_an_interrupted_call_destroys_it(self, desk: Desk, instead: str) -> None:
        bench = await desk.start({"a": "1\n"})
        checkpoints = Checkpoints(desk.layout, desk.trees)
        bench.worktree.commit("mine", {"a": "2\n"})
        await checkpoints.begin("t")
        await checkpoints.add("t", "1")
        own = bench.root / ".git"
        if instead == "a broken one":
            run("rm", "-rf", str(own / "objects"))
        else:
            run("rm", "-rf", str(own))
        if instead == "a file":
            own.write_text("gitdir: /nonexistent\n")
        elif instead == "a link":
            own.symlink_to(bench.source.path / ".git")
        await checkpoints.restore("t", "2")
        assert own.is_dir()
        assert not own.is_symlink()
        assert (bench.source.path / ".git" / "HEAD").exists()
        assert bench.worktree.git("status", "--porcelain") == " M a"
        assert bench.worktree.head == bench.commit
        assert names(await bench.verified()) == ["a"]

    async def test_a_call_that_ended_has_destroyed_it(self, desk: Desk) -> None:
        bench = await desk.start({"a": "1\n"})
        checkpoints = Checkpoints(desk.layout, desk.trees)
        run("rm", "-rf", str(bench.root / ".git"))
        (bench.root / ".git").symlink_to("/")
        await checkpoints.begin("t")
        await checkpoints.add("t", "1")
        (bench.root / "a").write_text("broken off\n")
        await checkpoints.restore("t", "2")
        assert (bench.root / "a").read_text() == "1\n"
        assert (bench.root / ".git").readlink() == Path("/")

    async def test_what_lies_beside_gits_state_is_not_kept(self, desk: Desk) -> None:
        bench = await desk.start({"a": "1\n"})
        (bench.root / ".git" / "lfs").mkdir()
        (bench.root / ".git" / "lfs" / "large").write_bytes(b"x")
        os.mkfifo(bench.root / ".git" / "PIPE")
        bench.worktree.git("config", "user.name", "Ada")
        checkpoints = Checkpoints(desk.layout, desk.trees)
        await checkpoints.begin("t")
        await checkpoints.add("t", "1")
        (bench.root / ".git" / "config").write_text("[broken\n")
        await checkpoints.restore("t", "2")
        assert git(bench.root, "config", "user.name") == "Ada"
        states = desk.layout.record("t") / "states"
        assert {path.name for path in states.rglob("*") if path.is_file()} == {
            "HEAD",
            "config",
            "index",
        }
