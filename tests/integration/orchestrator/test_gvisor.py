"""Containers under gVisor, where the Docker engine has it as `runsc`.

Only attempts on what is outside are made here: inside, its kernel allows what is its own matter.
"""

import re
from collections.abc import AsyncIterator

import pytest
from tests.support.attempts import ATTEMPTS
from tests.support.disk import TOO_MUCH, watching
from tests.support.escape import Cell, bystander, cell
from tests.support.runtimes import IMAGE, Bench, require

from orchestrator.runtimes.docker_engine import docker_problem

RUNSC = "runsc"
OUTSIDE = {
    "mount",
    "setuid programs",
    "raw sockets",
    "sockets past the namespace",
    "services of this machine",
    "the neighbour's sockets",
    "the image",
    "other people's files",
    "open files",
    "a file that grows",
    "filling temporary places",
}

pytestmark = pytest.mark.docker


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    require(await docker_problem(IMAGE))
    problem = await docker_problem(IMAGE, RUNSC)
    if problem is not None:
        pytest.skip(problem)  # also where all else must be there: few machines have it
    found = Bench("docker", engine_runtime=RUNSC)
    yield found
    await found.clean()


async def test_attempts_on_what_is_outside_are_refused(bench: Bench) -> None:
    async with (
        cell(bench) as inmate,
        cell(bench, inmate.runtime) as neighbour,
        bystander(bench.data_dir / "host.sock") as host,
    ):
        assert "Linux version 4.4.0" in await inmate.attempt("print(open('/proc/version').read())")
        known = {
            "port": str(host.port),
            "path": str(host.path),
            "abstract": host.abstract,
            "neighbour": str(neighbour.container.endpoint.uds),
            "data": str(bench.data_dir),
        }
        made = [attempt for attempt in ATTEMPTS if attempt.name in OUTSIDE]
        assert len(made) == len(OUTSIDE)
        for attempt in made:
            program = attempt.program
            for name, value in known.items():
                program = program.replace(f"{{{name}}}", value)
            told = await inmate.attempt(program)
            assert re.fullmatch(attempt.expected_on("docker"), told), (attempt.name, told)
        assert host.visits == 0
        assert await alive(neighbour)


async def test_a_disk_that_is_filled_is_found(bench: Bench) -> None:
    async with cell(bench) as inmate:
        async with watching(inmate.runtime) as watched, watched.guard(inmate) as guard:
            fill = f"head -c {TOO_MUCH}M /dev/urandom > /workspace/fill; sleep 3000"
            told = await inmate.call("bash", key="2", command=fill, timeout=3000)
            assert "interrupted" in told.text
            assert "were ended" in guard.take_sentence()
        assert await alive(inmate)


async def alive(inmate: Cell) -> bool:
    return (await inmate.call("bash", command="echo alive")).text.endswith("alive")
