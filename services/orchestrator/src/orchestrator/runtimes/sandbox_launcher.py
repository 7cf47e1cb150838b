"""Starting the processes of one sandbox."""

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from orchestrator.domain.container import Limits
from orchestrator.runtimes.bubblewrap import SEARCH_PATH
from orchestrator.runtimes.interpreter import (
    PACKAGES_INSIDE,
    PYTHON_INSIDE,
    SITE_INSIDE,
    Interpreter,
)
from orchestrator.runtimes.processes import Process, process_of
from orchestrator.runtimes.sandbox_command import (
    HOME_INSIDE,
    SOCKET_DIRECTORY_INSIDE,
    WORKSPACE_INSIDE,
    Box,
    Mount,
    bwrap_argv,
    detached_argv,
    launch_argv,
    released_command,
    stage_path,
)
from orchestrator.runtimes.socket_directory import SOCKET_NAME
from orchestrator.runtimes.system_tree import hidden_mounts, made_files, system_links, system_mounts


@dataclass(frozen=True, slots=True)
class Places:
    """The directories and files of this machine that belong to one sandbox."""

    workspace: Path
    sockets: Path
    log: Path


@dataclass(frozen=True, slots=True)
class SandboxLauncher:
    """Starts sandboxes that all use one interpreter and run one command.

    Args:
        drop_to: User id to run as if we are root, else None for our own.
        interpreter: The Python of the worker.
        command: What runs inside.
        etc: Directory with the made files of /etc.
        bwrap_version: The installed bubblewrap.
        system_calls: Filter program for system calls, or None for no filter.
        limit_processes: True if the number of processes is to be a resource limit, since there is
            no control group for it.
    """

    drop_to: int | None
    interpreter: Interpreter
    command: tuple[str, ...]
    etc: Path
    bwrap_version: tuple[int, ...]
    system_calls: bytes | None
    limit_processes: bool

    async def start(
        self,
        places: Places,
        limits: Limits,
        groups: Sequence[Path],
        record: Callable[[Process], None],
    ) -> Process | None:
        """Start a sandbox.

        Its command begins only after `record` has returned, so that no sandbox runs that a later
        orchestrator would not find; if we vanish before, the sandbox ends by itself.

        Returns:
            The sandbox's first process, or None if it could not be made; the log says why.
        """
        info_read, info_write = os.pipe()
        release_read, release_write = os.pipe()
        inherited = [release_read, info_write]
        with (
            os.fdopen(info_read, "rb", buffering=0) as info,
            os.fdopen(release_write, "wb", buffering=0) as release,
        ):
            try:
                seccomp_fd = self._seccomp_pipe()
                if seccomp_fd is not None:
                    inherited.append(seccomp_fd)
                argv = self._argv(places, limits, groups, info_write, seccomp_fd)
                await _spawn(argv, stdin=release_read, keep=inherited)
            finally:
                for descriptor in inherited:
                    os.close(descriptor)
            process = await _first_process(info)
            if process is not None:
                record(process)
                with suppress(BrokenPipeError):  # it has ended already, as its readiness will show
                    release.write(b"\n")
            return process

    def _seccomp_pipe(self) -> int | None:
        if self.system_calls is None:
            return None
        read, write = os.pipe()
        os.write(write, self.system_calls)  # far below what a pipe holds
        os.close(write)
        return read

    def _argv(
        self,
        places: Places,
        limits: Limits,
        groups: Sequence[Path],
        info_fd: int,
        seccomp_fd: int | None,
    ) -> list[str]:
        shown = self._shown(places)
        staged = {} if self.drop_to is None else shown
        sources = {
            name: str(path) if self.drop_to is None else stage_path(name)
            for name, path in shown.items()
        }
        uid, gid = self._ids()
        box = Box(
            uid=uid,
            gid=gid,
            mounts=(*system_mounts(), *self._own_mounts(sources, made_files(uid, gid))),
            links=system_links(),
            environment=self._environment(),
            command=released_command(self.command, limits.pids if self.limit_processes else None),
            directory=WORKSPACE_INSIDE,
            temporary_bytes=limits.temporary_bytes,
            bwrap_version=self.bwrap_version,
            info_fd=info_fd,
            seccomp_fd=seccomp_fd,
        )
        launch = launch_argv(
            bwrap_argv(box), groups=groups, drop_to=self.drop_to, staged=staged, limits=limits
        )
        return detached_argv(launch, places.log)

    def _ids(self) -> tuple[int, int]:
        if self.drop_to is not None:
            return self.drop_to, self.drop_to
        return os.getuid(), os.getgid()

    def _shown(self, places: Places) -> dict[str, Path]:
        shown = {
            "etc": self.etc,
            "site-packages": self.interpreter.site_packages,
            "sockets": places.sockets,
            "workspace": places.workspace,
        }
        shown |= {f"package-{path.name}": path for path in self.interpreter.packages}
        if self.interpreter.prefix is not None:
            shown["python"] = self.interpreter.prefix
        return shown

    def _own_mounts(
        self, sources: dict[str, str], etc_names: Sequence[str] | dict[str, str]
    ) -> tuple[Mount, ...]:
        mounts = [Mount(f"{sources['etc']}/{name}", f"/etc/{name}") for name in etc_names]
        if "python" in sources:
            mounts.append(Mount(sources["python"], str(PYTHON_INSIDE)))
        mounts += hidden_mounts(self._prefixes(), sources["etc"])
        mounts.append(Mount(sources["site-packages"], str(SITE_INSIDE)))
        mounts += [
            Mount(sources[f"package-{path.name}"], str(PACKAGES_INSIDE / path.name))
            for path in self.interpreter.packages
        ]
        mounts.append(Mount(sources["workspace"], WORKSPACE_INSIDE, writable=True))
        mounts.append(Mount(sources["sockets"], SOCKET_DIRECTORY_INSIDE, writable=True))
        return tuple(mounts)

    def _prefixes(self) -> dict[str, Path]:
        shown = {path: Path(path) for path in ("/usr", "/usr/local")}
        if self.interpreter.prefix is not None:
            shown[str(PYTHON_INSIDE)] = self.interpreter.prefix
        return shown

    def _environment(self) -> dict[str, str]:
        # Tools want a python3; ours serves if the system has none.
        has_python = any(Path(d, "python3").exists() for d in ("/usr/local/bin", "/usr/bin"))
        return {
            "PATH": SEARCH_PATH if has_python else f"{SEARCH_PATH}:{PYTHON_INSIDE}/bin",
            "HOME": HOME_INSIDE,
            "LANG": "C.UTF-8",
            "BERTH_WORKSPACE": WORKSPACE_INSIDE,
            "BERTH_WORKER_SOCKET": f"{SOCKET_DIRECTORY_INSIDE}/{SOCKET_NAME}",
            **dict(self.interpreter.environment),
        }


async def _spawn(argv: Sequence[str], *, stdin: int, keep: Sequence[int]) -> None:
    # The environment is empty: what we know in ours is none of the sandbox's business.
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=stdin,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        pass_fds=keep,
        env={"PATH": SEARCH_PATH},
        cwd="/",
    )
    await process.wait()


async def _first_process(info: IO[bytes]) -> Process | None:
    """Read bubblewrap's report, a JSON object; None if it ends without one."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), info)
    try:
        report = await reader.readuntil(b"}")
    except asyncio.IncompleteReadError:
        return None
    finally:
        transport.close()
    return process_of(int(json.loads(report)["child-pid"]))
