"""A task's work outlives its container, its volume and the machine."""

import asyncio
import shutil
import signal
from pathlib import Path

import httpx2
from tests.acceptance.conftest import PLAYS, SANDBOX_ONLY
from tests.support.repositories import SourceRepository
from tests.support.runtimes import Bench
from tests.support.scripted import scripted_model
from tests.support.service import Service
from tests.support.sleepers import short_sleep, until_sleeping
from tests.support.tasks import Json, begun, containers, events_of, succeed, until_ended

from orchestrator.data_directory import EXECUTOR
from orchestrator.storage.postgres.embedded import EmbeddedPostgres


async def destroy(service: Service, name: str) -> None:
    """Remove a container with its volume, at once as the service sees it."""
    bench = Bench(service.runtime, service.deployment, service.data_dir)
    runtime = bench.make()
    service.process.send_signal(signal.SIGSTOP)
    try:
        await runtime.remove(name)
    finally:
        service.process.send_signal(signal.SIGCONT)
        await runtime.close()


def log_lines(task: Json) -> list[str]:
    """The lines of the file `log` in a task's patch."""
    part = task["diff"].partition("b/log\n")[2].partition("diff --git")[0]
    return [line[1:] for line in part.splitlines() if line[:1] == "+" and line[1:].isdigit()]


async def notices(http: httpx2.AsyncClient, task_id: str) -> list[Json]:
    """What the task's record tells the user."""
    return [each.data for each in await events_of(http, task_id) if each.name == "notice"]


async def test_a_task_whose_container_and_volume_are_deleted_ends_as_it_would_have(
    own_service: Service, sample: SourceRepository
) -> None:
    seconds = short_sleep()
    with scripted_model(PLAYS) as model:
        own_service.settings = {"GPT_OSS_URL": model.url}
        own_service.start()
        async with own_service.client() as http:
            url = str(sample.path)
            whole = await succeed(http, "Many steps, sleeping 0.01", repo_url=url)
            task_id = await begun(http, f"Many steps, sleeping {seconds}", repo_url=url)
            await until_sleeping(seconds)
            (name,) = await containers(http)
            await destroy(own_service, name)
            task = await until_ended(http, task_id)
            assert task["status"] == "succeeded", task
            assert task["diff"] == whole["diff"]
            assert log_lines(task) == ["2", "3", "5", "6"]
            assert task["answer"] == whole["answer"]
            told = await notices(http, task_id)
            assert len(told) == 1, told
            assert told[0]["restored_step"] in range(9)


@SANDBOX_ONLY
async def test_another_machine_with_the_same_database_and_objects_goes_on(
    own_service: Service, sample: SourceRepository, sources: Path
) -> None:
    seconds = short_sleep()
    elsewhere = Service(own_service.runtime, [sources])
    postgres = EmbeddedPostgres(own_service.directory / "postgres")
    with scripted_model(PLAYS) as model:
        shared = {
            "GPT_OSS_URL": model.url,
            "DATABASE_URL": await postgres.start(),
            "BERTH_OBJECTS_DIR": str(own_service.directory / "objects"),
        }
        own_service.settings = elsewhere.settings = shared
        try:
            own_service.start()
            async with own_service.client() as http:
                url = str(sample.path)
                whole = await succeed(http, "Many steps, sleeping 0.01", repo_url=url)
                task_id = await begun(http, f"Many steps, sleeping {seconds}", repo_url=url)
                await until_sleeping(seconds)
                (name,) = await containers(http)
            own_service.process.kill()
            await asyncio.to_thread(own_service.wait)
            await destroy(own_service, name)
            elsewhere.data_dir.mkdir(mode=0o711)
            # Whoever has the name of the one that died takes up its tasks.
            shutil.copy(own_service.data_dir / EXECUTOR, elsewhere.data_dir / EXECUTOR)
            shutil.rmtree(own_service.data_dir)
            elsewhere.start()
            async with elsewhere.client() as http:
                task = await until_ended(http, task_id)
                assert task["status"] == "succeeded", task
                assert task["diff"] == whole["diff"]
                assert task["answer"] == whole["answer"]
                assert len(await notices(http, task_id)) == 1
        finally:
            elsewhere.remove()
            await postgres.stop()
