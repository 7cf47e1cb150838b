"""The worker as a process: who may talk to it, what it answers, how it ends."""

import asyncio
import base64
import json
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.desk import bundle
from tests.support.privileges import hand_over, unprivileged
from tests.support.repositories import new_repository
from tests.support.worker_process import KEY, WorkerProcess, short_directory, worker_process

from orchestrator.tools.mcp_toolbox import mcp_toolbox

MEMORY_LIMIT = 80 * 1024 * 1024

NO_KEYS = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"key"',
    b"{}",
    b'{"key": 1}',
    b'{"key": "short"}',
    b'{"key": "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"}',
    json.dumps({"key": "\ud800" * 20}).encode(),
    json.dumps({"key": "é" * 20}).encode(),
    json.dumps({"key": "with spaces in it, which are no good"}).encode(),
    json.dumps({"key": "k" * 1_000}).encode(),
    b"[" * 4_000,
]
GUARDED = [
    ("GET", "/repositories"),
    ("PUT", "/repositories/x"),
    ("POST", "/prepare"),
    ("GET", "/tasks/t/changes"),
    ("PUT", "/tasks/t/outputs/x"),
    ("POST", "/tasks/t/mcp"),
    ("POST", "/shutdown"),
    ("GET", "/nothing"),
    ("GET", "/health/"),
    ("GET", "//health"),
    ("GET", "/HEALTH"),
]
NO_REQUESTS = [
    b"",
    b"{",
    b"[]",
    b"12",
    b"\xff\xfe",
    b"[" * 100_000,
    b"{}",
    b'{"task": "t"}',
    b'{"task": "t", "start": [], "files": [], "install": "yes"}',
    b'{"task": 1, "start": [], "files": []}',
    b'{"task": "../x", "start": [], "files": []}',
    b'{"task": "t", "start": {}, "files": []}',
    b'{"task": "t", "start": null, "files": []}',
    b'{"task": "t", "start": [1], "files": []}',
    b'{"task": "t", "start": [{}], "files": []}',
    b'{"task": "t", "start": [{"name": "x", "commit": 1}], "files": []}',
    b'{"task": "t", "start": [{"name": "x", "commit": "HEAD"}], "files": []}',
    b'{"task": "t", "start": [], "files": ["x"]}',
    b'{"task": "t", "start": [], "files": [{"name": "x"}]}',
    b'{"task": "t", "start": [], "files": [{"name": "x", "content": "***"}]}',
    b'{"task": "t", "start": [], "files": [{"name": "x", "content": "\\u00e9"}]}',
]
NO_NAMES = [
    *("", ".", "/", "/etc/x", "../x", "a/../b", ".git/config", "a/.git", "a\0b", "a\nb", "\x7f"),
    *("\ud800", "x" * 300, "a/" * 40 + "b", "é" * 200),
]
NO_PATHS = [
    ("GET", "/nothing", 404),
    ("GET", "/prepare", 405),
    ("GET", "/tasks/nobody/changes", 404),
    ("GET", "/tasks/%2e%2e/changes", 400),
    ("GET", "/tasks/a%20b/changes", 400),
    ("GET", "/tasks/%ff/changes", 400),
    ("PUT", "/tasks/nobody/outputs/x", 404),
    ("PUT", "/tasks/t/outputs/..", 405),
    ("PUT", "/tasks/t/outputs/%2e%2e", 400),
    ("POST", "/tasks/nobody/mcp", 404),
    ("PUT", "/repositories/.x", 400),
    ("PUT", "/repositories/x?url=a%0ab", 400),
]


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture
async def worker(directory: Path) -> AsyncIterator[WorkerProcess]:
    async with worker_process(directory) as worker:
        yield worker


