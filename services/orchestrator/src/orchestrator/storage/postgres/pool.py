"""Connections to Postgres, and how statements are run when they break."""

import asyncio
import json
from collections.abc import Sequence
from typing import Self

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from orchestrator.errors import DatabaseUnavailable
from orchestrator.storage.postgres.address import DatabaseAddress, parse_database_url
from orchestrator.storage.postgres.text import dump_json

CONNECT_SECONDS = 10.0
STATEMENT_SECONDS = 30.0
POOL_SIZE = 10

# A Postgres that restarts is back within these; a longer outage is reported.
RETRY_DELAYS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
# A task can wait where a caller cannot: half an hour, and then it is left to the next start.
PATIENT_DELAYS = (*RETRY_DELAYS, *(2.0,) * 900)

DriverError = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What asyncpg raises when a connection or a statement fails."""


def is_connection_lost(error: Exception) -> bool:
    """True if the connection broke or the server is going down, and trying again may help.

    A statement that took too long (`TimeoutError`, a canceled query) is not lost: the server
    is there.
    """
    if isinstance(error, TimeoutError | asyncpg.QueryCanceledError):
        return False
    if type(error) is asyncpg.InterfaceError:
        return True  # "connection is closed"; misuse raises subclasses
    return isinstance(
        error,
        OSError
        | asyncpg.InternalClientError  # the server's last words came at an unexpected moment
        | asyncpg.PostgresConnectionError
        | asyncpg.OperatorInterventionError
        | asyncpg.TooManyConnectionsError,
    )


class Database:
    """A pool of connections to one Postgres; `open` makes it."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        address: DatabaseAddress,
        delays: Sequence[float] = RETRY_DELAYS,
    ) -> None:
        self._pool = pool
        self._address = address
        self._delays = delays

    @classmethod
    async def open(cls, url: str, *, max_size: int = POOL_SIZE) -> Self:
        """Connect to the Postgres at `url`, in any form `parse_database_url` takes.

        Raises:
            ConfigurationError: The address is not valid.
            DatabaseUnavailable: It does not answer or does not let us in.
        """
        address = parse_database_url(url)
        try:
            pool = await asyncpg.create_pool(
                address.dsn,
                min_size=0,  # with a minimum, asyncpg logs a traceback for every outage
                max_size=max_size,
                init=_prepare,
                timeout=CONNECT_SECONDS,
                command_timeout=STATEMENT_SECONDS,
            )
            await pool.fetchval("SELECT 1")
        except DriverError as error:
            raise unavailable(address, error) from error
        return cls(pool, address)

    def patient(self) -> Self:
        """The same pool for those who would rather wait out an outage than be told of it."""
        return type(self)(self._pool, self._address, PATIENT_DELAYS)

    @property
    def address(self) -> DatabaseAddress:
        """Where this Postgres is."""
        return self._address

    async def rows(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        """Run a statement and return its rows.

        When the connection breaks it is run again, a bounded number of times: it must only read,
        or be written so that a second run changes nothing.

        Raises:
            DatabaseUnavailable: Postgres did not answer, or not in time.
        """
        for delay in self._delays:
            try:
                return await self._once(sql, arguments)
            except DriverError as error:
                if not is_connection_lost(error):
                    raise self._translated(error) from error
            await asyncio.sleep(delay)
        try:
            return await self._once(sql, arguments)
        except DriverError as error:
            raise self._translated(error) from error

    async def row(self, sql: str, *arguments: object) -> asyncpg.Record | None:
        """Run a statement like `rows` and return its first row, if any."""
        rows = await self.rows(sql, *arguments)
        return rows[0] if rows else None

    async def connect(self) -> asyncpg.Connection:
        """A connection outside the pool, for the caller to close.

        Raises:
            DatabaseUnavailable: Postgres does not answer.
        """
        try:
            return await asyncpg.connect(self._address.dsn, timeout=CONNECT_SECONDS)
        except DriverError as error:
            raise unavailable(self._address, error) from error

    async def close(self) -> None:
        """Close all connections, at once if they do not end in time."""
        try:
            await asyncio.wait_for(self._pool.close(), CONNECT_SECONDS)
        except TimeoutError:
            self._pool.terminate()

    async def _once(self, sql: str, arguments: tuple[object, ...]) -> list[asyncpg.Record]:
        connection = await self._acquired()
        try:
            return await connection.fetch(sql, *arguments)
        except asyncpg.InternalClientError:
            connection.terminate()
            raise
        finally:
            await self._pool.release(connection)

    async def _acquired(self) -> PoolConnectionProxy:
        try:
            return await self._pool.acquire(timeout=STATEMENT_SECONDS)
        except asyncpg.PostgresError as error:
            # It is there and lets nobody in, who was let in before: that passes, like an outage.
            raise ConnectionRefusedError(str(error)) from error

    def _translated(self, error: Exception) -> Exception:
        if is_connection_lost(error) or isinstance(error, TimeoutError):
            return unavailable(self._address, error)
        return error


def unavailable(address: DatabaseAddress, error: BaseException) -> DatabaseUnavailable:
    """The error for the user: host and reason, never the address itself."""
    reason = str(error) or type(error).__name__
    return DatabaseUnavailable(
        f"Postgres at {address.host} cannot be used ({reason}): check that it runs and that "
        "DATABASE_URL names it, or unset DATABASE_URL to use the embedded one.",
        host=address.host,
    )


async def _prepare(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=dump_json, decoder=json.loads
    )
