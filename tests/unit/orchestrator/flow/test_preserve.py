import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.bundles import (
    StandInBundler,
    StillClock,
    commit,
    new_bundle,
    require_restorable,
)
from tests.support.memory_objects import MemoryObjectStore

from orchestrator.domain.compaction import CompactionLimits
from orchestrator.domain.manifest import Checkpoint, Manifest
from orchestrator.errors import (
    BundleIncomplete,
    ManifestUnreadable,
    ObjectConflict,
    ObjectNotFound,
    StaleLease,
    StorageFailure,
)
from orchestrator.flow.preserve import NewBundle, Preserve
from orchestrator.ports import ObjectInfo

DAY = timedelta(days=1)
MANIFEST = "workspaces/w/manifest.json"
LIMITS = CompactionLimits(max_bundles=2)


class Setting:
    """A store, and one writer to it."""

    def __init__(self, directory: Path, store: MemoryObjectStore | None = None) -> None:
        self.directory = directory
        self.store = store or MemoryObjectStore()
        self.clock = StillClock()
        self.store.now = self.clock.now()
        self.preserve = Preserve(self.store, self.clock, retention=7 * DAY)

    def advance(self, by: timedelta) -> None:
        self.clock.advance(by)
        self.store.now = self.clock.now()

    def bundle(self, number: int, *requires: int) -> NewBundle:
        return new_bundle(self.directory, [commit(number)], map(commit, requires))

    async def publish(self, number: int, *requires: int, generation: int = 1) -> Manifest:
        checkpoint = Checkpoint(step=number, repository="code", commit=commit(number))
        return await self.preserve.publish(
            "w", generation, {"t": [checkpoint]}, self.bundle(number, *requires)
        )

    async def manifest(self) -> Manifest:
        manifest = await self.preserve.read("w")
        assert manifest is not None
        return manifest

    async def keys(self) -> set[str]:
        return {info.key for info in await self.store.list("")}


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


async def test_nothing_is_stored_at_first(setting: Setting) -> None:
    assert await setting.preserve.read("w") is None


async def test_what_is_published_is_read_and_fetched(setting: Setting) -> None:
    published = await setting.publish(1)
    assert await setting.manifest() == published
    assert published.checkpoints["t"][0].commit == commit(1)
    [bundle] = published.bundles
    assert bundle.key == f"workspaces/w/bundles/{bundle.sha256}.bundle"
    target = setting.directory / "target"
    await setting.preserve.fetch(bundle, target)
    assert target.read_bytes() == setting.bundle(1).path.read_bytes()
    assert await setting.preserve.read("other") is None


async def test_publishing_again_writes_nothing(setting: Setting) -> None:
    first = await setting.publish(1)
    before = await setting.store.list("")
    assert await setting.publish(1) == first
    assert await setting.store.list("") == before


async def test_checkpoints_without_a_bundle(setting: Setting) -> None:
    await setting.publish(1)
    again = Checkpoint(step=2, repository="code", commit=commit(1))
    manifest = await setting.preserve.publish("w", 1, {"u": [again]})
    assert manifest.checkpoints["u"] == (again,)
    unknown = Checkpoint(step=3, repository="code", commit=commit(9))
    with pytest.raises(BundleIncomplete):
        await setting.preserve.publish("w", 1, {"u": [unknown]})
    assert await setting.manifest() == manifest


async def test_a_bundle_on_unknown_commits_leaves_nothing(setting: Setting) -> None:
    with pytest.raises(BundleIncomplete):
        await setting.publish(2, 1)
    assert await setting.keys() == set()


async def test_a_damaged_bundle_is_not_handed_out(setting: Setting) -> None:
    [bundle] = (await setting.publish(1)).bundles
    await setting.store.put(bundle.key, b"something else")
    target = setting.directory / "target"
    with pytest.raises(StorageFailure, match="damaged"):
        await setting.preserve.fetch(bundle, target)
    await setting.store.delete(bundle.key)
    with pytest.raises(ObjectNotFound):
        await setting.preserve.fetch(bundle, target)
    assert not list(setting.directory.glob("target")) + list(setting.directory.glob(".*"))


async def test_a_damaged_manifest_is_never_replaced(setting: Setting) -> None:
    await setting.store.put(MANIFEST, b"{")
    with pytest.raises(ManifestUnreadable):
        await setting.preserve.read("w")
    with pytest.raises(ManifestUnreadable):
        await setting.publish(1)
    assert await setting.keys() == {MANIFEST}


async def test_a_stale_writer_is_shut_out(setting: Setting) -> None:
    await setting.publish(1, generation=1)
    claimed = await setting.preserve.claim("w", 2)
    assert claimed.generation == 2
    before = await setting.store.list("")
    attempts: list[Callable[[], Awaitable[object]]] = [
        lambda: setting.publish(2, 1, generation=1),
        lambda: setting.publish(1, generation=1),
        lambda: setting.preserve.claim("w", 1),
        lambda: setting.preserve.collect("w", 1),
    ]
    for attempt in attempts:
        with pytest.raises(StaleLease):
            await attempt()
    assert await setting.store.list("") == before
    assert (await setting.publish(2, 1, generation=2)).generation == 2


