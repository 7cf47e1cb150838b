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
from tests.support.sleepers import is_sleeping, new_sleep, short_sleep, until_sleeping
from tests.support.tasks import begun, containers, events_of, succeed, until_ended

WORK = "echo kept >> kept.txt"


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
async def test_a_signal_interrupts_tasks_and_the_next_start_takes_them_up(
    own_service: Service, sample: SourceRepository, number: signal.Signals
) -> None:
    seconds = [short_sleep(), short_sleep()]
    with scripted_model(PLAYS) as model:
        own_service.settings = {"GPT_OSS_URL": model.url}
        own_service.start()
        async with own_service.client() as http:
            posts = []
            for each in seconds:
                body = {"query": f"Run: {WORK}; sleep {each}", "repo_url": str(sample.path)}
                posts.append(asyncio.create_task(http.post("/orchestrate", json=body)))
                await until_sleeping(each)
            family = own_service.family()
            began = time.monotonic()
            # Ctrl-C in a terminal reaches the whole process group.
            os.killpg(own_service.process.pid, number)
            answers = [(await post).json() for post in posts]
        assert await asyncio.to_thread(own_service.wait) == 0
        assert time.monotonic() - began < STOP_SECONDS
        assert own_service.leftovers(family) == []
        assert {answer["code"] for answer in answers} == {"service_stopping"}

        own_service.start()
        async with own_service.client() as http:
            for answer in answers:
                task = await until_ended(http, answer["task_id"])
                assert task["status"] == "succeeded", task
                # The command was interrupted, its effect undone, and then it ran once.
                assert task["diff"].count("+kept") == 1
                hows = [
                    event.data["how"]
                    for event in await events_of(http, task["task_id"])
                    if event.name == "container"
                ]
                assert len(hows) == 2
            assert set(await own_service.task_counts()) == {"succeeded"}
        await stopped(own_service)


async def test_after_a_kill_every_task_ends_as_it_would_have(
    own_service: Service, sample: SourceRepository, fresh: SourceRepository
) -> None:
    url = str(sample.path)
    seconds = [short_sleep(), short_sleep()]
    with scripted_model(PLAYS) as model:
        own_service.settings = {"GPT_OSS_URL": model.url}
        own_service.start()
        async with own_service.client() as http:
            done = await succeed(http, "Run: echo x > x.txt", repo_url=url)
            other = await succeed(http, "Run: true", repo_url=str(fresh.path))
            await http.put("/files/notes.txt", content=b"kept")
            queries = [f"Run: {WORK}; cat files/notes.txt; sleep {each}" for each in seconds]
            ids = [
                await begun(http, queries[0], repo_url=url, files=["notes.txt"]),
                await begun(http, queries[1], files=["notes.txt"]),
            ]
            for each in seconds:
                await until_sleeping(each)
            running = await containers(http)
            own_service.process.kill()
            await asyncio.to_thread(own_service.wait)
        assert len(running) == 3

        own_service.start()
        async with own_service.client() as http:
            assert (await http.get(f"/tasks/{done['task_id']}")).json() == done
            for task_id in ids:
                task = await until_ended(http, task_id)
                assert task["status"] == "succeeded", task
                assert task["diff"].count("+kept") == 1
                assert "kept" in task["answer"]
                names = [event.name for event in await events_of(http, task_id)]
                # What was recorded before the kill is not recorded again.
                assert names.count("accepted") == names.count("finished") == 1
                assert names.count("tool") == 1
            assert set(await own_service.task_counts()) == {"succeeded"}
            # A scratch container goes with its task; one that is not used is stopped at the end.
            kept = {each["workspace"]["container"] for each in (done, other)}
            assert {each["name"]: each["state"] for each in (await containers(http)).values()} == (
                dict.fromkeys(kept, "running")
            )
        await stopped(own_service)


async def test_a_cancelled_task_ends_at_once_and_keeps_its_work(
    own_service: Service, sample: SourceRepository
) -> None:
    seconds = new_sleep()
    with scripted_model(PLAYS) as model:
        own_service.settings = {"GPT_OSS_URL": model.url}
        own_service.start()
        async with own_service.client() as http:
            query = f"Run: {WORK}; sleep {seconds}"
            task_id = await begun(http, query, repo_url=str(sample.path))
            await until_sleeping(seconds)
            began = time.monotonic()
            response = await http.post(f"/tasks/{task_id}/cancel")
            assert response.status_code == 202
            task = await until_ended(http, task_id)
            assert time.monotonic() - began < 5
            assert task["status"] == task["stop_reason"] == "cancelled"
            assert task["error"]["code"] == "cancelled"
            assert task["diff"].count("+kept") == 1
            assert not await is_sleeping(seconds)
            again = await http.post(f"/tasks/{task_id}/cancel")
            assert again.json() == task
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
