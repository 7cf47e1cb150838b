"""Run the worker: `python -m agent`."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from agent.settings import WorkerSettings, read_settings
from agent.system_calls import give_up_system_calls
from agent.worker import Worker

PR_SET_DUMPABLE = 4
FINISH_SECONDS = 1
"""How long requests may go on after the signal to end; then they are cancelled."""


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals from the loop.

        The original raises a signal again when it is done, which would kill us while the last
        tools are still being ended.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def main() -> None:
    """Serve until told to stop."""
    settings = read_settings(os.environ)
    if sys.platform == "linux":
        _hide_memory()
        give_up_system_calls()
    os.umask(0o022)
    settings.workspace.mkdir(parents=True, exist_ok=True)
    asyncio.run(_Server(_config(settings)).serve())


def _config(settings: WorkerSettings) -> uvicorn.Config:
    return uvicorn.Config(
        Worker(settings).app(),
        uds=None if settings.socket is None else str(settings.socket),
        host=settings.host,
        port=settings.port or 0,
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=FINISH_SECONDS,
        timeout_keep_alive=3_600,
    )


def _hide_memory() -> None:
    """Keep tools, which run under the same user, from reading our memory and environment."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


if __name__ == "__main__":
    main()
