"""The escape suite: attempts to get out of a container, on every runtime, with real workers.

Each attempt has the refusal that it must meet. Those that a container may succeed with are at the
end: they are inside the wall, and `docs/security.md` says so.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from tests.support.attempts import ATTEMPTS, Attempt
from tests.support.escape import TASK, Cell, bystander, cell
from tests.support.runtimes import Bench, problem_with, require, until

from orchestrator.errors import BerthError, WorkerRefused, WorkerUnreachable
from orchestrator.runtimes.readiness import is_healthy
from orchestrator.workers.client import HttpWorkers

NAMESPACES = Path("/proc/self/ns")
RUNTIMES = [
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("sandbox", marks=pytest.mark.sandbox),
]


@pytest.fixture(scope="module", params=RUNTIMES)
def outcomes(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """What became of each attempt, all made in one container."""
    require(asyncio.run(problem_with(request.param)))
    return asyncio.run(_all_attempts(request.param))


async def _all_attempts(kind: str) -> Mapping[str, str]:
    bench = Bench(kind)
    try:
        async with (
            cell(bench) as one,
            cell(bench, one.runtime) as neighbour,
            bystander(bench.data_dir / "host.sock") as host,
        ):
            known = {
                "port": str(host.port),
                "path": str(host.path),
                "abstract": host.abstract,
                "neighbour": str(neighbour.container.endpoint.uds),
                "data": str(bench.data_dir),
                # In halves, so that the attempt does not find itself.
                "half": one.key[:20],
                "rest": one.key[20:],
                "secrets": repr([one.key, neighbour.key]),
                "namespaces": repr([str(link.readlink()) for link in NAMESPACES.iterdir()]),
            }
            told = {"runtime": kind}
            for attempt in ATTEMPTS:
                program = attempt.program
                for name, value in known.items():
                    program = program.replace(f"{{{name}}}", value)
                told[attempt.name] = await one.attempt(program)
            told["visits"] = str(host.visits)
            await host.visit()
            told["visits of ours"] = str(host.visits)
            told["alive"] = (await one.call("bash", command="echo alive")).text
            return told
    finally:
        await bench.clean()


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
def test_it_is_refused(outcomes: Mapping[str, str], attempt: Attempt) -> None:
    told = outcomes[attempt.name]
    assert re.fullmatch(attempt.expected_on(outcomes["runtime"]), told), told


def test_nobody_came_by_and_the_worker_lives(outcomes: Mapping[str, str]) -> None:
    assert (outcomes["visits"], outcomes["visits of ours"]) == ("0", "3")
    assert outcomes["alive"].endswith("alive")


@pytest.fixture
async def inmate(bench: Bench) -> AsyncIterator[Cell]:
    """A container of one test."""
    async with cell(bench) as found:
        yield found


async def test_what_is_not_enforced_is_said(inmate: Cell) -> None:
    """A limit that appears here needs an attempt in this suite; the disk has one of its own."""
    info = await inmate.runtime.info()
    always = {"files", "processes", "network", "user", "capabilities", "open files", "file size"}
    assert always <= set(info.enforced)
    assert any(each.startswith("disk") for each in info.enforced)


async def test_a_memory_hog_dies_and_the_worker_goes_on(inmate: Cell) -> None:
    enforced = (await inmate.runtime.info()).enforced
    require(None if "memory" in enforced else "this machine does not enforce the limit memory")
    before = await inmate.runtime.poll(inmate.container.name)
    told = await inmate.call("bash", command="python3 -c 'x = bytearray(600 << 20)'; echo $?")
    assert "stdout:\n137\n" in told.text, told
    # Many children, none of them larger than the worker; their shell may be the one that dies.
    one = "python3 -c 'x = bytearray(20 << 20); import time; time.sleep(2)'; echo end $?"
    crowd = f"for i in $(seq 40); do ({one}) & done; wait"
    told = await inmate.call("bash", command=crowd, timeout=20)
    assert "end 137" in told.text or "exit code: 137" in told.text, told
    assert told.text.count("end 0") < 12, told
    assert (await inmate.call("bash", command="echo alive")).text.endswith("alive")
    assert await inmate.runtime.poll(inmate.container.name) == before


async def test_file_tools_stay_in_the_tree(inmate: Cell) -> None:
    await inmate.call("bash", command="ln -s /etc out; ln -s /etc/passwd direct; echo in > file")
    assert (await inmate.call("read_text_file", path="file")).text.strip() == "in"
    for path in ("../../../etc/passwd", "/etc/passwd", "out/passwd", "direct", "/proc/self/mem"):
        read = await inmate.call("read_text_file", path=path)
        written = await inmate.call("write_file", path=path, content="planted")
        assert read.is_error, (path, read)
        assert "root:" not in read.text
        assert written.is_error, (path, written)
        assert "no such tool" not in (read.text + written.text).lower()


async def test_outputs_do_not_follow_links(inmate: Cell) -> None:
    for link in ("/etc", "/workspace/records", "."):
        await inmate.call("bash", command=f"rm -rf .berth; ln -s {link} .berth")
        with suppress(BerthError):
            await inmate.worker.keep_output(TASK, "planted.txt", "text")
        places = "/etc /workspace/records . outputs"
        listed = await inmate.call("bash", command=f"ls -R {places} 2>/dev/null; echo listed")
        assert "listed" in listed.text
        assert "planted.txt" not in listed.text, link


async def test_a_worker_socket_that_leads_elsewhere_is_not_followed(
    bench: Bench, inmate: Cell
) -> None:
    """Followed, it would let a container use the orchestrator's rights on any socket."""
    async with cell(bench, inmate.runtime) as neighbour, bystander(bench.data_dir / "h") as host:
        uds, theirs = inmate.container.endpoint.uds, neighbour.container.endpoint.uds
        assert uds is not None
        # Tools can take the place of their own worker and see its key; it opens no other container.
        with pytest.raises(WorkerRefused):
            await HttpWorkers().connect(neighbour.container, inmate.key)
        for target in (host.path, theirs, Path("/none")):
            await inmate.call("bash", command=f"ln -sf {target} /run/berth/worker.sock")
            assert uds.is_symlink()
            assert not await is_healthy(inmate.container.endpoint)
            for key in (inmate.key, neighbour.key):
                with pytest.raises(WorkerUnreachable):
                    await HttpWorkers().connect(inmate.container, key)
        assert host.visits == 0
        assert (await neighbour.call("bash", command="echo alive")).text.endswith("alive")