async def test_a_writer_that_loses_its_lease_while_it_uploads(tmp_path: Path) -> None:
    store = InterruptedStore()
    setting = Setting(tmp_path, store)
    await setting.publish(1, generation=1)
    store.interrupt = lambda: setting.preserve.claim("w", 2)
    with pytest.raises(StaleLease):
        await setting.publish(2, 1, generation=1)
    assert (await setting.manifest()).generation == 2
    assert set((await setting.manifest()).brings("code")) == {commit(1)}


class InterruptedStore(MemoryObjectStore):
    """Does something else once, after the next upload of a file."""

    def __init__(self) -> None:
        super().__init__()
        self.interrupt: Callable[[], Awaitable[object]] | None = None

    async def put_file(
        self, key: str, path: Path, *, if_generation: int | None = None
    ) -> ObjectInfo:
        info = await super().put_file(key, path, if_generation=if_generation)
        interrupt, self.interrupt = self.interrupt, None
        if interrupt is not None:
            await interrupt()
        return info


async def test_writers_at_once_are_all_heard(setting: Setting) -> None:
    await setting.publish(1)
    await asyncio.gather(*(setting.publish(number, 1) for number in range(2, 8)))
    manifest = await setting.manifest()
    assert manifest.brings("code") == {commit(number) for number in range(1, 8)}
    await require_restorable(setting.store, manifest)


class ContestedStore(MemoryObjectStore):
    """Somebody else always replaces the manifest first."""

    async def put(
        self, key: str, content: bytes, *, if_generation: int | None = None
    ) -> ObjectInfo:
        if key == MANIFEST and if_generation:
            raise ObjectConflict("too late", key=key)
        return await super().put(key, content, if_generation=if_generation)


async def test_tries_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.flow.preserve._pause", lambda _attempt: 0.0)
    setting = Setting(tmp_path, ContestedStore())
    await setting.publish(1)
    with pytest.raises(ObjectConflict, match="12 times in a row"):
        await setting.publish(2, 1)


async def test_compaction_and_collection(setting: Setting) -> None:
    for number in range(1, 5):
        old = await setting.publish(number, *([number - 1] if number > 1 else []))
    setting.advance(100 * DAY)
    compacted = await setting.preserve.compact("w", 1, StandInBundler(), setting.directory, LIMITS)
    assert compacted is not None
    assert compacted == await setting.manifest()
    assert len(compacted.bundles) == 1
    await require_restorable(setting.store, compacted)
    assert await setting.preserve.compact("w", 1, StandInBundler(), setting.directory, LIMITS) is (
        None
    )
    assert not list(setting.directory.glob("compact-*"))

    assert await setting.preserve.collect("w", 1) == 0
    setting.advance(7 * DAY - timedelta(seconds=1))
    assert await setting.preserve.collect("w", 1) == 0
    await require_restorable(setting.store, old)  # whoever has read the old manifest goes on
    setting.advance(timedelta(seconds=1))
    assert await setting.preserve.collect("w", 1) == 4
    manifest = await setting.manifest()
    assert (manifest.retired, manifest.sweeps) == ((), 1)
    assert await setting.keys() == {MANIFEST, compacted.bundles[0].key}
    await require_restorable(setting.store, manifest)
    assert await setting.preserve.collect("w", 1) == 0


async def test_a_compaction_that_comes_second_gives_way(tmp_path: Path) -> None:
    store = InterruptedStore()
    setting = Setting(tmp_path, store)
    for number in range(1, 5):
        await setting.publish(number)
    other = StandInBundler("other")
    store.interrupt = lambda: setting.preserve.compact("w", 1, other, tmp_path, LIMITS)
    assert await setting.preserve.compact("w", 1, StandInBundler(), tmp_path, LIMITS) is None
    manifest = await setting.manifest()
    assert len(manifest.bundles) == 1
    await require_restorable(setting.store, manifest)


async def test_an_upload_nobody_named_is_collected_later(setting: Setting) -> None:
    await setting.publish(1)
    await setting.store.put("workspaces/w/bundles/orphan.bundle", b"x")
    await setting.store.put("workspaces/w2/bundles/other.bundle", b"x")
    assert await setting.preserve.collect("w", 1) == 0
    setting.advance(8 * DAY)
    assert await setting.preserve.collect("w", 1) == 1
    assert "workspaces/w2/bundles/other.bundle" in await setting.keys()


async def test_a_writer_that_stood_still_for_weeks_uploads_again(tmp_path: Path) -> None:
    store = InterruptedStore()
    setting = Setting(tmp_path, store)
    await setting.publish(1)

    async def weeks_pass() -> None:
        setting.advance(30 * DAY)
        assert await setting.preserve.collect("w", 1) == 1

    store.interrupt = weeks_pass
    manifest = await setting.publish(2, 1)
    assert manifest.brings("code") == {commit(1), commit(2)}
    await require_restorable(store, manifest)


async def test_a_collector_spares_what_is_uploaded_again(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    await setting.publish(1)
    bundle = setting.bundle(2, 1)
    orphan = f"workspaces/w/bundles/{bundle.path.name}.bundle"
    await setting.store.put(orphan, b"x")
    setting.advance(30 * DAY)
    listed = setting.store.list

    async def listed_and_then_published(prefix: str) -> list[ObjectInfo]:
        found = list(await listed(prefix))
        await setting.store.put(orphan, b"x")
        return found

    setting.store.list = listed_and_then_published  # type: ignore[method-assign]
    assert await setting.preserve.collect("w", 1) == 0
    assert orphan in await setting.keys()
