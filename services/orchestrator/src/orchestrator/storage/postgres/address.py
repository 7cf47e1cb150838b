"""The address of a Postgres: what users paste, made fit for every driver we use."""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from orchestrator.errors import ConfigurationError

_SCHEME = re.compile(r"^postgres(ql)?(\+\w+)?$")
_HOST = r"(\[[0-9A-Fa-f:.]+\]|[^:\[\],]*)(:\d+)?"
_HOSTS = re.compile(f"^{_HOST}(,{_HOST})*$")
# Asyncpg and libpq both understand these.
_SHARED = frozenset(
    {
        "host",
        "port",
        "user",
        "password",
        "dbname",
        "passfile",
        "sslmode",
        "sslcert",
        "sslkey",
        "sslrootcert",
        "sslcrl",
        "target_session_attrs",
        "application_name",
        "options",
        "krbsrvname",
    }
)
_RENAMED = {"ssl": "sslmode", "database": "dbname"}
_SSL_FLAGS = {"true": "require", "1": "require", "false": "disable", "0": "disable"}
# Hosting providers and other clients add these; they tune those clients, not the connection.
_DROPPED = frozenset(
    {
        "channel_binding",
        "pgbouncer",
        "connection_limit",
        "pool_timeout",
        "connect_timeout",
        "prepared_statement_cache_size",
        "statement_cache_size",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
    }
)


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """An address for asyncpg and libpq alike; `host` may be shown, `dsn` may hold a password."""

    dsn: str = field(repr=False)
    host: str


def parse_database_url(raw: str) -> DatabaseAddress:
    """Make a pasted address canonical.

    Accepts `postgres://` and `postgresql://`, with or without a driver such as `+asyncpg`, and a
    socket directory as `?host=/directory`.

    Raises:
        ConfigurationError: It is no Postgres address, or has a parameter that we do not know.
    """
    try:
        parts = urlsplit(raw.strip())
    except ValueError:
        raise _malformed() from None
    if not _SCHEME.match(parts.scheme):
        raise ConfigurationError(
            "DATABASE_URL must start with postgresql:// (or postgres://); no other database is "
            "supported."
        )
    hosts = parts.netloc.rpartition("@")[2]
    if parts.fragment or "@" in parts.path or not _HOSTS.match(hosts):
        raise _malformed()
    parameters = dict(_parameters(parts.query))
    # Percent-encoded throughout: libpq does not read '+' as a space.
    query = urlencode(parameters, safe="/", quote_via=quote)
    dsn = f"postgresql://{parts.netloc}{parts.path}" + (f"?{query}" if query else "")
    return DatabaseAddress(dsn, parameters.get("host") or hosts or "the default socket")


def _parameters(query: str) -> list[tuple[str, str]]:
    kept = []
    for given, value in parse_qsl(query, keep_blank_values=True):
        if given in _DROPPED:
            continue
        name = _RENAMED.get(given, given)
        if name not in _SHARED:
            raise ConfigurationError(
                f"DATABASE_URL has the parameter {given!r}, which Berth does not know: remove it."
            )
        kept.append((name, _SSL_FLAGS.get(value.lower(), value) if given == "ssl" else value))
    return kept


def _malformed() -> ConfigurationError:
    return ConfigurationError(
        "DATABASE_URL is not a valid address: write '#', '/', '?', '@' and ':' in its user name "
        "and password percent-encoded."
    )
