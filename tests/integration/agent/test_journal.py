"""Calls that have a key, on a real worker: each takes effect once, whoever dies meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from tests.support.worker_process import KEY, WorkerProcess, short_directory, worker_process

from agent.calls import INTERRUPTED_MARK, INTERRUPTED_TEXT
from orchestrator.tools.mcp_toolbox import PROTOCOL

APPEND = {"command": "echo a >> log; cat log"}
SLOW = {"command": "echo a >> log; touch began; sleep 1; echo b >> log; cat log"}
ENDLESS = {"command": "echo a >> log; touch began; sleep 600; echo b >> log"}
PATIENCE_SECONDS = 20.0
"""Far below the length of the endless command."""


class Claimed:
    """A claimed worker with a scratch task."""

    def __init__(self, process: WorkerProcess, http: httpx2.AsyncClient) -> None:
        self.process = process
        self.http = http

    @property
    def root(self) -> Path:
        return self.process.workspace / "tasks" / "t"

    def entry(self, key: str = "1") -> Path:
        return self.process.workspace / "records" / "t" / "journal" / f"{key}.json"

    async def call(
        self, tool: str, arguments: dict[str, Any], key: str | None = "1", **options: Any
    ) -> types.CallToolResult:
        url = f"{self.process.endpoint.url}/tasks/t/mcp"
        transport = streamable_http_client(url, http_client=self.http, terminate_on_close=False)
        meta: Any = None if key is None else {"berth/key": key}
        async with Client(transport, mode=PROTOCOL) as client:
            return await client.call_tool(tool, arguments, meta=meta, **options)

    def begin(self, arguments: dict[str, Any], key: str = "1") -> asyncio.Task[Any]:
        return asyncio.create_task(self.call("bash", arguments, key))

    async def interrupt(self) -> int:
        answer = await self.http.post("/tasks/t/interrupt")
        assert answer.status_code == 200, answer.text
        count: int = answer.json()["interrupted"]
        return count

    def log(self) -> list[str]:
        return (self.root / "log").read_text().split()

    def state(self, key: str = "1") -> str:
        entry = json.loads(self.entry(key).read_text())
        return "running" if entry["result"] is None else "finished"

    async def began(self) -> None:
        await until_there(self.root / "began")


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture
async def worker(directory: Path) -> AsyncIterator[Claimed]:
    async with claimed(directory) as worker:
        yield worker


@asynccontextmanager
async def claimed(directory: Path) -> AsyncIterator[Claimed]:
    async with worker_process(directory) as process, process.client() as http:
        (await http.post("/claim", json={"key": KEY})).raise_for_status()
        body = {"task": "t", "start": [], "files": []}
        (await http.post("/prepare", json=body)).raise_for_status()
        yield Claimed(process, http)


async def until_there(path: Path) -> None:
    async with asyncio.timeout(60):
        while not path.exists():
            await asyncio.sleep(0.01)


def text(result: types.CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, types.TextContent)
    return block.text


def is_marked(result: types.CallToolResult) -> bool:
    return (result.meta or {}).get(INTERRUPTED_MARK) is True


class TestRepeated:
    async def test_a_call_that_has_ended_is_answered_from_the_journal(
        self, worker: Claimed
    ) -> None:
        first = await worker.call("bash", APPEND)
        again = await worker.call("bash", APPEND)
        assert again == first
        assert "exit code: 0" in text(first)
        assert worker.log() == ["a"]
        assert not is_marked(again)

    async def test_a_new_worker_knows_it_too(self, directory: Path) -> None:
        async with claimed(directory) as worker:
            first = await worker.call("bash", APPEND)
            worker.process.process.kill()
        async with claimed(directory) as worker:
            assert await worker.call("bash", APPEND) == first
            assert worker.log() == ["a"]

    async def test_a_call_that_runs_is_waited_for(self, worker: Claimed) -> None:
        calls = [worker.begin(SLOW) for _ in range(3)]
        results = await asyncio.gather(*calls)
        assert worker.log() == ["a", "b"]
        assert text(results[0]).endswith("a\nb")
        assert results[0] == results[1] == results[2]

    async def test_errors_are_results_too(self, worker: Claimed) -> None:
        first = await worker.call("read_text_file", {"path": "missing"}, "1")
        failed = await worker.call("write_file", {"path": "../../x", "content": ""}, "2")
        assert first.is_error
        assert failed.is_error
        await worker.call("write_file", {"path": "missing", "content": "x"}, "3")
        assert await worker.call("read_text_file", {"path": "missing"}, "1") == first

    async def test_other_arguments_or_another_tool_under_the_same_key(
        self, worker: Claimed
    ) -> None:
        await worker.call("bash", APPEND)
        for tool, arguments in (
            ("bash", {"command": "echo other >> log"}),
            ("write_file", {"path": "log", "content": "other"}),
        ):
            refused = await worker.call(tool, arguments)
            assert refused.is_error
            assert "key 1 stands for another call, of bash" in text(refused)
        running = worker.begin(SLOW, "2")
        await worker.began()
        refused = await worker.call("bash", APPEND, "2")
        assert "key 2 stands for another call" in text(refused)
        await running
        assert worker.log() == ["a", "a", "b"]

    @pytest.mark.parametrize("key", ["", "../x", "a/b", ".", "x" * 200])
    async def test_what_is_no_key(self, worker: Claimed, key: str) -> None:
        refused = await worker.call("bash", APPEND, key)
        assert refused.is_error
        assert "not a valid name" in text(refused)
        assert not (worker.root / "log").exists()

    async def test_without_a_key_each_call_counts(self, worker: Claimed) -> None:
        for _ in range(2):
            await worker.call("bash", APPEND, None)
        assert worker.log() == ["a", "a"]
        assert not worker.entry().parent.exists()


class TestTheCallerIsGone:
    async def test_the_call_goes_on_and_is_recorded(self, worker: Claimed) -> None:
        caller = worker.begin(SLOW)
        await worker.began()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        result = await worker.call("bash", SLOW)
        assert worker.log() == ["a", "b"]
        assert text(result).endswith("a\nb")
        assert not is_marked(result)

    async def test_the_connection_breaks_while_progress_is_told(self, worker: Claimed) -> None:
        told = asyncio.Event()

        async def progress(*_: object) -> None:
            told.set()

        command = {"command": "for i in 1 2 3 4 5 6; do echo $i | tee -a log; sleep 0.3; done"}
        async with worker.process.client() as other:
            elsewhere = Claimed(worker.process, other)
            caller = asyncio.create_task(
                elsewhere.call("bash", command, progress_callback=progress)
            )
            async with asyncio.timeout(60):
                await told.wait()
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
        result = await worker.call("bash", command)
        assert text(result).split() == ["exit", "code:", "0", "stdout:", *"123456"]
        assert worker.log() == [*"123456"]

    async def test_without_a_key_the_call_ends_with_it(self, worker: Claimed) -> None:
        caller = asyncio.create_task(worker.call("bash", ENDLESS, None))
        await worker.began()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert await worker.interrupt() == 0
        assert worker.log() == ["a"]


class TestTheWorkerDies:
    async def test_in_the_middle_of_a_command(self, directory: Path) -> None:
        command = {"command": "echo a >> log; mkdir made; touch began; sleep 2; echo b >> log"}
        async with claimed(directory) as worker:
            await worker.call("bash", {"command": "echo before > log; mkdir empty"}, "0")
            caller = worker.begin(command)
            await worker.began()
            await killed(worker, caller)
            assert worker.state() == "running"
        async with claimed(directory) as worker:
            result = await worker.call("bash", command)
            assert "exit code: 0" in text(result)
            assert is_marked(result)
            assert worker.log() == ["before", "a", "b"]
            assert (worker.root / "empty").is_dir()
            assert await worker.call("bash", command) == result

    async def test_what_the_command_left_running_ends(self, directory: Path) -> None:
        command = {"command": "touch began; sleep 1; echo a >> log"}
        async with claimed(directory) as worker:
            caller = worker.begin(command)
            await worker.began()
            await killed(worker, caller)
        async with claimed(directory) as worker:
            await worker.call("bash", command)
            await worker.call("bash", {"command": "sleep 1"}, "2")
            assert worker.log() == ["a"]

    @pytest.mark.parametrize(
        ("tool", "arguments"),
        [
            ("write_file", {"path": "log", "content": "new\n"}),
            (
                "apply_patch",
                {"input": "*** Begin Patch\n*** Update File: log\n-old\n+new\n*** End Patch\n"},
            ),
        ],
    )
    async def test_after_the_effect_and_before_the_record(
        self, directory: Path, tool: str, arguments: dict[str, Any]
    ) -> None:
        async with claimed(directory) as worker:
            await worker.call("bash", {"command": "echo old > log"}, "0")
            first = await worker.call(tool, arguments)
            assert not first.is_error, text(first)
            unfinish(worker.entry())
        async with claimed(directory) as worker:
            again = await worker.call(tool, arguments)
            assert not again.is_error, text(again)
            assert is_marked(again)
            assert worker.log() == ["new"]

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\0", b"[]", b'{"digest": 1}', b"null"])
    async def test_a_damaged_entry_counts_as_interrupted(
        self, worker: Claimed, content: bytes
    ) -> None:
        await worker.call("bash", {"command": "echo before > log"}, "0")
        await worker.call("bash", APPEND)
        worker.entry().write_bytes(content)
        result = await worker.call("bash", APPEND)
        assert is_marked(result)
        assert worker.log() == ["before", "a"]

    async def test_other_arguments_under_the_key_of_an_interrupted_call(
        self, worker: Claimed
    ) -> None:
        await worker.call("bash", APPEND)
        unfinish(worker.entry())
        assert (await worker.call("bash", SLOW)).is_error
        assert worker.log() == ["a"]

    async def test_asked_to_end_it_leaves_the_call_open(self, directory: Path) -> None:
        async with claimed(directory) as worker:
            caller = worker.begin(ENDLESS)
            await worker.began()
            await worker.http.post("/shutdown")
            assert await worker.process.ended(10) == 0, worker.process.log
            await asyncio.wait([caller])
            assert caller.exception() is not None
            assert worker.state() == "running"
        async with claimed(directory) as worker:
            (worker.root / "began").unlink()
            caller = worker.begin(ENDLESS)
            await worker.began()
            assert worker.log() == ["a"]
            await worker.interrupt()
            assert is_marked(await caller)


class TestInterrupt:
    @pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
    async def test_at_once_and_the_work_is_kept(self, worker: Claimed, trap: str) -> None:
        command = {"command": trap + ENDLESS["command"]}
        caller = worker.begin(command)
        await worker.began()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await worker.interrupt() == 1
        result = await caller
        assert result.is_error
        assert text(result) == INTERRUPTED_TEXT
        assert await worker.call("bash", command) == result
        assert worker.log() == ["a"]
        changes = (await worker.http.get("/tasks/t/changes")).json()
        assert changes["changed_files"] == ["began", "log"]

    async def test_what_it_did_is_what_the_next_goes_back_to(self, directory: Path) -> None:
        second = {"command": "echo c >> log; touch again; sleep 600"}
        async with claimed(directory) as worker:
            caller = worker.begin(ENDLESS)
            await worker.began()
            await worker.interrupt()
            await caller
            caller = worker.begin(second, "2")
            await until_there(worker.root / "again")
            await killed(worker, caller)
            (worker.root / "again").unlink()
        async with claimed(directory) as worker:
            caller = worker.begin(second, "2")
            await until_there(worker.root / "again")
            assert worker.log() == ["a", "c"]
            await worker.interrupt()
            assert is_marked(await caller)

    async def test_other_tasks_go_on(self, worker: Claimed) -> None:
        body = {"task": "u", "start": [], "files": []}
        (await worker.http.post("/prepare", json=body)).raise_for_status()
        caller = worker.begin(SLOW)
        await worker.began()
        answer = await worker.http.post("/tasks/u/interrupt")
        assert answer.json() == {"interrupted": 0}
        assert not (await caller).is_error

    async def test_an_unknown_task(self, worker: Claimed) -> None:
        assert (await worker.http.post("/tasks/nobody/interrupt")).status_code == 404
        assert (await worker.http.get("/tasks/t/interrupt")).status_code == 405


async def killed(worker: Claimed, caller: asyncio.Task[Any]) -> None:
    worker.process.process.kill()
    await worker.process.ended(10)
    await asyncio.wait([caller])
    assert caller.exception() is not None


def unfinish(path: Path) -> None:
    """Make a journal entry what it was before the call had ended."""
    entry = json.loads(path.read_text())
    path.write_text(json.dumps({**entry, "result": None, "instance": "a-dead-one"}))
