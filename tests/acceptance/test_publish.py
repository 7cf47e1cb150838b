"""A private repository is cloned, worked on and published by the service as a process."""

import base64
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from tests.acceptance.conftest import GIT_HOST, PLAYS, SANDBOX_ONLY
from tests.support.publishing import NAMES, TOKEN, House, running_house
from tests.support.scripted import scripted_model
from tests.support.service import Service, running_service
from tests.support.tasks import frames, orchestrate, succeed

pytestmark = SANDBOX_ONLY
PROBLEM = "application/problem+json"
WORK = "Run: echo new > new.txt"


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    with scripted_model(PLAYS) as model:
        yield model.url


@dataclass(frozen=True, slots=True)
class Site:
    """A running service that knows credentials for a house."""

    service: Service
    house: House
    http: httpx2.AsyncClient

    async def publish(self, task_id: str, **body: object) -> httpx2.Response:
        return await self.http.post(f"/tasks/{task_id}/publish", json=body)

    @property
    def canaries(self) -> tuple[str, ...]:
        """The token in every form it takes on its ways."""
        users = ("berth", "x-access-token", "oauth2")
        return (TOKEN, *(base64.b64encode(f"{user}:{TOKEN}".encode()).decode() for user in users))


@pytest.fixture
async def site(tmp_path: Path, runtime: str, model: str) -> AsyncIterator[Site]:
    async with running_house(tmp_path, "gitea", GIT_HOST) as house:
        settings = {
            "GPT_OSS_URL": model,
            "BERTH_ALLOW_HOSTS": GIT_HOST,
            "BERTH_GIT_CREDENTIALS": str(house.credentials()),
        }
        with running_service(runtime, [], settings) as service:
            async with service.client() as http:
                yield Site(service, house, http)


async def test_both_modes_and_no_trace_of_the_token(site: Site) -> None:
    said: list[str] = []
    for mode, branch in (("branch", "by-branch"), ("pull_request", "by-request")):
        task = await succeed(site.http, WORK, repo_url=site.house.url())
        assert task["changed_files"] == ["new.txt"]
        answer = await site.publish(task["task_id"], mode=mode, branch=branch, title="Add it")
        assert answer.status_code == 200, answer.text
        again = await site.publish(task["task_id"], mode=mode, branch=branch, title="Add it")
        assert again.json() == answer.json()
        (made,) = answer.json()["repositories"]
        assert site.house.ref(branch) == made["commit"]
        assert site.house.content(branch, "new.txt") == "new"
        assert (made["pull_request_url"] is not None) == (mode == "pull_request")
        said += [answer.text, await _everything_said(site, task)]
    assert len(site.house.forge.pulls) == 1

    pry = "env; cat /proc/*/environ /proc/*/cmdline; cat .git/config; git config -l; ls -laR /run"
    task = await orchestrate(site.http, f"Run: {pry}", repo_url=site.house.url())
    said.append(await _everything_said(site, task))

    site.house.server.credentials = ("berth", "another")
    site.house.server.echoes = site.house.forge.echoes = True
    refused = await site.http.post(
        "/orchestrate", json={"query": WORK, "repo_url": site.house.url()}
    )
    assert refused.status_code == 422
    assert refused.json()["code"] == "repository_refuses_credentials"
    assert GIT_HOST in refused.json()["detail"]
    said += [refused.text, site.service.log.read_text(), *await _rows(site.service)]
    for process in site.service.family():
        for name in ("cmdline", "environ"):
            said.append(_read(Path(f"/proc/{process.pid}/{name}")))
    for canary in site.canaries:
        assert not [text for text in said if canary in text]
    assert _holding(site.service.data_dir, site.canaries) == []


async def test_several_repositories_in_one_task(site: Site) -> None:
    urls = [site.house.url(name) for name in NAMES]
    work = "Run: for each in private second; do echo new > $each/new.txt; done"
    task = await succeed(site.http, work, repo_urls=urls)
    answer = await site.publish(task["task_id"], mode="pull_request", draft=True)
    assert answer.status_code == 200, answer.text
    made = {each["name"]: each for each in answer.json()["repositories"]}
    assert set(made) == set(NAMES)
    for name in NAMES:
        assert site.house.content(f"berth/{task['task_id']}", "new.txt", name) == "new"
    assert [pull["draft"] for pull in site.house.forge.pulls] == [True, True]


async def test_a_publication_outlives_its_process(site: Site) -> None:
    task = await succeed(site.http, WORK, repo_url=site.house.url())
    first = await site.publish(task["task_id"], mode="pull_request")
    assert first.status_code == 200, first.text
    site.service.stop()
    site.service.start()
    async with site.service.client() as http:
        url = f"/tasks/{task['task_id']}/publish"
        again = await http.post(url, json={"mode": "pull_request"})
    assert again.json() == first.json()
    assert len(site.house.forge.pulls) == 1


