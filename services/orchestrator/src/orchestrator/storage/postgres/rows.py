"""Turns rows into domain values and back."""

import asyncpg
from pydantic import JsonValue

from orchestrator.domain.budget import Budget, StopReason
from orchestrator.domain.events import Event, EventKind
from orchestrator.domain.lineage import Lineage, Relation
from orchestrator.domain.repository import RepositoryUrl
from orchestrator.domain.task import (
    Ending,
    NewTask,
    Patch,
    Receipt,
    StartPoint,
    Task,
    TaskError,
    TaskStatus,
)
from orchestrator.domain.workspace import Repository, Workspace, WorkspaceRecord
from orchestrator.storage.postgres.text import storable_text


def workspace_values(workspace: Workspace) -> tuple[str, str, JsonValue]:
    """Id, key and repositories of a `workspaces` row."""
    repositories: list[JsonValue] = [
        {
            "scheme": repository.url.scheme,
            "host": repository.url.host,
            "port": repository.url.port,
            "path": repository.url.path,
            "name": repository.name,
        }
        for repository in workspace.repositories
    ]
    return storable_text(workspace.id), storable_text(workspace.key), repositories


def task_values(task: NewTask, runtime: str) -> tuple[object, ...]:
    """The values of a new `tasks` row, in the order of `add_task`."""
    start: list[JsonValue] = [
        {"name": point.name, "commit": point.commit, "ref": point.ref} for point in task.start
    ]
    return (
        storable_text(task.id),
        storable_text(task.workspace.id),
        storable_text(runtime),
        storable_text(task.query),
        start,
        task.budget.max_steps,
        task.budget.max_tokens,
        task.budget.max_seconds,
        [storable_text(file.name) for file in task.files],
        task.install_dependencies,
        *_lineage_values(task.lineage),
        task.request_digest,
        task.dry_run,
        storable_text(task.model),
    )


def ending_values(ending: Ending) -> tuple[object, ...]:
    """The values of an ending, in the order of `finish_task` after the id."""
    receipt, error = ending.receipt, ending.error
    return (
        ending.status.value,
        ending.stop_reason.value,
        storable_text(ending.answer),
        storable_text(ending.patch.diff),
        [storable_text(path) for path in ending.patch.changed_files],
        [storable_text(path) for path in ending.patch.left_out],
        ending.steps,
        [storable_text(notice) for notice in ending.notices],
        receipt.prompt_tokens,
        receipt.completion_tokens,
        receipt.model_seconds,
        receipt.tool_seconds,
        receipt.wall_seconds,
        storable_text(error.code) if error else None,
        storable_text(error.detail) if error else None,
    )


def task_from(row: asyncpg.Record) -> Task:
    """The task of a `get_task` row."""
    workspace = Workspace(row["workspace_id"], row["workspace_key"], _repositories(row))
    start = tuple(StartPoint(p["name"], p["commit"], p["ref"]) for p in row["start"])
    return Task(
        id=row["id"],
        query=row["query"],
        workspace=workspace,
        runtime=row["runtime"],
        start=start,
        budget=Budget(row["max_steps"], row["max_tokens"], row["max_seconds"]),
        status=TaskStatus(row["status"]),
        created_at=row["created_at"],
        files=tuple(row["files"]),
        install_dependencies=row["install_dependencies"],
        dry_run=row["dry_run"],
        cancel_requested=row["cancel_requested_at"] is not None,
        ending=_ending(row) if row["finished_at"] else None,
        finished_at=row["finished_at"],
        lineage=_lineage(row),
        continued_by=row["continued_by"],
        request_digest=row["request_digest"],
        model=row["model"],
    )


def workspace_record_from(row: asyncpg.Record) -> WorkspaceRecord:
    """The workspace of a `list_workspaces` row."""
    return WorkspaceRecord(
        workspace=Workspace(row["id"], row["key"], _repositories(row)),
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
        task_count=row["task_count"],
    )


def event_from(row: asyncpg.Record) -> Event:
    """The event of a row of `events`."""
    return Event(
        task_id=row["task_id"],
        number=row["number"],
        kind=EventKind(row["kind"]),
        step=row["step"],
        data=row["data"],
        at=row["at"],
    )


def _repositories(row: asyncpg.Record) -> tuple[Repository, ...]:
    return tuple(
        Repository(
            RepositoryUrl(item["scheme"], item["host"], item["port"], item["path"]), item["name"]
        )
        for item in row["repositories"]
    )


def _lineage_values(lineage: Lineage | None) -> tuple[str | None, str | None, int | None]:
    if lineage is None:
        return None, None, None
    return lineage.parent, lineage.relation.value, lineage.step


def _lineage(row: asyncpg.Record) -> Lineage | None:
    if row["parent_id"] is None:
        return None
    return Lineage(row["parent_id"], Relation(row["relation"]), row["parent_step"])


def _ending(row: asyncpg.Record) -> Ending:
    error = TaskError(row["error_code"], row["error_detail"]) if row["error_code"] else None
    return Ending(
        status=TaskStatus(row["status"]),
        stop_reason=StopReason(row["stop_reason"]),
        answer=row["answer"],
        patch=Patch(row["diff"], tuple(row["changed_files"]), tuple(row["left_out"])),
        steps=row["steps"],
        receipt=Receipt(
            prompt_tokens=row["prompt_tokens"],
            completion_tokens=row["completion_tokens"],
            model_seconds=row["model_seconds"],
            tool_seconds=row["tool_seconds"],
            wall_seconds=row["wall_seconds"],
        ),
        error=error,
        notices=tuple(row["notices"]),
    )
