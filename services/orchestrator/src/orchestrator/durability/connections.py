"""The durable engine's connections to Postgres.

DBOS waits for a Postgres that is away, but knows an outage by the words of the driver's message,
which are others when nothing listens at the address. Here it is told by what the error is.
"""

import psycopg
import sqlalchemy
from sqlalchemy.engine import ExceptionContext

POOL_SIZE = 20
POOL_SECONDS = 30
CONNECT_SECONDS = 10
IDLE_IN_TRANSACTION = ("idle_in_transaction_session_timeout", "60s")
"""A process that hangs in a transaction must not hold its locks for ever."""


def durable_connections(url: str) -> sqlalchemy.Engine:
    """A pool of connections whose every loss is marked as one; it connects when first used.

    Args:
        url: Postgres address in the form that psycopg takes.
    """
    address = sqlalchemy.make_url(url).set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(
        address,
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
        pool_pre_ping=True,
        connect_args={"connect_timeout": CONNECT_SECONDS},
    )
    sqlalchemy.event.listen(engine, "connect", _prepare)
    sqlalchemy.event.listen(engine, "handle_error", _mark_loss)
    return engine


def _prepare(connection: psycopg.Connection, _record: object) -> None:
    connection.execute("SELECT set_config(%s, %s, false)", IDLE_IN_TRANSACTION)
    connection.commit()


def _mark_loss(context: ExceptionContext) -> None:
    error = context.original_exception
    # What the server says has a state; an operational error without one never reached it.
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        context.is_disconnect = True
