"""Keep the checkpoints of workspaces in object storage.

    workspaces/<id>/manifest.json              replaced by compare-and-swap
    workspaces/<id>/bundles/<sha256>.bundle    immutable

A bundle is uploaded first and named in the manifest after that, so a crash leaves at most an
object that nobody names. `collect` deletes those. It counts up the manifest's `sweeps` before it
deletes anything, and deletes only the very writes it saw before. So a writer who finds `sweeps`
unchanged knows that its upload is still there, and one who finds it changed uploads again.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from orchestrator.domain.compaction import (
    Compaction,
    CompactionLimits,
    dated,
    garbage,
    plan_compaction,
    swept,
    with_compaction,
)
from orchestrator.domain.manifest import (
    BundleRef,
    Checkpoint,
    Manifest,
    empty_manifest,
    with_bundle,
    with_checkpoints,
)
from orchestrator.domain.thinning import ThinningLimits, thinned
from orchestrator.errors import ObjectConflict, ObjectNotFound, StorageFailure
from orchestrator.ports import Clock, ObjectInfo, ObjectStore

RETENTION = timedelta(days=7)
TRIES = 12
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 1.5  # the service takes about one write a second of the same object


@dataclass(frozen=True, slots=True)
class NewBundle:
    """A git bundle on disk that is to be stored; for the commits see `BundleRef`."""

    path: Path
    repository: str
    tips: tuple[str, ...]
    requires: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()


class Bundler(Protocol):
    """Makes bundles of what is in a workspace's repositories."""

    async def bundle(self, workspace_id: str, compaction: Compaction, path: Path) -> None:
        """Write the git bundle that `compaction` describes to `path`."""
        ...


