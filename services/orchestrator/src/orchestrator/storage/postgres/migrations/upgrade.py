"""Runs the revisions with Alembic; imported only when there is something to do."""

from pathlib import Path

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config

from orchestrator.storage.postgres.address import DatabaseAddress
from orchestrator.storage.postgres.pool import unavailable

# Any number that no other program uses on this database: the lock of all our migrations.
LOCK = 4_271_803_591
LOCK_SECONDS = 60


def upgrade(address: DatabaseAddress, directory: Path) -> None:
    """Run all missing revisions in one transaction, alone.

    Raises:
        DatabaseUnavailable: Postgres broke off, or another process kept it locked for too long.
    """
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(address.dsn),
        poolclass=sqlalchemy.NullPool,
    )
    config = Config()
    # Config reads values with `%` interpolation, and a path may hold one.
    config.set_main_option("script_location", str(directory).replace("%", "%%"))
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except sqlalchemy.exc.OperationalError as error:
        raise unavailable(address, error.orig or error) from error
