"""The parts that every run of a task shares."""

from dataclasses import dataclass

from orchestrator.agent import Agent
from orchestrator.flow.custody import Custody
from orchestrator.flow.disk import DiskWatch
from orchestrator.flow.inputs import Inputs
from orchestrator.flow.lease import Lease
from orchestrator.flow.recall import Recall
from orchestrator.flow.running import RunningTasks
from orchestrator.flow.supply import Supply
from orchestrator.ports import Clock, Egress, EventLog, LiveTextChannel, Model, TaskStore


@dataclass(frozen=True, slots=True)
class TaskParts:
    """What running a task needs from outside."""

    lease: Lease
    supply: Supply
    custody: Custody
    egress: Egress
    disk: DiskWatch
    inputs: Inputs
    model: Model
    tasks: TaskStore
    events: EventLog
    live_text: LiveTextChannel
    running: RunningTasks
    clock: Clock
    agent: Agent
    recall: Recall
    tool_output_chars: int
