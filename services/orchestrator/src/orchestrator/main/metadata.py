"""What lies in Postgres."""

import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog

from orchestrator.clock import SystemClock
from orchestrator.data_directory import executor_id
from orchestrator.domain.fleet import Identity
from orchestrator.errors import DatabaseUnavailable
from orchestrator.settings import Settings
from orchestrator.storage.postgres.cancels import PostgresCancels
from orchestrator.storage.postgres.embedded import EmbeddedPostgres
from orchestrator.storage.postgres.events import PostgresEventLog
from orchestrator.storage.postgres.executors import PostgresExecutors
from orchestrator.storage.postgres.leases import PostgresLeases
from orchestrator.storage.postgres.live_text import PostgresLiveText
from orchestrator.storage.postgres.migrations import migrate
from orchestrator.storage.postgres.pool import Database
from orchestrator.storage.postgres.tasks import PostgresTaskStore
from orchestrator.storage.postgres.workspace_settings import PostgresWorkspaceSettings

VITAL_CONNECTIONS = 2

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Metadata:
    """The stores in Postgres.

    A running task waits out an outage of Postgres, with `patient_…`; a
    caller is told of it.
    """

    database: Database
    tasks: PostgresTaskStore
    patient_tasks: PostgresTaskStore
    events: PostgresEventLog
    patient_events: PostgresEventLog
    settings: PostgresWorkspaceSettings
    patient_settings: PostgresWorkspaceSettings
    live_text: PostgresLiveText
    cancels: PostgresCancels
    identity: Identity
    executors: PostgresExecutors
    leases: PostgresLeases

    async def holders(self) -> Mapping[str, str]:
        """The executor that works in each leased workspace."""
        return {each.workspace_id: each.executor_id for each in await self.leases.held()}

    async def resign(self) -> None:
        """Hand over at once; if Postgres is away, others do without after three heartbeats."""
        try:
            await self.executors.resign()
        except DatabaseUnavailable as failure:
            log.warning("not_resigned", detail=failure.detail)


async def open_metadata(settings: Settings, stack: AsyncExitStack) -> Metadata:
    """Connect to the Postgres of the settings, or to one that is started for us.

    Raises:
        BerthError: It cannot be started or reached, or its schema is not ours.
    """
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
    else:
        embedded = EmbeddedPostgres(settings.data_dir)
        stack.push_async_callback(embedded.stop)
        url = await embedded.start()
    await migrate(url)
    database = await Database.open(url)
    stack.push_async_callback(database.close)
    events = PostgresEventLog(database)
    stack.push_async_callback(events.close)
    live_text = PostgresLiveText(database, events.notifications)
    stack.push_async_callback(live_text.close)
    # Heartbeats have connections of their own: they must not queue behind the work.
    vital = await Database.open(url, max_size=VITAL_CONNECTIONS)
    stack.push_async_callback(vital.close)
    identity = Identity(executor_id(settings.data_dir), secrets.token_hex(8))
    executors = PostgresExecutors(vital, identity, settings.heartbeat_seconds, SystemClock())
    patient = database.patient()
    return Metadata(
        database=database,
        tasks=PostgresTaskStore(database),
        patient_tasks=PostgresTaskStore(patient),
        events=events,
        patient_events=PostgresEventLog(patient),
        settings=PostgresWorkspaceSettings(database),
        patient_settings=PostgresWorkspaceSettings(patient),
        live_text=live_text,
        cancels=PostgresCancels(database),
        identity=identity,
        executors=executors,
        leases=PostgresLeases(database, executors),
    )