class Preserve:
    """Publishes, reads and tidies what is stored of workspaces.

    Every writing method takes the lease generation of its caller and raises `StaleLease` once a
    higher one has written.

    Args:
        objects: Where everything is kept.
        clock: For the retention time.
        retention: How long a bundle stays after the last manifest that named it.
    """

    def __init__(
        self, objects: ObjectStore, clock: Clock, retention: timedelta = RETENTION
    ) -> None:
        self._objects = objects
        self._clock = clock
        self._retention = retention

    async def read(self, workspace_id: str) -> Manifest | None:
        """The workspace's manifest, or None if nothing was ever published.

        Raises:
            ManifestUnreadable: It is damaged or of a newer release.
        """
        manifest, generation = await self._stored(workspace_id)
        return manifest if generation else None

    async def claim(self, workspace_id: str, generation: int) -> Manifest:
        """Shut out all holders of lower lease generations; returns what they have stored."""

        async def unchanged(manifest: Manifest) -> Manifest:
            return manifest

        return await self._replace(workspace_id, generation, unchanged)

    async def publish(
        self,
        workspace_id: str,
        generation: int,
        checkpoints: Mapping[str, Sequence[Checkpoint]],
        bundle: NewBundle | None = None,
    ) -> Manifest:
        """Store a bundle, if one is needed, and name checkpoints, by task id. May be repeated.

        Returns:
            The manifest with them.

        Raises:
            BundleIncomplete: The bundle builds on commits that are not stored, or a checkpoint is
                neither in it nor stored.
            ObjectConflict: Other writers were faster every time.
            StaleLease: The lease has been taken over.
        """
        upload = await self._upload(workspace_id, bundle) if bundle else None

        async def extended(manifest: Manifest) -> Manifest:
            changed = manifest
            if upload is not None:
                changed = with_bundle(manifest, upload.ref)
                if changed is not manifest:
                    await upload.ensure(manifest.sweeps)
            return with_checkpoints(changed, checkpoints)

        return await self._replace(workspace_id, generation, extended)

    async def fetch(self, bundle: BundleRef, path: Path) -> None:
        """Write a bundle to `path`, which appears when all of it has arrived and is right.

        Raises:
            ObjectNotFound: It was collected since the manifest was read: read that again.
            StorageFailure: It is not what was stored.
        """
        arriving = path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            await self._objects.get_file(bundle.key, arriving)
            if await _sha256(arriving) != bundle.sha256:
                raise StorageFailure(
                    f"The bundle {bundle.key!r} in object storage is damaged: restore its file "
                    "from a backup.",
                    key=bundle.key,
                )
            arriving.replace(path)
        finally:
            arriving.unlink(missing_ok=True)

    async def compact(
        self,
        workspace_id: str,
        generation: int,
        bundler: Bundler,
        directory: Path,
        limits: CompactionLimits | None = None,
    ) -> Manifest | None:
        """Replace many small bundles of one repository by one, if there are too many.

        Args:
            workspace_id: The workspace.
            generation: The caller's lease generation.
            bundler: Makes the new bundle.
            directory: Room for it meanwhile.
            limits: What is too many.

        Returns:
            The new manifest; None if there is nothing to do, or somebody else has done it.
        """
        manifest, _ = await self._stored(workspace_id)
        plan = plan_compaction(manifest, limits or CompactionLimits())
        if plan is None:
            return None
        path = directory / f"compact-{secrets.token_hex(8)}.bundle"
        try:
            await bundler.bundle(workspace_id, plan, path)
            bundle = NewBundle(path, plan.repository, plan.tips, plan.requires, plan.bases)
            return await self._compacted(workspace_id, generation, plan, bundle)
        finally:
            path.unlink(missing_ok=True)

    async def thin(
        self,
        workspace_id: str,
        generation: int,
        running: Collection[str],
        limits: ThinningLimits | None = None,
    ) -> Manifest:
        """Forget the checkpoints that old tasks need no more; `running` names those at work."""

        async def less(manifest: Manifest) -> Manifest:
            return thinned(manifest, limits or ThinningLimits(), running)

        return await self._replace(workspace_id, generation, less)

    async def collect(self, workspace_id: str, generation: int) -> int:
        """Delete the bundles that no manifest of the retention time names; returns how many."""
        doomed: list[ObjectInfo] = []

        async def without_garbage(manifest: Manifest) -> Manifest:
            start = self._clock.now() - self._retention
            found = await self._objects.list(_bundle_prefix(workspace_id))
            doomed[:] = garbage(manifest, found, start)
            return swept(manifest, start) if doomed else manifest

        await self._replace(workspace_id, generation, without_garbage)
        deleted = 0
        for info in doomed:
            try:
                deleted += await self._objects.delete(info.key, if_generation=info.generation)
            except ObjectConflict:
                continue  # uploaded again by a writer that is about to name it
        return deleted

    async def _compacted(
        self, workspace_id: str, generation: int, plan: Compaction, bundle: NewBundle
    ) -> Manifest | None:
        upload = await self._upload(workspace_id, bundle)
        outdated = False

        async def compacted(manifest: Manifest) -> Manifest:
            nonlocal outdated
            changed = with_compaction(manifest, plan, upload.ref)
            outdated = changed is None
            if changed is None:
                return manifest
            await upload.ensure(manifest.sweeps)
            return changed

        manifest = await self._replace(workspace_id, generation, compacted)
        return None if outdated else manifest

    async def _upload(self, workspace_id: str, bundle: NewBundle) -> "_Upload":
        sha256 = await _sha256(bundle.path)
        ref = BundleRef(
            repository=bundle.repository,
            key=f"{_bundle_prefix(workspace_id)}{sha256}.bundle",
            sha256=sha256,
            size=bundle.path.stat().st_size,
            tips=bundle.tips,
            requires=bundle.requires,
            bases=bundle.bases,
        )
        return _Upload(self._objects, bundle.path, ref)

    async def _stored(self, workspace_id: str) -> tuple[Manifest, int]:
        """The manifest and its object's generation; an empty one and 0 if there is none."""
        try:
            stored = await self._objects.read(_manifest_key(workspace_id))
        except ObjectNotFound:
            return empty_manifest(workspace_id), 0
        return Manifest.from_json(stored.content, workspace_id), stored.info.generation

    async def _replace(
        self,
        workspace_id: str,
        generation: int,
        change: Callable[[Manifest], Awaitable[Manifest]],
    ) -> Manifest:
        """Write what `change` makes of the stored manifest; again if it was replaced meanwhile."""
        for attempt in range(TRIES):
            stored, object_generation = await self._stored(workspace_id)
            writable = dated(stored.written_by(generation), self._clock.now())
            changed = await change(writable)
            if changed == stored:
                return stored
            try:
                await self._objects.put(
                    _manifest_key(workspace_id), changed.to_json(), if_generation=object_generation
                )
            except ObjectConflict:
                await asyncio.sleep(_pause(attempt))
            else:
                return changed
        raise ObjectConflict(
            f"The manifest of workspace {workspace_id} was changed by others {TRIES} times in a "
            "row: try again later.",
            workspace=workspace_id,
        )


class _Upload:
    """A bundle that must be in storage at the moment a manifest is written that names it."""

    def __init__(self, objects: ObjectStore, path: Path, ref: BundleRef) -> None:
        self.ref = ref
        self._objects = objects
        self._path = path
        self._sweeps: int | None = None

    async def ensure(self, sweeps: int) -> None:
        """Upload it, unless that was done under a manifest with the same `sweeps`.

        Also if storage has it already: only a new write is safe from a collector that has seen
        the old one.
        """
        if self._sweeps != sweeps:
            await self._objects.put_file(self.ref.key, self._path)
            self._sweeps = sweeps


def _manifest_key(workspace_id: str) -> str:
    return f"workspaces/{workspace_id}/manifest.json"


def _bundle_prefix(workspace_id: str) -> str:
    return f"workspaces/{workspace_id}/bundles/"


def _pause(attempt: int) -> float:
    longest: float = min(_FIRST_PAUSE_SECONDS * 2**attempt, _LONGEST_PAUSE_SECONDS)
    return longest * secrets.randbelow(1_000) / 1_000


async def _sha256(path: Path) -> str:
    def digest() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return await asyncio.to_thread(digest)
