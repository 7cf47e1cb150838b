"""What is particular to objects kept as files: processes that race, and processes that die."""

import asyncio
import os
import random
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from tests.support.memory_use import GROWTH, peak_growth

from orchestrator.errors import ObjectConflict, StorageFailure
from orchestrator.storage.objects import files
from orchestrator.storage.objects.files import FileObjectStore
from orchestrator.storage.objects.key_locks import locked
from orchestrator.storage.objects.object_file import Header, write_object

RACER = """
import asyncio, sys
from pathlib import Path
from orchestrator.errors import ObjectConflict
from orchestrator.storage.objects.files import FileObjectStore

async def main():
    store = FileObjectStore(Path(sys.argv[1]))
    for line in sys.stdin:
        try:
            await store.put("k", sys.argv[2].encode(), if_generation=int(line))
            print("won", flush=True)
        except ObjectConflict:
            print("lost", flush=True)

asyncio.run(main())
"""
WRITER = """
import asyncio, sys
from pathlib import Path
from orchestrator.storage.objects.files import FileObjectStore

async def main():
    store = FileObjectStore(Path(sys.argv[1]))
    print("ready", flush=True)
    for number in range(100_000):
        await store.put("a/k", b"%d " % number * 20_000)
        await store.put(f"b/{number % 7}", b"x")
        await store.delete(f"b/{number % 7}")

asyncio.run(main())
"""


async def started(script: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def test_of_racing_processes_one_wins_each_round(tmp_path: Path) -> None:
    racers = [await started(RACER, str(tmp_path), str(number)) for number in range(8)]
    store = FileObjectStore(tmp_path)
    generation = 0
    for _ in range(20):
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write(b"%d\n" % generation)
        outcomes = []
        for racer in racers:
            assert racer.stdout is not None
            outcomes.append(await asyncio.wait_for(racer.stdout.readline(), 30))
        assert sorted(outcomes) == [b"lost\n"] * 7 + [b"won\n"]
        stored = await store.read("k")
        assert stored.content == str(outcomes.index(b"won\n")).encode()
        assert stored.info.generation > generation
        generation = stored.info.generation
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.close()
        assert await racer.wait() == 0


async def test_killed_writers_leave_whole_objects(tmp_path: Path) -> None:
    store = FileObjectStore(tmp_path, lock_seconds=2)
    chance = random.Random(0)
    for _ in range(12):
        writer = await started(WRITER, str(tmp_path))
        assert writer.stdout is not None
        assert await asyncio.wait_for(writer.stdout.readline(), 20) == b"ready\n"
        await asyncio.sleep(chance.uniform(0.005, 0.08))
        writer.kill()
        await writer.wait()
        for info in await store.list("a/"):
            content = (await store.read(info.key)).content
            assert content == content.split(b" ")[0].join([b"", b" "]) * 20_000
        await store.put("a/k", b"0 " * 20_000)  # no lock is left behind
    await store.clean()
    assert list((tmp_path / "incoming").iterdir()) == []


async def test_a_lock_that_is_never_given_back(tmp_path: Path) -> None:
    store = FileObjectStore(tmp_path, lock_seconds=0.1)
    first = await store.put("k", b"x")
    with locked(tmp_path / "locks", "k", 1):
        with pytest.raises(StorageFailure, match="stopped Berth process"):
            await store.put("k", b"y")
        with pytest.raises(StorageFailure, match="stopped Berth process"):
            await store.delete("k")
        assert (await store.read("k")).info == first


@pytest.mark.parametrize("position", [3, 12, 19, 60, -1])
async def test_damage_is_noticed(tmp_path: Path, position: int) -> None:
    store = FileObjectStore(tmp_path)
    await store.put("k", b"content " * 10)
    file = tmp_path / "objects" / "k="
    content = bytearray(file.read_bytes())
    if position == 12:  # the generation itself has no checksum
        content = content[:40]
    else:
        content[position] ^= 1
    file.write_bytes(content)
    target = tmp_path / "target"
    with pytest.raises(StorageFailure, match="damaged"):
        await store.read("k")
    with pytest.raises(StorageFailure, match="damaged"):
        await store.get_file("k", target)
    assert not target.exists()


async def test_what_is_deleted_under_a_write_is_a_failure_of_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileObjectStore(tmp_path)

    def delete_all(descriptor: int, chunks: Iterable[bytes], generation: int) -> Header:
        header = write_object(descriptor, chunks, generation)
        shutil.rmtree(tmp_path)
        return header

    monkeypatch.setattr(files, "write_object", delete_all)
    with pytest.raises(StorageFailure, match="No such file"):
        await store.put("k", b"content")


async def test_a_clock_that_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileObjectStore(tmp_path)
    first = await store.put("k", b"x")
    monkeypatch.setattr("time.time_ns", lambda: 5)
    second = await store.put("k", b"y")
    assert second.generation == first.generation + 1
    assert (await store.read("k")).info == second
    with pytest.raises(ObjectConflict):
        await store.put("k", b"z", if_generation=first.generation)


async def test_large_objects_take_no_memory(tmp_path: Path) -> None:
    script = GROWTH + "from orchestrator.storage.objects.files import FileObjectStore\n"
    script += f"measure(FileObjectStore(Path({str(tmp_path / 'store')!r})))\n"
    assert await peak_growth(script, tmp_path, dict(os.environ)) < 16 * 1024 * 1024