async def test_a_directory_in_place_of_the_socket_does_not_keep_the_container_down(
    inmate: Cell,
) -> None:
    where = "/run/berth/worker.sock"
    await inmate.call("bash", command=f"rm {where}; mkdir -p {where}/deep; chmod 0 {where}")
    assert not await is_healthy(inmate.container.endpoint)
    await inmate.runtime.stop(inmate.container.name)
    again = await inmate.runtime.ensure(inmate.spec)
    assert await is_healthy(again.endpoint)


async def test_a_killed_worker_costs_the_container_alone(inmate: Cell) -> None:
    """Tools share the worker's user and can end it: the call fails, and the next start works."""
    with pytest.raises(WorkerUnreachable):
        await inmate.call("bash", command="pkill -9 -f 'm agent' || kill -9 -1; sleep 5")

    async def is_dead() -> bool:
        return not await is_healthy(inmate.container.endpoint)

    await until(is_dead)
    assert await is_healthy((await inmate.runtime.ensure(inmate.spec)).endpoint)


async def test_a_forged_journal_deceives_its_own_task_alone(inmate: Cell) -> None:
    """The boundary: what a container says of its own calls is as trustworthy as the container."""
    await inmate.call("bash", key="1", command="echo true")
    journal = f"/workspace/records/{TASK}/journal"
    program = (
        f"import json\nentry = json.load(open({journal + '/1.json'!r}))\n"
        "entry['result']['content'][0]['text'] = 'forged'\n"
        f"json.dump(entry, open({journal + '/1.json'!r}, 'w'))"
    )
    assert await inmate.attempt(program) == ""
    again = await inmate.call("bash", key="1", command="echo true")
    assert again.text == "forged"
    # A key stands for one call: a forged entry does not answer for another.
    other = await inmate.call("bash", key="1", command="echo other")
    assert other.is_error
    for key in ("../2", "a/b", "x" * 300, ".."):
        told = await inmate.call("bash", key=key, command="echo ran")
        assert told.is_error, told
    mark = secrets.token_hex(8)
    command = f"mv {journal} {journal}.old; ln -s /etc {journal}; echo {mark}"
    await inmate.call("bash", command=command)
    told = await inmate.call("bash", key="hostname", command="echo ran")
    assert mark not in told.text
    assert told.is_error or "ran" in told.text
    listed = await inmate.call("bash", command="ls /etc; echo listed")
    assert "listed" in listed.text
    assert "hostname.json" not in listed.text
