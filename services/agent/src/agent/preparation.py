"""Prepare a task: its tree, and when asked what its repositories depend on."""

import os
from dataclasses import replace
from pathlib import Path

from agent.changes import ChangeReader
from agent.dependencies import describe, detect, install
from agent.layout import Layout
from agent.records import Part, TaskRecord
from agent.requests import PrepareRequest
from agent.trees import Trees
from agent.way_out import WayOut


class Preparation:
    """Prepares tasks, each once."""

    def __init__(
        self, layout: Layout, trees: Trees, changes: ChangeReader, way_out: WayOut
    ) -> None:
        self._layout = layout
        self._trees = trees
        self._changes = changes
        self._way_out = way_out

    async def __call__(self, wanted: PrepareRequest) -> tuple[str, ...]:
        """Make the task's tree; returns a sentence for each kind of dependency file.

        What cannot be installed is told in its sentence. The same call again changes nothing.

        Raises:
            WorkerError: See `Trees.prepared`.
        """
        async with self._trees.prepared(wanted.task, wanted.start, wanted.files) as record:
            if record.dependencies is not None:
                return record.dependencies
            if wanted.install:
                return await self._install_all(wanted.task, record)
            return tuple(
                sentence
                for part in record.parts
                for sentence in describe(detect(self._directory(wanted.task, part)), part.prefix)
            )

    async def _install_all(self, task_id: str, record: TaskRecord) -> tuple[str, ...]:
        told: list[str] = []
        for part in record.parts:
            record, sentences = await self._install(task_id, record, part)
            told += sentences
        self._trees.keep(task_id, replace(record, dependencies=tuple(told)))
        return tuple(told)

    def _directory(self, task_id: str, part: Part) -> Path:
        return self._layout.task(task_id) / part.directory

    async def _install(
        self, task_id: str, record: TaskRecord, part: Part
    ) -> tuple[TaskRecord, list[str]]:
        """Install what a part depends on and keep what that makes out of its patch."""
        directory = self._directory(task_id, part)
        installers = detect(directory)
        if not installers:
            return record, []
        # Noted before, so that an interrupted installation does not show up in the patch.
        made = tuple(path for each in installers for path in each.ignored)
        record = record.with_part(replace(part, installed=made))
        self._trees.keep(task_id, record)
        variables = self._way_out.variables(task_id)
        told = [
            await install(each, directory, self._layout.caches, variables, part.prefix)
            for each in installers
        ]
        found = await self._changes.reader(task_id, record, part).find(collapse=True)
        others = tuple(os.fsdecode(path.rstrip(b"/")) for path in found.untracked)
        record = record.with_part(replace(part, installed=(*made, *others)))
        self._trees.keep(task_id, record)
        return record, told