@pytest.fixture
async def client(worker: WorkerProcess) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that has claimed the worker."""
    async with worker.client() as client:
        (await client.post("/claim", json={"key": KEY})).raise_for_status()
        yield client


async def prepare(client: httpx2.AsyncClient, task: str = "t", **body: Any) -> httpx2.Response:
    return await client.post("/prepare", json={"task": task, "start": [], "files": [], **body})


async def bash(client: httpx2.AsyncClient, command: str, task: str = "t") -> str:
    url = f"{client.base_url}/tasks/{task}/mcp".replace("//tasks", "/tasks")
    async with mcp_toolbox(url, client) as toolbox:
        return (await toolbox.call("bash", {"command": command})).text


def is_alive(pid: int) -> bool:
    """True unless the process is gone, or dead and only not collected yet."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


class TestClaim:
    async def test_once_and_the_same_again(self, worker: WorkerProcess) -> None:
        async with worker.client() as client:
            assert (await client.get("/health")).json()["claimed"] is False
            for _ in range(2):
                assert (await client.post("/claim", json={"key": KEY})).status_code == 200
            assert (await client.get("/health")).json()["claimed"] is True
            refused = await client.post("/claim", json={"key": "another-key-long-enough"})
            assert refused.status_code == 409
            assert refused.json()["code"] == "conflict"

    async def test_what_is_no_key(self, worker: WorkerProcess) -> None:
        async with worker.client() as client:
            for body in NO_KEYS:
                refused = await client.post("/claim", content=body)
                assert refused.status_code == 400, (body, refused.text)
                assert set(refused.json()) == {"code", "detail"}
            assert (await client.get("/health")).json()["claimed"] is False

    async def test_a_large_body_is_cut_off(self, worker: WorkerProcess) -> None:
        async with worker.client() as client:
            refused = await client.post("/claim", content=b" " * 100_000)
            assert (refused.status_code, refused.json()["code"]) == (413, "too_large")

    @pytest.mark.parametrize("key", [None, "x", "another key, long enough", KEY[:-1], KEY + "k"])
    async def test_nothing_without_the_key(
        self, worker: WorkerProcess, client: httpx2.AsyncClient, key: str | None
    ) -> None:
        async with worker.client(key) as stranger:
            for method, path in GUARDED:
                refused = await stranger.request(method, path)
                assert refused.status_code == 403, (method, path)
                assert refused.json()["code"] == "not_claimed_by_you"
        assert (await client.get("/health")).status_code == 200

    async def test_nothing_before_the_claim(self, worker: WorkerProcess) -> None:
        async with worker.client() as client:
            assert (await client.get("/repositories")).status_code == 403
            refused = await client.get("/repositories", headers={"Authorization": "Bearer"})
            assert refused.status_code == 403

    async def test_the_scheme_counts(
        self, worker: WorkerProcess, client: httpx2.AsyncClient
    ) -> None:
        async with worker.client(None) as stranger:
            for header in (KEY, f"bearer{KEY}", f"Basic {KEY}", f"Bearer  {KEY}"):
                refused = await stranger.get("/repositories", headers={"Authorization": header})
                assert refused.status_code == 403
        assert (await client.get("/repositories")).status_code == 200

    async def test_a_new_worker_is_unclaimed(self, directory: Path) -> None:
        instances = set()
        for _ in range(2):
            async with worker_process(directory) as worker, worker.client() as client:
                health = (await client.get("/health")).json()
                assert health["claimed"] is False
                instances.add(health["instance"])
                await client.post("/claim", json={"key": KEY})
        assert len(instances) == 2

    async def test_tools_of_the_same_user_cannot_read_the_key(self, directory: Path) -> None:
        way = unprivileged()
        hand_over(directory)
        async with worker_process(
            directory, python=way.command, environment=way.environment
        ) as worker, worker.client() as client:  # fmt: skip
            await client.post("/claim", json={"key": KEY})
            await prepare(client)
            secret = f"/proc/{worker.pid}"
            for look in ("cat environ", "cat mem", "cat maps", "ls fd", "cat auxv", "cat stack"):
                said = await bash(client, f"cd {secret} && {look}")
                assert "exit code: 0" not in said, said
                assert "ermission denied" in said or "not permitted" in said
            said = await bash(
                client, f"env; id -u; cat /proc/*/environ /proc/*/cmdline; cat {secret}/cwd/*"
            )
            assert KEY not in said
            assert "10001" in said or os.geteuid() != 0
            # Where the worker keeps its things the key is not either.
            said = await bash(client, "grep -rc kkkkkkkk ../.. | grep -v ':0$'")
            assert "exit code: 1" in said, said


