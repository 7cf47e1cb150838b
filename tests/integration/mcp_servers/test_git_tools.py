import subprocess
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

Connect = Callable[[], AbstractAsyncContextManager[Any]]


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.invalid"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=directory, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(autouse=True)
def no_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{name}_NAME", raising=False)
        monkeypatch.delenv(f"GIT_{name}_EMAIL", raising=False)


@pytest.fixture
def repo(root: Path) -> Path:
    repo = root / "repo"
    repo.mkdir()
    git(repo, "init", "-q", "-b", "main")
    (repo / "f").write_text("1\n")
    git(repo, "add", "f")
    git(repo, "commit", "-qm", "first")
    return repo


async def test_the_way_from_a_change_to_a_commit(repo: Path, tools: Connect) -> None:
    (repo / "f").write_text("2\n")
    (repo / "-dash").write_text("x\n")
    at = {"repo_path": "repo"}
    async with tools() as client:
        assert "modified:   f" in await client.text("git_status", **at)
        assert "-1\n+2" in await client.text("git_diff_unstaged", **at)
        assert await client.text("git_diff_staged", **at) == "No differences"
        await client.text("git_add", files=["f", "-dash"], **at)
        assert "-1\n+2" in await client.text("git_diff_staged", **at)
        await client.text("git_reset", **at)
        assert await client.text("git_diff_staged", **at) == "No differences"
        await client.text("git_add", files=["."], **at)
        text = await client.text("git_commit", message="--amend\n\nbody", **at)
        assert text == f"Committed {git(repo, 'rev-parse', 'HEAD').strip()}"
        assert "nothing to commit" in await client.refusal("git_commit", message="x", **at)
        log = await client.text("git_log", **at)
        assert "Author: Berth <berth@localhost>" in log
        assert "Message: --amend\n\nbody" in log
        assert "Message: first" not in await client.text("git_log", max_count=1, **at)
        assert "No commits" in await client.text("git_log", start_timestamp="2099-01-01", **at)
        assert "first" in await client.text("git_log", end_timestamp="2099-01-01", **at)
        assert "+2" in await client.text("git_show", revision="HEAD", **at)
        assert await client.text("git_show", revision="HEAD~1:f", **at) == "1\n"
        assert "-1\n+2" in await client.text("git_diff", target="HEAD~1", **at)
        assert "-1\n+2" in await client.text("git_diff", target="HEAD~1..HEAD", **at)


async def test_a_configured_identity_is_used(repo: Path, tools: Connect) -> None:
    git(repo, "config", "user.name", "Someone")
    git(repo, "config", "user.email", "someone@example.invalid")
    (repo / "f").write_text("2\n")
    async with tools() as client:
        await client.text("git_add", files=["f"], repo_path="repo")
        await client.text("git_commit", message="m", repo_path="repo")
    assert "Someone <someone@example.invalid>" in git(repo, "log", "-1", "--format=%an <%ae>")


async def test_branches(repo: Path, tools: Connect) -> None:
    at = {"repo_path": "repo"}
    async with tools() as client:
        text = await client.text("git_create_branch", branch_name="topic", **at)
        assert text == "Created branch topic at HEAD"
        await client.text("git_create_branch", branch_name="two", base_branch="topic", **at)
        assert await client.text("git_branch", **at) == "* main\n  topic\n  two\n"
        assert await client.text("git_checkout", branch_name="topic", **at) == "Switched to topic"
        assert "* topic" in await client.text("git_branch", branch_type="all", **at)
        assert await client.text("git_branch", branch_type="remote", **at) == "No branches"
        assert "topic" in await client.text("git_branch", contains="HEAD", **at)
        assert await client.text("git_branch", not_contains="HEAD", **at) == "No branches"
        assert "invalid reference" in await client.refusal("git_checkout", branch_name="none", **at)
        (repo / "f").write_text("changed\n")
        assert "invalid reference" in await client.refusal("git_checkout", branch_name="f", **at)
    assert (repo / "f").read_text() == "changed\n"


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("git_diff", {"target": "--output=/tmp/x"}),
        ("git_diff", {"target": "--no-index"}),
        ("git_show", {"revision": "--output=x"}),
        ("git_checkout", {"branch_name": "--orphan=x"}),
        ("git_checkout", {"branch_name": "-f"}),
        ("git_create_branch", {"branch_name": "-D"}),
        ("git_create_branch", {"branch_name": "x", "base_branch": "-d"}),
        ("git_branch", {"contains": "-x"}),
        ("git_diff", {"target": "main\0x"}),
        ("git_add", {"files": ["../../outside"]}),
        ("git_add", {"files": ["/etc/passwd"]}),
    ],
)
async def test_values_cannot_become_options(
    repo: Path, tools: Connect, tool: str, arguments: dict[str, Any]
) -> None:
    before = sorted(path.name for path in repo.iterdir())
    async with tools() as client:
        await client.refusal(tool, repo_path="repo", **arguments)
        await client.text("git_log", repo_path="repo", start_timestamp="--output=x")
    assert sorted(path.name for path in repo.iterdir()) == before
    assert git(repo, "branch") == "* main\n"


