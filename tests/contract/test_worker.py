"""The contract of `ports.Workers` and `ports.Worker`: a real worker, over both transports."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.desk import bundle, chunks
from tests.support.repositories import SourceRepository, git, sample_repository
from tests.support.worker_process import (
    KEY,
    WorkerProcess,
    container_at,
    short_directory,
    worker_process,
)

from orchestrator.domain.container import Endpoint
from orchestrator.domain.conversation import ToolResult
from orchestrator.domain.task import InputFile, Patch, StartPoint
from orchestrator.errors import TreeGone, WorkerRefused, WorkerUnreachable
from orchestrator.ports import Worker
from orchestrator.workers.client import HttpWorker, HttpWorkers

URL = "https://example.org/ada/sample.git"


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture(params=["socket", "tcp"])
async def process(request: pytest.FixtureRequest, directory: Path) -> AsyncIterator[WorkerProcess]:
    async with worker_process(directory, tcp=request.param == "tcp") as process:
        yield process


@pytest.fixture
async def worker(process: WorkerProcess) -> AsyncIterator[HttpWorker]:
    worker = await HttpWorkers().connect(process.container, KEY)
    yield worker
    await worker.close()


@pytest.fixture
def source(directory: Path) -> SourceRepository:
    return sample_repository(directory / "sample")


def start(source: SourceRepository) -> Sequence[StartPoint]:
    return [StartPoint("sample", source.head, "main")]


async def begin(worker: Worker, source: SourceRepository, task: str = "t") -> None:
    await worker.receive("sample", URL, chunks(bundle(source)))
    await worker.prepare(task, start(source), [], install=False)


async def call(worker: Worker, tool: str, task: str = "t", **arguments: object) -> ToolResult:
    async with worker.toolbox(task) as toolbox:
        return await toolbox.call(tool, arguments)


class TestConnecting:
    async def test_again_with_the_same_key(self, process: WorkerProcess, worker: Worker) -> None:
        again = await HttpWorkers().connect(process.container, KEY)
        try:
            assert await again.repositories() == await worker.repositories() == []
        finally:
            await again.close()

    async def test_with_another_key(self, process: WorkerProcess, worker: Worker) -> None:
        assert await worker.repositories() == []
        with pytest.raises(WorkerRefused, match="claimed with another key"):
            await HttpWorkers().connect(process.container, "another-key-that-is-long")

    async def test_to_nobody(self, process: WorkerProcess) -> None:
        process.process.kill()
        await process.ended(10)
        with pytest.raises(WorkerUnreachable):
            await HttpWorkers().connect(process.container, KEY)


class TestRepositories:
    async def test_a_bundle_arrives(self, worker: Worker, source: SourceRepository) -> None:
        await worker.receive("sample", URL, chunks(bundle(source)))
        (held,) = await worker.repositories()
        assert held.name == "sample"
        assert source.head in held.tips

    async def test_a_broken_bundle_is_refused(self, worker: Worker) -> None:
        with pytest.raises(WorkerRefused, match="git fetch failed"):
            await worker.receive("sample", URL, chunks(b"no bundle"))
        assert await worker.repositories() == []

    async def test_a_bundle_that_fails_on_our_side(
        self, worker: Worker, source: SourceRepository
    ) -> None:
        async def failing() -> AsyncIterator[bytes]:
            yield bundle(source)[:50]
            raise LookupError("the mirror is damaged")

        with pytest.raises(LookupError, match="mirror"):
            await worker.receive("sample", URL, failing())
        assert await worker.repositories() == []
        await worker.receive("sample", URL, chunks(bundle(source)))

    async def test_a_name_that_is_refused_while_a_large_bundle_is_sent(
        self, worker: Worker
    ) -> None:
        with pytest.raises(WorkerRefused, match="not a valid name"):
            await worker.receive("..x", URL, chunks(os.urandom(8_000_000)))


class TestPreparing:
    async def test_the_tree_and_its_files(
        self, process: WorkerProcess, worker: Worker, source: SourceRepository
    ) -> None:
        await worker.receive("sample", URL, chunks(bundle(source)))
        files = [InputFile("a b.txt", b"given\n"), InputFile("bin", bytes(range(256)))]
        for _ in range(2):
            prepared = await worker.prepare("t", start(source), files, install=False)
            assert prepared.dependencies == ()
        root = process.workspace / "tasks" / "t"
        assert git(root, "rev-parse", "HEAD") == source.head
        assert (root / "files" / "bin").read_bytes() == bytes(range(256))
        assert (await worker.patch("t")).diff == ""

    async def test_dependencies_are_told(self, worker: Worker, source: SourceRepository) -> None:
        source.commit("needs", {"requirements.txt": "", "package.json": "{}"})
        await worker.receive("sample", URL, chunks(bundle(source)))
        prepared = await worker.prepare("t", start(source), [], install=False)
        assert prepared.dependencies == (
            "requirements.txt found: dependencies come by pip.",
            "package.json found: dependencies come by npm.",
        )

    async def test_what_cannot_be(self, worker: Worker, source: SourceRepository) -> None:
        await begin(worker, source)
        with pytest.raises(WorkerRefused, match="made from something else"):
            await worker.prepare("t", [], [], install=False)
        with pytest.raises(WorkerRefused, match="has no commit"):
            await worker.prepare("u", [StartPoint("sample", "1" * 40, "x")], [], install=False)
        with pytest.raises(WorkerRefused, match="not a valid file name"):
            await worker.prepare("u", [], [InputFile("../x", b"")], install=False)
        with pytest.raises(WorkerRefused, match="not a valid name"):
            await worker.prepare("../u", [], [], install=False)


class TestPatch:
    async def test_it_applies(
        self, process: WorkerProcess, worker: Worker, source: SourceRepository
    ) -> None:
        await begin(worker, source)
        root = process.workspace / "tasks" / "t"
        (root / "README.md").write_text("# Größe\n")
        (root / "data.bin").write_bytes(bytes(reversed(range(256))))
        (root / "link").unlink()
        git(root, "init", "--quiet", "inner")
        patch = await worker.patch("t")
        assert set(patch.changed_files) == {"README.md", "data.bin", "link"}
        assert patch.left_out == ("inner/",)
        source.git("apply", "--index", "-", stdin=patch.diff.encode())
        assert (source.path / "README.md").read_text() == "# Größe\n"

    async def test_of_an_unknown_task(self, worker: Worker) -> None:
        with pytest.raises(TreeGone):
            await worker.patch("nobody")


class TestOutputs:
    async def test_a_long_output_can_be_read_by_the_tools(
        self, worker: Worker, source: SourceRepository
    ) -> None:
        await begin(worker, source)
        path = await worker.keep_output("t", "0001-bash.txt", "Größe \ud800\n" * 100_000)
        assert path == ".berth/outputs/0001-bash.txt"
        shown = await call(worker, "read_text_file", path=path, head=1)
        assert shown.text.startswith("Größe ?")
        assert (await worker.patch("t")).diff == ""

    async def test_an_odd_name_is_refused(self, worker: Worker, source: SourceRepository) -> None:
        await begin(worker, source)
        for name in ("../x", "a/b", "a b", "%2e%2e", ""):
            with pytest.raises(WorkerRefused):
                await worker.keep_output("t", name, "x")


class TestToolbox:
    async def test_it_lists_and_calls(self, worker: Worker, source: SourceRepository) -> None:
        await begin(worker, source)
        async with worker.toolbox("t") as toolbox:
            names = [tool.name for tool in await toolbox.tools()]
            assert len(names) == len(set(names))
            assert {"bash", "read_text_file", "write_file", "git_status", "apply_patch"} <= set(
                names
            )
            result = await toolbox.call("bash", {"command": "pwd; echo 2 > new"})
            assert not result.is_error
            assert "tasks/t" in result.text
        assert (await worker.patch("t")).changed_files == ("new",)

    async def test_each_task_has_its_own_tree(
        self, worker: Worker, source: SourceRepository
    ) -> None:
        await begin(worker, source, "one")
        await begin(worker, source, "two")
        async with worker.toolbox("one") as one, worker.toolbox("two") as two:
            await asyncio.gather(
                *(one.call("write_file", {"path": f"a{i}", "content": "x"}) for i in range(5)),
                *(two.call("write_file", {"path": f"b{i}", "content": "x"}) for i in range(5)),
            )
        assert set((await worker.patch("one")).changed_files) == {f"a{i}" for i in range(5)}
        assert set((await worker.patch("two")).changed_files) == {f"b{i}" for i in range(5)}

    async def test_failures_are_results(self, worker: Worker, source: SourceRepository) -> None:
        await begin(worker, source)
        for tool, arguments in (
            ("read_text_file", {"path": "missing"}),
            ("read_text_file", {"path": "../../../etc/passwd"}),
            ("read_text_file", {"path": 1}),
            ("bash", {}),
            ("no_such_tool", {}),
        ):
            result = await call(worker, tool, **arguments)
            assert result.is_error, tool
            assert result.text

    async def test_progress_comes_while_it_runs(
        self, process: WorkerProcess, worker: Worker, source: SourceRepository
    ) -> None:
        await begin(worker, source)
        told: list[str] = []
        go_on = process.workspace / "tasks" / "t" / "go-on"

        async def progress(line: str) -> None:
            told.append(line)
            go_on.touch()  # the command waits for us: the line came before its end

        command = "echo working; until [ -e go-on ]; do sleep 0.02; done"
        async with worker.toolbox("t") as toolbox:
            result = await toolbox.call(
                "bash", {"command": command, "timeout": 20}, progress=progress
            )
        assert "exit code: 0" in result.text
        assert told[0] == "working"

    async def test_an_error_inside_the_context_comes_out_as_it_is(
        self, worker: Worker, source: SourceRepository
    ) -> None:
        await begin(worker, source)

        async def fail_inside(error: Exception) -> None:
            async with worker.toolbox("t") as toolbox:
                await toolbox.tools()
                raise error

        with pytest.raises(LookupError, match="ours"):
            await fail_inside(LookupError("ours"))
        with pytest.raises(WorkerRefused, match="ours"):
            await fail_inside(WorkerRefused("ours"))

    async def test_a_cancelled_call_ends_the_command(
        self, process: WorkerProcess, worker: Worker, source: SourceRepository
    ) -> None:
        await begin(worker, source)
        root = process.workspace / "tasks" / "t"
        running = asyncio.create_task(
            call(
                worker,
                "bash",
                command="trap 'touch ended; exit' TERM; touch began; sleep 600 & wait",
            )
        )
        await until_there(root / "began")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await until_there(root / "ended")
        assert (await call(worker, "bash", command="echo still here")).text

    async def test_a_call_with_a_key_counts_once(
        self, process: WorkerProcess, worker: Worker, source: SourceRepository
    ) -> None:
        await begin(worker, source)
        root = process.workspace / "tasks" / "t"
        arguments: dict[str, object] = {"command": "echo a >> log; touch began; sleep 1; cat log"}

        async def keyed() -> ToolResult:
            async with worker.toolbox("t") as toolbox:
                return await toolbox.call("bash", arguments, key="1")

        running = asyncio.create_task(keyed())
        await until_there(root / "began")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        result = await keyed()
        assert result == await keyed()
        assert result.text.endswith("stdout:\na")
        assert (root / "log").read_text() == "a\n"

    async def test_a_call_with_a_key_ends_when_it_is_interrupted(
        self, process: WorkerProcess, worker: Worker, source: SourceRepository
    ) -> None:
        await begin(worker, source)
        await worker.interrupt("t")
        root = process.workspace / "tasks" / "t"

        async def keyed() -> ToolResult:
            arguments: dict[str, object] = {"command": "touch began; sleep 600"}
            async with worker.toolbox("t") as toolbox:
                return await toolbox.call("bash", arguments, key="1")

        running = asyncio.create_task(keyed())
        await until_there(root / "began")
        await worker.interrupt("t")
        assert (await running).is_error
        assert (await worker.patch("t")).changed_files == ("began",)
        with pytest.raises(TreeGone):
            await worker.interrupt("nobody")

    async def test_a_worker_that_dies_during_a_call(
        self, process: WorkerProcess, worker: Worker, source: SourceRepository
    ) -> None:
        await begin(worker, source)
        root = process.workspace / "tasks" / "t"
        running = asyncio.create_task(call(worker, "bash", command="touch began; sleep 600"))
        await until_there(root / "began")
        process.process.kill()
        async with asyncio.timeout(60):
            with pytest.raises(WorkerUnreachable):
                await running
        with pytest.raises(WorkerUnreachable):
            await worker.patch("t")

    async def test_an_unknown_task_has_no_tools(self, worker: Worker) -> None:
        with pytest.raises(WorkerUnreachable):
            await call(worker, "bash", task="nobody", command="true")

    async def test_a_worker_that_was_started_anew_is_not_ours(
        self, directory: Path, source: SourceRepository
    ) -> None:
        async with worker_process(directory) as process:
            worker = await HttpWorkers().connect(process.container, KEY)
            await begin(worker, source)
        async with worker_process(directory):
            with pytest.raises(WorkerUnreachable):
                await call(worker, "bash", command="true")
            with pytest.raises(WorkerRefused, match="claimed by another key, or not at all"):
                await worker.patch("t")
        await worker.close()


async def until_there(path: Path) -> None:
    async with asyncio.timeout(60):
        while not path.exists():
            await asyncio.sleep(0.01)


class TestAnswersThatAreNone:
    """What answers at the socket may be a tool that took the worker's place."""

    @pytest.mark.parametrize(
        "body",
        [b"", b"no json", b"\xff", b"[]", b"{}", b'{"diff": 1}', b'{"diff": "", "left_out": "x"}'],
    )
    async def test_a_malformed_answer(self, directory: Path, body: bytes) -> None:
        async with impostor(directory, body) as worker:
            with pytest.raises(WorkerRefused, match="not an answer"):
                await worker.patch("t")
            with pytest.raises(WorkerRefused, match="not an answer"):
                await worker.repositories()
            with pytest.raises(WorkerRefused, match="not an answer"):
                await worker.keep_output("t", "x", "x")
            with pytest.raises(WorkerRefused, match="not an answer"):
                await worker.prepare("t", [], [], install=False)

    async def test_a_malformed_refusal(self, directory: Path) -> None:
        async with impostor(directory, b"<html>", status=503) as worker:
            with pytest.raises(WorkerRefused, match="HTTP 503"):
                await worker.repositories()

    async def test_an_endless_answer(self, directory: Path) -> None:
        async with impostor(directory, b"x" * 1_000_000, times=10_000) as worker:
            with pytest.raises(WorkerRefused, match="too long"):
                await worker.repositories()


