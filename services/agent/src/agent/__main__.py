"""Run the worker: `python -m agent`."""

import ctypes
import os
import sys

import uvicorn

from agent.settings import read_settings
from agent.worker import Worker

PR_SET_DUMPABLE = 4
SHUTDOWN_SECONDS = 5


def main() -> None:
    """Serve until told to stop."""
    settings = read_settings(os.environ)
    _hide_memory()
    os.umask(0o022)
    settings.workspace.mkdir(parents=True, exist_ok=True)
    uvicorn.run(
        Worker(settings).app(),
        uds=None if settings.socket is None else str(settings.socket),
        host="0.0.0.0",  # noqa: S104 - inside a container of its own, see docs/security.md
        port=settings.port or 0,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        timeout_keep_alive=3_600,
    )


def _hide_memory() -> None:
    """Keep tools, which run under the same user, from reading our memory and environment."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


if __name__ == "__main__":
    main()
