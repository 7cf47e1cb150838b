"""Durable tasks by DBOS, in the same Postgres as the rest of the metadata.

A task is a DBOS workflow named by the task's id, so that submitting it twice makes one. DBOS keeps
the result of every completed step; after a crash the workflow's code runs again from the top, and
a step that has a result returns it instead of running.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import structlog
from dbos import DBOS, DBOSConfig, SetEnqueueOptions, SetWorkflowID

# DBOS has takeover and its fencing, without a public name for them; its version is pinned.
from dbos._context import current_owner_xid
from dbos._dbos import _get_dbos_instance
from dbos._error import DBOSWorkflowConflictIDError
from pydantic import TypeAdapter

from orchestrator.domain.steps import StepRecord
from orchestrator.durability.connections import durable_connections
from orchestrator.errors import DatabaseUnavailable, StaleLease
from orchestrator.ports import RunTaskDurably

log = structlog.get_logger(__name__)

APPLICATION = "berth"
QUEUE = "tasks"
# Steps of one version must be found by the next: the version is that of the steps' form, not ours.
STEPS_VERSION = "1"
POLL_SECONDS = 0.05
T = TypeVar("T")


class DbosSteps:
    """`ports.Steps` inside the workflow of one task."""

    async def run(self, name: str, kind: type[T], work: Callable[[], Awaitable[T]]) -> T:
        """See `ports.Steps.run`."""
        adapter: TypeAdapter[T] = TypeAdapter(kind)

        left: list[StaleLease | DatabaseUnavailable] = []

        async def as_json() -> str:
            try:
                return adapter.dump_json(await work()).decode()
            except (StaleLease, DatabaseUnavailable) as error:
                # DBOS keeps errors as the step's result, but not cancellations; and this one says
                # nothing of the step, which is to be done by whoever has the task next.
                left.append(error)
                raise asyncio.CancelledError from None

        try:
            kept = await DBOS.run_step_async({"name": name}, as_json)
        except asyncio.CancelledError:
            if left:
                raise left[0] from None
            raise
        except DBOSWorkflowConflictIDError:
            raise StaleLease(
                "The task was handed to another orchestrator, which goes on with it.", step=name
            ) from None
        return adapter.validate_json(kept)


class DbosEngine:
    """`ports.Engine`.

    Args:
        database_url: Postgres address in the form that psycopg takes.
        executor_id: Names this orchestrator; the same after a restart.
        per_workspace: Tasks of one workspace that run at once, over all orchestrators.
        at_once: Tasks that this orchestrator runs at once.
    """

    def __init__(
        self, database_url: str, *, executor_id: str, per_workspace: int, at_once: int
    ) -> None:
        self._connections = durable_connections(database_url)
        self._config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_engine": self._connections,
            "system_database_url": database_url,
            "executor_id": executor_id,
            "application_version": STEPS_VERSION,
            "log_level": "ERROR",
        }
        self._executor_id = executor_id
        self._per_workspace = per_workspace
        self._at_once = at_once
        self._workflow: Callable[[str], Coroutine[Any, Any, None]] | None = None

    async def start(self, run: RunTaskDurably) -> None:
        """See `ports.Engine.start`."""
        DBOS(config=self._config)

        @DBOS.workflow(name="run_task")
        async def run_task(task_id: str) -> None:
            # Names this very run: whoever takes the task over writes another one.
            owner = current_owner_xid(task_id)
            try:
                await run(task_id, DbosSteps())
            except (StaleLease, DatabaseUnavailable) as left:
                log.warning("task_left", task=task_id, code=left.code, detail=left.detail)
                await asyncio.to_thread(self._give_back, task_id, owner)
                raise asyncio.CancelledError from None

        self._workflow = run_task
        try:
            # On this loop's own thread: DBOS then runs its workflows on this loop, where our
            # connections live.
            DBOS.launch()
            await DBOS.register_queue_async(
                QUEUE,
                worker_concurrency=self._at_once,
                partition_concurrency=self._per_workspace,
                polling_interval_sec=POLL_SECONDS,
                on_conflict="always_update",
            )
        except Exception as error:
            raise DatabaseUnavailable(
                f"The durable queue cannot be set up in Postgres ({type(error).__name__}). Check "
                "DATABASE_URL and that its user may create schemas."
            ) from error

    async def submit(self, task_id: str, workspace_id: str) -> None:
        """See `ports.Engine.submit`."""
        if self._workflow is None:
            raise RuntimeError("submit before start")
        with SetWorkflowID(task_id), SetEnqueueOptions(queue_partition_key=workspace_id):
            await DBOS.enqueue_workflow_async(QUEUE, self._workflow, task_id)

    async def owners(self) -> frozenset[str]:
        """See `ports.Engine.owners`."""
        pending = await DBOS.list_workflows_async(
            status="PENDING", app_version=STEPS_VERSION, load_input=False, load_output=False
        )
        return frozenset(each.executor_id for each in pending if each.executor_id)

    async def recover(self, executor_ids: Sequence[str]) -> int:
        """See `ports.Engine.recover`."""
        recover = DBOS._recover_pending_workflows  # noqa: SLF001 - the only way but by hand
        handles = await asyncio.to_thread(recover, list(executor_ids))
        return len(handles)

    async def completed(self, task_id: str) -> Sequence[StepRecord]:
        """See `ports.Engine.completed`."""
        listed = await DBOS.list_workflow_steps_async(task_id)
        return [
            StepRecord(each["function_name"], each["output"])
            for each in listed
            # A step that failed has an error and no output.
            if isinstance(each["output"], str)
        ]

    async def stop(self) -> None:
        """See `ports.Engine.stop`."""
        loop = asyncio.get_running_loop()
        destroy = partial(DBOS.destroy, workflow_completion_timeout_sec=0)
        with ThreadPoolExecutor(1) as own:
            await loop.run_in_executor(own, destroy)
            await loop.run_in_executor(own, self._connections.dispose)
        # DBOS has made its thread pool the loop's default and has just shut that down.
        loop.set_default_executor(ThreadPoolExecutor())

    def _give_back(self, task_id: str, owner: str | None) -> None:
        """Queue a task again, unless somebody has taken it from this run of it."""
        records = _get_dbos_instance()._sys_db  # noqa: SLF001 - it has the conditional update
        if records.get_workflow_owner(task_id) == owner:
            records.reenqueue_for_recovery(task_id, [self._executor_id], QUEUE)
