"""Trees leave their workers and come back: real workers, git and object storage."""

import asyncio
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.custody import MAX_BYTES, Hall
from tests.support.repositories import git, new_repository, sample_repository
from tests.support.worker_process import short_directory

from orchestrator.domain.compaction import CompactionLimits
from orchestrator.domain.task import NewTask, Task, TaskStatus
from orchestrator.domain.thinning import ThinningLimits
from orchestrator.errors import (
    BundleRefused,
    CheckpointsUnusable,
    StaleLease,
    StorageFailure,
    TreeGone,
    WorkerRefused,
    WorkLost,
)
from orchestrator.flow.export import TaskExport
from orchestrator.flow.lease import Leased
from orchestrator.flow.restore import Restored
from orchestrator.flow.stored import StoreBundler, origins_of
from orchestrator.flow.tidy import Tidy
from orchestrator.flow.turns import Turns

CHANGE = (
    "echo 1 >> log; mkdir -p deep/empty; chmod +x README.md; ln -s log link; "
    "git add log; git commit -qm mine; echo more >> README.md"
)


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture
async def hall(directory: Path) -> AsyncIterator[Hall]:
    async with Hall(directory, [sample_repository(directory / "sample")]) as hall:
        yield hall


async def patch(leased: Leased) -> str:
    return (await leased.worker.patch("t")).diff


