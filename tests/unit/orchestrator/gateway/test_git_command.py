"""Git runs in an environment of its own and never longer or larger than allowed."""

import asyncio
import sys
import time
from pathlib import Path

import pytest
from tests.support.repositories import new_repository

from orchestrator.errors import ConfigurationError
from orchestrator.gateway.git_command import Git
from orchestrator.gateway.git_process import Ended, GitOutcome, memory_of

ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "SSL_CERT_FILE": "/certificates.pem",
    "GIT_DIR": "/elsewhere",
    "https_proxy": "http://proxy",
    "HOME": "/root",
    "GITHUB_TOKEN": "secret",
}


@pytest.fixture
def git(tmp_path: Path) -> Git:
    return Git(tmp_path / "git", ENVIRONMENT)


async def shell(git: Git, script: str, timeout_seconds: float = 10.0) -> GitOutcome:
    """Run a script as git would run a helper of its own."""
    return await git.run("-c", f"alias.x=!{script}", "x", timeout_seconds=timeout_seconds)


async def test_only_certificate_settings_are_passed_on(git: Git) -> None:
    found = (await shell(git, "env")).stdout.decode()
    assert "SSL_CERT_FILE=/certificates.pem" in found
    for word in ("elsewhere", "proxy", "secret", "HOME=/root"):
        assert word not in found


async def test_settings_of_users_and_of_a_checkout_around_do_not_count(tmp_path: Path) -> None:
    around = new_repository(tmp_path / "checkout")
    around.git("config", "user.name", "Mallory")
    git = Git(around.path / ".berth" / "git", ENVIRONMENT)
    outcome = await git.run("config", "--show-origin", "--list", timeout_seconds=10)
    assert outcome.ok
    assert b"Mallory" not in outcome.stdout
    assert b"protocol.allow=never" in outcome.stdout


@pytest.mark.parametrize("address", ["ext::sh -c 'echo x'", "ssh://host/x", "file:///x", "/x"])
async def test_no_transport_is_allowed_by_default(git: Git, address: str) -> None:
    outcome = await git.run("ls-remote", "--", address, timeout_seconds=10)
    assert not outcome.ok
    assert "not allowed" in outcome.stderr


async def test_input_output_and_errors(git: Git) -> None:
    data = b"x" * 500_000
    outcome = await git.run("hash-object", "--stdin", stdin=data, timeout_seconds=10)
    assert outcome.ok
    assert len(outcome.stdout) == 41
    failed = await shell(git, "echo told >&2; exit 3")
    assert (failed.returncode, failed.stderr.strip(), failed.ok) == (3, "told", False)


async def test_input_that_nobody_reads_is_no_error(git: Git) -> None:
    outcome = await git.run("version", stdin=b"x" * 1_000_000, timeout_seconds=10)
    assert outcome.ok


async def test_output_is_bounded(git: Git) -> None:
    outcome = await shell(git, "yes")
    assert outcome.ended is Ended.TOO_MUCH_OUTPUT
    outcome = await shell(git, "yes | head -c 3000000 >&2; echo last >&2")
    assert outcome.ok
    assert outcome.stderr.endswith("last\n")
    assert len(outcome.stderr) <= 16 * 1024


async def test_time_is_bounded_for_all_processes(git: Git, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    begun = time.monotonic()
    script = f"sleep 600 & echo $! > {pid_file}; wait"
    outcome = await shell(git, script, timeout_seconds=0.5)
    assert outcome.ended is Ended.TIMED_OUT
    assert time.monotonic() - begun < 5
    await _until_gone(int(pid_file.read_text()))


async def test_a_guard_that_returns_ends_git(git: Git) -> None:
    async def guard() -> None:
        await asyncio.sleep(0.05)

    outcome = await git.run("-c", "alias.x=!sleep 600", "x", timeout_seconds=30, until=guard)
    assert outcome.ended is Ended.STOPPED


async def test_a_guard_that_fails_is_heard(git: Git) -> None:
    async def guard() -> None:
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        await git.run("-c", "alias.x=!sleep 600", "x", timeout_seconds=30, until=guard)


async def test_memory_is_bounded(tmp_path: Path) -> None:
    git = Git(tmp_path / "git", ENVIRONMENT, max_memory_bytes=20_000_000)
    program = tmp_path / "hungry.py"
    program.write_text("import time\nheld = b'x' * 60_000_000\ntime.sleep(60)\n")
    outcome = await shell(git, f"{sys.executable} {program}", 30)
    assert outcome.ended is Ended.TOO_MUCH_MEMORY


def test_memory_of_nothing() -> None:
    assert memory_of(2**22 + 1) == 0


async def test_a_missing_git_is_a_matter_of_configuration(tmp_path: Path) -> None:
    git = Git(tmp_path / "git", ENVIRONMENT, executable="no-such-git")
    with pytest.raises(ConfigurationError, match="install git"):
        await git.version()


@pytest.mark.parametrize(
    ("answer", "version"),
    [("git version 2.39.5", (2, 39)), ("git version 2.45.1 (Apple Git-1)", (2, 45))],
)
async def test_version(tmp_path: Path, answer: str, version: tuple[int, int]) -> None:
    assert await _fake(tmp_path, answer).version() == version


@pytest.mark.parametrize("answer", ["git version 2.20.1", "nonsense"])
async def test_versions_that_will_not_do(tmp_path: Path, answer: str) -> None:
    with pytest.raises(ConfigurationError, match=r"2\.37"):
        await _fake(tmp_path, answer).version()


def _fake(directory: Path, answer: str) -> Git:
    program = directory / "fake-git"
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o755)
    return Git(directory / "git", ENVIRONMENT, executable=str(program))


async def _until_gone(pid: int) -> None:
    async with asyncio.timeout(60):
        while (
            Path(f"/proc/{pid}").exists()
            and "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
        ):
            await asyncio.sleep(0.01)
