"""The limit on disk, as users meet it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.conftest import PLAYS
from tests.support.repositories import SourceRepository
from tests.support.scripted import scripted_model
from tests.support.service import Service, running_service
from tests.support.tasks import events_of, orchestrate, succeed

MIB = 2**20
LIMIT = 64 * MIB
# It writes too much at once and then waits, however long it takes until that is found.
FILL = (
    "echo kept > kept.txt; for i in 1 2; do head -c 40M /dev/urandom > "
    "/workspace/fill-$(date +%s%N); done; sleep 115"
)


@pytest.fixture(scope="module")
def service(runtime: str, sources: Path) -> Iterator[Service]:
    """A service whose workspaces hold little."""
    with scripted_model(PLAYS) as model:
        settings = {"BERTH_CONTAINER_DISK_BYTES": str(LIMIT), "GPT_OSS_URL": model.url}
        with running_service(runtime, [sources], settings) as service:
            yield service


async def test_a_task_that_fills_its_disk_is_told_and_the_next_can_delete(
    service: Service, fresh: SourceRepository
) -> None:
    async with service.client(180) as http:
        assert "disk" in str((await http.get("/health")).json()["runtime"]["enforced"])
        task = await succeed(http, f"Run: {FILL}", repo_url=str(fresh.path))
        assert "[The disk: The workspace holds" in task["answer"]
        assert "its limit is 64.0 MiB" in task["answer"]
        assert task["changed_files"] == ["kept.txt"]
        notices = [
            frame.data
            for frame in await events_of(http, task["task_id"])
            if frame.name == "notice" and frame.data.get("code") == "disk_exhausted"
        ]
        assert notices[0]["limit_bytes"] == LIMIT < notices[0]["used_bytes"]

        delete = "Run: rm /workspace/fill*; ls /workspace"
        after = await succeed(http, delete, repo_url=str(fresh.path))
        assert "tasks" in after["answer"]
        assert "fill" not in after["answer"].partition("[The disk")[0]


async def test_a_task_that_goes_on_filling_fails_and_the_workspace_does_not(
    service: Service, fresh: SourceRepository
) -> None:
    async with service.client(400) as http:
        query = f"Run again and again: {FILL}"
        task = await orchestrate(http, query, repo_url=str(fresh.path))
        assert (task["status"], task["error"]["code"]) == ("failed", "disk_exhausted"), task
        assert "container was stopped" in task["error"]["detail"]
        assert task["changed_files"] == ["kept.txt"]
        after = await succeed(http, "Run: rm /workspace/fill*; echo done", repo_url=str(fresh.path))
        assert "done" in after["answer"]