class TestBadRequests:
    async def test_prepare(self, client: httpx2.AsyncClient) -> None:
        for body in NO_REQUESTS:
            refused = await client.post("/prepare", content=body)
            assert refused.status_code == 400, (body, refused.text)
            assert set(refused.json()) == {"code", "detail"}
            assert refused.json()["code"] == "bad_request"

    async def test_names_of_files(self, client: httpx2.AsyncClient) -> None:
        for name in NO_NAMES:
            body = {"task": "t", "start": [], "files": [{"name": name, "content": ""}]}
            refused = await client.post("/prepare", content=json.dumps(body).encode())
            assert refused.status_code == 400, (name, refused.text)
        assert (await client.get("/tasks/t/changes")).status_code == 404

    async def test_odd_names_of_files_that_are_fine(
        self, worker: WorkerProcess, client: httpx2.AsyncClient
    ) -> None:
        names = ["a b", "é", "日本/ü.txt", "-x", "*", "a\u200db", "x" * 255]
        content = base64.b64encode(b"x").decode()
        files = [{"name": name, "content": content} for name in names]
        made = await prepare(client, files=files)
        assert made.status_code == 200, made.text
        for name in names:
            assert (worker.workspace / "tasks" / "t" / "files" / name).read_bytes() == b"x"
        assert (await client.get("/tasks/t/changes")).json()["diff"] == ""

    async def test_paths(self, client: httpx2.AsyncClient) -> None:
        await prepare(client)
        for method, path, status in NO_PATHS:
            refused = await client.request(method, path)
            assert refused.status_code == status, (path, refused.text)
            assert set(refused.json()) == {"code", "detail"}

    async def test_a_broken_bundle(self, worker: WorkerProcess, client: httpx2.AsyncClient) -> None:
        refused = await client.put("/repositories/x?url=u", content=b"no bundle")
        assert (refused.status_code, refused.json()["code"]) == (500, "git_failed")
        assert list((worker.workspace / "repositories").iterdir()) == []

    async def test_an_unknown_commit(self, client: httpx2.AsyncClient) -> None:
        refused = await prepare(client, start=[{"name": "x", "commit": "1" * 40}])
        assert (refused.status_code, refused.json()["code"]) == (422, "unknown_commit")

    async def test_mcp_that_is_none(self, client: httpx2.AsyncClient) -> None:
        await prepare(client)
        for body in (b"", b"{", b"[]", b"1", b'{"jsonrpc": "2.0"}'):
            refused = await client.post(
                "/tasks/t/mcp",
                content=body,
                headers={
                    "Content-Type": "application/json",
                    "Accept": "application/json, text/event-stream",
                    "MCP-Protocol-Version": "2026-07-28",
                },
            )
            assert 400 <= refused.status_code < 500, refused.text

    async def test_no_traceback_for_any_of_it(
        self, worker: WorkerProcess, client: httpx2.AsyncClient
    ) -> None:
        await client.post("/prepare", content=b"{")
        await client.post("/claim", content=b"{")
        await client.get("/tasks/nobody/changes")
        await client.put("/repositories/x?url=u", content=b"no bundle")
        assert "Traceback" not in worker.log

    async def test_a_workspace_that_cannot_be_written(self, directory: Path) -> None:
        way = unprivileged()
        hand_over(directory)
        async with worker_process(
            directory, python=way.command, environment=way.environment
        ) as worker, worker.client() as client:  # fmt: skip
            await client.post("/claim", json={"key": KEY})
            await prepare(client)
            outputs = worker.workspace / "tasks" / "t"
            outputs.chmod(0o500)
            failed = await client.put("/tasks/t/outputs/x.txt", content=b"x")
            assert (failed.status_code, failed.json()["code"]) == (507, "storage_failed")
            assert "Permission denied" in failed.json()["detail"]

    async def test_a_caller_that_goes_away(
        self, worker: WorkerProcess, client: httpx2.AsyncClient
    ) -> None:
        assert worker.endpoint.uds is not None
        _, writer = await asyncio.open_unix_connection(str(worker.endpoint.uds))
        head = f"PUT /repositories/x?url=u HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        writer.write(f"{head}Content-Length: 1000000\r\n\r\n# v2 git bundle\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        repositories = worker.workspace / "repositories"
        async with asyncio.timeout(60):
            while not repositories.is_dir() or list(repositories.iterdir()):
                await asyncio.sleep(0.01)
        assert "Traceback" not in worker.log


