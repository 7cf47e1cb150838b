"""The embedded Postgres with real processes: starts, stops, crashes, and who may use it."""

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from orchestrator.domain.budget import Budget
from orchestrator.domain.events import Event, EventKind, NewEvent
from orchestrator.domain.task import NewTask
from orchestrator.domain.workspace import scratch_workspace
from orchestrator.errors import ConfigurationError, DatabaseUnavailable
from orchestrator.storage.postgres import (
    Database,
    EmbeddedPostgres,
    PostgresEventLog,
    PostgresTaskStore,
    migrate,
)
from orchestrator.storage.postgres.leftovers import postmaster_of, processes_of

# An orchestrator's part: start the server, say where it is, then do nothing until killed.
OWNER = """
import asyncio, sys
from pathlib import Path
from orchestrator.storage.postgres import EmbeddedPostgres

async def main():
    print(await EmbeddedPostgres(Path(sys.argv[1])).start(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def data_of(data_dir: Path) -> Path:
    return data_dir / "postgres" / "data"


def has_ended(data: Path, pid: int) -> bool:
    return pid not in processes_of(data)


async def eventually(condition: Callable[[], bool], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def run(dsn: str, statement: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def eventually_runs(dsn: str, statement: str, seconds: float) -> object:
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await run(dsn, statement)
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.02)


@asynccontextmanager
async def started(data_dir: Path) -> AsyncIterator[str]:
    server = EmbeddedPostgres(data_dir)
    try:
        yield await server.start()
    finally:
        await server.stop()
    assert processes_of(data_of(data_dir)) == set()


@asynccontextmanager
async def owned_elsewhere(data_dir: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A server that another process started."""
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OWNER, str(data_dir)), stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    try:
        dsn = (await asyncio.wait_for(owner.stdout.readline(), 30)).decode().strip()
        yield owner, dsn
    finally:
        if owner.returncode is None:
            owner.kill()
        await owner.wait()


async def test_data_outlives_a_restart(passable_directory: Path) -> None:
    async with started(passable_directory) as dsn:
        await run(dsn, "CREATE TABLE kept AS SELECT 'ünï' AS value")
        assert await run(dsn, "SHOW server_encoding") == "UTF8"
        assert await run(dsn, "SHOW listen_addresses") == ""
    async with started(passable_directory) as dsn:
        assert await run(dsn, "SELECT value FROM kept") == "ünï"
    left = {path.name for path in (passable_directory / "postgres").iterdir()}
    assert left <= {"data", "lock", "log"} | {name for name in left if name.startswith("bin-")}


async def test_it_serves_while_our_own_user_alone_may_enter(passable_directory: Path) -> None:
    async with started(passable_directory) as dsn:
        run_directory = passable_directory / "postgres" / "run"
        status = run_directory.stat()
        assert stat.S_IMODE(status.st_mode) == 0o700
        assert stat.S_IMODE(data_of(passable_directory).stat().st_mode) == 0o700
        server = postmaster_of(data_of(passable_directory))
        assert Path(f"/proc/{server}").stat().st_uid == status.st_uid
        assert status.st_uid != 0
        environment = Path(f"/proc/{server}/environ").read_bytes()
        assert b"PYTEST" not in environment
        assert await run(dsn, "SELECT 1") == 1


async def test_start_and_stop_are_quick(passable_directory: Path) -> None:
    loop = asyncio.get_running_loop()

    async def seconds() -> float:
        server = EmbeddedPostgres(passable_directory)
        begin = loop.time()
        await server.start()
        end = loop.time()
        await server.stop()
        return end - begin

    # The aims are 1 s and 0.3 s; a shared machine gets three times that.
    assert await seconds() < 3.0
    assert min([await seconds() for _ in range(3)]) < 0.9


