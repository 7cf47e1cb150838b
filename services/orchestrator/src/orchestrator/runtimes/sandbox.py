"""The runtime that needs no engine: one bubblewrap sandbox a container."""

import asyncio
import hashlib
import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.domain.container import (
    Container,
    ContainerSpec,
    ContainerState,
    Reuse,
    decide_reuse,
)
from orchestrator.errors import ContainerNotFound, ContainerStartFailed, RuntimeUnavailable
from orchestrator.ports import RuntimeInfo
from orchestrator.runtimes.bubblewrap import (
    counts_processes_by_namespace,
    installed_version,
    sandbox_problem,
)
from orchestrator.runtimes.cgroups import CONTROLLERS, Cgroups
from orchestrator.runtimes.deployment import DEFAULT_DEPLOYMENT, Deployment, fingerprint
from orchestrator.runtimes.interpreter import find_interpreter
from orchestrator.runtimes.locks import NamedLocks
from orchestrator.runtimes.processes import Process, end_process
from orchestrator.runtimes.readiness import (
    Readiness,
    is_responsive,
    start_failure,
    wait_until_healthy,
)
from orchestrator.runtimes.sandbox_launcher import Places, SandboxLauncher
from orchestrator.runtimes.sandbox_record import SandboxRecord
from orchestrator.runtimes.sandbox_store import SandboxStore
from orchestrator.runtimes.seccomp import filter_program
from orchestrator.runtimes.socket_directory import SocketDirectories
from orchestrator.runtimes.system_tree import write_made_files

