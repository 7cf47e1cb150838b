"""Containers outlive the service: what runs in them goes on while it is away."""

import asyncio

from tests.acceptance.conftest import PLAYS
from tests.support.repositories import SourceRepository
from tests.support.runtimes import Bench
from tests.support.scripted import scripted_model
from tests.support.service import Service
from tests.support.sleepers import short_sleep, until_sleeping
from tests.support.tasks import begun, containers, events_of, succeed, until_ended


async def test_a_container_goes_on_through_a_kill_and_a_stop(
    own_service: Service, sample: SourceRepository
) -> None:
    url, seconds = str(sample.path), short_sleep()
    with scripted_model(PLAYS) as model:
        own_service.settings = {
            "GPT_OSS_URL": model.url,
            "BERTH_CONTAINERS_AT_EXIT": "keep",
            "BERTH_WARM_POOL": "1",
        }
        own_service.start()
        bench = Bench(own_service.runtime, own_service.deployment, own_service.data_dir)
        async with own_service.client() as http:
            task_id = await begun(
                http, f"Run: echo kept >> kept.txt; sleep {seconds}", repo_url=url
            )
            await until_sleeping(seconds)
            (name,) = [each for each in await containers(http) if each.startswith("repo-")]
            worker = await bench.worker(name)
            own_service.process.kill()
            await asyncio.to_thread(own_service.wait)

        own_service.start()
        async with own_service.client() as http:
            task = await until_ended(http, task_id)
            assert task["status"] == "succeeded", task
            assert task["diff"].count("+kept") == 1
            events = [each for each in await events_of(http, task_id) if each.name == "container"]
            assert [each.data["how"] for each in events][1:] == ["reuse"]
            assert await bench.worker(name) == worker
            assert await asyncio.to_thread(own_service.stop) == 0
        assert worker.is_alive()

        own_service.start()
        async with own_service.client() as http:
            await succeed(http, "Run: true", repo_url=url)
            assert await bench.worker(name) == worker
            assert {each for each in await containers(http) if each.startswith("repo-")} == {name}
            assert await asyncio.to_thread(own_service.stop) == 0
