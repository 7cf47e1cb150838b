"""What is particular to objects in Google Cloud Storage: a network that fails at any moment."""

import asyncio
import os
import socket
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.gcs import BUCKET, GcsServer
from tests.support.memory_use import GROWTH, peak_growth

from orchestrator.errors import (
    ConfigurationError,
    InvalidRequest,
    ObjectConflict,
    ObjectNotFound,
    StorageFailure,
)
from orchestrator.storage.objects import gcs_bucket, resumable_upload
from orchestrator.storage.objects.gcs import GcsObjectStore
from orchestrator.storage.objects.gcs_failures import RETRY

MIB = 1024 * 1024
BIG = 20 * MIB
UPLOADER = """
import asyncio, sys
from pathlib import Path
from orchestrator.storage.objects.gcs import GcsObjectStore
store = GcsObjectStore(sys.argv[1], sys.argv[2])
asyncio.run(store.put_file("k", Path(sys.argv[3])))
"""


@pytest.fixture
def prefix() -> str:
    return f"{uuid.uuid4().hex}/"


@pytest.fixture
async def store(
    gcs: GcsServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[GcsObjectStore]:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    store = GcsObjectStore(BUCKET, prefix)
    await store.check()
    gcs.fail()
    yield store
    gcs.fail()
    await store.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    soon = RETRY.with_timeout(0.5)
    monkeypatch.setattr(gcs_bucket, "RETRY", soon)
    monkeypatch.setattr(resumable_upload, "RETRY", soon)


@pytest.fixture
def big_file(tmp_path: Path) -> Path:
    path = tmp_path / "big"
    path.write_bytes(os.urandom(BIG))
    return path


def uploads(gcs: GcsServer) -> int:
    return sum("/upload/" in request for request in gcs.requests())


@pytest.mark.parametrize("generation", [None, 0])
@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "unavailable"])
async def test_a_put_survives(
    store: GcsObjectStore, gcs: GcsServer, kind: str, generation: int | None
) -> None:
    gcs.fail({"kind": kind, "method": "POST", "times": 2})
    info = await store.put("k", b"content", if_generation=generation)
    assert uploads(gcs) == 3
    assert (await store.read("k")).info == info


async def test_a_lost_confirmation_is_no_conflict(store: GcsObjectStore, gcs: GcsServer) -> None:
    first = await store.put("k", b"first")
    gcs.fail({"kind": "drop_after", "method": "POST"})
    second = await store.put("k", b"second", if_generation=first.generation)
    stored = await store.read("k")
    assert (stored.content, stored.info) == (b"second", second)
    with pytest.raises(ObjectConflict):
        await store.put("k", b"third", if_generation=first.generation)


async def test_a_lost_confirmation_of_what_was_replaced_since(
    store: GcsObjectStore, gcs: GcsServer
) -> None:
    multipart: dict[str, Any] = {"method": "POST", "address": "uploadType=multipart"}
    gcs.fail(
        {"kind": "drop_after", **multipart},
        {"kind": "slow", "seconds": 1.0, **multipart},
    )
    put = asyncio.create_task(store.put("k", b"ours", if_generation=0))
    async with asyncio.timeout(60):
        while uploads(gcs) < 2:
            await asyncio.sleep(0.01)
    await store.put("k", b"theirs" * 2 * MIB)  # large, so that it is none of the failing requests
    with pytest.raises(ObjectConflict):
        await put
    assert (await store.read("k")).content == b"theirs" * 2 * MIB


@pytest.mark.parametrize(
    "faults",
    [
        [{"kind": "half_piece", "method": "PUT", "times": 3}],
        [{"kind": "drop_before", "method": "PUT", "times": 2}],
        [{"kind": "drop_after", "method": "PUT", "times": 4}],
        [{"kind": "unavailable", "method": "PUT", "times": 2}],
        [{"kind": "drop_after", "method": "POST"}],
        [
            {"kind": "half_piece", "method": "PUT", "times": 1},
            {"kind": "drop_after", "method": "PUT", "times": 1},
            {"kind": "half_piece", "method": "PUT", "times": 1},
            {"kind": "unavailable", "method": "PUT", "times": 1},
        ],
    ],
)
async def test_a_large_put_survives(
    store: GcsObjectStore,
    gcs: GcsServer,
    big_file: Path,
    tmp_path: Path,
    faults: list[dict[str, Any]],
) -> None:
    gcs.fail(*faults)
    info = await store.put_file("k", big_file, if_generation=0)
    assert await store.get_file("k", tmp_path / "copy") == info
    assert (tmp_path / "copy").read_bytes() == big_file.read_bytes()


async def test_a_large_put_loses_at_its_end_too(
    store: GcsObjectStore, gcs: GcsServer, big_file: Path
) -> None:
    gcs.fail({"kind": "slow", "method": "PUT", "seconds": 1.0})
    put = asyncio.create_task(store.put_file("k", big_file, if_generation=0))
    async with asyncio.timeout(60):
        while uploads(gcs) < 2:
            await asyncio.sleep(0.01)
    assert await store.list("") == []
    winner = await store.put("k", b"faster", if_generation=0)
    with pytest.raises(ObjectConflict):
        await put
    assert (await store.read("k")).info == winner


async def test_an_upload_that_gets_nowhere_ends(
    store: GcsObjectStore, gcs: GcsServer, big_file: Path, impatient: None
) -> None:
    gcs.fail({"kind": "unavailable", "method": "PUT", "times": 1_000})
    with pytest.raises(StorageFailure, match="does not answer"):
        await store.put_file("k", big_file)
    assert await store.list("") == []


