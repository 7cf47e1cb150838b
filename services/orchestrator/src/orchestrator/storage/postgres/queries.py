"""Loads the named statements of `queries.sql`."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_HEADING = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_COMMENT = re.compile(r"^--.*\n?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Queries:
    """Every statement of `queries.sql`; what each does is said there."""

    use_workspace: str
    list_workspaces: str
    read_settings: str
    keep_settings: str
    add_task: str
    finish_task: str
    get_task: str
    list_tasks: str
    unfinished_tasks: str
    request_cancel: str
    requested_cancels: str
    add_message: str
    read_messages: str
    last_step: str
    append_event: str
    find_append: str
    read_events: str
    read_progress: str
    notify_text: str
    task_lease: str
    register_executor: str
    beat: str
    bury_executors: str
    known_executors: str
    resign_executor: str
    acquire_lease: str
    release_lease: str
    read_lease: str
    held_leases: str
    begin_publication: str
    get_publication: str
    keep_publication: str


@cache
def load_queries() -> Queries:
    """Read the file once; a missing, unknown or doubled name is a `TypeError`."""
    text = Path(__file__).with_name("queries.sql").read_text(encoding="utf-8")
    return Queries(**parse_queries(text))


def parse_queries(text: str) -> dict[str, str]:
    """Split on `-- name: …` headings and drop the prose; statements keep their order.

    Raises:
        TypeError: A name occurs twice.
    """
    _, *parts = _HEADING.split(text)
    statements: dict[str, str] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        if name in statements:
            raise TypeError(f"queries.sql names {name} twice")
        statements[name] = _COMMENT.sub("", body).strip().removesuffix(";")
    return statements