class TestOutputs:
    async def test_a_long_one_is_kept_for_the_tools(self, client: httpx2.AsyncClient) -> None:
        await prepare(client)
        text = "line\n" * 200_000
        answer = await client.put("/tasks/t/outputs/0001-bash.txt", content=text.encode())
        assert answer.json() == {"path": ".berth/outputs/0001-bash.txt"}
        assert "200000" in await bash(client, "wc -l .berth/outputs/0001-bash.txt")
        assert (await client.get("/tasks/t/changes")).json()["diff"] == ""


class TestEnd:
    async def test_a_running_command_ends_with_the_worker(
        self, directory: Path, worker: WorkerProcess, client: httpx2.AsyncClient
    ) -> None:
        await prepare(client)
        pids = worker.workspace / "tasks" / "t" / "pids"
        stubborn = "trap '' TERM; sleep 600 & echo $$ $! > pids; wait"
        call = asyncio.create_task(bash(client, stubborn))
        async with asyncio.timeout(60):
            while not (pids.exists() and pids.read_text().endswith("\n")):
                await asyncio.sleep(0.01)
        began = time.monotonic()
        worker.process.send_signal(signal.SIGTERM)
        assert await worker.ended(10) == 0, worker.log
        assert time.monotonic() - began < 6
        assert not [pid for pid in pids.read_text().split() if is_alive(int(pid))]
        with pytest.raises(Exception, match="worker"):
            await call

    async def test_an_idle_worker_ends_at_once(
        self, worker: WorkerProcess, client: httpx2.AsyncClient
    ) -> None:
        await prepare(client)
        await bash(client, "true")
        began = time.monotonic()
        assert (await client.post("/shutdown")).status_code == 202
        assert await worker.ended(10) == 0
        assert time.monotonic() - began < 2

    async def test_the_work_of_a_killed_worker_is_read_by_the_next(self, directory: Path) -> None:
        source = new_repository(directory / "source", {"a": "1\n"})
        async with worker_process(directory) as worker, worker.client() as client:
            await client.post("/claim", json={"key": KEY})
            sent = await client.put("/repositories/s?url=u", content=bundle(source))
            sent.raise_for_status()
            start = [{"name": "s", "commit": source.head}]
            (await prepare(client, start=start)).raise_for_status()
            await bash(client, "echo 2 > a")
        async with worker_process(directory) as worker, worker.client() as client:
            await client.post("/claim", json={"key": KEY})
            (await prepare(client, start=start)).raise_for_status()
            changes = (await client.get("/tasks/t/changes")).json()
            assert changes["changed_files"] == ["a"]

    async def test_a_worker_killed_while_it_receives(self, directory: Path) -> None:
        source = new_repository(directory / "source", {"a": os.urandom(200_000)})
        content = bundle(source)
        repositories = directory / "workspace" / "repositories"

        async with worker_process(directory) as worker, worker.client() as client:
            await client.post("/claim", json={"key": KEY})

            async def half() -> AsyncIterator[bytes]:
                yield content[:100_000]
                async with asyncio.timeout(60):
                    while not any(repositories.glob(".incoming-*/bundle")):
                        await asyncio.sleep(0.01)
                worker.process.kill()
                await worker.ended(10)
                yield content[100_000:]

            with pytest.raises(httpx2.TransportError):
                await client.put("/repositories/s?url=u", content=half())
        assert list(repositories.iterdir()) != []
        async with worker_process(directory) as worker, worker.client() as client:
            await client.post("/claim", json={"key": KEY})
            assert (await client.get("/repositories")).json() == {"repositories": []}
            assert list(repositories.iterdir()) == []
            sent = await client.put("/repositories/s?url=u", content=content)
            assert sent.status_code == 200


