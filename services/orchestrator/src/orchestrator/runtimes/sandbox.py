"""The runtime that needs no engine: one bubblewrap sandbox a container."""

import asyncio
import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.domain.container import (
    Container,
    ContainerSpec,
    ContainerState,
    Limits,
    Reuse,
    decide_reuse,
)
from orchestrator.domain.disk import DiskUse
from orchestrator.domain.workspace import owner_of
from orchestrator.errors import (
    ContainerNotFound,
    ContainerStartFailed,
    RuntimeFailure,
)
from orchestrator.ports import RuntimeInfo
from orchestrator.runtimes.cgroups import CONTROLLERS, Cgroups
from orchestrator.runtimes.deployment import DEFAULT_DEPLOYMENT, Deployment
from orchestrator.runtimes.disk_measure import DISK_IS_WATCHED, free_bytes, measure_here
from orchestrator.runtimes.freezing import freeze, thaw
from orchestrator.runtimes.gate import StartGate
from orchestrator.runtimes.locks import NamedLocks
from orchestrator.runtimes.processes import Process
from orchestrator.runtimes.readiness import (
    START_SECONDS,
    Readiness,
    is_responsive,
    start_failure,
    wait_until_healthy,
)
from orchestrator.runtimes.sandbox_launcher import Places, SandboxLauncher
from orchestrator.runtimes.sandbox_machine import SandboxMachine
from orchestrator.runtimes.sandbox_record import SandboxRecord
from orchestrator.runtimes.sandbox_remains import SandboxRemains
from orchestrator.runtimes.sandbox_store import SandboxStore
from orchestrator.runtimes.socket_directory import SocketDirectories

NAME = "sandbox"
STOP_SECONDS = 2.0
PARALLEL_STARTS = 4  # more at once only slow each other down, past the time a start may take
ALWAYS_ENFORCED = (
    "files",
    "processes",
    "network",
    "user",
    "capabilities",
    "open files",
    "file size",
    DISK_IS_WATCHED,
)
_EPOCH = datetime.fromtimestamp(0, UTC)