NAME = "sandbox"
FAILURE_LOG_LINES = 20
STOP_SECONDS = 2.0
PARALLEL_STARTS = 4  # more at once only slow each other down, past the time a start may take
ALWAYS_ENFORCED = ("files", "processes", "network", "user", "capabilities", "open files")
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
        start_timeout_seconds: float = 30.0,
        reason: str = "",
        agent_command: Sequence[str] | None = None,
    ) -> None:
        self._deployment = Deployment(deployment)
        self._store = SandboxStore(data_dir.absolute() / "sandboxes", self._deployment)
        self._uid = uid
        self._start_timeout_seconds = start_timeout_seconds
        self._reason = reason
        self._agent_command = agent_command
        self._sockets = SocketDirectories(data_dir)
        place = hashlib.sha256(os.fsencode(self._store.root)).hexdigest()[:8]
        self._cgroups = Cgroups(f"{deployment}-{place}")
        self._controllers: frozenset[str] | None = None
        self._launcher: SandboxLauncher | None = None
        self._code: list[str] = []
        self._preparing = asyncio.Lock()
        self._locks = NamedLocks()
        self._starts = asyncio.Semaphore(PARALLEL_STARTS)

    async def ensure(self, spec: ContainerSpec) -> Container:
        """See `ports.Runtime.ensure`."""
        async with self._locks.hold(spec.name):
            launcher, controllers = await self._prepare()
            wanted = self._fingerprint(spec)
            found = self._look(spec.name)
            how = decide_reuse(found, wanted)
            if found is not None and how is Reuse.REUSE:
                if await self._is_responsive(spec.name, found):
                    return found
                found = self._look(spec.name)
                how = decide_reuse(found, wanted)
                if how is Reuse.REUSE:
                    how = Reuse.RECREATE  # runs but hangs
            await self._end(spec.name, grace_seconds=0)
            keep_birth = found is not None and how is Reuse.START
            record = SandboxRecord(
                workspace_id=spec.workspace_id,
                fingerprint=wanted,
                created_at=found.created_at if found and keep_birth else datetime.now(UTC),
                labels=dict(spec.labels),
                pid=0,
                started=0,
            )
            async with self._starts:
                await self._start(spec, record, launcher, controllers)
            return self._container(spec.name, record, ContainerState.RUNNING, how)

    async def poll(self, name: str) -> Container | None:
        """See `ports.Runtime.poll`."""
        return self._look(name)

    async def stop(self, name: str) -> None:
        """See `ports.Runtime.stop`."""
        async with self._locks.hold(name):
            await self._end(name, grace_seconds=STOP_SECONDS)

    async def remove(self, name: str) -> None:
        """See `ports.Runtime.remove`."""
        async with self._locks.hold(name):
            await self._end(name, grace_seconds=0)
            await self._delete(name)

    async def list(self) -> Sequence[Container]:
        """See `ports.Runtime.list`."""
        found = (self._look(name) for name in self._store.names())
        return [container for container in found if container is not None]

    async def logs(self, name: str, lines: int) -> str:
        """See `ports.Runtime.logs`."""
        if self._look(name) is None:
            raise ContainerNotFound(f"There is no container {name}.", name=name)
        return await asyncio.to_thread(self._store.tail, name, lines)

    async def info(self) -> RuntimeInfo:
        """See `ports.Runtime.info`."""
        launcher, controllers = await self._prepare()
        limits = {controller: controller in controllers for controller in CONTROLLERS}
        limits["pids"] |= launcher.limit_processes
        limits["seccomp"] = launcher.system_calls is not None
        limits["disk"] = False
        return RuntimeInfo(
            name=NAME,
            reason=self._reason,
            enforced=(*ALWAYS_ENFORCED, *(limit for limit, holds in limits.items() if holds)),
            not_enforced=tuple(limit for limit, holds in limits.items() if not holds),
        )

    async def close(self) -> None:
        """See `ports.Runtime.close`; there is nothing to release."""

    async def _prepare(self) -> tuple[SandboxLauncher, frozenset[str]]:
        """Find out once what this machine can do.

        Raises:
            RuntimeUnavailable: It can make no sandbox; tried again on the next call.
        """
        async with self._preparing:
            if self._launcher is None or self._controllers is None:
                problem = await sandbox_problem(self._uid)
                if problem is not None:
                    raise RuntimeUnavailable(problem)
                self._controllers = await asyncio.to_thread(self._cgroups.usable)
                self._launcher = await self._make_launcher(self._controllers)
            return self._launcher, self._controllers

    async def _make_launcher(self, controllers: frozenset[str]) -> SandboxLauncher:
        as_root = os.geteuid() == 0
        interpreter = find_interpreter()
        self._code = await asyncio.to_thread(interpreter.digest_facts)
        uid, gid = (self._uid, self._uid) if as_root else (os.getuid(), os.getgid())
        etc = self._store.root / ".etc"
        self._store.make_root()
        write_made_files(etc, uid, gid)
        # -P: nothing in the workspace may stand in for a module of the worker.
        # -S: no *.pth file of the machine's Python may run code.
        command = self._agent_command or (interpreter.executable, "-P", "-S", "-m", "agent")
        return SandboxLauncher(
            drop_to=uid if as_root else None,
            interpreter=interpreter,
            command=tuple(command),
            etc=etc,
            bwrap_version=await installed_version(),
            system_calls=filter_program(platform.machine()),
            limit_processes="pids" not in controllers
            and counts_processes_by_namespace(platform.release()),
        )

    def _fingerprint(self, spec: ContainerSpec) -> str:
        return fingerprint(
            code=self._code,
            memory=spec.limits.memory_bytes,
            cpus=spec.limits.cpus,
            pids=spec.limits.pids,
            uid=self._uid,
        )

    async def _start(
        self,
        spec: ContainerSpec,
        record: SandboxRecord,
        launcher: SandboxLauncher,
        controllers: frozenset[str],
    ) -> None:
        qualified = self._deployment.qualify(spec.name)
        is_new = not self._store.exists(spec.name)

        def write_record(process: Process) -> None:
            update = {"pid": process.pid, "started": process.started}
            self._store.write(spec.name, record.model_copy(update=update))

        try:
            places = self._make_places(spec.name)
            groups = self._cgroups.create(qualified, spec.limits, controllers)
            async with asyncio.timeout(self._start_timeout_seconds):
                process = await launcher.start(places, spec.limits, groups, write_record)
                readiness = await self._wait(spec.name, process)
        except asyncio.CancelledError:
            await self._clear_failed(spec.name, is_new=is_new)
            raise
        except TimeoutError:
            readiness = Readiness.SILENT
        except OSError as error:
            await self._clear_failed(spec.name, is_new=is_new)
            raise ContainerStartFailed(
                f"{spec.name} cannot be started: {error}", name=spec.name
            ) from error
        if readiness is not Readiness.READY:
            log = await self._clear_failed(spec.name, is_new=is_new)
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

        endpoint = self._sockets.endpoint(self._deployment.qualify(name))
        return await wait_until_healthy(endpoint, self._start_timeout_seconds, is_alive)

    async def _clear_failed(self, name: str, *, is_new: bool) -> str:
        """Remove what a failed start has left, also the workspace if it is new; returns the log."""
        await self._end(name, grace_seconds=0)
        log = await asyncio.to_thread(self._store.tail, name, FAILURE_LOG_LINES)
        if is_new:
            await self._delete(name)
        else:
            self._store.forget(name)
        return log

    def _make_places(self, name: str) -> Places:
        workspace = self._store.make_workspace(name)
        if os.geteuid() == 0:
            os.chown(workspace, self._uid, self._uid)
        sockets = self._sockets.make(self._deployment.qualify(name))
        return Places(workspace=workspace, sockets=sockets, log=self._store.fresh_log(name))

    async def _end(self, name: str, *, grace_seconds: float) -> None:
        """End all processes of a sandbox and take its control groups away."""
        record = None
        with suppress(FileNotFoundError):
            record = self._store.read(name)
        if record is not None:
            await end_process(record.process, grace_seconds)
        await asyncio.to_thread(self._cgroups.remove, self._deployment.qualify(name))

    async def _delete(self, name: str) -> None:
        await asyncio.to_thread(self._store.delete, name)
        self._sockets.remove(self._deployment.qualify(name))

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
        alive = record.process.is_alive()
        state = ContainerState.RUNNING if alive else ContainerState.STOPPED
        return self._container(name, record, state, Reuse.REUSE)

    def _container(
        self, name: str, record: SandboxRecord, state: ContainerState, how: Reuse
    ) -> Container:
        return Container(
            name=name,
            workspace_id=record.workspace_id,
            runtime=NAME,
            state=state,
            endpoint=self._sockets.endpoint(self._deployment.qualify(name)),
            created_at=record.created_at,
            fingerprint=record.fingerprint,
            how=how,
        )
