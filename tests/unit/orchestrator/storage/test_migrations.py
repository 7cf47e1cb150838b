import asyncio
import subprocess
import sys

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from orchestrator.domain.task import TaskStatus
from orchestrator.errors import ConfigurationError, DatabaseUnavailable
from orchestrator.storage.postgres.migrations import DIRECTORY, migrate, revisions


async def fetch(url: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(statement)
    finally:
        await connection.close()


def test_the_newest_revision_is_alembics_head() -> None:
    config = Config()
    config.set_main_option("script_location", str(DIRECTORY))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [revisions()[-1]]
    assert {revision.revision for revision in script.walk_revisions()} == set(revisions())


async def test_an_empty_database_gets_the_schema_once(empty_postgres_url: str) -> None:
    assert await migrate(empty_postgres_url) is True
    assert await migrate(empty_postgres_url) is False
    rows = await fetch(empty_postgres_url, "SELECT version_num FROM alembic_version")
    assert [row["version_num"] for row in rows] == [revisions()[-1]]


async def test_several_at_once_do_not_clash(empty_postgres_url: str) -> None:
    program = (
        "import asyncio, sys; from orchestrator.storage.postgres import migrate; "
        "asyncio.run(migrate(sys.argv[1]))"
    )
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, empty_postgres_url)
        for _ in range(3)
    ]
    codes = await asyncio.gather(*(process.wait() for process in processes))
    assert codes == [0, 0, 0]
    assert await fetch(empty_postgres_url, "SELECT * FROM tasks") == []


async def test_a_newer_schema_is_refused(postgres_url: str) -> None:
    await fetch(postgres_url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigurationError, match="9999"):
        await migrate(postgres_url)


async def test_a_missing_database_is_unavailable() -> None:
    with pytest.raises(DatabaseUnavailable):
        await migrate("postgresql://127.0.0.1:1/db")


def test_a_current_database_needs_no_alembic(postgres_server: str) -> None:
    program = (
        "import asyncio, sys; from orchestrator.storage.postgres import migrate; "
        "assert asyncio.run(migrate(sys.argv[1])) is False; "
        "assert not {'alembic', 'sqlalchemy', 'psycopg'} & set(sys.modules)"
    )
    current = postgres_server.replace("/postgres?", "/berth_template?")
    subprocess.run([sys.executable, "-c", program, current], check=True, timeout=60)


INSERT = """
INSERT INTO workspaces (id, key, repositories, worker_key) VALUES ('w', 'k', '[]', repeat('x', 43));
INSERT INTO tasks (id, workspace_id, runtime, query, start, max_steps, max_tokens, max_seconds)
VALUES ('t', 'w', 'sandbox', '?', '[]', 1, 1, 1);
"""


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tasks SET status = 'succeeded'",
        "UPDATE tasks SET finished_at = now()",
        "UPDATE tasks SET status = 'paused'",
        "UPDATE tasks SET error_code = 'x', error_detail = 'y'",
        "UPDATE tasks SET workspace_id = 'other'",
        "UPDATE workspaces SET worker_key = 'short'",
        "INSERT INTO events (task_id, number, kind, step, data, append_id) "
        "VALUES ('t', 0, 'notice', 0, '{}', gen_random_uuid())",
        "INSERT INTO events (task_id, number, kind, step, data, append_id) "
        "VALUES ('t', 1, 'finished', 0, '{}', gen_random_uuid()), "
        "('t', 2, 'finished', 0, '{}', gen_random_uuid())",
        "INSERT INTO events (task_id, number, kind, step, data, append_id) "
        "VALUES ('none', 1, 'notice', 0, '{}', gen_random_uuid())",
    ],
)
async def test_the_schema_holds_its_invariants(postgres_url: str, statement: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(INSERT)
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_every_status_is_known_to_the_schema(postgres_url: str) -> None:
    [row] = await fetch(
        postgres_url,
        "SELECT pg_get_constraintdef(oid) AS text FROM pg_constraint "
        "WHERE conname = 'tasks_status_is_known'",
    )
    assert all(f"'{status.value}'" in row["text"] for status in TaskStatus)