class SandboxRuntime:
    """Runs each container as a bubblewrap sandbox with namespaces of its own.

    Sandboxes outlive this object: what is known of them is on disk, and another runtime with the
    same data directory finds them. One orchestrator at a time may use a data directory.

    Args:
        data_dir: Where sandboxes keep their workspaces and records.
        deployment: Only sandboxes of this deployment are listed and touched.
        uid: User id of sandboxes if we are root; otherwise they run as our own user.
        start_timeout_seconds: Longest time a worker may take to answer.
        reason: Why this runtime was chosen, for `info`.
        agent_command: What runs inside; None for the worker.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        deployment: str = DEFAULT_DEPLOYMENT,
        uid: int = 10001,
        start_timeout_seconds: float = START_SECONDS,
        reason: str = "",
        agent_command: Sequence[str] | None = None,
    ) -> None:
        self._deployment = Deployment(deployment)
        self._store = SandboxStore(data_dir.absolute() / "sandboxes", self._deployment)
        self._uid = uid
        self._start_timeout_seconds = start_timeout_seconds
        self._reason = reason
        self._sockets = SocketDirectories(data_dir)
        place = hashlib.sha256(os.fsencode(self._store.root)).hexdigest()[:8]
        self._cgroups = Cgroups(f"{deployment}-{place}")
        self._machine = SandboxMachine(
            self._store, self._cgroups, uid=uid, agent_command=agent_command
        )
        self._remains = SandboxRemains(self._store, self._cgroups, self._sockets, self._deployment)
        self._locks = NamedLocks()
        self._gate = StartGate()

    async def ensure(self, spec: ContainerSpec) -> Container:
        """See `ports.Runtime.ensure`."""
        async with self._locks.hold(spec.name):
            launcher, controllers = await self._machine.prepared()
            wanted = await self._machine.fingerprint(spec.limits)
            found = self._look(spec.name)
            how = decide_reuse(found, wanted, in_use=spec.in_use)
            if found is not None and how in {Reuse.REUSE, Reuse.RESUME}:
                if how is Reuse.RESUME:
                    self._thaw(spec.name)
                if await self._is_responsive(spec.name, found):
                    return replace(found, state=ContainerState.RUNNING, how=how)
                found = self._look(spec.name)
                how = decide_reuse(found, wanted)
                if how in {Reuse.REUSE, Reuse.RESUME}:
                    how = Reuse.RECREATE  # runs but hangs
            await self._remains.end(spec.name, grace_seconds=0)
            keep_birth = found is not None and how is Reuse.START
            record = SandboxRecord(
                workspace_id=spec.workspace_id,
                fingerprint=wanted,
                created_at=found.created_at if found and keep_birth else datetime.now(UTC),
                labels=dict(spec.labels),
                pid=0,
                started=0,
            )
            async with self._gate.enter(patient=spec.is_pooled):
                await self._start(spec, record, launcher, controllers)
            return self._container(spec.name, record, ContainerState.RUNNING, how)

    async def poll(self, name: str) -> Container | None:
        """See `ports.Runtime.poll`."""
        return self._look(name)

    async def pause(self, name: str) -> None:
        """See `ports.Runtime.pause`."""
        async with self._locks.hold(name):
            found = self._look(name)
            if found is not None and found.state is ContainerState.RUNNING:
                await freeze(self._first(name))

    async def bind(self, pooled: str, spec: ContainerSpec) -> bool:
        """See `ports.Runtime.bind`."""
        async with self._locks.hold(spec.name), self._locks.hold(pooled):
            return self._store.bind(pooled, spec.name)

    async def fingerprint(self, limits: Limits) -> str:
        """See `ports.Runtime.fingerprint`."""
        return await self._machine.fingerprint(limits)

    async def tidy(self, known: Collection[str]) -> Sequence[str]:
        """See `ports.Runtime.tidy`."""
        return await asyncio.to_thread(self._remains.tidy, known)

    async def stop(self, name: str) -> None:
        """See `ports.Runtime.stop`."""
        async with self._locks.hold(name):
            await self._remains.end(name, grace_seconds=STOP_SECONDS)

    async def remove(self, name: str) -> None:
        """See `ports.Runtime.remove`."""
        async with self._locks.hold(name):
            await self._remains.end(name, grace_seconds=0)
            await self._remains.delete(name)

    async def list(self) -> Sequence[Container]:
        """See `ports.Runtime.list`."""
        found = (self._look(name) for name in self._store.names())
        return [container for container in found if container is not None]

    async def logs(self, name: str, lines: int) -> str:
        """See `ports.Runtime.logs`."""
        if self._look(name) is None:
            raise ContainerNotFound(f"There is no container {name}.", name=name)
        return await asyncio.to_thread(self._store.tail, name, lines)

    async def disk_use(self, name: str) -> DiskUse:
        """See `ports.Runtime.disk_use`."""
        if self._look(name) is None:
            raise ContainerNotFound(f"There is no container {name}.", name=name)
        sockets = self._sockets.path(self._store.home(name))
        return await measure_here([self._store.workspace(name), sockets])

    async def disk_free(self) -> int | None:
        """See `ports.Runtime.disk_free`."""
        return await free_bytes(self._store.root)

    async def info(self) -> RuntimeInfo:
        """See `ports.Runtime.info`."""
        launcher, controllers = await self._machine.prepared()
        limits = {controller: controller in controllers for controller in CONTROLLERS}
        limits["pids"] |= launcher.limit_processes
        limits["seccomp"] = launcher.system_calls is not None
        return RuntimeInfo(
            name=NAME,
            reason=self._reason,
            enforced=(*ALWAYS_ENFORCED, *(limit for limit, holds in limits.items() if holds)),
            not_enforced=tuple(limit for limit, holds in limits.items() if not holds),
        )

    async def close(self) -> None:
        """See `ports.Runtime.close`; an empty set of control groups goes."""
        await asyncio.to_thread(self._cgroups.remove_set)

    async def _start(
        self,
        spec: ContainerSpec,
        record: SandboxRecord,
        launcher: SandboxLauncher,
        controllers: frozenset[str],
    ) -> None:
        is_new = not self._store.exists(spec.name)

        def write_record(process: Process) -> None:
            update = {"pid": process.pid, "started": process.started}
            self._store.write(spec.name, record.model_copy(update=update))

        try:
            places = self._make_places(spec.name)
            groups = self._cgroups.create(self._store.home(spec.name), spec.limits, controllers)
            async with asyncio.timeout(self._start_timeout_seconds):
                process = await launcher.start(places, spec.limits, groups, write_record)
                readiness = await self._wait(spec.name, process)
        except asyncio.CancelledError:
            await self._remains.clear_failed(spec.name, is_new=is_new)
            raise
        except TimeoutError:
            readiness = Readiness.SILENT
        except OSError as error:
            await self._remains.clear_failed(spec.name, is_new=is_new)
            raise ContainerStartFailed(
                f"{spec.name} cannot be started: {error}", name=spec.name
            ) from error
        if readiness is not Readiness.READY:
            log = await self._remains.clear_failed(spec.name, is_new=is_new)
            raise start_failure(spec.name, readiness, self._start_timeout_seconds, log)

    async def _is_responsive(self, name: str, found: Container) -> bool:
        async def is_alive() -> bool:
            now = self._look(name)
            return now is not None and now.state is ContainerState.RUNNING

        return await is_responsive(found.endpoint, self._start_timeout_seconds, is_alive)

    async def _wait(self, name: str, process: Process | None) -> Readiness:
        if process is None:
            return Readiness.ENDED

        async def is_alive() -> bool:
            return process.is_alive()

        endpoint = self._sockets.endpoint(self._store.home(name))
        return await wait_until_healthy(endpoint, self._start_timeout_seconds, is_alive)

    def _make_places(self, name: str) -> Places:
        workspace = self._store.make_workspace(name)
        if os.geteuid() == 0:
            os.chown(workspace, self._uid, self._uid)
        sockets = self._sockets.make(self._store.home(name))
        return Places(workspace=workspace, sockets=sockets, log=self._store.fresh_log(name))

    def _first(self, name: str) -> Process:
        record = self._store.read(name)
        if record is None:
            raise RuntimeFailure(f"The record of {name} cannot be read.", name=name)
        return record.process

    def _thaw(self, name: str) -> None:
        thaw(self._first(name))

    def _look(self, name: str) -> Container | None:
        try:
            record = self._store.read(name)
        except FileNotFoundError:
            return None
        if record is None:
            nothing = SandboxRecord(
                workspace_id="", fingerprint="", created_at=_EPOCH, labels={}, pid=0, started=0
            )
            return self._container(name, nothing, ContainerState.BROKEN, Reuse.REUSE)
        state = ContainerState.STOPPED
        if record.process.is_alive():
            paused = record.process.is_stopped()
            state = ContainerState.PAUSED if paused else ContainerState.RUNNING
        return self._container(name, record, state, Reuse.REUSE)

    def _container(
        self, name: str, record: SandboxRecord, state: ContainerState, how: Reuse
    ) -> Container:
        return Container(
            name=name,
            workspace_id=record.workspace_id or owner_of(name),
            runtime=NAME,
            state=state,
            endpoint=self._sockets.endpoint(self._store.home(name)),
            created_at=record.created_at,
            fingerprint=record.fingerprint,
            how=how,
        )
