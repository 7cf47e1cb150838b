"""The service behind the engine's proxy, as docs/operations.md has it."""

import asyncio

from tests.acceptance.conftest import DOCKER_ONLY, PLAYS
from tests.support.engine_proxy import running_proxy
from tests.support.repositories import SourceRepository
from tests.support.scripted import scripted_model
from tests.support.service import Service
from tests.support.tasks import containers, succeed

START_SECONDS = 60
WORK = "echo kept >> kept.txt"


@DOCKER_ONLY
async def test_a_task_goes_as_ever_and_nothing_is_refused(
    own_service: Service, sample: SourceRepository
) -> None:
    with (
        scripted_model(PLAYS) as model,
        running_proxy(own_service.data_dir, own_service.deployment) as proxy,
    ):
        own_service.settings = {"GPT_OSS_URL": model.url, "DOCKER_HOST": proxy.address}
        own_service.start()
        async with own_service.client() as http:
            task = await succeed(http, f"Run: {WORK}", repo_url=str(sample.path))
            assert task["diff"].count("+kept") == 1
            health = (await http.get("/health")).json()
            assert health["runtime"]["name"] == "docker", health
            (name,) = await containers(http)
            assert (await http.get(f"/containers/{name}/logs")).is_success
            assert (await http.delete(f"/containers/{name}")).is_success
            assert await containers(http) == {}
        family = own_service.family()
        assert await asyncio.to_thread(own_service.stop) == 0
        assert proxy.refusals() == []
    assert own_service.leftovers(family) == []


@DOCKER_ONLY
async def test_a_start_names_a_malformed_configuration_of_docker(own_service: Service) -> None:
    file = own_service.directory / "config.json"
    file.write_text("[]")
    own_service.settings = {"DOCKER_CONFIG": str(own_service.directory)}
    process = own_service.launch()
    out, _ = await asyncio.to_thread(process.communicate, timeout=START_SECONDS)
    assert (process.returncode, out) == (1, "")
    said = own_service.log.read_text()
    assert f"Docker's configuration file {file} is malformed." in said
    assert "Traceback" not in said
