"""What a dry run shows beside its patch: every tool call it made, and what it did outside."""

import json

from pydantic import JsonValue

from orchestrator.api.task_body import CommandBody, TaskBody, task_body
from orchestrator.domain.events import Event, EventKind
from orchestrator.domain.task import Task
from orchestrator.ports import EventLog


async def shown_task(task: Task, events: EventLog) -> TaskBody:
    """A task as the API shows it, with the commands and the egress log of a dry run."""
    body = task_body(task)
    if not task.dry_run:
        return body
    async for event in events.recorded(task.id):
        if event.kind is EventKind.TOOL:
            body.commands.append(_command(event))
        elif event.kind is EventKind.EGRESS:
            body.egress.append(dict(event.data))
    return body


def _command(event: Event) -> CommandBody:
    return CommandBody(
        step=event.step,
        tool=str(event.data["name"]),
        arguments=_arguments(event.data["arguments"]),
        is_error=event.data["is_error"] is True,
    )


def _arguments(value: JsonValue) -> dict[str, JsonValue]:
    """The arguments as an object; what a model sent instead of one stays as it is."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {"unreadable": value}
    return value if isinstance(value, dict) else {"unreadable": value}
