"""Watches what processes show of themselves to everybody: arguments, and environments."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.canaries import Output

PAUSE_SECONDS = 0.03
# Writes down what it was called with, then does the work; the shell starts nothing else for it.
_SHIM = """#!/bin/sh
{{
    printf 'arguments: {name}\\n'
    printf '%s\\n' "$@"
}} >>"{log}.arguments"
{{
    printf 'environment: {name}\\n'
    export -p
}} >>"{log}.environment"
exec {program} "$@"
"""


@dataclass(slots=True)
class Watch:
    """What was seen so far."""

    directory: Path
    seen: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def path(self) -> str:
        """A `PATH` on which the programs stand that keep what they are called with."""
        return f"{self.directory}:{os.environ['PATH']}"

    def outputs(self) -> Iterator[Output]:
        """Arguments and environments of all processes that were seen."""
        for (_, arguments), environment in list(self.seen.items()):
            program, *rest = os.fsdecode(arguments).split("\0")
            # A shell runs the program that keeps what it gets, before it becomes the real one.
            is_ours = bool(rest) and rest[0].startswith(str(self.directory))
            name = Path(rest[0] if is_ours else program).name
            is_service = b"\0-m\0orchestrator\0" in arguments
            yield Output(f"arguments of {name}", arguments)
            yield Output(f"environment of {'the service' if is_service else name}", environment)
        for log in self.directory.glob("*.log.*"):
            yield Output(
                f"{log.suffix[1:]} of {log.name.partition('.')[0]}, kept", log.read_bytes()
            )

    def watch(self) -> None:
        """Look at all processes again and again, until it is over."""
        while not self._over.wait(PAUSE_SECONDS):
            self._look()

    def stop(self) -> None:
        """It is over."""
        self._over.set()

    def _look(self) -> None:
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                arguments = Path(entry.path, "cmdline").read_bytes()
                key = (int(entry.name), arguments)
                if arguments and key not in self.seen:
                    self.seen[key] = Path(entry.path, "environ").read_bytes()
            except OSError:
                continue  # it has ended meanwhile


@contextmanager
def watching(directory: Path) -> Iterator[Watch]:
    """Watch all processes of the machine while the context lasts.

    Those that are too short to be seen are called by way of programs that keep what they get.
    """
    directory.mkdir()
    for name in ("git", "npm"):
        program = shutil.which(name)
        if program is not None:
            shim = directory / name
            shim.write_text(_SHIM.format(name=name, program=program, log=directory / f"{name}.log"))
            shim.chmod(0o755)
    watch = Watch(directory)
    thread = threading.Thread(target=watch.watch, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.stop()
        thread.join()
