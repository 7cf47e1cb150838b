"""Settings of a workspace: within the deployment's limits, and felt by the next task."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.acceptance.conftest import PLAYS
from tests.support.repositories import SourceRepository
from tests.support.scripted import scripted_model
from tests.support.service import Service, running_service
from tests.support.tasks import Json, events_of, succeed

MIB = 2**20
PERMITTED, OTHER = "203.0.113.7", "203.0.113.8"
REFUSED = f"curl -sS http://{PERMITTED}:9/; true"


@pytest.fixture(scope="module")
def service(runtime: str, sources: Path) -> Iterator[Service]:
    """A service that leaves its workspaces some room."""
    settings = {
        "BERTH_WORKSPACE_MAX_MEMORY_BYTES": str(3 * 1024 * MIB),
        "BERTH_WORKSPACE_EGRESS_ALLOW": f"{PERMITTED}:9",
    }
    with scripted_model(PLAYS) as model:
        settings["GPT_OSS_URL"] = model.url
        with running_service(runtime, [sources], settings) as service:
            yield service


async def containers(http: httpx2.AsyncClient, task: str) -> list[Json]:
    return [frame.data for frame in await events_of(http, task) if frame.name == "container"]


async def test_the_next_task_feels_them(service: Service, fresh: SourceRepository) -> None:
    async with service.client(60) as http:
        first = await succeed(http, f"Run: {REFUSED}", repo_url=str(fresh.path))
        assert f"{PERMITTED} is not allowed" in first["answer"]
        place = f"/workspaces/{first['workspace']['id']}/settings"
        before = (await http.get(place)).json()
        assert before["settings"]["container"] == dict.fromkeys(
            ("memory_bytes", "cpus", "pids", "open_files", "file_bytes", "disk_bytes")
        )

        wanted = {
            "container": {"memory_bytes": 512 * MIB, "pids": 300},
            "egress": {"hosts": [f"{PERMITTED}:9"], "task_bytes": 1_000},
        }
        after = (await http.put(place, json=wanted)).json()
        assert after == (await http.get(place)).json()
        counts = after["effective"]
        assert counts["container"] == {
            **before["effective"]["container"],
            "memory_bytes": 512 * MIB,
            "pids": 300,
        }
        assert (counts["egress"]["task_bytes"], counts["egress"]["hosts"]) == (
            1_000,
            [f"{PERMITTED}:9"],
        )

        second = await succeed(http, f"Run: {REFUSED}", repo_url=str(fresh.path))
        assert f"{PERMITTED} is not allowed" not in second["answer"]
        assert (await containers(http, second["task_id"]))[0]["how"] == "recreate"
        third = await succeed(http, f"Run: {REFUSED}", repo_url=str(fresh.path))
        assert (await containers(http, third["task_id"]))[0]["how"] == "reuse"


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        ({"container": {"memory_bytes": 2**50}}, "setting_refused", "container.memory_bytes"),
        ({"container": {"pids": 10**6}}, "setting_refused", "BERTH_WORKSPACE_MAX_PIDS"),
        ({"egress": {"hosts": [OTHER]}}, "setting_refused", "BERTH_WORKSPACE_EGRESS_ALLOW"),
        ({"egress": {"hosts": [f"{PERMITTED}:9/../"]}}, "setting_refused", "egress.hosts"),
        ({"container": {"disk_bytes": 2**50}}, "setting_refused", "BERTH_WORKSPACE_MAX_DISK_BYTES"),
        ({"container": {"disk_bytes": 5}}, "invalid_request", "container.disk_bytes"),
        ({"container": {"cpus": 1e-9}}, "invalid_request", "container.cpus"),
        ({"container": {"inodes": 5}}, "invalid_request", "there is no such field"),
        ({"container": {"pids": "64"}}, "invalid_request", "container.pids"),
        ({"container": {"memory_bytes": 1}}, "invalid_request", "container.memory_bytes"),
        ([], "invalid_request", "one JSON object"),
    ],
)
async def test_what_is_refused_changes_nothing(
    service: Service, fresh: SourceRepository, body: object, code: str, told: str
) -> None:
    async with service.client(60) as http:
        task = await succeed(http, "Run: true", repo_url=str(fresh.path))
        place = f"/workspaces/{task['workspace']['id']}/settings"
        before = (await http.get(place)).json()
        response = await http.put(place, json=body)
        assert response.status_code == 422
        assert response.json()["code"] == code
        assert told in response.text
        assert (await http.get(place)).json() == before


async def test_unknown_workspaces(service: Service) -> None:
    async with service.client() as http:
        for response in (
            await http.get("/workspaces/nobody/settings"),
            await http.put("/workspaces/nobody/settings", json={}),
        ):
            assert response.status_code == 404
            assert response.json()["code"] == "workspace_not_found"