class TestSurroundings:
    async def test_it_needs_little(self, directory: Path) -> None:
        """Another user, a closed working directory, no home, only the workspace to write to."""
        way = unprivileged()
        source = new_repository(directory / "source", {"a": "1\n"})
        content, commit = bundle(source), source.head
        closed = directory / "closed"
        closed.mkdir()
        hand_over(directory)
        closed.chmod(0o555)
        async with worker_process(
            directory, python=way.command, environment=way.environment, cwd=closed
        ) as worker, worker.client() as client:  # fmt: skip
            await client.post("/claim", json={"key": KEY})
            sent = await client.put("/repositories/s?url=u", content=content)
            assert sent.status_code == 200, sent.text
            made = await prepare(client, start=[{"name": "s", "commit": commit}])
            assert made.status_code == 200, made.text
            said = await bash(
                client, "echo 2 > a && git commit -qam two && git log --format=%an -1"
            )
            assert "Berth" in said, said
            changes = (await client.get("/tasks/t/changes")).json()
            assert changes["changed_files"] == ["a"]
            assert list(closed.iterdir()) == []
            assert worker.log == ""

    async def test_unreadable_files_and_directories(self, directory: Path) -> None:
        way = unprivileged()
        files = {"a": "1\n", "shut/b": "1\n", "unsearchable/c": "1\n", "unlistable/d": "1\n"}
        source = new_repository(directory / "source", files)
        content, commit = bundle(source), source.head
        hand_over(directory)
        async with worker_process(
            directory, python=way.command, environment=way.environment
        ) as worker, worker.client() as client:  # fmt: skip
            await client.post("/claim", json={"key": KEY})
            await client.put("/repositories/s?url=u", content=content)
            await prepare(client, start=[{"name": "s", "commit": commit}])
            await bash(
                client,
                "echo 2 > a; echo x > secret; mkdir new; echo x > new/e; echo x > shut/new;"
                "chmod 000 secret new shut; chmod 600 unsearchable; chmod 300 unlistable",
            )
            changes = (await client.get("/tasks/t/changes")).json()
            assert changes["changed_files"] == ["a"]
            left_out = set(changes["left_out"])
            assert {"secret", "new/", "shut/", "unlistable/"} <= left_out
            assert "unsearchable/c" in left_out
            root = worker.workspace / "tasks" / "t"
            for name in ("secret", "new", "shut", "unsearchable", "unlistable"):
                (root / name).chmod(0o700)

    async def test_its_socket_and_memory(
        self, worker: WorkerProcess, client: httpx2.AsyncClient
    ) -> None:
        assert worker.endpoint.uds is not None
        assert stat.S_ISSOCK(worker.endpoint.uds.stat().st_mode)
        await prepare(client)
        await bash(client, "true")
        status = Path(f"/proc/{worker.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        assert int(found[1]) * 1024 < MEMORY_LIMIT

    @pytest.mark.parametrize(
        "environment",
        [{"BERTH_WORKER_PORT": "1"}, {"BERTH_WORKER_SOCKET": ""}],
        ids=["both", "neither"],
    )
    def test_it_wants_one_place_to_listen(
        self, directory: Path, environment: dict[str, str]
    ) -> None:
        done = subprocess.run(
            [*unprivileged().command, "-P", "-m", "agent"],
            env={"PATH": os.environ["PATH"], "BERTH_WORKER_SOCKET": f"{directory}/s"}
            | dict(unprivileged().environment)
            | environment,
            capture_output=True,
            check=False,
            timeout=20,
        )
        assert done.returncode != 0
        assert b"exactly one of BERTH_WORKER_SOCKET and BERTH_WORKER_PORT" in done.stderr
