"""The worker as a server."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from agent.settings import WorkerSettings, read_settings
from agent.worker import Worker

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


def serve() -> None:
    """Serve until told to stop."""
    settings = read_settings(os.environ)
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
