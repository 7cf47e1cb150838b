"""Which bundles are worth putting together, and which objects nobody needs any more."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from orchestrator.domain.manifest import BundleRef, Commit, Manifest, Retired


@dataclass(frozen=True, slots=True)
class CompactionLimits:
    """When to compact: a repository may have this many bundles.

    An older bundle is left alone if it is `factor` times as large as all newer ones together, so
    that what is large is seldom copied.
    """

    max_bundles: int = 32
    factor: int = 2


@dataclass(frozen=True, slots=True)
class Compaction:
    """The decision to replace the latest bundles of a repository by one.

    The new bundle brings `tips` and builds on `requires` and `bases`: in git's words
    `git bundle create FILE TIPS ^REQUIRES ^BASES`, each tip under a name of its own.
    """

    repository: str
    replaces: tuple[BundleRef, ...]
    tips: tuple[Commit, ...]
    requires: tuple[Commit, ...]
    bases: tuple[Commit, ...]


def plan_compaction(manifest: Manifest, limits: CompactionLimits) -> Compaction | None:
    """What to compact next; None if every repository keeps within the limits."""
    for repository in dict.fromkeys(bundle.repository for bundle in manifest.bundles):
        bundles = [bundle for bundle in manifest.bundles if bundle.repository == repository]
        if len(bundles) > limits.max_bundles:
            return _compaction(repository, _latest(bundles, limits.factor))
    return None


def _latest(bundles: list[BundleRef], factor: int) -> tuple[BundleRef, ...]:
    """At least the newer half of the bundles, and at least two."""
    start = min(len(bundles) // 2, len(bundles) - 2)
    together = sum(bundle.size for bundle in bundles[start:])
    while start > 0 and bundles[start - 1].size < factor * together:
        start -= 1
        together += bundles[start].size
    return tuple(bundles[start:])


def _compaction(repository: str, bundles: tuple[BundleRef, ...]) -> Compaction:
    tips = _distinct(tip for bundle in bundles for tip in bundle.tips)
    requires = _distinct(commit for bundle in bundles for commit in bundle.requires)
    return Compaction(
        repository=repository,
        replaces=bundles,
        tips=tips,
        requires=tuple(commit for commit in requires if commit not in set(tips)),
        bases=_distinct(commit for bundle in bundles for commit in bundle.bases),
    )


def _distinct(commits: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(commits))


def with_compaction(
    manifest: Manifest, compaction: Compaction, bundle: BundleRef
) -> Manifest | None:
    """The manifest with `bundle` in place of those it replaces.

    None if one of them is not there any more: then somebody else has compacted.
    """
    replaced = {each.key for each in compaction.replaces}
    if not replaced - {bundle.key} or not replaced <= manifest.keys():
        return None
    bundles: list[BundleRef] = []
    for each in manifest.bundles:
        if each.key not in replaced:
            bundles.append(each)
        elif bundle not in bundles:
            # In the first one's place: all that the new one requires is before that.
            bundles.append(bundle)
    retired = [Retired(key=each.key) for each in compaction.replaces if each.key != bundle.key]
    return manifest.model_copy(
        update={"bundles": tuple(bundles), "retired": (*manifest.retired, *retired)}
    )


def dated(manifest: Manifest, now: datetime) -> Manifest:
    """The manifest, with `now` for when what it holds as retired was retired, where not known.

    `now` must be a time after the manifest was read.
    """
    if all(each.at is not None for each in manifest.retired):
        return manifest
    retired = tuple(each.model_copy(update={"at": each.at or now}) for each in manifest.retired)
    return manifest.model_copy(update={"retired": retired})


class Aged(Protocol):
    """Something in storage under a key, last written at some time."""

    @property
    def key(self) -> str:
        """Its key."""
        ...

    @property
    def updated_at(self) -> datetime:
        """When it was last written."""
        ...


AgedObject = TypeVar("AgedObject", bound=Aged)


def garbage(manifest: Manifest, objects: Iterable[AgedObject], start: datetime) -> list[AgedObject]:
    """The bundle objects that no manifest has named since `start`.

    What a manifest of that time has named is named still, or was retired since. An object that
    was never named counts from when it was written, since its writer may still be at work.
    """
    kept = manifest.keys() | {each.key for each in _retired_since(manifest, start)}
    return [each for each in objects if each.key not in kept and each.updated_at <= start]


def swept(manifest: Manifest, start: datetime) -> Manifest:
    """The manifest to be written before the `garbage` since `start` is deleted."""
    changes = {"sweeps": manifest.sweeps + 1, "retired": _retired_since(manifest, start)}
    return manifest.model_copy(update=changes)


def _retired_since(manifest: Manifest, start: datetime) -> tuple[Retired, ...]:
    return tuple(each for each in manifest.retired if each.at is None or each.at > start)