async def test_a_dry_run_is_shown_and_never_published(site: Site) -> None:
    task = await succeed(site.http, WORK, repo_url=site.house.url(), dry_run=True)
    assert task["dry_run"] is True
    assert "+new" in task["diff"]
    assert task["receipt"]["wall_seconds"] > 0
    (command,) = task["commands"]
    assert command["tool"] == "bash"
    assert command["arguments"]["command"] == "echo new > new.txt"
    _refused(await site.publish(task["task_id"], mode="branch"), 409, "task_is_dry_run")
    read = (await site.http.get(f"/tasks/{task['task_id']}")).json()
    assert read["commands"] == task["commands"]
    assert read["egress"] == task["egress"]


async def test_bad_input(site: Site) -> None:
    task = await succeed(site.http, WORK, repo_url=site.house.url())
    task_id = task["task_id"]
    for body, words in (
        ({}, "mode"),
        ({"mode": "force"}, "mode"),
        ({"mode": None}, "mode"),
        ({"mode": "branch", "branch": ""}, "branch"),
        ({"mode": "branch", "branch": "a..b"}, "branch"),
        ({"mode": "branch", "branch": "refs/heads/x"}, "branch"),
        ({"mode": "branch", "branch": "--force"}, "branch"),
        ({"mode": "branch", "branch": "x" * 300}, "branch"),
        ({"mode": "branch", "branch": "\ud800"}, "branch"),
        ({"mode": "branch", "title": ""}, "title"),
        ({"mode": "branch", "title": "a\nb"}, "title"),
        ({"mode": "branch", "title": "x" * 201}, "title"),
        ({"mode": "branch", "body": "a\0b"}, "body"),
        ({"mode": "branch", "body": "x" * 50_001}, "body"),
        ({"mode": "branch", "draft": "yes"}, "draft"),
        ({"mode": "branch", "token": TOKEN}, "token"),
    ):
        response = await site.http.post(
            f"/tasks/{task_id}/publish",
            content=json.dumps(body),
            headers={"Content-Type": "application/json"},
        )
        problem = _refused(response, 422, "invalid_request")
        assert words in problem["detail"], body
        assert TOKEN not in response.text
    _refused(await site.publish("none", mode="branch"), 404, "task_not_found")
    _refused(await site.publish(task_id, mode="branch", branch="main"), 409, "branch_taken")
    assert (await site.publish(task_id, mode="branch")).status_code == 200
    _refused(await site.publish(task_id, mode="pull_request"), 409, "publish_conflict")
    scratch = await succeed(site.http, "Run: true")
    _refused(await site.publish(scratch["task_id"], mode="branch"), 422, "publish_error")
    idle = await succeed(site.http, "Run: true", repo_url=site.house.url())
    _refused(await site.publish(idle["task_id"], mode="branch"), 409, "nothing_to_publish")


def test_a_careless_credentials_file_is_refused_at_the_start(
    own_service: Service, tmp_path: Path
) -> None:
    path = tmp_path / "credentials.toml"
    path.write_text(f'[[credential]]\nurl = "https://git.example"\ntoken = "{TOKEN}"\n')
    path.chmod(0o644)
    own_service.settings = {"BERTH_GIT_CREDENTIALS": str(path)}
    process = own_service.launch()
    assert process.stdout is not None
    assert process.stdout.read() == ""
    assert process.wait(30) != 0
    process.stdout.close()
    said = own_service.log.read_text()
    assert "chmod 600" in said
    assert TOKEN not in said


def _refused(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    problem: dict[str, Any] = response.json()
    assert problem["code"] == code, problem
    return problem


async def _everything_said(site: Site, task: dict[str, Any]) -> str:
    """The task, its events, and its container's log."""
    task_id, container = task["task_id"], task["workspace"]["container"]
    async with site.http.stream("GET", f"/tasks/{task_id}/events") as response:
        events = [json.dumps(frame.data) async for frame in frames(response)]
    read = await site.http.get(f"/tasks/{task_id}")
    log = await site.http.get(f"/containers/{container}/logs")
    return "\n".join((json.dumps(task), read.text, log.text, *events))


async def _rows(service: Service) -> Sequence[str]:
    """Every row of every table of the service's database."""
    connection = await asyncpg.connect(
        host=str((service.data_dir / "postgres" / "run").resolve()), user="berth",
        database="postgres",
    )  # fmt: skip
    try:
        tables = await connection.fetch(
            "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        assert tables
        found = []
        for table in tables:
            rows = await connection.fetch(f"SELECT t::text AS row FROM {table['name']} AS t")
            found += [row["row"] for row in rows]
        return found
    finally:
        await connection.close()


def _holding(directory: Path, canaries: Sequence[str]) -> list[Path]:
    """Files that hold one of the canaries."""
    found = []
    for folder, _, names in os.walk(directory):
        for name in names:
            content = _read(Path(folder) / name)
            if any(canary in content for canary in canaries):
                found.append(Path(folder) / name)
    return found


def _read(path: Path) -> str:
    """A file's content; empty if it is gone or nothing that can be read."""
    try:
        return path.read_bytes().decode(errors="replace") if path.is_file() else ""
    except OSError:
        return ""
