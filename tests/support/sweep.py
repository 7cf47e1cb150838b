"""Runs cases of the crash sweep, each runtime and victim on a service of its own."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.crash import Lane
from tests.support.crash_play import Moment
from tests.support.gated_model import GatedModel, gated_model
from tests.support.repositories import sample_repository
from tests.support.service import Service, passable_directory
from tests.support.victims import Victim


@dataclass(frozen=True, slots=True)
class Case:
    """A process to kill and the moment for it, on one runtime."""

    runtime: str
    victim: Victim
    moment: Moment

    def __str__(self) -> str:
        return f"{self.runtime} {self.victim} {self.moment}"


@dataclass(frozen=True, slots=True)
class Result:
    """How a case went; `problem` is empty if all was as it should be."""

    case: Case
    seconds: float
    problem: str = ""


KILLS_OF_POSTGRES = 4
"""On one service; the pauses before its restarts grow with each that comes soon after another."""
Told = Callable[[Result], None]


async def run_cases(cases: Sequence[Case], told: Told, lanes: int = 1) -> list[Result]:
    """Run all cases; those of one runtime and victim share a service.

    Args:
        cases: What to run.
        told: Hears of each result as it comes.
        lanes: How many services at once.
    """
    groups = _groups(cases)
    free = asyncio.Semaphore(lanes)
    results: list[Result] = []

    async def run_group(group: list[Case], model: GatedModel, repository: Path) -> None:
        async with free:
            async for result in _run_group(group, model, repository):
                results.append(result)
                told(result)

    directory = passable_directory()
    try:
        async with gated_model() as model, asyncio.TaskGroup() as tasks:
            repository = sample_repository(directory / "sample").path
            for group in groups:
                tasks.create_task(run_group(group, model, repository))
    finally:
        shutil.rmtree(directory)
    return results


def _groups(cases: Sequence[Case]) -> Iterator[list[Case]]:
    kinds: dict[tuple[str, Victim], list[Case]] = {}
    for case in cases:
        kinds.setdefault((case.runtime, case.victim), []).append(case)
    for (_, victim), group in kinds.items():
        size = KILLS_OF_POSTGRES if victim is Victim.POSTGRES else len(group)
        yield from (group[start : start + size] for start in range(0, len(group), size))


async def _run_group(
    cases: Sequence[Case], model: GatedModel, repository: Path
) -> AsyncIterator[Result]:
    """Run cases on one service, and on a new one after each that went wrong."""
    left = list(cases)
    while left:
        result = None
        try:
            async with _lane(left[0], model, repository) as lane:
                while left and (result is None or not result.problem):
                    result = await _run(left.pop(0), lane)
                    yield result
        except (AssertionError, OSError) as error:
            # The service did not start, or did not end without a trace.
            case = left.pop(0) if result is None else result.case
            if result is None or not result.problem:
                yield Result(case, 0.0, f"service: {error}")


async def _run(case: Case, lane: Lane) -> Result:
    began = time.monotonic()
    problem = ""
    try:
        await lane.undisturbed()
        began = time.monotonic()
        await lane.check(case.moment, case.victim)
    except Exception as error:  # noqa: BLE001 - whatever it is, the sweep goes on and tells
        problem = f"{type(error).__name__}: {error}"
    return Result(case, time.monotonic() - began, problem)


@asynccontextmanager
async def _lane(case: Case, model: GatedModel, repository: Path) -> AsyncIterator[Lane]:
    settings = {"GPT_OSS_URL": model.url}
    service = Service(case.runtime, [repository.parent], settings)
    try:
        await asyncio.to_thread(service.start)
        yield Lane(service, model, repository)
        family = await asyncio.to_thread(service.family)
        code = await asyncio.to_thread(service.stop)
        assert code == 0, f"exit code {code}: {service.log.read_text()[-2000:]}"
        left = await asyncio.to_thread(service.leftovers, family)
        assert left == [], left
    finally:
        keep = os.environ.get("BERTH_SWEEP_KEEP")
        if keep:
            shutil.copy(service.log, Path(keep, f"{service.deployment}.log"))
        await asyncio.to_thread(_remove, service)


def _remove(service: Service) -> None:
    """Remove a service that may not end by itself any more."""
    if service.url and service.process.poll() is None:
        service.process.send_signal(signal.SIGCONT)
    service.remove()


def table(results: Sequence[Result]) -> str:
    """How many cases of each runtime and victim went how."""
    lines = ["runtime    victim        cases passed failed  seconds"]
    groups = dict.fromkeys((each.case.runtime, each.case.victim) for each in results)
    for runtime, victim in groups:
        lines.append(
            _row(
                runtime,
                victim,
                [r for r in results if r.case.runtime == runtime and r.case.victim is victim],
            )
        )
    return "\n".join([*lines, _row("all", "", results)])


def _row(runtime: str, victim: str, results: Sequence[Result]) -> str:
    failed = sum(bool(each.problem) for each in results)
    seconds = sum(each.seconds for each in results)
    return (
        f"{runtime:10} {victim:13} {len(results):5} {len(results) - failed:6} {failed:6} "
        f"{seconds:8.1f}"
    )
