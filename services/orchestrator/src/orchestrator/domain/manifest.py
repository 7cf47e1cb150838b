"""A workspace's manifest: which bundles hold which checkpoints.

One object in storage, replaced as a whole. Bundles are immutable and lie beside it; one that the
manifest does not name does not exist, whatever storage holds.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from orchestrator.errors import BundleIncomplete, ManifestUnreadable, StaleLease

VERSION = 1

_COMMIT = r"^([0-9a-f]{40}|[0-9a-f]{64})$"
Commit = Annotated[str, Field(pattern=_COMMIT)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def is_commit(text: str) -> bool:
    """Whether a text can be a commit's id."""
    return re.fullmatch(_COMMIT, text) is not None


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Checkpoint(_Part):
    """A task's tree of one repository, after one step.

    Attributes:
        step: The step's number.
        repository: Name of the repository.
        commit: Has the tree; a commit of the repository's own history if it is unchanged.
        state: The commit that leads to all that the worker needs to go on from here; of steps
            that were exported together the last one has it.
    """

    step: PositiveInt
    repository: str
    commit: Commit
    state: Commit | None = None

    @property
    def commits(self) -> tuple[str, ...]:
        """All commits it names."""
        return (self.commit,) if self.state is None else (self.commit, self.state)


class BundleRef(_Part):
    """A git bundle in object storage.

    Attributes:
        repository: Name of the repository it belongs to; commits are never shared between two.
        key: Of the object.
        sha256: Of its content, in hexadecimal.
        size: In bytes.
        tips: The checkpoints it brings. Only these can be built on by later bundles.
        requires: Tips of earlier bundles that must be there before it: what the maker excluded
            (`^commit`), not the prerequisites git derives from that, which may lie deeper.
        bases: The same, for commits of the repository's own history.
    """

    repository: str
    key: str
    sha256: Digest
    size: NonNegativeInt
    tips: tuple[Commit, ...]
    requires: tuple[Commit, ...] = ()
    bases: tuple[Commit, ...] = ()


class Retired(_Part):
    """A bundle that compaction has replaced, kept for those who still read an older manifest.

    `at` is a time after that. Whoever compacts cannot tell when its write will happen, so the
    next writer that finds the entry sets it.
    """

    key: str
    at: datetime | None = None


class Manifest(_Part):
    """What object storage holds of a workspace.

    Attributes:
        version: Of this format.
        workspace_id: The workspace's.
        generation: The highest lease generation that has written; lower ones may not any more.
        sweeps: How often unnamed bundles were collected; see `flow.preserve`.
        bundles: Each after those it requires.
        retired: The latest last.
        checkpoints: By task id, in order of their steps.
    """

    version: int = VERSION
    workspace_id: str
    generation: NonNegativeInt
    sweeps: NonNegativeInt = 0
    bundles: tuple[BundleRef, ...] = ()
    retired: tuple[Retired, ...] = ()
    checkpoints: Mapping[str, tuple[Checkpoint, ...]] = Field(default_factory=dict)

    def to_json(self) -> bytes:
        """The manifest as it is stored."""
        return self.model_dump_json().encode()

    @classmethod
    def from_json(cls, content: bytes, workspace_id: str) -> Self:
        """Read what `to_json` has made.

        Raises:
            ManifestUnreadable: It is damaged, another workspace's, or of a newer release.
        """
        version = _version(content)
        if version > VERSION:
            raise ManifestUnreadable(
                f"The manifest of workspace {workspace_id} has version {version}, and this "
                f"release of Berth knows {VERSION}: install a newer one.",
                workspace=workspace_id,
            )
        try:
            manifest = cls.model_validate_json(content, strict=True)
        except ValidationError as error:
            raise _damaged(workspace_id) from error
        if manifest.workspace_id != workspace_id or version != VERSION:
            raise _damaged(workspace_id)
        return manifest

    def written_by(self, generation: int) -> Self:
        """The manifest as the holder of this lease generation may write it.

        Raises:
            StaleLease: The lease has been taken over.
        """
        if generation < self.generation:
            raise StaleLease(
                f"The lease on workspace {self.workspace_id} was taken over: this orchestrator "
                "may not write to it any more.",
                workspace=self.workspace_id,
                generation=generation,
            )
        return self.model_copy(update={"generation": generation})

    def brings(self, repository: str) -> set[str]:
        """All tips of a repository's bundles."""
        return {
            tip for bundle in self.bundles if bundle.repository == repository for tip in bundle.tips
        }

    def bases(self, repository: str) -> set[str]:
        """All commits of a repository's own history that its bundles build on."""
        return {
            base
            for bundle in self.bundles
            if bundle.repository == repository
            for base in bundle.bases
        }

    def keys(self) -> set[str]:
        """The keys of its bundles, retired ones excepted."""
        return {bundle.key for bundle in self.bundles}


