"""Which checkpoints of old tasks a workspace keeps."""

from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.domain.manifest import BundleRef, Checkpoint, Manifest, Retired


@dataclass(frozen=True, slots=True)
class ThinningLimits:
    """How much is kept, counted in tasks from the newest on.

    Of the first `whole` tasks every checkpoint stays, of the next up to `last` the last one, and of
    older ones none: their patches are in the database.
    """

    whole: int = 20
    last: int = 200


def thinned(manifest: Manifest, limits: ThinningLimits, running: Collection[str]) -> Manifest:
    """The manifest without what old tasks need no more; the same one if there is nothing of it.

    Args:
        manifest: Its tasks are in the order in which they first published.
        limits: What stays.
        running: Tasks that have not ended; they keep everything.
    """
    kept: dict[str, tuple[Checkpoint, ...]] = {}
    newest = len(manifest.checkpoints) - 1
    for place, (task_id, checkpoints) in enumerate(manifest.checkpoints.items()):
        age = newest - place
        if age < limits.whole or task_id in running:
            kept[task_id] = checkpoints
        elif age < limits.last:
            kept[task_id] = _last(checkpoints)
    if kept == dict(manifest.checkpoints):
        return manifest
    return _without_unneeded(manifest.model_copy(update={"checkpoints": kept}))


def _last(checkpoints: tuple[Checkpoint, ...]) -> tuple[Checkpoint, ...]:
    """The last checkpoint of each repository that has a state."""
    last = {each.repository: each for each in checkpoints if each.state is not None}
    return tuple(last.values())


def _without_unneeded(manifest: Manifest) -> Manifest:
    """Forget tips that no checkpoint names and no kept bundle requires, and bundles without tips.

    The latest first, since a bundle requires only earlier ones.
    """
    named = {
        (each.repository, commit)
        for checkpoints in manifest.checkpoints.values()
        for each in checkpoints
        for commit in each.commits
    }
    bundles: list[BundleRef] = []
    retired: list[Retired] = []
    for bundle in reversed(manifest.bundles):
        tips = tuple(tip for tip in bundle.tips if (bundle.repository, tip) in named)
        if tips:
            bundles.append(bundle.model_copy(update={"tips": tips}))
            named.update((bundle.repository, commit) for commit in bundle.requires)
        else:
            retired.append(Retired(key=bundle.key))
    changes = {
        "bundles": tuple(reversed(bundles)),
        "retired": (*manifest.retired, *reversed(retired)),
    }
    return manifest.model_copy(update=changes)
