import asyncio
import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from mcp_servers.processes import GRACE

Connect = Callable[[], AbstractAsyncContextManager[Any]]


async def run(tools: Any, command: str, **arguments: Any) -> dict[str, Any]:
    result = await tools.call("bash", command=command, **arguments)
    assert not result.is_error, result.content
    return dict(result.structured_content)


async def eventually(condition: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


async def test_text_has_only_the_sections_that_hold_something(tools: Connect) -> None:
    async with tools() as client:
        assert await client.text("bash", command="true") == "exit code: 0"
        assert await client.text("bash", command="echo a") == "exit code: 0\nstdout:\na"
        assert (
            await client.text("bash", command="printf a; echo b >&2; exit 3")
            == "exit code: 3\nstdout:\na\nstderr:\nb"
        )


async def test_structured_result(tools: Connect) -> None:
    async with tools() as client:
        result = await run(client, "echo out; echo err >&2; exit 7")
        assert result.pop("seconds") < 5
        assert result == {
            "exit_code": 7,
            "stdout": "out\n",
            "stderr": "err\n",
            "timed_out": False,
        }
        assert (await run(client, "kill -9 $$"))["exit_code"] == 137
        assert (await run(client, "no-such-program"))["exit_code"] == 127


async def test_stdin_is_empty_and_bash_is_the_shell(tools: Connect) -> None:
    async with tools() as client:
        result = await run(client, "cat; [[ -n $BASH_VERSION ]] && echo bash")
        assert result["stdout"] == "bash\n"


async def test_environment_is_only_what_is_allowed(
    tools: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_API_KEY", "secret")
    monkeypatch.setenv("DATABASE_URL", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    async with tools() as client:
        output = (await run(client, "env"))["stdout"]
        assert "secret" not in output
        assert "HTTPS_PROXY=http://127.0.0.1:1\n" in output
        assert "PATH=" in output


async def test_runs_in_the_given_directory(tools: Connect, root: Path) -> None:
    (root / "sub").mkdir()
    (root / "file").write_text("")
    (root / "out").symlink_to("/")
    async with tools() as client:
        assert (await run(client, "pwd", workdir="sub"))["stdout"] == f"{root}/sub\n"
        for workdir in ("..", "/", "out", "sub/../.."):
            assert "outside" in await client.refusal("bash", command="pwd", workdir=workdir)
        for workdir in ("missing", "file"):
            assert "no such directory" in await client.refusal(
                "bash", command="pwd", workdir=workdir
            )


async def test_timeout_kills_everything_the_command_started(tools: Connect, root: Path) -> None:
    command = "echo before; sleep 1000 & echo $! > a; timeout 999 sleep 998 & echo $! > b; wait"
    async with tools() as client:
        started = time.monotonic()
        text = await client.text("bash", command=command, timeout=0.5)
        assert time.monotonic() - started < 2
        assert text == (
            "exit code: 124\nstdout:\nbefore\nstderr:\n"
            "[timed out after 0.5 s: ended with the processes it started]"
        )
    for name in "ab":
        assert not is_running(int((root / name).read_text()))


async def test_a_process_that_ignores_sigterm_is_killed(tools: Connect, root: Path) -> None:
    command = "trap '' TERM; echo $$ > pid; while :; do sleep 0.1; done"
    async with tools() as client:
        started = time.monotonic()
        result = await run(client, command, timeout=0.3)
        assert result["timed_out"]
        assert GRACE <= time.monotonic() - started < 4
    assert not is_running(int((root / "pid").read_text()))


async def test_background_children_do_not_hold_the_call(tools: Connect, root: Path) -> None:
    async with tools() as client:
        started = time.monotonic()
        result = await run(client, "sleep 1000 & echo $! | tee pid")
        assert time.monotonic() - started < 1
        assert result["stdout"] == (root / "pid").read_text()
    assert not is_running(int((root / "pid").read_text()))


async def test_a_daemon_with_its_own_session_does_not_hold_the_call(
    tools: Connect, root: Path
) -> None:
    async with tools() as client:
        started = time.monotonic()
        result = await run(
            client, "setsid sh -c 'echo $$ > pid; exec sleep 30' & while ! [ -s pid ]; do :; done"
        )
        assert result["exit_code"] == 0
        assert time.monotonic() - started < 2
    pid = int((root / "pid").read_text())
    assert is_running(pid)
    os.kill(pid, 9)


async def test_output_that_is_not_utf8_is_replaced(tools: Connect) -> None:
    async with tools() as client:
        assert (await run(client, r"printf 'a\377b'"))["stdout"] == "a\ufffdb"


async def test_long_output_is_cut_and_kept_in_a_file(tools: Connect, root: Path) -> None:
    async with tools() as client:
        text = await client.text("bash", command="echo first; seq 100000; echo last; echo e >&2")
        assert len(text) < 70_000
        assert text.startswith("exit code: 0\nstdout:\nfirst\n1\n")
        assert text.endswith("\nlast\nstderr:\ne")
        (log,) = (root / ".berth/outputs").iterdir()
        whole = log.read_text()
        assert whole == "first\n" + "".join(f"{n}\n" for n in range(1, 100001)) + "last\n"
        left_out = len(whole) - 65536
        name = f".berth/outputs/{log.name}"
        assert f"[... {left_out} bytes left out; the whole output is in {name} ...]" in text
        subprocess.run(["git", "init", "-q", root], check=True)
        assert "nothing to commit" in await client.text("git_status")


async def test_short_output_leaves_no_file(tools: Connect, root: Path) -> None:
    async with tools() as client:
        result = await run(client, "head -c 65536 /dev/zero | tr '\\0' x")
        assert len(result["stdout"]) == 65536
    assert not list(root.iterdir())


async def test_the_log_is_not_written_through_a_link(
    tools: Connect, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (root / ".berth").symlink_to(tmp_path / "outside")
    async with tools() as client:
        result = await run(client, "seq 100000")
        assert "they were not all kept: .berth/outputs/" in result["stdout"]
        assert "leads outside the workspace" in result["stdout"]
    assert not list((tmp_path / "outside").iterdir())


async def test_endless_output_is_bounded(tools: Connect, root: Path) -> None:
    async with tools() as client:
        result = await run(client, "yes | head -c 100000000; echo end >&2")
        assert result["exit_code"] == 0
        assert result["stderr"] == "end\n"
        assert "the first 67108864 bytes are in .berth/outputs/" in result["stdout"]
        (log,) = (root / ".berth/outputs").iterdir()
        assert log.stat().st_size == 64 * 1024 * 1024


async def test_children_give_way_when_memory_runs_out(tools: Connect) -> None:
    async with tools() as client:
        result = await run(client, "cat /proc/self/oom_score_adj")
        assert int(result["stdout"]) >= 500


@pytest.mark.parametrize("arguments", [{"timeout": 0}, {"timeout": 3601}, {"timeout": "x"}])
async def test_refuses_bad_timeouts(tools: Connect, arguments: dict[str, Any]) -> None:
    async with tools() as client:
        assert "timeout" in await client.refusal("bash", command="true", **arguments)


async def test_refuses_commands_that_cannot_be_passed_on(tools: Connect) -> None:
    async with tools() as client:
        assert "null character" in await client.refusal("bash", command="echo \0")
        assert "write it to a file" in await client.refusal("bash", command=":" * 200_000)


async def test_works_where_processes_have_no_descriptors(
    tools: Connect, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(pid: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", missing)
    async with tools() as client:
        assert (await run(client, "echo a; exit 3"))["exit_code"] == 3
        result = await run(client, "echo $$ > pid; exec sleep 1000", timeout=0.3)
        assert result["timed_out"]
    assert not is_running(int((root / "pid").read_text()))


async def test_many_at_once(tools: Connect) -> None:
    async with tools() as client:
        results = await asyncio.gather(*(run(client, f"sleep 0.2; echo {n}") for n in range(20)))
        assert [result["stdout"] for result in results] == [f"{n}\n" for n in range(20)]


FORK_LIMIT = """
import asyncio, os, resource, sys
from pathlib import Path
from mcp import Client
from mcp.server import MCPServer
from mcp_servers import shell
from mcp_servers.root import task_root

async def main():
    server = MCPServer("test", log_level="ERROR")
    shell.register(server)
    task_root.set(Path(sys.argv[1]))
    async with Client(server) as client:
        warm = await client.call_tool("bash", {"command": "true"})
        assert not warm.is_error, warm
        if os.getuid() == 0:
            os.setuid(60123)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        print((await client.call_tool("bash", {"command": "true"})).content[0].text)

asyncio.run(main())
"""


def test_a_full_process_table_is_a_clear_error() -> None:
    result = subprocess.run(
        [sys.executable, "-c", FORK_LIMIT, "/"],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.stdout.strip() == (
        "Error executing tool bash: cannot start a process: the limit of processes is reached; "
        "end some of them first"
    ), result.stderr


async def progress_of(client: Client) -> list[tuple[float, str | None]]:
    seen: list[tuple[float, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, message))

    command = "for i in 1 2 3 4 5; do echo line $i; sleep 0.25; done; printf %0600d 1; sleep 0.5"
    await client.call_tool("bash", {"command": command}, progress_callback=on_progress)
    return seen


def check_progress(seen: list[tuple[float, str | None]]) -> None:
    bytes_so_far = [progress for progress, _ in seen]
    messages = [message for _, message in seen]
    assert 4 <= len(seen) <= 9
    assert bytes_so_far == sorted(set(bytes_so_far))
    assert bytes_so_far[-1] == 5 * len("line 1\n") + 600
    assert messages[0] == "line 1"
    assert messages[-1] == "0" * 499 + "1"


async def cancelled(client: Client, root: Path) -> None:
    command = "sleep 1000 & echo $! > child; echo $$ > shell; wait"
    call = asyncio.create_task(client.call_tool("bash", {"command": command}))
    await eventually(lambda: (root / "shell").exists() and (root / "shell").read_text())
    pids = [int((root / name).read_text()) for name in ("child", "shell")]
    assert all(map(is_running, pids))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(lambda: not any(map(is_running, pids)))


async def test_progress_and_cancel_over_stdio(
    root: Path, stdio: Callable[..., AbstractAsyncContextManager[Any]]
) -> None:
    async with stdio("shell", root) as tools:
        check_progress(await progress_of(tools.client))
        await cancelled(tools.client, root)
        assert (await run(tools, "echo alive"))["stdout"] == "alive\n"


async def test_progress_and_cancel_over_http(
    root: Path, http: Callable[[], AbstractAsyncContextManager[str]]
) -> None:
    async with (
        http() as url,
        httpx2.AsyncClient(headers={"x-test-root": str(root)}) as transport,
        Client(streamable_http_client(url, http_client=transport)) as client,
    ):
        check_progress(await progress_of(client))
        await cancelled(client, root)
        result = await client.call_tool("bash", {"command": "echo alive"})
        assert result.structured_content["stdout"] == "alive\n"


async def test_stdio_server_ends_its_commands_when_the_client_goes(
    root: Path, stdio: Callable[..., AbstractAsyncContextManager[Any]]
) -> None:
    async with stdio("shell", root) as tools:
        call = asyncio.create_task(tools.call("bash", command="echo $$ > shell; exec sleep 1000"))
        await eventually(lambda: (root / "shell").exists() and (root / "shell").read_text())
        pid = int((root / "shell").read_text())
    await asyncio.wait([call])
    assert call.cancelled() or call.exception() is not None
    await eventually(lambda: not is_running(pid))
