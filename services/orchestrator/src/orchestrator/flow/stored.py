"""What object storage has of a task's checkpoints, and the way of its bundles to our own git."""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.domain.compaction import Compaction
from orchestrator.domain.manifest import Checkpoint, Manifest, needed_bundles
from orchestrator.domain.task import NewTask, StartPoint
from orchestrator.domain.workspace import Workspace
from orchestrator.flow.preserve import Preserve
from orchestrator.ports import CheckpointStore, Origin

SCRATCH = "scratch"
"""The name under which a scratch task's tree is kept."""


@dataclass(frozen=True, slots=True)
class StoredStep:
    """A step after which all of a task can be brought back; `states` by repository."""

    step: int
    states: Mapping[str, str]


def origins(workspace: Workspace, start: Sequence[StartPoint]) -> tuple[Origin, ...]:
    """The repositories of a task in this workspace."""
    if workspace.is_scratch:
        return (Origin(workspace.id, SCRATCH),)
    return tuple(
        Origin(workspace.id, repository.name, repository.url, point)
        for repository, point in zip(workspace.repositories, start, strict=True)
    )


def origins_of(task: NewTask) -> tuple[Origin, ...]:
    """The repositories of a task."""
    return origins(task.workspace, task.start)


def newest_step(
    checkpoints: Sequence[Checkpoint], names: Collection[str], before: int | None
) -> StoredStep | None:
    """The last step before a step with a state of every repository; None if there is none."""
    states: dict[int, dict[str, str]] = {}
    for each in checkpoints:
        if each.state is not None and (before is None or each.step < before):
            states.setdefault(each.step, {})[each.repository] = each.state
    whole = [step for step, found in states.items() if found.keys() == set(names)]
    return StoredStep(max(whole), states[max(whole)]) if whole else None


class Filling:
    """Brings bundles from object storage into our own git.

    Args:
        preserve: Object storage.
        store: Our own git.
        room: Where bundles lie meanwhile.
    """

    def __init__(self, preserve: Preserve, store: CheckpointStore, room: Path) -> None:
        self._preserve = preserve
        self._store = store
        self._room = room

    async def __call__(self, manifest: Manifest, origin: Origin, commits: Collection[str]) -> None:
        """Have these commits in our own git, with all that leads to them.

        Raises:
            BundleIncomplete: No bundle brings one of them.
            BundleRefused: What is stored is not sound.
            StorageFailure: Object storage does not hand them out, or they are damaged.
        """
        if (await self._store.held(origin, commits)).issuperset(commits):
            return
        wanted = needed_bundles(manifest, origin.name, commits)
        held = await self._store.held(origin, [tip for each in wanted.bundles for tip in each.tips])
        with tempfile.TemporaryDirectory(dir=self._room) as directory:
            for number, bundle in enumerate(wanted.bundles):
                if not held.issuperset(bundle.tips):
                    path = Path(directory) / f"{number}.bundle"
                    await self._preserve.fetch(bundle, path)
                    await self._store.add(origin, path)
                    path.unlink()


class StoreBundler:
    """`flow.preserve.Bundler` from our own git.

    Args:
        filling: Brings what the new bundle is made of.
        preserve: Object storage.
        store: Our own git.
        origins: The workspace's repositories; their history is at hand as of these starts.
    """

    def __init__(
        self,
        filling: Filling,
        preserve: Preserve,
        store: CheckpointStore,
        origins: Sequence[Origin],
    ) -> None:
        self._filling = filling
        self._preserve = preserve
        self._store = store
        self._origins = {each.name: each for each in origins}

    async def bundle(self, workspace_id: str, compaction: Compaction, path: Path) -> None:
        """Write the git bundle that `compaction` describes to `path`."""
        origin = self._origins[compaction.repository]
        manifest = await self._preserve.read(workspace_id)
        if manifest is not None:
            await self._filling(manifest, origin, compaction.tips)
        names = {f"refs/berth-states/{tip}": tip for tip in compaction.tips}
        without = (*compaction.requires, *compaction.bases)
        with path.open("xb") as file:
            async for chunk in self._store.bundle(origin, names, without):
                file.write(chunk)