class TestRestore:
    async def test_on_another_machine_with_an_empty_worker(self, hall: Hall) -> None:
        here, there = hall.machine(), hall.machine()
        task, old, new = hall.task(), await hall.worker(), await hall.worker()
        await here.supply(task, old.worker)
        await hall.run(old.worker, 2, CHANGE)
        await here.export(task, old)
        await hall.run(old.worker, 4, "echo 2 >> log; rm data.bin")
        await here.export(task, old)

        assert await there.restore(task, new.worker) == Restored(lost=True, step=4)
        assert await patch(new) == await patch(old)
        told = [(await each.worker.checkpoints("t")).parts for each in (old, new)]
        assert told[0] == told[1]
        for command in ("git log --format=%H%s -2; git status --porcelain", "find . -empty"):
            says = [(await hall.run(each.worker, 6, command)).text for each in (old, new)]
            assert says[0] == says[1]
        # It is there now, and goes on being brought out.
        assert await there.restore(task, new.worker) == Restored()
        await hall.run(new.worker, 8, "echo 3 >> log")
        await there.export(task, new)
        third = await hall.worker()
        assert await here.restore(task, third.worker) == Restored(lost=True, step=8)
        assert (await patch(third)).count("\n+1\n+2\n+3\n") == 1

    async def test_a_scratch_task(self, directory: Path) -> None:
        async with Hall(directory, []) as hall:
            machine, task = hall.machine(), hall.task()
            old, new = await hall.worker(), await hall.worker()
            await machine.supply(task, old.worker)
            await hall.run(old.worker, 2, "mkdir empty")
            await machine.export(task, old)
            await hall.run(old.worker, 3, "echo x > file")
            await machine.export(task, old)
            assert (await machine.restore(task, new.worker)).step == 3
            assert await patch(new) == await patch(old) != ""

    async def test_two_repositories(self, directory: Path) -> None:
        sources = [sample_repository(directory / "one"), new_repository(directory / "two")]
        async with Hall(directory, sources) as hall:
            machine, task = hall.machine(), hall.task()
            old, new = await hall.worker(), await hall.worker()
            await machine.supply(task, old.worker)
            await hall.run(old.worker, 2, "echo x > one/x")
            await machine.export(task, old)
            await hall.run(old.worker, 3, "echo y > two/y; rm one/README.md")
            await machine.export(task, old)
            assert (await machine.restore(task, new.worker)).step == 3
            assert await patch(new) == await patch(old)

    async def test_what_was_done_after_the_last_export_is_done_again(self, hall: Hall) -> None:
        machine, task = hall.machine(), hall.task()
        old, new = await hall.worker(), await hall.worker()
        await machine.supply(task, old.worker)
        await hall.run(old.worker, 2, "echo 2 >> log")
        await machine.export(task, old)
        await hall.run(old.worker, 4, "echo 4 >> log")
        await hall.call(old.worker, 5, "read_file", {"path": "log"})
        await hall.record(6, "no_such_tool", {})
        await hall.run(old.worker, 7, "echo 7 >> log")
        restored = await machine.restore(task, new.worker)
        assert restored == Restored(lost=True, step=2, repeated=(4, 7))
        assert await patch(new) == await patch(old)
        assert await machine.restore(task, new.worker) == Restored()

    async def test_without_anything_stored_all_is_done_again(self, hall: Hall) -> None:
        machine, task, new = hall.machine(), hall.task(), await hall.worker()
        for step in (2, 4):
            await hall.record(step, "bash", {"command": f"echo {step} >> log"})
        restored = await machine.restore(task, new.worker)
        assert restored == Restored(lost=True, repeated=(2, 4))
        assert "\n+2\n+4\n" in await patch(new)

    async def test_broken_off_it_goes_on_where_it_was(self, hall: Hall) -> None:
        machine, task, new = hall.machine(), hall.task(), await hall.worker()
        await hall.record(2, "bash", {"command": "echo 2 >> log"})
        await hall.record(3, "bash", {"command": "echo 3 >> log; sleep 30"})
        half = asyncio.create_task(machine.restore(task, new.worker))
        async with asyncio.timeout(60):
            while "+3" not in ((await _patch_or_nothing(new)) or ""):
                await asyncio.sleep(0.05)
        half.cancel()
        await asyncio.wait([half])
        await new.worker.interrupt("t")
        assert await machine.restore(task, new.worker) == Restored()
        assert (await patch(new)).count("\n+2\n+3\n") == 1

    async def test_the_unfinished_step_does_not_count(self, hall: Hall) -> None:
        machine, task = hall.machine(), hall.task()
        old, new = await hall.worker(), await hall.worker()
        await machine.supply(task, old.worker)
        await hall.run(old.worker, 2, "echo 2 >> log")
        await machine.export(task, old)
        # Its answer was lost: the loop will make this call again.
        await hall.run(old.worker, 4, "echo 4 >> log", completed=False)
        await machine.export(task, old)
        assert (await machine.restore(task, new.worker, before=4)).step == 2
        await hall.run(new.worker, 4, "echo 4 >> log")
        assert await patch(new) == await patch(old)

    async def test_damaged_storage_is_made_up_for(self, hall: Hall) -> None:
        machine, other = hall.machine(), hall.machine()
        task, old, new = hall.task(), await hall.worker(), await hall.worker()
        await machine.supply(task, old.worker)
        await hall.run(old.worker, 2, "echo 2 >> log")
        await machine.export(task, old)
        for bundle in (hall.directory / "objects").rglob("*.bundle="):
            bundle.write_bytes(b"rubbish")
        assert await other.restore(task, new.worker) == Restored(lost=True, repeated=(2,))
        assert await patch(new) == await patch(old)

    @pytest.mark.parametrize("harm", ["damaged", "missing", "manifest"])
    async def test_damaged_storage_is_told_of_where_nothing_makes_up_for_it(
        self, hall: Hall, harm: str
    ) -> None:
        machine, other = hall.machine(), hall.machine()
        task, old, new = hall.task(), await hall.worker(), await hall.worker()
        await machine.supply(task, old.worker)
        await hall.run(old.worker, 2, "echo 2 >> log")
        await machine.export(task, old)
        kind = "manifest.json=" if harm == "manifest" else "*.bundle="
        [file] = (hall.directory / "objects").rglob(kind)
        if harm == "missing":
            file.unlink()
        else:
            file.write_bytes(b"rubbish")
        with pytest.raises(CheckpointsUnusable) as told:
            await other.restore.ended(task, new.worker)
        where = file.name.removesuffix("=")
        assert where in told.value.detail
        assert ("holds nothing" if harm == "missing" else "damaged") in told.value.detail

    async def test_a_worker_that_refuses(self, hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
        machine, task = hall.machine(), hall.task()
        old, new = await hall.worker(), await hall.worker()
        await machine.supply(task, old.worker)
        await hall.run(old.worker, 2, "echo 2 >> log")
        await machine.export(task, old)

        async def refuse(*_: object) -> None:
            raise WorkerRefused("The worker refused.")

        monkeypatch.setattr(new.worker, "restore", refuse)
        with pytest.raises(WorkLost):
            await machine.restore(task, new.worker)


async def _patch_or_nothing(leased: Leased) -> str | None:
    try:
        return await patch(leased)
    except TreeGone:
        return None


class TestExport:
    async def test_again_it_stores_nothing(self, hall: Hall) -> None:
        machine, task, old = hall.machine(), hall.task(), await hall.worker()
        await machine.supply(task, old.worker)
        await machine.export(task, old)
        assert await machine.preserve.read(task.workspace.id) is None
        await hall.run(old.worker, 2, "echo 2 >> log")
        await machine.export(task, old)
        first = await machine.manifest(task)
        await machine.export(task, old)
        # A call that changes nothing needs no bundle.
        await hall.run(old.worker, 3, "true")
        await machine.export(task, old)
        last = await machine.manifest(task)
        assert last.bundles == first.bundles
        assert [each.step for each in last.checkpoints["t"]] == [2, 3]

    async def test_several_steps_are_one_bundle(self, hall: Hall) -> None:
        machine, task, old = hall.machine(), hall.task(), await hall.worker()
        await machine.supply(task, old.worker)
        for step in range(2, 6):
            await hall.run(old.worker, step, f"echo {step} >> log")
        await machine.export(task, old)
        manifest = await machine.manifest(task)
        assert len(manifest.bundles) == 1
        assert [each.step for each in manifest.checkpoints["t"]] == [2, 3, 4, 5]

    async def test_bundles_grow_with_the_change_and_not_with_the_tree(self, hall: Hall) -> None:
        machine, task, old = hall.machine(), hall.task(), await hall.worker()
        await machine.supply(task, old.worker)
        await hall.run(old.worker, 2, "for i in $(seq 500); do date +%N%s > f$i; done")
        await machine.export(task, old)
        await hall.run(old.worker, 3, "echo x > f7")
        await machine.export(task, old)
        first, second = (bundle.size for bundle in (await machine.manifest(task)).bundles)
        assert second < 16_000 < first

    async def test_a_machine_that_knows_nothing_goes_on(self, hall: Hall) -> None:
        here, there = hall.machine(), hall.machine()
        task, old = hall.task(), await hall.worker()
        await here.supply(task, old.worker)
        await hall.run(old.worker, 2, "echo 2 >> log")
        await here.export(task, old)
        await hall.run(old.worker, 3, "echo 3 >> log")
        await there.export(task, old)
        new = await hall.worker()
        assert (await hall.machine().restore(task, new.worker)).step == 3
        assert await patch(new) == await patch(old)

    async def test_an_old_generation_is_refused(self, hall: Hall) -> None:
        machine, task, old = hall.machine(), hall.task(), await hall.worker()
        await machine.supply(task, old.worker)
        await hall.run(old.worker, 2, "echo 2 >> log")
        await machine.preserve.claim(task.workspace.id, 7)
        with pytest.raises(StaleLease):
            await machine.export(task, old)

    async def test_an_upload_that_breaks_off_leaves_nothing_named(
        self, hall: Hall, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine, task, old = hall.machine(), hall.task(), await hall.worker()
        await machine.supply(task, old.worker)
        await hall.run(old.worker, 2, "echo 2 >> log")
        put_file = machine.objects.put_file

        async def broken(*_: object, **__: object) -> None:
            raise StorageFailure("The disk is full.")

        monkeypatch.setattr(machine.objects, "put_file", broken)
        with pytest.raises(StorageFailure):
            await machine.export(task, old)
        assert await machine.preserve.read(task.workspace.id) is None
        assert list(machine.room.iterdir()) == []
        monkeypatch.setattr(machine.objects, "put_file", put_file)
        await machine.export(task, old)
        assert (await machine.manifest(task)).checkpoints["t"][0].step == 2

    async def test_after_compaction_everything_still_comes_back(self, hall: Hall) -> None:
        machine, task, old = hall.machine(), hall.task(), await hall.worker()
        await machine.supply(task, old.worker)
        for step in range(2, 9):
            await hall.run(old.worker, step, f"echo {step} >> log; git add . ; git commit -qm x")
            await machine.export(task, old)
        # Nothing is at hand any more: what is put together comes from object storage.
        bare = hall.machine()
        bundler = StoreBundler(bare.filling, bare.preserve, bare.store, origins_of(task))
        limits = CompactionLimits(max_bundles=3)
        await bare.preserve.compact(task.workspace.id, 1, bundler, bare.room, limits)
        assert len((await bare.manifest(task)).bundles) < 7
        new = await hall.worker()
        assert (await hall.machine().restore(task, new.worker)).step == 8
        assert await patch(new) == await patch(old)


class TestFollowing:
    async def test_calls_are_brought_out_beside_the_task(self, hall: Hall) -> None:
        machine, task, old = hall.machine(), hall.task(), await hall.worker()
        await machine.supply(task, old.worker)
        following = TaskExport(machine.export, task)
        for step in range(2, 8):
            await hall.run(old.worker, step, f"echo {step} >> log")
            following.wake(old)
        assert await following.finish(old) == ""
        manifest = await machine.manifest(task)
        assert [each.step for each in manifest.checkpoints["t"]] == list(range(2, 8))

    async def test_a_failure_is_told_and_tried_again(
        self, hall: Hall, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine, task, old = hall.machine(), hall.task(), await hall.worker()
        await machine.supply(task, old.worker)
        await hall.run(old.worker, 2, "echo 2 >> log")

        async def broken(*_: object, **__: object) -> None:
            raise StorageFailure("The disk is full.")

        with monkeypatch.context() as patched:
            patched.setattr(machine.objects, "put_file", broken)
            following = TaskExport(machine.export, task)
            following.wake(old)
            assert "only in its container" in await following.finish(old)
        assert await following.finish(old) == ""
        assert (await machine.manifest(task)).checkpoints["t"][0].step == 2


class TestTidy:
    async def test_old_tasks_go_and_the_rest_comes_back(self, hall: Hall) -> None:
        machine = hall.machine()
        task, leased = hall.task(), await hall.worker()
        await machine.supply(task, leased.worker)
        await hall.run(leased.worker, 2, "echo 2 >> log")
        await machine.export(task, leased)
        stored = (await machine.manifest(task)).checkpoints["t"]
        await machine.preserve.publish(task.workspace.id, 1, {"old": stored})
        for step in range(3, 9):
            await hall.run(leased.worker, step, f"echo {step} >> log")
            await machine.export(task, leased)

        async def unfinished() -> list[Task]:
            return []

        tidy = Tidy(
            preserve=machine.preserve,
            store=machine.store,
            filling=machine.filling,
            unfinished=unfinished,
            turns=Turns(),
            room=machine.room,
            thinning=ThinningLimits(whole=1, last=1),
            compaction=CompactionLimits(max_bundles=3),
        )
        # The task that published last is the newest.
        await machine.preserve.publish(task.workspace.id, 1, {"new": stored})
        await tidy(_ended(task), 1)
        manifest = await machine.manifest(task)
        assert list(manifest.checkpoints) == ["new"]
        assert manifest.checkpoints["new"] == stored
        # What only the older tasks had is named no more.
        assert len(manifest.bundles) == 1
        assert len(manifest.retired) == 6

    async def test_our_own_git_can_be_dropped_at_any_time(self, hall: Hall) -> None:
        machine, task, old = hall.machine(), hall.task(), await hall.worker()
        await machine.supply(task, old.worker)
        for step in (2, 3):
            await hall.run(old.worker, step, f"echo {step} >> log")
            await machine.export(task, old)
            assert not await machine.store.shed(task.workspace.id)
            assert await machine.store.shed(task.workspace.id, is_over=True)
            assert not await machine.store.shed(task.workspace.id, is_over=True)
        new = await hall.worker()
        assert (await machine.restore(task, new.worker)).step == 3
        assert await patch(new) == await patch(old)

    async def test_without_room_on_our_own_disk_it_ends_by_itself(self, hall: Hall) -> None:
        machine, task, leased = hall.machine(), hall.task(), await hall.worker()
        await machine.supply(task, leased.worker)
        await hall.run(leased.worker, 2, "echo 2 >> log")
        await machine.export(task, leased)

        async def unfinished() -> list[Task]:
            return []

        machine.room.rmdir()
        tidy = Tidy(
            preserve=machine.preserve,
            store=machine.store,
            filling=machine.filling,
            unfinished=unfinished,
            turns=Turns(),
            room=machine.room,
        )
        with pytest.raises(FileNotFoundError):
            await tidy(_ended(task), 1)
        tidy.begin(_ended(task), 1)
        [running] = tidy._running
        await running

    async def test_it_takes_its_turn_and_ends_by_itself(self, hall: Hall) -> None:
        machine, task = hall.machine(), hall.task()
        asked = asyncio.Event()

        async def unfinished() -> list[Task]:
            asked.set()
            raise StorageFailure("The database does not answer.")

        leased = await hall.worker()
        await machine.supply(task, leased.worker)
        await hall.run(leased.worker, 2, "echo 2 >> log")
        await machine.export(task, leased)
        turns = Turns()
        tidy = Tidy(
            preserve=machine.preserve,
            store=machine.store,
            filling=machine.filling,
            unfinished=unfinished,
            turns=turns,
            room=machine.room,
        )
        async with turns.of(task.workspace.id):
            tidy.begin(_ended(task), 1)
            await asyncio.sleep(0)
            assert not asked.is_set()
        async with asyncio.timeout(60):
            await asked.wait()
        await tidy.stop()


class TestHostile:
    """What comes out of a container is looked at before it is believed."""

    async def refused(self, hall: Hall, content: bytes, tip: str) -> None:
        machine, task = hall.machine(), hall.task()
        (origin,) = origins_of(task)

        async def chunks() -> AsyncGenerator[bytes, None]:
            yield content

        path = machine.room / "bundle"
        with pytest.raises(BundleRefused):
            await machine.store.receive(origin, chunks(), [tip], path)

    async def test_no_bundle(self, hall: Hall) -> None:
        for content in (b"", b"rubbish", b"# v2 git bundle\n", b"# v2 git bundle\nx y\n\n"):
            await self.refused(hall, content, "1" * 40)

    async def test_a_bundle_that_is_cut_off_or_damaged(self, hall: Hall) -> None:
        source = hall.sources[0]
        tip, content = _bundle(source.path, {"x": b"x\n" * 1_000})
        await self.refused(hall, content[:-10], tip)
        await self.refused(hall, content[:-30] + b"\xff" * 10 + content[-20:], tip)

    async def test_a_bundle_without_what_it_should_bring(self, hall: Hall) -> None:
        _, content = _bundle(hall.sources[0].path, {"x": b"x\n"})
        await self.refused(hall, content, "1" * 40)

    async def test_a_bundle_that_lacks_what_its_commits_name(self, hall: Hall) -> None:
        source = hall.sources[0].path
        tree = git(source, "mktree", "--missing", stdin=b"100644 blob " + b"1" * 40 + b"\tx\n")
        tip = git(source, "commit-tree", tree, "-m", "x")
        pack = _pack(source, f"{tip}\n{tree}\n")
        await self.refused(hall, _header(tip) + pack, tip)

    async def test_a_tree_that_would_write_into_the_git_directory(self, hall: Hall) -> None:
        source = hall.sources[0].path
        blob = git(source, "hash-object", "-w", "--stdin", stdin=b"[core]\n")
        entry = b"100644 config\0" + bytes.fromhex(blob)
        inner = git(
            source, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=entry
        )
        entry = b"40000 .git\0" + bytes.fromhex(inner)
        tree = git(source, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=entry)
        tip = git(source, "commit-tree", tree, "-m", "x")
        pack = _pack(source, f"{tip}\n{tree}\n{inner}\n{blob}\n")
        await self.refused(hall, _header(tip) + pack, tip)

    async def test_a_bundle_without_end(self, hall: Hall) -> None:
        machine, task = hall.machine(), hall.task()
        (origin,) = origins_of(task)
        sent = 0

        async def endless() -> AsyncGenerator[bytes, None]:
            nonlocal sent
            while True:
                sent += 65_536
                yield b"\0" * 65_536

        with pytest.raises(BundleRefused):
            await machine.store.receive(origin, endless(), ["1" * 40], machine.room / "bundle")
        assert sent < 2 * MAX_BYTES

    async def test_nothing_of_it_is_stored(
        self, hall: Hall, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine, task, old = hall.machine(), hall.task(), await hall.worker()
        await machine.supply(task, old.worker)
        await hall.run(old.worker, 2, "echo 2 >> log")

        async def other(*_: object) -> AsyncGenerator[bytes, None]:
            yield b"# v2 git bundle\n\nPACK"

        monkeypatch.setattr(old.worker, "bundle", other)
        with pytest.raises(BundleRefused):
            await machine.export(task, old)
        assert await machine.preserve.read(task.workspace.id) is None
        assert list((hall.directory / "objects").rglob("*.bundle=")) == []


def _ended(task: NewTask) -> Task:
    """The task as it is kept after its end."""
    status, now = TaskStatus.SUCCEEDED, datetime.now(UTC)
    return Task(task.id, "?", task.workspace, "sandbox", task.start, task.budget, status, now)


def _bundle(source: Path, files: dict[str, bytes]) -> tuple[str, bytes]:
    """A commit of files that stands alone, and its bundle."""
    entries = b"".join(
        b"100644 blob "
        + git(source, "hash-object", "-w", "--stdin", stdin=content).encode()
        + f"\t{name}\n".encode()
        for name, content in files.items()
    )
    tree = git(source, "mktree", stdin=entries)
    tip = git(source, "commit-tree", tree, "-m", "x")
    objects = git(source, "rev-list", "--objects", "--no-object-names", tip)
    return tip, _header(tip) + _pack(source, f"{objects}\n")


def _header(tip: str) -> bytes:
    return f"# v2 git bundle\n{tip} refs/berth-states/{tip}\n\n".encode()


def _pack(source: Path, objects: str) -> bytes:
    done = subprocess.run(
        ("git", "pack-objects", "--stdout", "-q"),
        cwd=source,
        input=objects.encode(),
        capture_output=True,
        check=True,
    )
    return done.stdout