async def test_killing_the_owner_ends_the_server(passable_directory: Path) -> None:
    data = data_of(passable_directory)
    async with owned_elsewhere(passable_directory) as (owner, dsn):
        await run(dsn, "CREATE TABLE kept AS SELECT 42 AS value")
        holder = await asyncpg.connect(dsn)
        assert processes_of(data)
        owner.kill()
        await owner.wait()
        await eventually(lambda: not processes_of(data), 5)
        holder.terminate()
    async with started(passable_directory) as dsn:
        assert await run(dsn, "SELECT value FROM kept") == 42


async def test_a_start_right_after_the_owner_was_killed(passable_directory: Path) -> None:
    for _ in range(3):
        async with owned_elsewhere(passable_directory) as (owner, dsn):
            await run(dsn, "CREATE TABLE IF NOT EXISTS kept (value int)")
            await run(dsn, "INSERT INTO kept VALUES (1)")
            owner.kill()
            await owner.wait()
            async with started(passable_directory) as again:
                count = await run(again, "SELECT count(*) FROM kept")
    assert count == 3


async def test_a_server_without_supervisor_is_stopped_and_replaced(
    passable_directory: Path,
) -> None:
    data = data_of(passable_directory)
    async with owned_elsewhere(passable_directory) as (owner, dsn):
        await run(dsn, "CREATE TABLE kept AS SELECT 7 AS value")
        left_over = postmaster_of(data)
        supervisor = int(Path(f"/proc/{left_over}/stat").read_text().split()[3])
        os.kill(owner.pid, signal.SIGSTOP)  # it must not tend to the server in between
        os.kill(supervisor, signal.SIGKILL)
        owner.kill()
        await owner.wait()
        assert left_over in processes_of(data)
        async with started(passable_directory) as again:
            assert postmaster_of(data) != left_over
            assert await run(again, "SELECT value FROM kept") == 7


async def test_a_killed_server_comes_back_at_the_same_address(passable_directory: Path) -> None:
    data = data_of(passable_directory)
    async with started(passable_directory) as dsn:
        await run(dsn, "CREATE TABLE kept AS SELECT 7 AS value")
        for _ in range(2):
            killed = postmaster_of(data)
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            await eventually(partial(has_ended, data, killed), 5)
            assert await eventually_runs(dsn, "SELECT value FROM kept", 20) == 7


async def test_a_killed_supervisor_does_not_leave_the_server_behind(
    passable_directory: Path,
) -> None:
    data = data_of(passable_directory)
    async with started(passable_directory) as dsn:
        first = postmaster_of(data)
        supervisor = int(Path(f"/proc/{first}/stat").read_text().split()[3])
        os.kill(supervisor, signal.SIGKILL)
        await eventually(lambda: postmaster_of(data) not in (first, None), 20)
        assert await eventually_runs(dsn, "SELECT 1", 20) == 1


async def test_a_second_owner_is_refused(passable_directory: Path) -> None:
    async with started(passable_directory) as dsn:
        second = EmbeddedPostgres(passable_directory)
        with pytest.raises(ConfigurationError, match=f"in use by process {os.getpid()}"):
            await second.start()
        await second.stop()
        assert await run(dsn, "SELECT 1") == 1


async def test_an_interrupted_first_start_is_forgotten(passable_directory: Path) -> None:
    server = EmbeddedPostgres(passable_directory)
    start = asyncio.create_task(server.start())
    base = passable_directory / "postgres"
    await eventually(lambda: any(base.glob("data-unfinished-*/PG_VERSION")), 10)
    start.cancel()
    await asyncio.wait([start])
    assert start.cancelled()
    assert not data_of(passable_directory).exists()
    async with started(passable_directory) as dsn:
        assert await run(dsn, "SELECT 1") == 1
    assert list(base.glob("data-unfinished-*")) == []


async def test_a_long_path_gets_a_socket_elsewhere(passable_directory: Path) -> None:
    data_dir = passable_directory / ("long" * 20) / ("longer" * 20)
    async with started(data_dir) as dsn:
        link = data_dir / "postgres" / "run"
        assert link.is_symlink()
        target = link.readlink()
        assert await run(dsn, "SELECT 1") == 1
    assert not target.exists()
    assert not link.is_symlink()


