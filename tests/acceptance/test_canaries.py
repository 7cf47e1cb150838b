"""No secret that the orchestrator holds, or could reach, comes out anywhere.

Canaries are planted wherever it holds one. Tasks whose model does its best to find them run beside
tasks that use them rightfully, errors are provoked, and then all that came out is searched.
"""

import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.acceptance.conftest import GIT_HOST, PLAYS
from tests.support.canaries import Rightful, Scanner, leaks, mint, unused
from tests.support.canary_house import planted
from tests.support.canary_outputs import docker_says, text_output
from tests.support.canary_scene import Scene
from tests.support.canary_watch import watching
from tests.support.gcs import BUCKET, GcsServer, gcs_server
from tests.support.package_index import MODULE
from tests.support.scripted import scripted_model
from tests.support.service import passable_directory, running_service

pytestmark = pytest.mark.timeout(480)
SETTINGS = "the service takes its settings from its environment, which only its user can read"
ASKED = "Python itself asks these programs, for a moment, what machine it runs on"
GIT = "one git process is given a token by its environment, for as long as it lives"
CLIENT = "pip and npm are asked where they install from, and are given what is theirs"
MEANT = "it is meant for this one"
RECORD = "the record by which a worker is reached after a restart; nobody else reads the database"

RIGHTFUL = (
    *(
        right
        for name in (
            "model key",
            "database password",
            "git token in a variable",
            "proxy password",
            "another variable of the service",
            "pip index password",
            "pip extra index password",
            "npm registry password",
        )
        for right in (
            Rightful(name, "environment of the service", SETTINGS),
            Rightful(name, "environment of (uname|file)", ASKED, is_rare=True),
        )
    ),
    *(
        right
        for name in (
            "git and forge token",
            "git token in a file of its own",
            "git token in a variable",
        )
        for right in (
            Rightful(name, "environment of git.*", GIT),
            Rightful(name, "git server's authorizations", MEANT),
        )
    ),
    *(
        Rightful(name, "environment of (python.*|npm.*|node|env)", CLIENT)
        for name in ("pip index password", "pip extra index password", "npm registry password")
    ),
    Rightful("model key", "model's headers", MEANT),
    *(
        right
        for name in ("private", "second")
        for right in (
            Rightful(f"worker key of {name}", "postgres public.workspaces.worker_key", RECORD),
            Rightful(f"worker key of {name}", f"container of {name}, memory.*", "its own key"),
        )
    ),
)
"""Where a canary may be. An exception that nothing needs fails the test as well."""

ON_THE_WAY_OUT = (
    Rightful("pip index password", "index's log", MEANT),
    Rightful("proxy password", "proxy's log", MEANT),
)
"""Where else it may be if containers have a way out; those that are reached by TCP have none."""

