"""What became of each tool call that has a key, on disk: `records/<task>/journal/<key>.json`.

An entry is written before its call begins and again when it has ended, each time whole or not at
all. Whoever repeats a key is told from it: the result, or that the call was broken off.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from agent.layout import Layout, checked_name

JOURNAL = "journal"


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that has a key; within its task a key stands for one call.

    Args:
        task: The task.
        key: The key.
        tool: The tool's name.
        digest: Of the tool's name and the arguments.
        mutating: Whether the tool may change anything.
    """

    task: str
    key: str
    tool: str
    digest: str
    mutating: bool

    @classmethod
    def of(
        cls, task: str, key: str, tool: str, arguments: Mapping[str, object], *, mutating: bool
    ) -> Self:
        """The call.

        Raises:
            BadRequest: The key cannot be one path component.
        """
        text = json.dumps([tool, arguments], sort_keys=True)
        return cls(
            task, checked_name(key), tool, hashlib.sha256(text.encode()).hexdigest(), mutating
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """What the journal says of a call.

    Args:
        instance: The worker process that ran it.
        tool: The tool's name.
        digest: Of the tool's name and the arguments; empty if the entry is damaged.
        before: The key of the checkpoint it began from; None for a call that only reads.
        result: The MCP result as JSON; None until the call has ended.
    """

    instance: str
    tool: str
    digest: str
    before: str | None = None
    result: dict[str, Any] | None = None

    def finished(self, result: dict[str, Any]) -> Self:
        """The entry of the same call, ended."""
        return replace(self, result=result)


DAMAGED = Entry("", "", "")
"""Stands for an entry that cannot be read: that call was begun, and nothing else is known."""


class Journal:
    """The entries of all tasks."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def read(self, call: Call) -> Entry | None:
        """The entry of a call, `DAMAGED` if it cannot be read, or None if it was never begun."""
        return _read(self._path(call))

    def write(self, call: Call, entry: Entry, *, durable: bool = True) -> None:
        """Make or replace the entry of a call; `durable` has it survive the machine's end too."""
        path = self._path(call)
        path.parent.mkdir(exist_ok=True)
        write_whole(path, json.dumps(asdict(entry)).encode(), durable=durable)

    def ended_since(self, task_id: str, checkpoint: str) -> str | None:
        """The key of the newest ended call that began from a checkpoint and has none of its own."""
        ended = [
            (path.stat().st_mtime_ns, path.stem)
            for path in (self._layout.record(task_id) / JOURNAL).glob("*.json")
            if path.stem != checkpoint and _ended_from(path, checkpoint)
        ]
        return max(ended)[1] if ended else None

    def _path(self, call: Call) -> Path:
        return self._layout.record(call.task) / JOURNAL / f"{call.key}.json"


def write_whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file so that it is there whole or not at all, whenever we are ended."""
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    new.replace(path)
    if durable:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _read(path: Path) -> Entry | None:
    try:
        return _entry(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError, RecursionError):
        return DAMAGED


def _ended_from(path: Path, checkpoint: str) -> bool:
    entry = _read(path)
    return entry is not None and entry.result is not None and entry.before == checkpoint


def _entry(data: dict[str, Any]) -> Entry:
    texts = (data["instance"], data["tool"], data["digest"])
    before, result = data["before"], data["result"]
    if not all(isinstance(text, str) for text in texts) or not data["digest"]:
        raise TypeError("not an entry")
    if before is not None and not isinstance(before, str):
        raise TypeError("not a key")
    if result is not None and not (isinstance(result, dict) and "content" in result):
        raise TypeError("not a result")
    return Entry(*texts, before, result)
