"""The way out of a container: what is allowed works, what is not is told, no other is open."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.conftest import PLAYS
from tests.support.package_index import (
    MODULE,
    PACKAGE,
    PackageIndex,
    package_index,
    self_signed,
)
from tests.support.repositories import SourceRepository
from tests.support.scripted import scripted_model
from tests.support.service import Service, running_service
from tests.support.tasks import Json, events_of, succeed

from orchestrator.domain.egress import HostRule
from orchestrator.gateway.package_sources import find_sources
from orchestrator.settings import EgressPreset

DENIED = "203.0.113.7"


@pytest.fixture(scope="module")
def certificate() -> Iterator[Path]:
    """Key and certificate of the index."""
    directory = Path(tempfile.mkdtemp(prefix="berth-"))
    yield self_signed(directory / "index.pem")
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def index(certificate: Path) -> Iterator[PackageIndex]:
    """A package index on this machine, with TLS."""
    with package_index(certificate) as index:
        yield index


@pytest.fixture(scope="module")
def open_service(
    runtime: str, sources: Path, index: PackageIndex, certificate: Path
) -> Iterator[Service]:
    """A service whose machine has pip configured with the index."""
    settings = {
        "BERTH_EGRESS_PRESETS": "pip",
        "BERTH_ALLOW_HOSTS": index.host,
        "BERTH_EGRESS_CA_FILE": str(certificate.with_suffix(".crt")),
        "PIP_INDEX_URL": index.url,
    }
    with scripted_model(PLAYS) as model:
        settings["GPT_OSS_URL"] = model.url
        with running_service(runtime, [sources], settings) as service:
            yield service


async def egress_events(service: Service, task: str) -> list[Json]:
    """What a task did with its way out."""
    async with service.client() as http:
        return [frame.data for frame in await events_of(http, task) if frame.name == "egress"]


async def test_dependencies_are_installed_through_the_gateway(
    open_service: Service, index: PackageIndex, fresh: SourceRepository
) -> None:
    fresh.commit("needs a package", {"requirements.txt": f"{PACKAGE}==1.0\n"})
    show = f"Run: .venv/bin/python -c 'import {MODULE}; print({MODULE}.VALUE)'"
    async with open_service.client(120) as http:
        result = await succeed(http, show, repo_url=str(fresh.path), install_dependencies=True)

    assert "requirements.txt: dependencies installed by pip." in result["notices"]
    assert "came through the gateway" in result["answer"]
    events = await egress_events(open_service, result["task_id"])
    assert [event["what"] for event in events] == ["reached", "used"]
    assert f"{events[0]['host']}:{events[0]['port']}" == index.host
    assert events[1]["received"] > 500
    assert events[1]["refusals"] == 0


async def test_a_refused_host_is_told_to_the_model_and_the_user(
    open_service: Service, fresh: SourceRepository
) -> None:
    async with open_service.client() as http:
        result = await succeed(
            http,
            f"Run: curl -sS http://{DENIED}/; curl -sS https://{DENIED}/; true",
            repo_url=str(fresh.path),
            dry_run=True,
        )
        shown = (await http.get(f"/tasks/{result['task_id']}")).json()["egress"]

    sentence = f"{DENIED} is not allowed: the operator allows hosts with BERTH_EGRESS_ALLOW"
    assert result["answer"].count(sentence) >= 2, result["answer"]
    assert f"[The network: {sentence}" in result["answer"]
    events = await egress_events(open_service, result["task_id"])
    assert [(each["what"], each.get("host"), each.get("port")) for each in events] == [
        ("refused", DENIED, 80),
        ("refused", DENIED, 443),
        ("used", None, None),
    ]
    assert events[-1]["refusals"] == 2
    assert [{**event, **entry} for event, entry in zip(events, shown, strict=True)] == events
    assert [entry["what"] for entry in shown] == ["refused", "refused", "used"]


async def test_there_is_no_other_way_out(open_service: Service, fresh: SourceRepository) -> None:
    look = "ls /sys/class/net /run/berth; getent hosts localhost; " + (
        "curl -sS --noproxy '*' http://127.0.0.2/ 2>&1"
    )
    async with open_service.client() as http:
        result = await succeed(http, f"Run: {look}", repo_url=str(fresh.path))

    assert "eth0" not in result["answer"]
    assert "egress.sock" in result["answer"]
    assert "localhost" in result["answer"]


async def is_reachable(rule: HostRule) -> bool:
    """Whether the host answers on its port."""
    try:
        async with asyncio.timeout(10):
            _, writer = await asyncio.open_connection(rule.host, min(rule.ports))
    except OSError:
        return False
    writer.close()
    return True


async def test_the_index_that_this_machine_is_configured_with(
    runtime: str, sources: Path, fresh: SourceRepository
) -> None:
    """The whole way, with the real index and the real certificates, where there is one."""
    rules = (await find_sources([EgressPreset.PIP])).rules
    if not rules or not all([await is_reachable(rule) for rule in rules]):
        pytest.skip("the index that pip is configured with here does not answer")
    fresh.commit("needs a package", {"requirements.txt": "iniconfig\n"})
    settings = {
        "BERTH_EGRESS_PRESETS": "pip",
        # Such machines often have mirrors under addresses that are not public.
        "BERTH_ALLOW_HOSTS": ",".join(rule.host for rule in rules),
    }
    with scripted_model(PLAYS) as model:
        settings["GPT_OSS_URL"] = model.url
        with running_service(runtime, [sources], settings) as service:
            async with service.client(150) as http:
                result = await succeed(
                    http,
                    "Run: .venv/bin/python -c 'import iniconfig; print(iniconfig.__name__)'",
                    repo_url=str(fresh.path),
                    install_dependencies=True,
                )

    assert "requirements.txt: dependencies installed by pip." in result["notices"]
    assert "iniconfig" in result["answer"]
