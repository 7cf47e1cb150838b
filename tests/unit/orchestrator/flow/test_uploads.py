"""Uploaded files by their names, in a real store."""

from pathlib import Path

import pytest

from orchestrator.errors import FileNotFound, InvalidRequest
from orchestrator.flow.uploads import Uploads, upload_key
from orchestrator.storage.objects import FileObjectStore


@pytest.fixture
def objects(tmp_path: Path) -> FileObjectStore:
    return FileObjectStore(tmp_path)


@pytest.fixture
def uploads(objects: FileObjectStore) -> Uploads:
    return Uploads(objects)


async def names(uploads: Uploads) -> list[str]:
    return [each.key for each in await uploads.list()]


async def test_files_are_listed_by_the_names_they_were_given(uploads: Uploads) -> None:
    assert await names(uploads) == []
    await uploads.put("b.txt", b"12345")
    await uploads.put("a/ü.txt", b"")
    await uploads.put("./b.txt", b"123")
    assert await names(uploads) == ["a/ü.txt", "b.txt"]
    assert [each.size for each in await uploads.list()] == [0, 3]


async def test_other_objects_are_neither_listed_nor_deleted(
    uploads: Uploads, objects: FileObjectStore
) -> None:
    await objects.put("bundles/1", b"x")
    await uploads.put("bundles/1", b"y")
    assert await names(uploads) == ["bundles/1"]
    await uploads.delete("bundles/1")
    assert [each.key for each in await objects.list("")] == ["bundles/1"]


async def test_what_is_deleted_is_gone(uploads: Uploads, objects: FileObjectStore) -> None:
    await uploads.put("a", b"x")
    await uploads.delete("a")
    assert await names(uploads) == []
    for name in ("a", "never"):
        with pytest.raises(FileNotFound) as refused:
            await uploads.delete(name)
        assert refused.value.facts == {"file": name}


@pytest.mark.parametrize("name", ["", "../x", "/x", "a/../../x", "x" * 241, "a\x00"])
async def test_names_that_are_no_relative_paths_are_refused(uploads: Uploads, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await uploads.put(name, b"")
    with pytest.raises(InvalidRequest):
        await uploads.delete(name)
    assert await names(uploads) == []


def test_keys_of_uploads_lie_apart() -> None:
    assert upload_key("a/b") == "uploads/a/b"
