"""The command lines of sandboxes."""

import asyncio
import re
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.domain.container import Limits
from orchestrator.runtimes.sandbox_command import (
    LOG_BLOCK_BYTES,
    LOG_BLOCKS,
    Box,
    Mount,
    bwrap_argv,
    detached_argv,
    launch_argv,
    released_command,
    rotated_logs,
    stage_path,
)

LIMITS = Limits(2**30, 1.0, 64, open_files=300, file_bytes=2**20)


def box(version: tuple[int, ...] = (0, 8, 0), **changes: object) -> Box:
    facts: dict[str, object] = {
        "uid": 10001,
        "gid": 10001,
        "mounts": (Mount("/a b", "/inside"), Mount("/w", "/workspace", writable=True)),
        "links": (("usr/bin", "/bin"),),
        "environment": {"NAME": "value with spaces"},
        "command": ("true",),
        "directory": "/workspace",
        "temporary_bytes": 1024,
        "bwrap_version": version,
    }
    return Box(**(facts | changes))  # type: ignore[arg-type]  # built from parts


def test_every_namespace_is_new_and_no_capability_is_left() -> None:
    argv = bwrap_argv(box())
    for namespace in ("user", "pid", "net", "ipc", "uts"):
        assert f"--unshare-{namespace}" in argv
    assert argv[argv.index("--cap-drop") + 1] == "ALL"
    assert {"--clearenv", "--new-session", "--disable-userns"} <= set(argv)
    assert "--die-with-parent" not in argv


def test_the_root_becomes_read_only_after_the_last_mount() -> None:
    argv = bwrap_argv(box())
    last_root = max(
        i for i, word in enumerate(argv) if argv[i - 1 : i + 1] == ["--remount-ro", "/"]
    )
    for option in ("--bind", "--ro-bind", "--tmpfs", "--symlink", "--dir"):
        assert max(i for i, word in enumerate(argv) if word == option) < last_root
    assert argv[-2:] == ["--", "true"]


def test_only_writable_mounts_are_bound_for_writing() -> None:
    optional = Mount("/c", "/c", optional=True)
    argv = bwrap_argv(box(mounts=(Mount("/a", "/a"), Mount("/b", "/b", writable=True), optional)))
    assert argv[argv.index("/a") - 1] == "--ro-bind"
    assert argv[argv.index("/b") - 1] == "--bind"
    assert argv[argv.index("/c") - 1] == "--ro-bind-try"


@pytest.mark.parametrize(
    ("version", "sizes", "disables"),
    [((0, 5, 0), False, False), ((0, 7, 0), True, False), ((0, 11, 0), True, True)],
)
def test_old_versions_get_only_the_options_they_know(
    version: tuple[int, ...], sizes: bool, disables: bool
) -> None:
    argv = bwrap_argv(box(version))
    assert ("--size" in argv) is sizes
    assert ("--disable-userns" in argv) is disables


def test_descriptors_are_given_when_there_are_some() -> None:
    argv = bwrap_argv(box(info_fd=7, seccomp_fd=9))
    assert argv[argv.index("--info-fd") + 1] == "7"
    assert argv[argv.index("--seccomp") + 1] == "9"
    assert not {"--info-fd", "--seccomp"} & set(bwrap_argv(box()))


def test_root_gives_up_its_rights_before_bubblewrap_and_stages_what_it_shows() -> None:
    argv = launch_argv(
        ["bwrap", "a b"],
        groups=(),
        drop_to=10001,
        staged={"python": Path("/root/x y")},
        limits=LIMITS,
    )
    assert argv[:4] == ["unshare", "--mount", "--propagation", "private"]
    script = argv[-1]
    assert f"mount --bind '/root/x y' {stage_path('python')}" in script
    assert re.search(
        r"exec setpriv --reuid 10001 --regid 10001 --clear-groups bwrap 'a b'$", script
    )


async def run(argv: list[str], stdin: bytes = b"") -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate(stdin)
    return process.returncode, out.decode()


async def test_the_launch_joins_its_groups_and_sets_limits(tmp_path: Path) -> None:
    group = tmp_path / "a group"
    argv = launch_argv(
        ["sh", "-c", "ulimit -c; ulimit -n; ulimit -f"],
        groups=[group],
        drop_to=None,
        staged={},
        limits=LIMITS,
    )
    code, out = await run(argv)
    assert (code, out.split()) == (0, ["0", "300", "2048"])
    assert group.read_text() == "0\n"


async def test_a_group_that_cannot_be_joined_stops_the_launch(tmp_path: Path) -> None:
    argv = launch_argv(
        ["echo", "ran"],
        groups=[tmp_path / "none" / "cgroup.procs"],
        drop_to=None,
        staged={},
        limits=LIMITS,
    )
    code, out = await run(argv)
    assert code != 0
    assert out == ""


async def test_a_command_waits_for_its_release() -> None:
    command = list(released_command(["echo", "a  b"], None))
    assert await run(command, b"\n") == (0, "a  b\n")
    code, out = await run(command)
    assert code != 0
    assert out == ""


async def test_a_process_limit_is_set_where_it_is_asked_for() -> None:
    command = released_command(["sh", "-c", "cat /proc/self/limits"], 321)
    _, out = await run(list(command), b"\n")
    assert re.search(r"Max processes +321 +321 ", out)


@pytest.mark.parametrize("lines", [0, 1, 3 * LOG_BLOCKS, 12 * LOG_BLOCKS])
async def test_a_detached_command_keeps_the_end_of_its_output(tmp_path: Path, lines: int) -> None:
    log = tmp_path / "the log"
    program = f"i=0; while [ $i -lt {lines} ]; do echo $i; i=$((i + 1)); done; echo end >&2"
    process = await asyncio.create_subprocess_exec(
        *detached_argv(["sh", "-c", program], log), stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0
    expected = "".join(f"{number}\n" for number in range(lines)) + "end\n"
    async with asyncio.timeout(60):
        while not ((kept := kept_in(log)).endswith("end\n") and expected.endswith(kept)):
            await asyncio.sleep(0.01)
    assert len(kept) >= min(len(expected), LOG_BLOCKS)
    assert len(kept) <= 3 * LOG_BLOCKS * LOG_BLOCK_BYTES


def kept_in(log: Path) -> str:
    kept = []
    for file in rotated_logs(log):
        with suppress(FileNotFoundError):  # it is being rotated
            kept.append(file.read_text())
    return "".join(kept)
