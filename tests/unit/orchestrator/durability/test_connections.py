from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy.exc import OperationalError

from orchestrator.durability.connections import durable_connections


@pytest.mark.parametrize("host", ["127.0.0.1:1", None])
def test_a_server_that_does_not_answer_is_a_lost_connection(
    host: str | None, tmp_path: Path
) -> None:
    place = f"{host}/postgres" if host else f"/postgres?host={tmp_path}"
    engine = durable_connections(f"postgresql://berth@{place}")
    with pytest.raises(OperationalError) as failure:
        engine.connect()
    assert failure.value.connection_invalidated
    engine.dispose()


def test_what_the_server_refuses_is_no_lost_connection(postgres_server: str) -> None:
    engine = durable_connections(postgres_server)
    with engine.connect() as connection:
        setting = connection.execute(
            sqlalchemy.text("SHOW idle_in_transaction_session_timeout")
        ).scalar()
        with pytest.raises(sqlalchemy.exc.DBAPIError) as failure:
            connection.execute(sqlalchemy.text("SELECT 1 / 0"))
    assert setting == "1min"
    assert not failure.value.connection_invalidated
    engine.dispose()
