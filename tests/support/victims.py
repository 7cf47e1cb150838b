"""The processes behind a running task, to be stopped where they stand and to be killed."""

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import docker
from tests.support.runtimes import Bench, until
from tests.support.service import Service

from orchestrator.runtimes.processes import Process, process_of
from orchestrator.runtimes.sandbox_record import SandboxRecord


class Victim(StrEnum):
    """What is killed."""

    ORCHESTRATOR = "orchestrator"
    WORKER = "worker"
    CONTAINER = "container"
    POSTGRES = "postgres"


@dataclass(slots=True)
class Victims:
    """Finds, stops and kills what belongs to a service and to one of its containers.

    Args:
        service: The service, with an embedded Postgres.
        container: The container's name.
    """

    service: Service
    container: str
    _still: list[Process] = field(default_factory=list)

    async def worker(self) -> Process:
        """The worker in the container."""
        bench = Bench(self.service.runtime, self.service.deployment, self.service.data_dir)
        return await bench.worker(self.container)

    def orchestrator(self) -> Process:
        """The service's own process."""
        process = process_of(self.service.process.pid)
        assert process is not None
        return process

    async def hold_still(self, process: Process) -> None:
        """Stop a process where it stands; returns once it does."""
        self._still.append(process)
        process.send(signal.SIGSTOP)

        async def stands() -> bool:
            return is_still(process)

        await until(stands)

    def let_go(self, process: Process) -> None:
        """Let a process that was held still go on."""
        self._still.remove(process)
        process.send(signal.SIGCONT)

    def let_all_go(self) -> None:
        """Let everything go on that was held still and still lives."""
        for process in list(self._still):
            self.let_go(process)

    async def kill(self, victim: Victim) -> None:
        """Kill with SIGKILL and, where it was the orchestrator, start it again."""
        if victim is Victim.ORCHESTRATOR:
            self.service.process.kill()
            await asyncio.to_thread(self.service.wait)
            self.let_all_go()
            await asyncio.to_thread(self.service.start)
            return
        if victim is Victim.WORKER:
            (await self.worker()).send(signal.SIGKILL)
        elif victim is Victim.CONTAINER:
            await asyncio.to_thread(self._kill_container)
        else:
            os.kill(postmaster_of(self.service.data_dir), signal.SIGKILL)
        self.let_all_go()

    def _kill_container(self) -> None:
        qualified = f"{self.container}.{self.service.deployment}"
        if self.service.runtime == "docker":
            client = docker.from_env()
            try:
                client.api.kill(qualified)
            finally:
                client.close()
            return
        record = SandboxRecord.read(self.service.data_dir / "sandboxes" / qualified / "state.json")
        assert record is not None
        members = set(_members(qualified)) | {record.pid}
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def is_still(process: Process) -> bool:
    """True if a process is stopped, or is no more."""
    try:
        text = Path(f"/proc/{process.pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return text.rpartition(")")[2].split()[0] in "TtZX"


def postmaster_of(data_dir: Path) -> int:
    """The first process of the embedded Postgres."""
    return int((data_dir / "postgres/data/postmaster.pid").read_text().split()[0])


def _members(qualified: str) -> list[int]:
    """The processes in a sandbox's control groups, where this machine has such."""
    return [
        int(line)
        for pattern in (f"berth/*/{qualified}", f"*/berth/*/{qualified}")
        for group in Path("/sys/fs/cgroup").glob(pattern)
        for line in (group / "cgroup.procs").read_text().split()
    ]
