"""What this machine can do for sandboxes, found out once."""

import asyncio
import os
import platform
from collections.abc import Sequence

from orchestrator.domain.container import Limits
from orchestrator.errors import RuntimeUnavailable
from orchestrator.runtimes.bubblewrap import (
    counts_processes_by_namespace,
    installed_version,
    sandbox_problem,
)
from orchestrator.runtimes.cgroups import Cgroups
from orchestrator.runtimes.deployment import fingerprint
from orchestrator.runtimes.interpreter import find_interpreter
from orchestrator.runtimes.sandbox_launcher import SandboxLauncher
from orchestrator.runtimes.sandbox_store import SandboxStore
from orchestrator.runtimes.seccomp import filter_program
from orchestrator.runtimes.system_tree import write_made_files


class SandboxMachine:
    """Makes the launcher that fits this machine.

    Args:
        store: Where sandboxes lie.
        cgroups: Tried for the controllers that can be used.
        uid: User id of sandboxes if we are root.
        agent_command: What runs inside; None for the worker.
    """

    def __init__(
        self,
        store: SandboxStore,
        cgroups: Cgroups,
        *,
        uid: int,
        agent_command: Sequence[str] | None,
    ) -> None:
        self._store = store
        self._cgroups = cgroups
        self._uid = uid
        self._agent_command = agent_command
        self._controllers: frozenset[str] | None = None
        self._launcher: SandboxLauncher | None = None
        self._code: list[str] = []
        self._preparing = asyncio.Lock()

    async def prepared(self) -> tuple[SandboxLauncher, frozenset[str]]:
        """The launcher, and the controllers of control groups that can be used.

        Raises:
            RuntimeUnavailable: It can make no sandbox; tried again on the next call.
        """
        async with self._preparing:
            if self._launcher is None or self._controllers is None:
                problem = await sandbox_problem(self._uid)
                if problem is not None:
                    raise RuntimeUnavailable(problem)
                self._controllers = await asyncio.to_thread(self._cgroups.usable)
                self._launcher = await self._made(self._controllers)
            return self._launcher, self._controllers

    async def fingerprint(self, limits: Limits) -> str:
        """What a sandbox with these limits would be made of.

        Raises:
            RuntimeUnavailable: This machine can make no sandbox.
        """
        await self.prepared()
        return fingerprint(
            code=self._code,
            memory=limits.memory_bytes,
            cpus=limits.cpus,
            pids=limits.pids,
            open_files=limits.open_files,
            file_bytes=limits.largest_file_bytes,
            uid=self._uid,
        )

    async def _made(self, controllers: frozenset[str]) -> SandboxLauncher:
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
