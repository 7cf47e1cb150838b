import asyncio
from urllib.parse import urlsplit

import asyncpg
import pytest

from orchestrator.errors import DatabaseUnavailable
from orchestrator.storage.postgres.pool import Database, is_connection_lost


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (ConnectionRefusedError(), True),
        (ConnectionResetError(), True),
        (FileNotFoundError(), True),
        (asyncpg.ConnectionDoesNotExistError(), True),
        (asyncpg.AdminShutdownError(), True),
        (asyncpg.CannotConnectNowError(), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        (asyncpg.InternalClientError(), True),
        (TimeoutError(), False),
        (asyncpg.QueryCanceledError(), False),
        (asyncpg.exceptions._base.DataError("invalid input"), False),
        (asyncpg.UniqueViolationError(), False),
        (asyncpg.InvalidPasswordError(), False),
    ],
)
def test_what_counts_as_a_lost_connection(error: Exception, lost: bool) -> None:
    assert is_connection_lost(error) is lost


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hunter2@127.0.0.1:1/db",
        "postgresql://user:hunter2@/db?host=/nowhere",
        "postgresql://user:hunter2@name.invalid/db",
    ],
)
async def test_an_unreachable_database_is_named_without_the_password(url: str) -> None:
    with pytest.raises(DatabaseUnavailable) as failure:
        await Database.open(url)
    assert "hunter2" not in failure.value.detail + str(failure.value.facts)
    assert str(failure.value.facts["host"]) in failure.value.detail
    assert "DATABASE_URL" in failure.value.detail


async def test_a_missing_database_is_unavailable(postgres_server: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="nowhere"):
        await Database.open(postgres_server.replace("/postgres?", "/nowhere?"))


async def test_a_broken_connection_is_replaced(postgres_url: str) -> None:
    database = await Database.open(postgres_url, max_size=1)
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            # Each try ends its own connection, so the bound is reached.
            await database.rows("SELECT pg_terminate_backend(pg_backend_pid())")
        assert await database.row("SELECT 1 AS one") is not None
    await database.close()


async def test_a_database_that_lets_nobody_in_is_unavailable_until_it_does(
    postgres_server: str, postgres_url: str
) -> None:
    name = urlsplit(postgres_url).path.removeprefix("/")
    database = await Database.open(postgres_url)
    administrator = await asyncpg.connect(postgres_server)
    await administrator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await administrator.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
    )
    with pytest.raises(DatabaseUnavailable, match="not currently accepting connections"):
        await database.rows("SELECT 1")
    await administrator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    await administrator.close()
    assert await database.row("SELECT 1 AS one") is not None
    await database.close()


async def test_json_goes_in_and_comes_out(postgres_url: str) -> None:
    database = await Database.open(postgres_url)
    value = {"a": [1, 2.5, None, "é\x00"]}
    row = await database.row("SELECT $1::jsonb AS value", value)
    assert row is not None
    assert row["value"] == {"a": [1, 2.5, None, "é\ufffd"]}
    await database.close()


async def test_closing_does_not_wait_for_a_statement_forever(postgres_url: str) -> None:
    database = await Database.open(postgres_url)
    running = asyncio.create_task(database.rows("SELECT pg_sleep(0.2)"))
    await asyncio.sleep(0.05)
    await database.close()
    await running
