"""The disk is full, for uploads or for a task's tree: it is said, survived, and gets over."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from tests.acceptance.conftest import SANDBOX_ONLY
from tests.support.gated_model import Call, gated_model
from tests.support.repositories import SourceRepository
from tests.support.service import Service
from tests.support.tasks import begun, events_of, until_ended

pytestmark = [
    SANDBOX_ONLY,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk"),
]

SMALL = "24m"
FILL = "head -c 100000000 /dev/zero > full.bin; echo filled"


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A small file system at a directory."""
    place.mkdir(parents=True)
    place.chmod(0o711)
    options = f"size={SMALL},mode=0711"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


async def test_an_upload_that_does_not_fit_is_refused_and_leaves_nothing(
    own_service: Service,
) -> None:
    with small_disk(own_service.data_dir / "objects"):
        own_service.data_dir.chmod(0o711)
        await asyncio.to_thread(own_service.start)
        async with own_service.client() as http:
            for _ in range(2):
                response = await http.put("/files/large", content=b"x" * 30_000_000)
                assert response.status_code == 503
                assert response.json()["code"] == "storage_failure"
                assert "free space" in response.json()["detail"]
            unknown = await http.post("/orchestrate", json={"query": "Nothing", "files": ["large"]})
            assert unknown.json()["code"] == "unknown_file"
            # What the failed ones took is free again.
            assert (await http.put("/files/fits", content=b"x" * 15_000_000)).is_success
            task = {"query": "Nothing", "files": [{"name": "more", "content": "x" * 12_000_000}]}
            response = await http.post("/orchestrate", json=task)
            assert (response.status_code, response.json()["code"]) == (503, "storage_failure")
            assert (await http.get("/tasks")).json() == []
        assert await asyncio.to_thread(own_service.stop) == 0


async def test_a_task_that_fills_the_disk_ends_and_nothing_else_does(
    own_service: Service, fresh: SourceRepository
) -> None:
    write = Call("write_file", {"path": "more.txt", "content": "more\n" * 100_000})
    async with gated_model() as model:
        own_service.settings = {"GPT_OSS_URL": model.url}
        with small_disk(own_service.data_dir / "sandboxes"):
            own_service.data_dir.chmod(0o711)
            await asyncio.to_thread(own_service.start)
            async with own_service.client() as http:
                tokens = [uuid4().hex, uuid4().hex]
                model.add(tokens[0], [(Call("bash", {"command": FILL}),), (write,)])
                full = await begun(http, f"Fill {tokens[0]}", repo_url=str(fresh.path))
                task = await until_ended(http, full)
                # Whether the worker says so or its container cannot be started again.
                assert task["error"] is None or task["error"]["code"] != "internal_error", task
                assert "No space left on device" in str((task, await events_of(http, full)))
                container = task["workspace"]["container"]
                assert (await http.delete(f"/containers/{container}")).is_success
                model.add(tokens[1], [(write,)])
                again = await begun(http, f"Again {tokens[1]}", repo_url=str(fresh.path))
                task = await until_ended(http, again)
                assert task["status"] == "succeeded", task
                assert task["changed_files"] == ["more.txt"]
            assert await asyncio.to_thread(own_service.stop) == 0