async def test_the_repository_configuration_starts_no_programs(repo: Path, tools: Connect) -> None:
    mark = repo.parent / "mark"
    script = repo.parent / "evil"
    script.write_text(f"#!/bin/sh\necho run >> {mark}\ncat 2>/dev/null\n")
    script.chmod(0o755)
    for name in ("diff.external", "core.fsmonitor", "core.pager", "core.editor", "gpg.program"):
        git(repo, "config", name, str(script))
    git(repo, "config", "commit.gpgSign", "true")
    git(repo, "config", "diff.x.textconv", str(script))
    git(repo, "config", "core.hooksPath", str(repo.parent))
    for hook in ("pre-commit", "post-commit", "post-checkout", "prepare-commit-msg"):
        (repo.parent / hook).symlink_to(script)
        (repo / ".git/hooks" / hook).unlink(missing_ok=True)
        (repo / ".git/hooks" / hook).symlink_to(script)
    (repo / ".gitattributes").write_text("* diff=x\n")
    (repo / "f").write_text("2\n")
    at = {"repo_path": "repo"}
    async with tools() as client:
        await client.text("git_status", **at)
        await client.text("git_diff_unstaged", **at)
        await client.text("git_add", files=["."], **at)
        await client.text("git_diff_staged", **at)
        await client.text("git_commit", message="m", **at)
        await client.text("git_show", revision="HEAD", **at)
        await client.text("git_log", **at)
        await client.text("git_create_branch", branch_name="b", **at)
        await client.text("git_checkout", branch_name="b", **at)
    assert not mark.exists()


@pytest.mark.parametrize("path", ["..", "/", "out", "repo/../.."])
async def test_repositories_outside_are_refused(
    repo: Path, root: Path, tools: Connect, path: str
) -> None:
    (root / "out").symlink_to("..")
    async with tools() as client:
        assert "outside the workspace" in await client.refusal("git_status", repo_path=path)


async def test_a_repository_above_the_root_is_not_found(
    tmp_path: Path, root: Path, tools: Connect
) -> None:
    git(tmp_path, "init", "-q")
    (root / "plain").mkdir()
    async with tools() as client:
        for path in (".", "plain"):
            refusal = await client.refusal("git_status", repo_path=path)
            assert "not a git repository" in refusal
            assert str(tmp_path) not in refusal


async def test_worktrees_and_subdirectories_work(repo: Path, root: Path, tools: Connect) -> None:
    git(repo, "worktree", "add", "-q", str(root / "tree"))
    (root / "tree/sub").mkdir()
    async with tools() as client:
        assert "On branch tree" in await client.text("git_status", repo_path="tree/sub")


async def test_long_output_is_cut(repo: Path, tools: Connect) -> None:
    (repo / "f").write_text("".join(f"{n}\n" for n in range(50_000)))
    async with tools() as client:
        diff = await client.text("git_diff_unstaged", repo_path="repo")
    assert len(diff) < 70_000
    assert "bytes left out ...]" in diff
    assert diff.endswith("+49999\n")


async def test_an_empty_repository(root: Path, tools: Connect) -> None:
    git(root, "init", "-q")
    async with tools() as client:
        assert "No commits yet" in await client.text("git_status")
        assert "does not have any commits" in await client.refusal("git_log")
