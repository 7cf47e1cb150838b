"""Fixtures for every test: a real Postgres, one for the session and a database for each test."""

import asyncio
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from orchestrator.storage.postgres import EmbeddedPostgres, migrate

TEMPLATE = "berth_template"


def address_of(server: str, database: str) -> str:
    """The address of another database on the same server."""
    parts = urlsplit(server)
    return f"{parts.scheme}://{parts.netloc}/{database}?{parts.query}"


async def run_on_server(server: str, statement: str) -> None:
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
def passable_directory() -> Iterator[Path]:
    """A directory that other users can pass through, as the server needs when we are root."""
    directory = Path(tempfile.mkdtemp(prefix="berth-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a server for the session, with a migrated template database."""
    directory = Path(tempfile.mkdtemp(prefix="berth-test-"))
    directory.chmod(0o755)
    server = EmbeddedPostgres(directory, durable=False)
    # The loop stands still between these calls, so nothing restarts this server.
    with asyncio.Runner() as runner:
        address = runner.run(server.start())
        try:
            runner.run(run_on_server(address, f"CREATE DATABASE {TEMPLATE}"))
            runner.run(migrate(address_of(address, TEMPLATE)))
            yield address
        finally:
            runner.run(server.stop())
            shutil.rmtree(directory)


async def _database(server: str, template: str) -> AsyncIterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    await run_on_server(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield address_of(server, name)
    await run_on_server(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def postgres_url(postgres_server: str) -> AsyncIterator[str]:
    """The address of a fresh database with the newest schema."""
    async for url in _database(postgres_server, TEMPLATE):
        yield url


@pytest.fixture
async def empty_postgres_url(postgres_server: str) -> AsyncIterator[str]:
    """The address of a fresh database without any table."""
    async for url in _database(postgres_server, "template1"):
        yield url
