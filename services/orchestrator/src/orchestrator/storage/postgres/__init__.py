"""Metadata in Postgres: an embedded server, a pool, migrations, named queries, stores.

    url = settings.database_url or await EmbeddedPostgres(data_dir).start()
    await migrate(url)
    database = await Database.open(url)
    tasks, events = PostgresTaskStore(database), PostgresEventLog(database)

At the end close in reverse: `events.close()`, `database.close()`, the embedded server's `stop()`.
"""

from orchestrator.storage.postgres.embedded import EmbeddedPostgres
from orchestrator.storage.postgres.events import PostgresEventLog
from orchestrator.storage.postgres.executors import PostgresExecutors
from orchestrator.storage.postgres.leases import PostgresLeases
from orchestrator.storage.postgres.live_text import PostgresLiveText
from orchestrator.storage.postgres.migrations import migrate
from orchestrator.storage.postgres.pool import Database
from orchestrator.storage.postgres.tasks import PostgresTaskStore

__all__ = [
    "Database",
    "EmbeddedPostgres",
    "PostgresEventLog",
    "PostgresExecutors",
    "PostgresLeases",
    "PostgresLiveText",
    "PostgresTaskStore",
    "migrate",
]
