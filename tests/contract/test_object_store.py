"""What every `ObjectStore` does."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.gcs import BUCKET, GcsServer
from tests.support.memory_objects import MemoryObjectStore

from orchestrator.errors import InvalidRequest, ObjectConflict, ObjectNotFound
from orchestrator.ports import ObjectStore, StoredObject
from orchestrator.storage.objects.files import FileObjectStore
from orchestrator.storage.objects.gcs import GcsObjectStore

VALID = [
    "a",
    "a/b/c",
    "a b.txt",
    "...",
    ".hidden",
    "a+",
    "a=",
    "a+/b=",
    "-rf",
    "~",
    "%2e%2e/x",
    "a\\b",
    "naïve/文件.txt",
    "x" * 240,
    "/".join(["é" * 60] * 8),
]
INVALID = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../b",
    "a/./b",
    "a\x00b",
    "a\nb",
    "\x7f",
    " a",
    "a /b",
    "\u200b",
    "\ud800",
    "x" * 241,
    "é" * 121,
    "/".join(["x" * 200] * 6),
]


STORES = ["files", "gcs", "memory"]
MIB = 1024 * 1024


@pytest.fixture(params=STORES)
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ObjectStore]:
    if request.param == "files":
        yield FileObjectStore(tmp_path / "store")
    elif request.param == "memory":
        yield MemoryObjectStore()
    else:
        server: GcsServer = request.getfixturevalue("gcs")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        gcs_store = GcsObjectStore(BUCKET, prefix=f"{uuid.uuid4().hex}/")
        yield gcs_store
        await gcs_store.close()


async def content_of(store: ObjectStore, key: str) -> bytes:
    return (await store.read(key)).content


async def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in await store.list(prefix)]


@pytest.mark.parametrize("content", [b"", b"text", bytes(range(256)) * 4_000])
async def test_what_is_put_is_got(store: ObjectStore, content: bytes) -> None:
    info = await store.put("a/b", content)
    assert (info.key, info.size) == ("a/b", len(content))
    assert abs(info.updated_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert await store.read("a/b") == StoredObject(content, info)
    assert await store.list("") == [info]


async def test_a_put_replaces(store: ObjectStore) -> None:
    await store.put("a", b"old")
    await store.put("a", b"newer")
    assert await content_of(store, "a") == b"newer"
    assert [info.size for info in await store.list("")] == [5]


@pytest.mark.parametrize("key", VALID)
async def test_valid_keys(store: ObjectStore, key: str) -> None:
    await store.put(key, key.encode())
    assert await content_of(store, key) == key.encode()
    assert await keys(store) == [key]
    assert await keys(store, key) == [key]
    assert await store.delete(key) is True
    assert await keys(store) == []


async def test_valid_keys_do_not_meet(store: ObjectStore) -> None:
    for key in VALID:
        await store.put(key, key.encode())
    assert await keys(store) == sorted(VALID)
    for key in VALID:
        assert await content_of(store, key) == key.encode()


@pytest.mark.parametrize("key", INVALID)
async def test_invalid_keys_are_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be stored"):
        await store.put(key, b"")
    with pytest.raises(InvalidRequest):
        await content_of(store, key)
    with pytest.raises(InvalidRequest):
        await store.delete(key)


async def test_what_is_not_there(store: ObjectStore) -> None:
    await store.put("a/b", b"")
    for key in ("a", "b", "a/c", "a/b/c"):
        with pytest.raises(ObjectNotFound):
            await content_of(store, key)
        assert await store.delete(key) is False
    assert await keys(store) == ["a/b"]


async def test_a_key_and_keys_below_it_live_side_by_side(store: ObjectStore) -> None:
    for key in ("a/b/c", "a", "a/b"):
        await store.put(key, key.encode())
    assert await keys(store) == ["a", "a/b", "a/b/c"]
    assert await store.delete("a/b") is True
    assert await keys(store) == ["a", "a/b/c"]
    assert await content_of(store, "a/b/c") == b"a/b/c"


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", ["a/1", "a/12", "a/2/x", "ab/1", "b"]),
        ("a", ["a/1", "a/12", "a/2/x", "ab/1"]),
        ("a/", ["a/1", "a/12", "a/2/x"]),
        ("a/1", ["a/1", "a/12"]),
        ("a/2/", ["a/2/x"]),
        ("ab", ["ab/1"]),
        ("c", []),
        ("a/1/", []),
        ("/", []),
        ("../", []),
        ("a/../", []),
        ("a\x00/", []),
        ("x" * 5_000, []),
        ("x" * 5_000 + "/", []),
    ],
)
async def test_listing_by_prefix(store: ObjectStore, prefix: str, expected: list[str]) -> None:
    for key in ("b", "a/12", "ab/1", "a/2/x", "a/1"):
        await store.put(key, b"")
    assert await keys(store, prefix) == expected


async def test_an_empty_store(store: ObjectStore) -> None:
    assert await store.list("") == []
    assert await store.delete("a") is False


async def test_readers_never_see_a_part(store: ObjectStore) -> None:
    contents = [bytes([number]) * 300_000 for number in range(4)]
    await store.put("k", contents[0])

    async def write(content: bytes) -> None:
        for _ in range(10):
            await store.put("k", content)

    async def read() -> None:
        for _ in range(60):
            assert await content_of(store, "k") in contents

    await asyncio.gather(*map(write, contents), read(), read())


async def test_puts_and_deletes_at_once(store: ObjectStore) -> None:
    async def churn(name: str) -> None:
        for _ in range(25):
            await store.put(f"deep/down/{name}", b"x")
            assert await store.delete(f"deep/down/{name}") is True

    await asyncio.gather(*(churn(f"n{number}") for number in range(6)))
    assert await store.list("") == []


async def test_every_write_has_a_generation_of_its_own(store: ObjectStore) -> None:
    seen = set()
    for _ in range(3):
        for content in (b"x", b"x", b"y"):
            info = await store.put("k", content)
            assert (await store.read("k")).info == info
            assert await store.list("k") == [info]
            seen.add(info.generation)
        await store.delete("k")
    assert len(seen) == 9
    assert 0 not in seen


async def test_a_put_that_must_not_replace(store: ObjectStore) -> None:
    first = await store.put("k", b"first", if_generation=0)
    with pytest.raises(ObjectConflict):
        await store.put("k", b"second", if_generation=0)
    assert await store.read("k") == StoredObject(b"first", first)
    await store.delete("k")
    again = await store.put("k", b"again", if_generation=0)
    assert again.generation != first.generation


async def test_a_put_on_a_generation(store: ObjectStore) -> None:
    first = await store.put("k", b"first")
    second = await store.put("k", b"second", if_generation=first.generation)
    for stale in (first.generation, second.generation + 1, 1):
        with pytest.raises(ObjectConflict):
            await store.put("k", b"third", if_generation=stale)
    with pytest.raises(ObjectConflict):
        await store.put("none", b"x", if_generation=second.generation)
    assert await store.read("k") == StoredObject(b"second", second)
    assert await keys(store) == ["k"]


async def test_a_stale_put_loses_to_a_deleted_and_a_new_object(store: ObjectStore) -> None:
    first = await store.put("k", b"same")
    await store.delete("k")
    with pytest.raises(ObjectConflict):
        await store.put("k", b"x", if_generation=first.generation)
    await store.put("k", b"same")
    with pytest.raises(ObjectConflict):
        await store.put("k", b"x", if_generation=first.generation)
    assert await content_of(store, "k") == b"same"


async def test_a_stale_delete_is_refused(store: ObjectStore) -> None:
    first = await store.put("k", b"first")
    second = await store.put("k", b"second")
    with pytest.raises(ObjectConflict):
        await store.delete("k", if_generation=first.generation)
    assert await content_of(store, "k") == b"second"
    assert await store.delete("k", if_generation=second.generation) is True
    assert await store.delete("k", if_generation=second.generation) is False
    assert await keys(store) == []


async def test_of_racing_writers_one_wins_each_round(store: ObjectStore) -> None:
    generation = 0
    for number in range(6):
        contents = [f"{number} {writer}".encode() for writer in range(8)]
        outcomes = await asyncio.gather(
            *(store.put("k", content, if_generation=generation) for content in contents),
            return_exceptions=True,
        )
        won = [each for each in outcomes if not isinstance(each, BaseException)]
        lost = [each for each in outcomes if isinstance(each, ObjectConflict)]
        assert (len(won), len(lost)) == (1, 7)
        stored = await store.read("k")
        assert stored == StoredObject(contents[outcomes.index(won[0])], won[0])
        generation = stored.info.generation


async def test_counting_together_loses_no_count(store: ObjectStore) -> None:
    await store.put("n", b"0")

    async def count() -> None:
        for _ in range(5):
            while True:
                stored = await store.read("n")
                one_more = str(int(stored.content) + 1).encode()
                try:
                    await store.put("n", one_more, if_generation=stored.info.generation)
                    break
                except ObjectConflict:
                    await asyncio.sleep(random.random() / 50)

    await asyncio.gather(*(count() for _ in range(4)))
    assert await content_of(store, "n") == b"20"


@pytest.mark.parametrize("size", [0, 1, 8 * MIB, 8 * MIB + 1, 16 * MIB, 20 * MIB])
async def test_files_of_any_size(store: ObjectStore, tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(random.Random(size).randbytes(size))
    target.write_bytes(b"what was there before")
    info = await store.put_file("k", source, if_generation=0)
    assert info.size == size
    with pytest.raises(ObjectConflict):
        await store.put_file("k", source, if_generation=0)
    assert await store.get_file("k", target) == info
    assert target.read_bytes() == source.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} <= {"source", "target", "store"}


async def test_a_missing_object_leaves_the_file_alone(store: ObjectStore, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"before")
    with pytest.raises(ObjectNotFound):
        await store.get_file("none", target)
    assert target.read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} <= {"target", "store"}


async def test_files_and_contents_are_the_same_objects(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "file"
    await store.put("k", b"content")
    await store.get_file("k", path)
    assert path.read_bytes() == b"content"
    info = await store.put_file("l", path)
    assert await store.read("l") == StoredObject(b"content", info)
