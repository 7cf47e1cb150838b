"""Which object storage the settings choose."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from pydantic import ValidationError
from tests.support.gcs import BUCKET, gcs_server

from orchestrator.errors import ConfigurationError
from orchestrator.main.outside import open_objects
from orchestrator.settings import Settings
from orchestrator.storage.objects.files import FileObjectStore
from orchestrator.storage.objects.gcs import GcsObjectStore


@pytest.mark.parametrize("bucket", [None, ""])
async def test_files_without_a_bucket(tmp_path: Path, bucket: str | None) -> None:
    async with AsyncExitStack() as stack:
        objects = await open_objects(Settings(data_dir=tmp_path, gcs_bucket=bucket), stack)
        assert isinstance(objects, FileObjectStore)
        await objects.put("k", b"x")
    assert (tmp_path / "objects").is_dir()


async def test_the_bucket_if_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gcs_server() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        monkeypatch.setenv("GCS_BUCKET", BUCKET)
        async with AsyncExitStack() as stack:
            objects = await open_objects(Settings(data_dir=tmp_path), stack)
            assert isinstance(objects, GcsObjectStore)
            await objects.put("k", b"x")
        monkeypatch.setenv("GCS_BUCKET", "no-such-bucket")
        async with AsyncExitStack() as stack:
            with pytest.raises(ConfigurationError, match="GCS_BUCKET"):
                await open_objects(Settings(data_dir=tmp_path), stack)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["gs://bucket", "Bucket", "a", "-bucket", "bucket/path"])
def test_what_is_no_bucket_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        Settings(gcs_bucket=name)
