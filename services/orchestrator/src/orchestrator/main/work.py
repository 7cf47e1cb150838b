"""How a task is carried out: the engine, the agent, its trees and its conversation."""

from dataclasses import dataclass

from orchestrator.agent import Agent
from orchestrator.clock import SystemClock
from orchestrator.domain.task import Task
from orchestrator.durability.dbos_engine import DbosEngine
from orchestrator.flow.custody import Custody
from orchestrator.flow.inherit import Inherit, RequireTree
from orchestrator.flow.inputs import Inputs
from orchestrator.flow.past_tree import require_past_tree
from orchestrator.flow.preserve import Preserve
from orchestrator.flow.recall import Recall
from orchestrator.flow.run_task import RunTask
from orchestrator.flow.supply import Supply
from orchestrator.flow.task_parts import TaskParts
from orchestrator.gateway.checkpoint_store import GitCheckpointStore
from orchestrator.instructions import INSTRUCTIONS
from orchestrator.main.containers import Containers
from orchestrator.main.metadata import Metadata
from orchestrator.main.outside import Outside
from orchestrator.ports import Worker
from orchestrator.settings import Settings


@dataclass(frozen=True, slots=True)
class Work:
    """What carries tasks out, and what tells of their past."""

    engine: DbosEngine
    run_task: RunTask
    custody: Custody
    recall: Recall
    inputs: Inputs
    require_tree: RequireTree


async def make_work(settings: Settings, outside: Outside, containers: Containers) -> Work:
    """Put it together; no task is begun."""
    metadata = outside.metadata
    inputs = Inputs(outside.objects)
    engine, agent = _engine(settings, metadata), _agent(settings)
    recall = Recall(metadata.tasks, engine, agent.repeats_named)

    async def require_tree(task: Task, worker: Worker) -> None:
        # A tree may come from an earlier one, and that one back from storage by the same way.
        await require_past_tree(task, worker, custody.restore)

    supply = Supply(outside.repositories, Inherit(metadata.tasks, require_tree))
    custody = await _custody(settings, outside, supply)
    run_task = RunTask(
        TaskParts(
            lease=containers.lease,
            supply=supply,
            custody=custody,
            egress=outside.egress,
            disk=containers.disk,
            inputs=inputs,
            running=containers.running,
            model=outside.model,
            tasks=metadata.patient_tasks,
            events=metadata.patient_events,
            live_text=metadata.live_text,
            clock=SystemClock(),
            agent=agent,
            recall=recall,
            tool_output_chars=settings.tool_output_chars,
        )
    )
    return Work(engine, run_task, custody, recall, inputs, require_tree)


def _engine(settings: Settings, metadata: Metadata) -> DbosEngine:
    return DbosEngine(
        metadata.database.address.dsn,
        executor_id=metadata.identity.executor_id,
        per_workspace=settings.max_workspace_tasks,
        at_once=settings.max_running_tasks,
    )


def _agent(settings: Settings) -> Agent:
    return Agent(
        name="default",
        instructions=INSTRUCTIONS,
        model=settings.llm_model,
        context_tokens=settings.context_tokens,
        model_timeout_seconds=settings.model_timeout_seconds,
    )


async def _custody(settings: Settings, outside: Outside, supply: Supply) -> Custody:
    store = GitCheckpointStore(
        settings.data_dir,
        repositories=outside.repositories,
        max_bytes=settings.max_repository_bytes,
    )
    return await Custody.open(
        preserve=Preserve(outside.objects, SystemClock()),
        store=store,
        supply=supply,
        events=outside.metadata.events,
        tasks=outside.metadata.tasks,
        room=settings.data_dir / "bundles",
    )
