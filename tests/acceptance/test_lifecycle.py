"""The service starts, stops, is killed and starts again without losing or leaving anything."""

import asyncio
import os
import signal
import time

import pytest
from tests.acceptance.conftest import PLAYS, SANDBOX_ONLY
from tests.support.repositories import SourceRepository
from tests.support.scripted import scripted_model
from tests.support.service import STOP_SECONDS, Service
from tests.support.tasks import (
    containers,
    events_of,
    new_sleep,
    sleeping_task,
    succeed,
    until_sleeping,
)

WORK = "echo kept > kept.txt"


async def stopped(service: Service) -> None:
    """End the service with SIGTERM and see that nothing is left."""
    family = service.family()
    assert await asyncio.to_thread(service.stop) == 0
    assert service.leftovers(family) == []


@pytest.mark.parametrize(
    ("runtime", "number"),
    [
        pytest.param("docker", signal.SIGTERM, marks=pytest.mark.docker),
        pytest.param("sandbox", signal.SIGINT, marks=pytest.mark.sandbox),
    ],
    indirect=["runtime"],
)
async def test_a_signal_cancels_tasks_and_keeps_their_work(
    own_service: Service, sample: SourceRepository, number: signal.Signals
) -> None:
    url = str(sample.path)
    with scripted_model(PLAYS) as model:
        own_service.settings = {"GPT_OSS_URL": model.url}
        own_service.start()
        async with own_service.client() as http:
            seconds = new_sleep()
            body = {"query": f"Run: {WORK}; sleep {seconds}", "repo_url": url}
            plain = asyncio.create_task(http.post("/orchestrate", json=body))
            await until_sleeping(seconds)
            async with sleeping_task(http, WORK, repo_url=url) as task:
                family = own_service.family()
                began = time.monotonic()
                # Ctrl-C in a terminal reaches the whole process group.
                os.killpg(own_service.process.pid, number)
                result, answer = await task.result(), (await plain).json()
        assert await asyncio.to_thread(own_service.wait) == 0
        assert time.monotonic() - began < STOP_SECONDS
        assert own_service.leftovers(family) == []

        for each in (result, answer):
            assert each["status"] == each["stop_reason"] == "cancelled", each
            assert each["error"]["code"] == "cancelled"
            assert each["changed_files"] == ["kept.txt"]

        own_service.start()
        async with own_service.client() as http:
            assert (await http.get(f"/tasks/{task.task_id}")).json() == result
            assert (await events_of(http, task.task_id))[-1].data["status"] == "cancelled"
            name = result["workspace"]["container"]
            assert (await containers(http))[name]["state"] == "stopped"
            again = await succeed(http, "Run: ls", repo_url=url)
            events = await events_of(http, again["task_id"])
            assert events[1].data["how"] == "start"
        await stopped(own_service)


async def test_after_a_kill_everything_is_found_again(
    own_service: Service, sample: SourceRepository, fresh: SourceRepository
) -> None:
    url = str(sample.path)
    with scripted_model(PLAYS) as model:
        own_service.settings = {"GPT_OSS_URL": model.url}
        own_service.start()
        async with own_service.client() as http:
            done = await succeed(http, "Run: echo x > x.txt", repo_url=url)
            other = await succeed(http, "Run: true", repo_url=str(fresh.path))
            await http.put("/files/notes.txt", content=b"kept")
            async with (
                sleeping_task(http, WORK, repo_url=url) as task,
                sleeping_task(http, WORK) as scratch,
            ):
                running = await containers(http)
                own_service.process.kill()
                await asyncio.to_thread(own_service.wait)
        assert len(running) == 3

        own_service.start()
        async with own_service.client() as http:
            assert (await http.get(f"/tasks/{done['task_id']}")).json() == done
            for each in (task, scratch):
                lost = (await http.get(f"/tasks/{each.task_id}")).json()
                assert lost["status"] == "failed"
                assert lost["error"]["code"] == "orchestrator_restarted"
                assert (await events_of(http, each.task_id))[-1].name == "finished"
            assert set(await own_service.task_counts()) == {"failed", "succeeded"}
            # Nobody can use a scratch container again; one that is not used is stopped at the end.
            kept = {each["workspace"]["container"] for each in (done, other)}
            assert {each["name"]: each["state"] for each in (await containers(http)).values()} == (
                dict.fromkeys(kept, "running")
            )
            again = await succeed(
                http, "Run: cat files/notes.txt", repo_url=url, files=["notes.txt"]
            )
            assert "kept" in again["answer"]
            assert (await events_of(http, again["task_id"]))[1].data["how"] == "reuse"
        await stopped(own_service)


@SANDBOX_ONLY
async def test_a_signal_while_it_starts_ends_it(own_service: Service) -> None:
    with own_service.launch() as process:
        async with asyncio.timeout(STOP_SECONDS):
            while not (own_service.data_dir / "lock").exists():
                await asyncio.sleep(0.005)
        process.terminate()
        code = await asyncio.to_thread(process.wait, STOP_SECONDS)

    assert code == 0
    assert own_service.leftovers(set()) == []


@SANDBOX_ONLY
def test_a_second_service_on_one_data_directory_is_refused(service: Service) -> None:
    with service.launch() as second:
        assert second.wait(STOP_SECONDS) == 1

    said = service.log.read_text().splitlines()[-1]
    assert said.startswith(f"berth: The data directory {service.data_dir} is already in use")
    assert f"by process {service.process.pid}" in said