class _Versioned(BaseModel):
    version: int


def _version(content: bytes) -> int:
    try:
        return _Versioned.model_validate_json(content, strict=True).version
    except ValidationError:
        return 0  # then the whole is damaged, which is said there


def _damaged(workspace_id: str) -> ManifestUnreadable:
    return ManifestUnreadable(
        f"The manifest of workspace {workspace_id} is damaged: restore an older version of the "
        "object, or delete it to start anew without the checkpoints.",
        workspace=workspace_id,
    )


def empty_manifest(workspace_id: str) -> Manifest:
    """The manifest of a workspace of which nothing is stored."""
    return Manifest(workspace_id=workspace_id, generation=0)


def with_bundle(manifest: Manifest, bundle: BundleRef) -> Manifest:
    """The manifest with one more bundle; the same one if that brings nothing new.

    Raises:
        BundleIncomplete: The bundle builds on commits that are not stored.
    """
    stored = manifest.brings(bundle.repository)
    if stored.issuperset(bundle.tips):
        return manifest
    _require(stored, bundle.requires, "bundle")
    return manifest.model_copy(update={"bundles": (*manifest.bundles, bundle)})


def with_checkpoints(
    manifest: Manifest, checkpoints: Mapping[str, Sequence[Checkpoint]]
) -> Manifest:
    """The manifest with more checkpoints; of one step and repository the new one counts.

    Raises:
        BundleIncomplete: No bundle brings a checkpoint's commit.
    """
    merged = dict(manifest.checkpoints)
    for task_id, added in checkpoints.items():
        for checkpoint in added:
            held = manifest.brings(checkpoint.repository) | manifest.bases(checkpoint.repository)
            _require(held, checkpoint.commits, "checkpoint")
        merged[task_id] = _merged(manifest.checkpoints.get(task_id, ()), added)
    return manifest.model_copy(update={"checkpoints": merged})


def _merged(old: Iterable[Checkpoint], new: Iterable[Checkpoint]) -> tuple[Checkpoint, ...]:
    by_place = {(each.step, each.repository): each for each in (*old, *new)}
    return tuple(by_place[place] for place in sorted(by_place))


def _require(stored: set[str], commits: Iterable[str], what: str) -> None:
    missing = sorted(set(commits) - stored)
    if missing:
        raise BundleIncomplete(
            f"A {what} needs {len(missing)} commits that object storage does not hold, such as "
            f"{missing[0]}: bundle again from what the manifest names.",
            commit=missing[0],
        )


class Restore(_Part):
    """What brings commits back: `bundles` in this order, on `bases` of the repository itself."""

    bundles: tuple[BundleRef, ...]
    bases: tuple[Commit, ...]


def needed_bundles(manifest: Manifest, repository: str, commits: Iterable[str]) -> Restore:
    """The bundles that bring these commits of a repository, and nothing that is not needed.

    Raises:
        BundleIncomplete: No bundle brings one of the commits.
    """
    wanted = set(commits)
    _require(manifest.brings(repository), wanted, "restored tree")
    found: list[BundleRef] = []
    bases: set[str] = set()
    for bundle in reversed(manifest.bundles):
        if bundle.repository == repository and wanted.intersection(bundle.tips):
            found.append(bundle)
            wanted = wanted.difference(bundle.tips).union(bundle.requires)
            bases.update(bundle.bases)
    return Restore(bundles=tuple(reversed(found)), bases=tuple(sorted(bases)))