async def test_a_path_with_odd_characters_works(passable_directory: Path) -> None:
    async with started(passable_directory / "a b%20ü&?#'") as dsn:
        assert await migrate(dsn) is True
        database = await Database.open(dsn)
        assert await PostgresTaskStore(database).workspaces() == []
        await database.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its user")
async def test_root_is_told_of_a_directory_that_no_other_user_can_pass(
    passable_directory: Path,
) -> None:
    closed = passable_directory / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ConfigurationError, match=f"pass through {closed}") as refusal:
        await EmbeddedPostgres(closed / "data").start()
    assert "--data" in refusal.value.detail


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its user")
async def test_programs_out_of_reach_are_copied(
    passable_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "orchestrator.storage.postgres.embedded.blocking_directory", lambda _path: Path("/root")
    )
    async with started(passable_directory) as dsn:
        server = postmaster_of(data_of(passable_directory))
        program = Path(f"/proc/{server}/exe").readlink()
        assert program.is_relative_to(passable_directory / "postgres")
        await run(dsn, "CREATE EXTENSION vector")
        assert await run(dsn, "SELECT to_tsvector('english', 'boats')::text") == "'boat':1"


async def test_a_server_that_cannot_start_says_why(passable_directory: Path) -> None:
    async with started(passable_directory):
        pass
    (data_of(passable_directory) / "postgresql.conf").write_text("no_such_setting = 1\n")
    server = EmbeddedPostgres(passable_directory)
    with pytest.raises(DatabaseUnavailable, match="no_such_setting"):
        await server.start()
    await server.stop()


async def kill_postmaster(data: Path) -> None:
    os.kill(postmaster_of(data) or 0, signal.SIGKILL)


async def kill_all(data: Path) -> None:
    for pid in processes_of(data):
        with suppress(ProcessLookupError):  # one that did its work meanwhile
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kill", [kill_postmaster, kill_all])
async def test_followers_and_writers_live_through_a_crash(
    passable_directory: Path, kill: Callable[[Path], Awaitable[None]]
) -> None:
    async with started(passable_directory) as dsn:
        await migrate(dsn)
        database = await Database.open(dsn)
        tasks, log = PostgresTaskStore(database), PostgresEventLog(database)
        task = NewTask("t", "?", scratch_workspace("t"), (), (), Budget(1, 1, 1.0))
        await tasks.add(task, "sandbox")

        async def follow() -> list[Event]:
            return [event async for event in log.follow("t")]

        async def write() -> None:
            for number in range(400):
                await log.append("t", NewEvent(EventKind.NOTICE, 0, {"n": number}))
            await log.append("t", NewEvent(EventKind.FINISHED, 0, {}))

        followers = [asyncio.create_task(follow()) for _ in range(3)]
        writer = asyncio.create_task(write())
        await asyncio.sleep(0.2)  # somewhere in the middle: where does not matter
        await kill(data_of(passable_directory))
        async with asyncio.timeout(60):
            await writer
            for follower in followers:
                events = await follower
                assert [event.number for event in events] == list(range(1, 402))
                assert [event.data["n"] for event in events[:-1]] == list(range(400))
        await log.close()
        await database.close()


async def test_a_server_that_keeps_ending_comes_back_once_its_trouble_is_over(
    passable_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.storage.postgres.embedded._RESTART_DELAYS", (0.0, 0.1))
    data = data_of(passable_directory)
    async with started(passable_directory) as dsn:
        settings = data / "postgresql.conf"
        good = settings.read_text()
        settings.write_text("no_such_setting = 1\n")
        os.kill(postmaster_of(data) or 0, signal.SIGKILL)
        log = passable_directory / "postgres" / "log"
        for _ in range(4):  # more often than there are pauses
            await eventually(lambda: "no_such_setting" in log.read_text(), 20)
            log.write_text("")
        settings.write_text(good)
        assert await eventually_runs(dsn, "SELECT 1", 20) == 1
    assert processes_of(data) == set()
