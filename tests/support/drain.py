"""Many tasks over several workspaces, queued at once."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.gated_model import Call, GatedModel, gated_model
from tests.support.repositories import new_repository
from tests.support.service import Service, passable_directory, running_service
from tests.support.tasks import begun

ENDS_SECONDS = 900.0
POLL_SECONDS = 0.25
WARM_SHARE = 4
"""The first quarter of the tasks warms up."""


@dataclass(frozen=True, slots=True)
class Drained:
    """How a queue drained.

    `warm` and `end` are the orchestrator's resident bytes after the first quarter and at the end;
    `order` is what the model was asked, workspace by workspace.
    """

    tasks: int
    queued_seconds: float
    seconds: float
    warm: int
    end: int
    endings: dict[str, int]
    failures: list[str]
    submitted: dict[int, list[str]]
    order: dict[int, list[tuple[str, int]]]


async def drain(runtime: str, tasks: int, workspaces: int) -> Drained:
    """Queue tasks over workspaces, each strictly one after another, and wait for their end."""
    directory = passable_directory()
    async with gated_model() as model:
        settings = {"GPT_OSS_URL": model.url, "BERTH_MAX_WORKSPACE_TASKS": "1"}
        repositories = [
            new_repository(directory / f"repository{number}").path for number in range(workspaces)
        ]
        with running_service(runtime, [directory], settings) as service:
            return await _drain(service, model, repositories, tasks)


async def _drain(
    service: Service, model: GatedModel, repositories: Sequence[Path], tasks: int
) -> Drained:
    submitted: dict[int, list[str]] = defaultdict(list)

    async def submit(number: int, repository: Path) -> None:
        for task in range(number, tasks, len(repositories)):
            token = f"{number}-{task}"
            append = Call("bash", {"command": f"echo {task} >> tasks.txt; cat tasks.txt"})
            model.add(token, [(append,)])
            await begun(http, f"Drain {token}", repo_url=str(repository))
            submitted[number].append(token)

    began = time.monotonic()
    async with service.client() as http:
        await asyncio.gather(*(submit(*each) for each in enumerate(repositories)))
    queued = time.monotonic() - began
    warm = await _until_ended(service, tasks // WARM_SHARE)
    end = await _until_ended(service, tasks)
    async with service.client() as http:
        failed = (await http.get("/tasks", params={"status": "failed"})).json()
    order: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for token, turn in model.asked:
        order[int(token.split("-")[0])].append((token, turn))
    return Drained(
        tasks=tasks,
        queued_seconds=queued,
        seconds=time.monotonic() - began,
        warm=warm,
        end=end,
        endings=await service.task_counts(),
        failures=[f"{each['query']}: {each['error']}" for each in failed],
        submitted=submitted,
        order=order,
    )


async def _until_ended(service: Service, count: int) -> int:
    """Wait until so many tasks have ended; the orchestrator's resident bytes then."""
    async with asyncio.timeout(ENDS_SECONDS):
        while True:
            counts = await service.task_counts()
            if sum(counts.values()) - counts.get("running", 0) >= count:
                return _resident(service.process.pid)
            await asyncio.sleep(POLL_SECONDS)


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) * 1024
