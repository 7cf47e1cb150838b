"""Brings a database to the newest schema."""

import asyncio
from pathlib import Path

import asyncpg

from orchestrator.errors import ConfigurationError
from orchestrator.storage.postgres.address import DatabaseAddress, parse_database_url
from orchestrator.storage.postgres.pool import CONNECT_SECONDS, DriverError, unavailable

__all__ = ["migrate", "revisions"]

DIRECTORY = Path(__file__).parent


def revisions() -> tuple[str, ...]:
    """The names of all revisions, the oldest first: the numbers that their SQL files start with."""
    return tuple(sorted(path.name.partition("_")[0] for path in DIRECTORY.glob("versions/*.sql")))


async def migrate(url: str) -> bool:
    """Bring the database to the newest schema; True if anything was to be done.

    Several processes may do this at once: one works, the others wait and find it done.

    Raises:
        ConfigurationError: The address is not valid, or a newer Berth made the schema.
        DatabaseUnavailable: Postgres does not answer.
    """
    address = parse_database_url(url)
    current = await _current_revision(address)
    known = revisions()
    if current == known[-1]:
        # The usual case, known without the half second that importing Alembic takes.
        return False
    if current is not None and current not in known:
        raise ConfigurationError(
            f"The database has the schema {current}, which this version of Berth does not know: "
            "start a newer version, or use another database."
        )
    await asyncio.to_thread(_upgrade, address)
    return True


async def _current_revision(address: DatabaseAddress) -> str | None:
    try:
        connection = await asyncpg.connect(address.dsn, timeout=CONNECT_SECONDS)
        try:
            if await connection.fetchval("SELECT to_regclass('alembic_version') IS NULL"):
                return None
            revision = await connection.fetchval("SELECT version_num FROM alembic_version")
        finally:
            await connection.close()
    except DriverError as error:
        raise unavailable(address, error) from error
    return str(revision) if revision else None


def _upgrade(address: DatabaseAddress) -> None:
    from orchestrator.storage.postgres.migrations.upgrade import (  # noqa: PLC0415 - slow to import
        upgrade,
    )

    upgrade(address, DIRECTORY)