async def test_a_killed_upload_leaves_the_old_object(
    store: GcsObjectStore, gcs: GcsServer, prefix: str, big_file: Path
) -> None:
    old = await store.put("k", b"old")
    gcs.fail({"kind": "slow", "address": "upload_id", "seconds": 0.3, "times": 100})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", UPLOADER, BUCKET, prefix, str(big_file))
    )
    async with asyncio.timeout(30):
        while uploads(gcs) < 3:
            await asyncio.sleep(0.01)
    process.kill()
    await process.wait()
    assert await store.list("") == [old]
    assert (await store.read("k")).content == b"old"


@pytest.mark.parametrize("kind", ["half_answer", "corrupt", "drop_before", "unavailable"])
async def test_a_read_survives(
    store: GcsObjectStore, gcs: GcsServer, tmp_path: Path, kind: str
) -> None:
    content = os.urandom(3 * MIB)
    info = await store.put("k", content)
    gcs.fail({"kind": kind, "address": "alt=media"})
    assert await store.get_file("k", tmp_path / "copy") == info
    assert (tmp_path / "copy").read_bytes() == content
    gcs.fail({"kind": kind, "address": "alt=media"})
    assert (await store.read("k")).content == content


async def test_damage_is_noticed(store: GcsObjectStore, gcs: GcsServer, tmp_path: Path) -> None:
    await store.put("k", b"content")
    gcs.fail({"kind": "corrupt", "address": "alt=media", "times": 100})
    with pytest.raises(StorageFailure, match="damaged"):
        await store.read("k")
    with pytest.raises(StorageFailure, match="damaged"):
        await store.get_file("k", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


async def test_a_delete_survives(store: GcsObjectStore, gcs: GcsServer) -> None:
    info = await store.put("k", b"x")
    gcs.fail({"kind": "drop_after", "method": "DELETE"})
    assert await store.delete("k", if_generation=info.generation) is True
    assert await store.delete("k") is False
    gcs.fail({"kind": "unavailable", "method": "DELETE"})
    assert await store.delete("k") is False


async def test_listing_goes_on_to_the_last_page(store: GcsObjectStore, gcs: GcsServer) -> None:
    wanted = [f"k{number:02d}" for number in range(10)]
    for key in wanted:
        await store.put(key, b"x")
    gcs.fail({"kind": "unavailable", "address": "pageToken"}, largest_page=3)
    assert [info.key for info in await store.list("k")] == wanted
    assert len(gcs.requests()) == 5


async def test_prefixes_keep_deployments_apart(store: GcsObjectStore, prefix: str) -> None:
    other = GcsObjectStore(BUCKET, prefix + "inner/")
    await other.put("k", b"x")
    assert [info.key for info in await other.list("")] == ["k"]
    assert [info.key for info in await store.list("")] == ["inner/k"]
    with pytest.raises(ObjectNotFound):
        await store.read("k")
    with pytest.raises(InvalidRequest, match="prefix"):
        await other.put("/".join(["x" * 200] * 5), b"")
    await other.close()


async def test_the_bucket_must_be_there_and_ours(gcs: GcsServer, store: GcsObjectStore) -> None:
    for bucket, sentence in (("none", "no bucket 'none'"), ("forbidden", "refuses access")):
        wrong = GcsObjectStore(bucket)
        for attempt in (wrong.check(), wrong.put("k", b""), wrong.list("")):
            with pytest.raises(ConfigurationError, match=sentence) as caught:
                await attempt
            assert "GCS_BUCKET" in caught.value.detail
        await wrong.close()
    wrong = GcsObjectStore("forbidden")
    with pytest.raises(ConfigurationError, match="refuses access"):
        await wrong.read("k")
    await wrong.close()


async def test_a_bucket_that_went_missing_is_not_a_missing_object(
    gcs: GcsServer, store: GcsObjectStore
) -> None:
    gone = GcsObjectStore("gone")
    with pytest.raises(ConfigurationError):
        await gone.read("k")
    with pytest.raises(ConfigurationError):
        await gone.delete("k")
    await gone.close()


async def test_without_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    store = GcsObjectStore(BUCKET)
    with pytest.raises(ConfigurationError, match="credentials"):
        await store.check()
    await store.close()


async def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, impatient: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    store = GcsObjectStore(BUCKET)
    for attempt in (store.check(), store.read("k"), store.put("k", b""), store.delete("k")):
        with pytest.raises(StorageFailure, match="does not answer"):
            await attempt
    await store.close()


async def test_the_library_is_imported_when_needed() -> None:
    script = (
        "import sys, orchestrator.main\n"
        "from orchestrator.storage.objects.gcs import GcsObjectStore\n"
        "GcsObjectStore('x')\n"
        "sys.exit('google.cloud.storage' in sys.modules)\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    assert await process.wait() == 0


async def test_large_objects_take_no_memory(gcs: GcsServer, tmp_path: Path, prefix: str) -> None:
    script = GROWTH + "from orchestrator.storage.objects.gcs import GcsObjectStore\n"
    script += f"measure(GcsObjectStore({BUCKET!r}, {prefix!r}))\n"
    environment = os.environ | {"STORAGE_EMULATOR_HOST": gcs.url}
    assert await peak_growth(script, tmp_path, environment) < 16 * MIB
