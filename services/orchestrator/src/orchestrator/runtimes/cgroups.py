"""Control groups, which hold a sandbox to its limits where this machine lets us make them."""

import os
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from orchestrator.domain.container import Limits
from orchestrator.errors import RuntimeFailure

CONTROLLERS = ("memory", "pids", "cpu")
PERIOD_MICROSECONDS = 100_000
REMOVAL_SECONDS = 5.0
REMOVAL_PAUSE_SECONDS = 0.005


class Cgroups:
    """The groups of one set of sandboxes, in version 1 or 2 of the interface.

    Args:
        name: Directory of the set below the group `berth`, unique on the machine.
        mount: Where the hierarchy or, with version 1, the hierarchies are mounted.
    """

    def __init__(self, name: str, mount: Path = Path("/sys/fs/cgroup")) -> None:
        self._mount = mount
        self._name = name
        self._unified = (mount / "cgroup.controllers").exists()

    def usable(self) -> frozenset[str]:
        """The controllers among `CONTROLLERS` that really can be used: tried, not guessed.

        A group is made and a process of ours put into it, since a writable directory is no proof.
        """
        found = frozenset(c for c in CONTROLLERS if self._can_create(c))
        if not found:
            return found
        probe = f"probe-{os.getpid()}"
        try:
            files = self.create(probe, Limits(memory_bytes=2**30, cpus=1.0, pids=64), found)
            return found if _can_join(files) else frozenset()
        except OSError:
            return frozenset()
        finally:
            self.remove(probe)

    def create(self, name: str, limits: Limits, controllers: frozenset[str]) -> tuple[Path, ...]:
        """Make a sandbox's group with its limits.

        Returns:
            The files a process writes `0` to, to put itself under the limits.
        """
        directories = self._directories(name, controllers)
        for directory in directories:
            directory.mkdir(parents=True, exist_ok=True)
        for file, value in self._settings(limits, controllers):
            _write(self._directory(name, file.split(".")[0]) / file, value)
        if "memory" in controllers:
            self._forbid_swap(name, limits)
        return tuple(directory / "cgroup.procs" for directory in directories)

    def remove(self, name: str) -> None:
        """End what still runs in a sandbox's group and remove it; it need not exist.

        Raises:
            RuntimeFailure: A process could not be ended.
        """
        deadline = time.monotonic() + REMOVAL_SECONDS
        for directory in self._directories(name, frozenset(CONTROLLERS)):
            while not _removed(directory):
                if time.monotonic() > deadline:
                    raise RuntimeFailure(f"The control group {directory} cannot be emptied.")
                _end_members(directory)
                time.sleep(REMOVAL_PAUSE_SECONDS)

    def names(self) -> Collection[str]:
        """The sandboxes that have a group."""
        found = set()
        for directory in self._directories("", frozenset(CONTROLLERS)):
            if directory.is_dir():
                found |= {entry.name for entry in directory.iterdir() if entry.is_dir()}
        return found

    def remove_set(self) -> None:
        """Remove the set's own group, unless it has groups of sandboxes."""
        for directory in self._directories("", frozenset(CONTROLLERS)):
            with suppress(OSError):
                directory.rmdir()

    def _can_create(self, controller: str) -> bool:
        parent = self._directory("", controller)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            if self._unified:
                for directory in (self._mount, parent.parent, parent):
                    _write(directory / "cgroup.subtree_control", f"+{controller}")
        except OSError:
            return False
        return os.access(parent, os.W_OK)

    def _directory(self, name: str, controller: str) -> Path:
        base = self._mount if self._unified else self._mount / controller
        return base / "berth" / self._name / name

    def _directories(self, name: str, controllers: frozenset[str]) -> list[Path]:
        ordered = [c for c in CONTROLLERS if c in controllers]
        return list(dict.fromkeys(self._directory(name, c) for c in ordered))

    def _settings(self, limits: Limits, controllers: frozenset[str]) -> list[tuple[str, str]]:
        quota = str(int(limits.cpus * PERIOD_MICROSECONDS))
        if self._unified:
            settings = [
                ("memory.max", str(limits.memory_bytes)),
                ("pids.max", str(limits.pids)),
                ("cpu.max", f"{quota} {PERIOD_MICROSECONDS}"),
            ]
        else:
            settings = [
                ("memory.limit_in_bytes", str(limits.memory_bytes)),
                ("pids.max", str(limits.pids)),
                ("cpu.cfs_period_us", str(PERIOD_MICROSECONDS)),
                ("cpu.cfs_quota_us", quota),
            ]
        return [(file, value) for file, value in settings if file.split(".")[0] in controllers]

    def _forbid_swap(self, name: str, limits: Limits) -> None:
        directory = self._directory(name, "memory")
        if self._unified:
            file, value = directory / "memory.swap.max", "0"
        else:
            file, value = directory / "memory.memsw.limit_in_bytes", str(limits.memory_bytes)
        if file.exists():  # absent where the kernel does not account swap
            _write(file, value)


def _write(file: Path, value: str) -> None:
    # Not opened for creation: in a group, a missing file means that there is no such setting.
    with file.open("r+", encoding="ascii") as stream:
        stream.write(value)


def _can_join(files: tuple[Path, ...]) -> bool:
    pid = os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", 'for file; do echo 0 >"$file" || exit 1; done', "sh", *map(str, files)],
        {},
        file_actions=[(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)],
    )
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # busy: it has members
        return False
    return True


def _end_members(directory: Path) -> None:
    with suppress(FileNotFoundError):
        for line in (directory / "cgroup.procs").read_text(encoding="ascii").split():
            with suppress(ProcessLookupError):
                os.kill(int(line), signal.SIGKILL)
