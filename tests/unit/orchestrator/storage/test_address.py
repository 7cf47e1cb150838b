import pytest

from orchestrator.errors import ConfigurationError
from orchestrator.storage.postgres.address import parse_database_url


@pytest.mark.parametrize(
    ("raw", "dsn", "host"),
    [
        ("postgres://u:p@h/db", "postgresql://u:p@h/db", "h"),
        ("postgresql://u:p@h:5433/db", "postgresql://u:p@h:5433/db", "h:5433"),
        ("postgresql+asyncpg://u@h/db", "postgresql://u@h/db", "h"),
        ("postgresql+psycopg2://u@h/db", "postgresql://u@h/db", "h"),
        (" postgresql://h/db\n", "postgresql://h/db", "h"),
        ("postgresql:///db", "postgresql:///db", "the default socket"),
        ("postgresql:///db?host=/run/pg", "postgresql:///db?host=/run/pg", "/run/pg"),
        ("postgresql://u@/db?host=/a%20b", "postgresql://u@/db?host=/a%20b", "/a b"),
        ("postgresql://h/db?ssl=true", "postgresql://h/db?sslmode=require", "h"),
        ("postgresql://h/db?ssl=verify-full", "postgresql://h/db?sslmode=verify-full", "h"),
        (
            "postgresql://u:p@h/db?sslmode=require&channel_binding=require",
            "postgresql://u:p@h/db?sslmode=require",
            "h",
        ),
        ("postgresql://u:p%40%2F@h/db", "postgresql://u:p%40%2F@h/db", "h"),
        ("postgresql://u:p@[::1]:5432/db", "postgresql://u:p@[::1]:5432/db", "[::1]:5432"),
        ("postgresql://u:p@h1:1,h2:2/db", "postgresql://u:p@h1:1,h2:2/db", "h1:1,h2:2"),
    ],
)
def test_pasted_forms(raw: str, dsn: str, host: str) -> None:
    address = parse_database_url(raw)
    assert (address.dsn, address.host) == (dsn, host)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "mysql://h/db",
        "sqlite:///x",
        "h/db",
        "postgresql://u:p#ssw0rd@h/db",
        "postgresql://h/db?unheard_of=1",
        "postgresql://u:secret/x@h:5432/db",
    ],
)
def test_other_forms_are_refused_without_the_password(raw: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        parse_database_url(raw)
    assert "DATABASE_URL" in refusal.value.detail
    assert "ssw0rd" not in refusal.value.detail
    assert "secret" not in refusal.value.detail


def test_an_address_does_not_show_its_password() -> None:
    assert "hunter2" not in repr(parse_database_url("postgresql://u:hunter2@h/db"))
