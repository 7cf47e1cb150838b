"""The parts that keep tasks' trees in object storage, put together."""

import asyncio
import shutil
from pathlib import Path
from typing import Self

from orchestrator.domain.task import NewTask
from orchestrator.flow.export import Export
from orchestrator.flow.preserve import Preserve
from orchestrator.flow.restore import Restore
from orchestrator.flow.stored import Filling
from orchestrator.flow.supply import Supply
from orchestrator.flow.tidy import Tidy
from orchestrator.flow.tree_keeper import Told, TreeKeeper
from orchestrator.flow.turns import Turns
from orchestrator.ports import CheckpointStore, EventLog, TaskStore


class Custody:
    """Brings trees out of containers and back.

    Args:
        export: Brings out.
        restore: Brings back.
        tidy: Keeps small what is stored.
    """

    def __init__(self, export: Export, restore: Restore, tidy: Tidy) -> None:
        self.export = export
        self.restore = restore
        self.tidy = tidy

    @classmethod
    async def open(
        cls,
        *,
        preserve: Preserve,
        store: CheckpointStore,
        supply: Supply,
        events: EventLog,
        tasks: TaskStore,
        room: Path,
    ) -> Self:
        """Put the parts together.

        Args:
            preserve: Object storage.
            store: Our own git.
            supply: Makes trees at their start.
            events: The record of tasks.
            tasks: The tasks.
            room: A directory of ours alone, for bundles on their way; what a killed process has
                left in it is removed.
        """
        await asyncio.to_thread(_emptied, room)
        turns, filling = Turns(), Filling(preserve, store, room)
        restore = Restore(
            supply=supply,
            preserve=preserve,
            store=store,
            filling=filling,
            events=events,
            turns=turns,
        )
        tidy = Tidy(
            preserve=preserve,
            store=store,
            filling=filling,
            unfinished=tasks.unfinished,
            turns=turns,
            room=room,
        )
        return cls(Export(preserve, store, turns, room), restore, tidy)

    def keeper(self, task: NewTask, told: Told) -> TreeKeeper:
        """What keeps the tree of one running task."""
        return TreeKeeper(task, self.restore, self.export, told)


def _emptied(room: Path) -> None:
    if room.exists():
        shutil.rmtree(room)
    room.mkdir(mode=0o700, parents=True)
