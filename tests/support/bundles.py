"""Stand-ins for git bundles: files that say which commits they bring and which they need."""

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.memory_objects import MemoryObjectStore

from orchestrator.domain.compaction import Compaction
from orchestrator.domain.manifest import Manifest, needed_bundles
from orchestrator.flow.preserve import NewBundle

BASE = "b" * 40
START = datetime(2026, 1, 1, tzinfo=UTC)


class StillClock:
    """A clock that goes on when told to."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return (self.time - START).total_seconds()

    def advance(self, by: timedelta) -> None:
        self.time += by


def commit(number: int) -> str:
    return f"{number:040x}"


def new_bundle(
    directory: Path,
    tips: Iterable[str],
    requires: Iterable[str] = (),
    *,
    repository: str = "code",
    mark: str = "",
) -> NewBundle:
    """A bundle of these commits; without `requires` it builds on `BASE`."""
    bundle = NewBundle(
        directory / "new",
        repository,
        tuple(tips),
        tuple(requires),
        () if tuple(requires) else (BASE,),
    )
    content = _content(bundle.tips, bundle.requires + bundle.bases, mark)
    path = directory / hashlib.sha256(content + repository.encode()).hexdigest()
    path.write_bytes(content)
    return NewBundle(path, repository, bundle.tips, bundle.requires, bundle.bases)


class StandInBundler:
    """`flow.preserve.Bundler`; `mark` makes its bundles differ from others of the same commits."""

    def __init__(self, mark: str = "") -> None:
        self._mark = mark

    async def bundle(self, _workspace_id: str, compaction: Compaction, path: Path) -> None:
        needs = compaction.requires + compaction.bases
        path.write_bytes(_content(compaction.tips, needs, self._mark))


def _content(commits: tuple[str, ...], needs: tuple[str, ...], mark: str) -> bytes:
    return json.dumps({"commits": commits, "needs": needs, "mark": mark}).encode()


async def require_restorable(store: MemoryObjectStore, manifest: Manifest) -> None:
    """Fail unless every checkpoint of the manifest comes back from what is stored."""
    for checkpoints in manifest.checkpoints.values():
        for checkpoint in checkpoints:
            restore = needed_bundles(manifest, checkpoint.repository, [checkpoint.commit])
            held = set(restore.bases)
            assert held <= {BASE}
            for bundle in restore.bundles:
                content = (await store.read(bundle.key)).content
                assert hashlib.sha256(content).hexdigest() == bundle.sha256
                said = json.loads(content)
                assert held.issuperset(said["needs"])
                held.update(said["commits"])
            assert checkpoint.commit in held
