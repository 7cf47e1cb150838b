"""What every `ObjectStore` does."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.errors import InvalidRequest, ObjectNotFound
from orchestrator.ports import ObjectStore
from orchestrator.storage.objects import FileObjectStore

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


@pytest.fixture(params=["files"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return FileObjectStore(tmp_path / "store")


async def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in await store.list(prefix)]


@pytest.mark.parametrize("content", [b"", b"text", bytes(range(256)) * 4_000])
async def test_what_is_put_is_got(store: ObjectStore, content: bytes) -> None:
    info = await store.put("a/b", content)
    assert (info.key, info.size) == ("a/b", len(content))
    assert abs(info.updated_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert await store.get("a/b") == content
    assert await store.list("") == [info]


async def test_a_put_replaces(store: ObjectStore) -> None:
    await store.put("a", b"old")
    await store.put("a", b"newer")
    assert await store.get("a") == b"newer"
    assert [info.size for info in await store.list("")] == [5]


@pytest.mark.parametrize("key", VALID)
async def test_valid_keys(store: ObjectStore, key: str) -> None:
    await store.put(key, key.encode())
    assert await store.get(key) == key.encode()
    assert await keys(store) == [key]
    assert await keys(store, key) == [key]
    assert await store.delete(key) is True
    assert await keys(store) == []


async def test_valid_keys_do_not_meet(store: ObjectStore) -> None:
    for key in VALID:
        await store.put(key, key.encode())
    assert await keys(store) == sorted(VALID)
    for key in VALID:
        assert await store.get(key) == key.encode()


@pytest.mark.parametrize("key", INVALID)
async def test_invalid_keys_are_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be stored"):
        await store.put(key, b"")
    with pytest.raises(InvalidRequest):
        await store.get(key)
    with pytest.raises(InvalidRequest):
        await store.delete(key)


async def test_what_is_not_there(store: ObjectStore) -> None:
    await store.put("a/b", b"")
    for key in ("a", "b", "a/c", "a/b/c"):
        with pytest.raises(ObjectNotFound):
            await store.get(key)
        assert await store.delete(key) is False
    assert await keys(store) == ["a/b"]


async def test_a_key_and_keys_below_it_live_side_by_side(store: ObjectStore) -> None:
    for key in ("a/b/c", "a", "a/b"):
        await store.put(key, key.encode())
    assert await keys(store) == ["a", "a/b", "a/b/c"]
    assert await store.delete("a/b") is True
    assert await keys(store) == ["a", "a/b/c"]
    assert await store.get("a/b/c") == b"a/b/c"


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
            assert await store.get("k") in contents

    await asyncio.gather(*map(write, contents), read(), read())


async def test_puts_and_deletes_at_once(store: ObjectStore) -> None:
    async def churn(name: str) -> None:
        for _ in range(25):
            await store.put(f"deep/down/{name}", b"x")
            assert await store.delete(f"deep/down/{name}") is True

    await asyncio.gather(*(churn(f"n{number}") for number in range(6)))
    assert await store.list("") == []
