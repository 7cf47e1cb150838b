"""What is particular to objects kept as files."""

import asyncio
import sys
from pathlib import Path

import pytest

from orchestrator.errors import StorageFailure
from orchestrator.storage.objects import FileObjectStore

WRITER = """
import sys
from pathlib import Path
from orchestrator.storage.objects.files import FileObjectStore
with FileObjectStore(Path(sys.argv[1]))._new_file() as (descriptor, path):
    path.write_bytes(b"half")
    print("writing", flush=True)
    sys.stdin.read()
"""


async def test_an_interrupted_put_is_invisible_and_cleaned(tmp_path: Path) -> None:
    store = FileObjectStore(tmp_path)
    await store.put("kept", b"x")
    writer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WRITER, str(tmp_path)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert writer.stdout is not None
    assert await asyncio.wait_for(writer.stdout.readline(), 20) == b"writing\n"
    assert [info.key for info in await store.list("")] == ["kept"]
    assert await store.clean() == 0, "a writer at work keeps its file"
    writer.kill()
    await writer.wait()
    assert [info.key for info in await store.list("")] == ["kept"]
    assert await store.clean() == 1
    assert await store.clean() == 0
    assert (await store.read("kept")).content == b"x"


async def test_no_temporary_file_stays(tmp_path: Path) -> None:
    store = FileObjectStore(tmp_path)
    assert await store.clean() == 0
    await store.put("a/b", b"x")
    assert list((tmp_path / "incoming").iterdir()) == []


async def test_deleting_the_last_object_removes_its_directories(tmp_path: Path) -> None:
    store = FileObjectStore(tmp_path)
    await store.put("a/b/c", b"x")
    await store.put("a/d", b"x")
    await store.delete("a/b/c")
    assert {path.name for path in (tmp_path / "objects").rglob("*")} == {"a+", "d="}
    await store.delete("a/d")
    assert list((tmp_path / "objects").iterdir()) == []


async def test_a_failing_disk_is_a_storage_failure(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_bytes(b"")
    with pytest.raises(StorageFailure, match="free space"):
        await FileObjectStore(root).put("a", b"x")


async def test_objects_are_private(tmp_path: Path) -> None:
    store = FileObjectStore(tmp_path / "store")
    await store.put("a/b", b"x")
    modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "store").rglob("*")}
    assert modes == {0}