TOLD = (
    "stream about private",
    "publication|git server's files/.*",
    "model's requests",
    r"GET /tasks",
    r"GET /tasks/\{task_id\}",
    r"GET /tasks/\{task_id\}/events",
    r"GET /tasks/\{task_id\}/diff",
    r"postgres public\.tasks\..*",
    r"postgres public\.events\..*",
    r"postgres dbos\..*",
    r"container of private, /workspace/.*",
    r"container of private, /tmp/kept/new\.gz",
    "container of private, memory of .*",
    "data directory/checkpoints/.*",
    "arguments of python3.*",
    "environment of python3.*",
)
"""Where a canary that a task says aloud must be found: so these places are really searched."""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose files anybody may read who gets there: the walls are all that counts."""
    path = passable_directory()
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=["near", "far"])
def bucket(request: pytest.FixtureRequest) -> Iterator[GcsServer | None]:
    """Objects lie in files, or else in a bucket; then containers are reached by TCP too."""
    if request.param == "near":
        yield None
        return
    with gcs_server() as server:
        yield server


@pytest.fixture
async def scene(
    runtime: str, directory: Path, postgres_url: str, bucket: GcsServer | None
) -> AsyncIterator[Scene]:
    with scripted_model(PLAYS) as scripted:
        async with planted(directory, scripted.url, postgres_url, GIT_HOST) as around:
            with watching(directory / "watch") as watch:
                settings = around.environment() | {"PATH": watch.path()}
                if bucket is not None:
                    settings |= {"GCS_BUCKET": BUCKET, "STORAGE_EMULATOR_HOST": bucket.url}
                if bucket is not None and runtime == "docker":
                    settings["BERTH_TRANSPORT"] = "tcp"
                with running_service(runtime, [], settings) as service:
                    async with service.client(120) as http:
                        yield Scene(service, around, watch, http, runtime, bucket)


async def test_nothing_planted_comes_out(scene: Scene) -> None:
    has_way_out = scene.bucket is None or scene.runtime != "docker"
    stored = "data directory/objects/.*" if scene.bucket is None else "bucket/.*"
    neighbour = await scene.task("Run: cat private.txt > copied.txt; git log -1", "second")
    next_door = len(scene.said)
    control = mint("control")
    worker = await scene.control(control)
    installed = await scene.task(
        f"Run: .venv/bin/python -c 'import {MODULE}; print({MODULE}.VALUE)' | tee said.txt",
        install_dependencies=True,
    )
    assert ("came through the gateway" in installed["answer"]) == has_way_out
    pried = await scene.task("Pry", files=scene.prying(neighbour, worker), dry_run=True)
    for attempt in ("environments", "sockets", "worker", "gateway", "files", "memory"):
        assert f"{attempt}: " in pried["answer"], pried["answer"]
    assert " bytes, then " not in pried["answer"], pried["answer"]
    publication = await scene.http.post(
        f"/tasks/{worker['task_id']}/publish", json={"mode": "pull_request", "branch": "new"}
    )
    assert publication.status_code == 200, publication.text
    scene.said.append(text_output("publication", publication.text))

    own = scene.said[next_door:]
    own += [each async for each in scene.about([worker, installed, pried])]
    own += [each async for each in scene.container(pried)]
    assert Scanner(scene.planted.neighbours.all()).search(own) == []

    await provoke(scene, installed["task_id"])
    canaries = [control, *scene.planted.canaries.all(), *await scene.worker_keys()]
    outputs = [each async for each in scene.outputs([neighbour, worker, installed, pried])]
    if scene.runtime == "docker":
        name = f"{pried['workspace']['container']}.{scene.service.deployment}"
        outputs += [docker_says("inspect", name), docker_says("logs", name)]
    await scene.provoke_outage()
    outputs += scene.ended()
    found = Scanner(canaries).search(outputs)
    told = [each for each in found if each.canary == control.name]
    assert [
        place
        for place in (*TOLD, stored)
        if not any(re.fullmatch(place, each.place) for each in told)
    ] == []
    rightful = (*RIGHTFUL, *(ON_THE_WAY_OUT if has_way_out else ()))
    leaked = leaks([each for each in found if each not in told], rightful)
    assert leaked == [], "\n".join(map(str, leaked))
    assert unused(found, rightful) == []


async def provoke(scene: Scene, task: str) -> None:
    """Have everything fail that is given a secret, by parties that send back what they got."""
    house, stranger = scene.planted.house, scene.planted.stranger
    house.server.echoes = house.forge.echoes = True
    for name in ("filed/x", "variable/x"):
        await scene.provoke(house.server.url(name), "repository_refuses_credentials")
    house.server.redirect = f"{stranger.url}/elsewhere"
    await scene.provoke(house.url(), "repository_unreachable")
    house.server.redirect = None
    house.forge.redirect = f"{stranger.url}/elsewhere"
    await scene.provoke_publication(task)
    house.forge.redirect, house.forge.token = None, "another"
    await scene.provoke_publication(task)
    scene.planted.model.refuses = True
    await scene.provoke(house.url(), "model_refused")
    assert stranger.told == []
