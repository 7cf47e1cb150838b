"""Attempts to fill the disk, on every runtime, with real workers.

No attempt depends on how fast it is found: each writes what is too much and then waits, or goes on
up to a bound that spares this machine should nothing stop it.
"""

from typing import Any

import pytest
from tests.support.disk import LIMIT, TOO_MUCH, Watching, watching
from tests.support.escape import TASK, Cell, cell
from tests.support.runtimes import Bench, until

from orchestrator.domain.container import ContainerState
from orchestrator.errors import DiskExhausted, WorkerUnreachable
from orchestrator.runtimes.readiness import is_healthy
from orchestrator.workers.client import HttpWorkers

PATIENCE = 120.0
FILL = "mkdir -p {0}; for i in $(seq {1}); do head -c 1M /dev/urandom > {0}/$i; done"
GROW = "for i in $(seq 400); do head -c 1M /dev/urandom > /workspace/grown-$i; sleep 0.3; done"
HIDDEN = (
    f"(cd /; exec setsid -f sh -c '{GROW}' </dev/null >/dev/null 2>&1);"
    " until [ -e /workspace/grown-1 ]; do sleep 0.1; done; echo begun"
)
"""Grows on where no worker looks for it: in a session and a directory of its own."""


async def is_stopped(inmate: Cell) -> bool:
    found = await inmate.runtime.poll(inmate.container.name)
    return found is not None and found.state is not ContainerState.RUNNING


async def has_room(watched: Watching) -> bool:
    return watched.runtime.uses[-1].used_bytes <= LIMIT


async def was_told(watched: Watching) -> bool:
    return bool(watched.events)


@pytest.mark.parametrize(
    "place", ["/workspace/fill", "/run/berth/fill", "/workspace/h/../h/fill; chmod 0 /workspace/h"]
)
async def test_a_command_that_fills_the_disk_is_ended_and_the_rest_lives(
    bench: Bench, place: str
) -> None:
    directory, _, after = place.partition(";")
    async with cell(bench) as inmate, cell(bench, inmate.runtime) as neighbour:
        async with watching(inmate.runtime) as watched, watched.guard(inmate) as guard:
            command = f"{FILL.format(directory, TOO_MUCH)}; {after or ':'}; sleep 3000"
            told = await inmate.call("bash", key="2", command=command, timeout=3000)
            assert told.is_error
            assert "interrupted" in told.text
            assert "were ended" in guard.take_sentence()
            assert guard.take_sentence() == ""
            (event,) = watched.events
            assert (event.data["code"], event.data["limit_bytes"]) == ("disk_exhausted", LIMIT)
            assert int(str(event.data["used_bytes"])) > LIMIT

            # What is there can be looked at and deleted, and then there is room again.
            tidy = f"chmod -R u+rwX /workspace/h; du -s {directory}; rm -rf {directory}; touch ok"
            said = await inmate.call("bash", key="4", command=tidy)
            assert directory in said.text
            await until(lambda: has_room(watched), PATIENCE)
            assert "ok" in (await inmate.call("bash", key="6", command="ls")).text
            assert guard.take_sentence() == ""
            assert guard.take_stop() is None
        assert (await neighbour.call("bash", command="echo alive")).text.endswith("alive")


class Deaf:
    """A worker that says it has ended what runs, and has not."""

    async def interrupt(self, _task_id: str) -> None:
        return None


async def test_a_worker_that_lets_it_grow_is_stopped_with_its_container(bench: Bench) -> None:
    async with cell(bench) as inmate, cell(bench, inmate.runtime) as neighbour:
        async with watching(inmate.runtime) as watched, watched.guard(inmate, Deaf()) as guard:
            with pytest.raises(WorkerUnreachable):
                await inmate.call("bash", key="2", command=GROW, timeout=3000)
            await until(lambda: is_stopped(inmate), PATIENCE)
            error = guard.take_stop()
            assert isinstance(error, DiskExhausted)
            assert "container was stopped" in error.detail
            assert guard.take_stop() is None
            assert len(watched.events) >= 2
        assert (await neighbour.call("bash", command="echo alive")).text.endswith("alive")

        # The next task works there, with what was kept, and can delete it.
        again = await inmate.runtime.ensure(inmate.spec)
        worker = await HttpWorkers().connect(again, inmate.key)
        async with worker.toolbox(TASK) as toolbox:
            said = await toolbox.call("bash", {"command": "rm /workspace/grown-*; ls /workspace"})
        assert "tasks" in said.text
        assert (await inmate.runtime.disk_use(again.name)).used_bytes <= LIMIT
        await worker.close()


async def test_what_outlives_its_task_is_stopped(bench: Bench) -> None:
    async with cell(bench) as inmate, watching(inmate.runtime) as watched:
        async with watched.guard(inmate):
            assert "begun" in (await inmate.call("bash", command=HIDDEN)).text
        await until(lambda: is_stopped(inmate), PATIENCE)


async def test_a_container_that_was_left_running_is_watched(bench: Bench) -> None:
    async with cell(bench) as inmate, watching(inmate.runtime) as watched:
        await watched.watch.take_over()
        assert "begun" in (await inmate.call("bash", command=HIDDEN)).text
        await until(lambda: is_stopped(inmate), PATIENCE)


async def test_many_files_and_deep_directories_count(bench: Bench) -> None:
    async with cell(bench) as inmate, watching(inmate.runtime) as watched, watched.guard(inmate):
        program = (
            "import os\nos.makedirs('/workspace/many'); os.chdir('/workspace/many')\n"
            f"for n in range({TOO_MUCH * 1024}): os.close(os.open(str(n), os.O_CREAT))\n"
            "import time; time.sleep(3000)"
        )
        command = f"python3 - <<'EOF'\n{program}\nEOF"
        told = await inmate.call("bash", key="2", command=command, timeout=3000)
        assert "interrupted" in told.text
        event: Any = watched.events[0]
        assert event.data["used_bytes"] > LIMIT


async def test_a_workspace_that_is_too_large_already_can_be_worked_in(bench: Bench) -> None:
    async with cell(bench) as inmate:
        await inmate.call("bash", command=FILL.format("/workspace/fill", TOO_MUCH), timeout=600)
        async with watching(inmate.runtime) as watched, watched.guard(inmate) as guard:
            await until(lambda: was_told(watched), PATIENCE)
            assert "Delete what is not needed" in guard.take_sentence()
            async with watched.guard(inmate) as second:  # another task is told as well
                assert "Delete what is not needed" in second.take_sentence()
            told = await inmate.call("bash", key="2", command="rm -r /workspace/fill; echo done")
            assert told.text.endswith("done")
            await until(lambda: has_room(watched), PATIENCE)
            assert await is_healthy(inmate.container.endpoint)