@asynccontextmanager
async def impostor(
    directory: Path, body: bytes, *, times: int = 1, status: int = 200
) -> AsyncIterator[HttpWorker]:
    """A connection to something that gives the same answer to everything."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body) * times}\r\n"
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"{head}Connection: close\r\n\r\n".encode())
            for _ in range(times):
                writer.write(body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # it has heard enough
        finally:
            writer.close()

    endpoint = Endpoint(directory / "impostor", "http://worker")
    server = await asyncio.start_unix_server(answer, str(endpoint.uds))
    worker = HttpWorker(container_at(endpoint), KEY)
    try:
        yield worker
    finally:
        await worker.close()
        server.close()


class TestLineage:
    async def test_a_tree_is_handed_on(
        self, process: WorkerProcess, worker: Worker, source: SourceRepository
    ) -> None:
        await begin(worker, source)
        await keyed(worker, "t", "2", "echo one > one.txt")
        for _ in range(2):
            await worker.continue_tree("next", "t", [InputFile("more.txt", b"more")])
        await keyed(worker, "next", "2", "cat files/more.txt >> one.txt")
        assert sorted((await worker.patch("next")).changed_files) == ["one.txt"]
        assert (await worker.difference("t", 0, None)).changed_files == ("one.txt",)
        assert "+more" in (await worker.difference("next", 0, None)).diff
        with pytest.raises(WorkerRefused, match="another task goes on"):
            await worker.continue_tree("other", "t", [])

    async def test_a_tree_is_forked(
        self, process: WorkerProcess, worker: Worker, source: SourceRepository
    ) -> None:
        await begin(worker, source)
        await keyed(worker, "t", "2", "echo one > one.txt")
        await keyed(worker, "t", "4", "echo two > one.txt")
        for _ in range(2):
            await worker.fork_tree("fork", "t", 3)
        tree = process.workspace / "tasks" / "fork"
        assert (tree / "one.txt").read_text() == "one\n"
        assert "-one" in (await worker.difference("t", 2, 4)).diff
        assert await worker.difference("t", 2, 3) == Patch()

    async def test_trees_that_are_not_there(self, worker: Worker) -> None:
        for work in (
            worker.require_tree("none"),
            worker.difference("none", 0, None),
            worker.fork_tree("fork", "none", 0),
            worker.continue_tree("next", "none", []),
        ):
            with pytest.raises(TreeGone):
                await work


async def keyed(worker: Worker, task: str, key: str, command: str) -> None:
    async with worker.toolbox(task) as toolbox:
        result = await toolbox.call("bash", {"command": command}, key=key)
    assert not result.is_error, result


class TestCheckpoints:
    async def test_they_leave_as_a_bundle_and_come_back(
        self, worker: Worker, source: SourceRepository
    ) -> None:
        assert not (await worker.checkpoints("t")).prepared
        await begin(worker, source)
        assert (await worker.checkpoints("t")).parts == ()
        async with worker.toolbox("t") as toolbox:
            await toolbox.call("write_file", {"path": "new", "content": "x"}, key="2")
        held = await worker.checkpoints("t")
        assert (held.key, held.ended) == ("2", frozenset({"2"}))
        (part,) = held.parts
        assert part.start == source.head
        assert set(part.checkpoints) == {"2"}
        before = await worker.patch("t")
        await begin(worker, source, "u")
        made = worker.bundle("t", "sample", [part.state], [part.start])
        await worker.take_bundle("u", "sample", made)
        await worker.restore("u", "2", {"sample": part.state})
        assert await worker.patch("u") == before
        assert (await worker.checkpoints("u")).key == "2"

    async def test_unknown_commits_and_broken_bundles_are_refused(
        self, worker: Worker, source: SourceRepository
    ) -> None:
        await begin(worker, source)
        with pytest.raises(WorkerRefused):
            async for _ in worker.bundle("t", "sample", ["1" * 40], []):
                pass
        with pytest.raises(WorkerRefused):
            await worker.take_bundle("t", "sample", _broken())
        with pytest.raises(WorkerRefused):
            await worker.restore("t", "2", {"sample": "1" * 40})
        with pytest.raises(WorkerRefused):
            await worker.restore("t", "2", {"sample": "HEAD"})


async def _broken() -> AsyncGenerator[bytes, None]:
    yield b"rubbish"
