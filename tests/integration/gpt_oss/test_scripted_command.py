"""The command as a process: where it listens, how it starts, how it ends."""

import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "gpt_oss.scripted"]
Scripted = Callable[..., AbstractContextManager[Any]]

# Starts the command as its own child, says the child's process id, and waits to be killed.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen(sys.argv[2:], pass_fds=[int(sys.argv[1])])
print(child.pid, flush=True)
time.sleep(60)
"""


def get(family: int, address: Any, path: str) -> dict[str, Any]:
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        connection.connect(address)
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    body: dict[str, Any] = json.loads(reply.partition(b"\r\n\r\n")[2])
    return body


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 128 + signal.SIGINT)],
)
def test_ready_line_names_a_port_that_answers_until_a_signal(
    scripted: Scripted, number: signal.Signals, status: int
) -> None:
    with scripted() as (where, process):
        assert list(where) == ["url"]
        host, _, port = where["url"].removeprefix("http://").removesuffix("/v1").partition(":")
        assert host == "127.0.0.1"
        health = get(socket.AF_INET, (host, int(port)), "/health")
        assert health["status"] == "ok"
        assert health["plays"][-1] == "fallback"
        process.send_signal(number)
        assert process.wait(timeout=10) == status


def test_an_interrupt_ends_it_without_a_traceback() -> None:
    with subprocess.Popen(COMMAND, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "listening on http://127.0.0.1:" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 128 + signal.SIGINT
        assert process.stderr.read() == ""


def test_unix_socket_is_private_replaced_when_dead_and_removed(
    scripted: Scripted, tmp_path: Path
) -> None:
    path = tmp_path / "model.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with scripted("--uds", str(path)) as (where, _):
        assert where == {"uds": str(path)}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert get(socket.AF_UNIX, str(path), "/health")["model"] == "berth-scripted"
        second = subprocess.run(
            [*COMMAND, "--uds", str(path)], capture_output=True, text=True, check=False
        )
        assert second.returncode == 1
        assert "another process listens here" in second.stderr
        assert get(socket.AF_UNIX, str(path), "/health")["status"] == "ok"
    assert not path.exists()


def test_extra_plays_come_first(scripted: Scripted, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        text = f"name: {name}\nwhen: {{words: [{name}]}}\nturns: [{{say: hi}}]"
        (tmp_path / name / "play.yaml").write_text(text)
    folders = [str(tmp_path / "two"), "--plays", str(tmp_path / "one")]
    with scripted("--uds", str(tmp_path / "s"), "--plays", *folders) as (where, _):
        plays = get(socket.AF_UNIX, where["uds"], "/health")["plays"]
    assert plays[:3] == ["two", "one", "list-files"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--plays", "missing"], "missing: no such file or directory"),
        (["--plays", "."], "bad.yaml: turn 0: sayy: unknown key"),
        (["--uds", "bad.yaml"], "not a socket"),
        (["--exit-with-parent", "1"], "the parent process 1 is gone"),
        (["--port", "70000"], "not a port: 70000"),
    ],
)
def test_a_wrong_start_ends_with_a_sentence(
    tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    bad = "name: bad\nwhen: {always: true}\nturns: [{sayy: a}]"
    (tmp_path / "bad.yaml").write_text(bad)
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.returncode in (1, 2)
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "bad.yaml").read_text() == bad


def test_a_reader_of_the_ready_line_that_is_gone_ends_the_start() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [*COMMAND, "--ready-fd", str(write_end)],
        pass_fds=[write_end],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    os.close(write_end)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="parent death is watched on Linux only")
def test_it_ends_when_its_parent_is_killed() -> None:
    read_end, write_end = os.pipe()
    command = [*COMMAND, "--exit-with-parent", "--ready-fd", str(write_end)]
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(write_end), *command],
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[write_end],
    ) as parent:
        os.close(write_end)
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        try:
            # The parent holds the descriptor too, so it is read only as far as the line goes.
            with os.fdopen(read_end) as ready:
                assert "url" in json.loads(ready.readline())
            parent.kill()
            ended = select.select([child], [], [], 10)[0]
            assert ended, "the command outlived its parent"
        finally:
            os.close(child)


def test_it_imports_nothing_heavy() -> None:
    code = "import sys, gpt_oss.scripted.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"fastapi", "openai", "aiohttp", "mcp", "orchestrator", "agent", "httpx2"}
