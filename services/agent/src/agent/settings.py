"""Where the worker finds its workspace and where it listens."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The worker's settings; exactly one of `socket` and `port` is set.

    `host` is the address that goes with `port`.
    """

    workspace: Path
    socket: Path | None
    port: int | None
    host: str = "127.0.0.1"


def read_settings(environment: Mapping[str, str]) -> WorkerSettings:
    """Read the settings from environment variables.

    Raises:
        ValueError: Neither or both of socket and port are given, or the port is no number.
    """
    socket = environment.get("BERTH_WORKER_SOCKET")
    port = environment.get("BERTH_WORKER_PORT")
    if bool(socket) == bool(port):
        raise ValueError("set exactly one of BERTH_WORKER_SOCKET and BERTH_WORKER_PORT")
    return WorkerSettings(
        workspace=Path(environment.get("BERTH_WORKSPACE", "/workspace")),
        socket=Path(socket) if socket else None,
        port=int(port) if port else None,
        # A container has its own network, and its runtime publishes the port where it wants.
        host=environment.get("BERTH_WORKER_HOST", "0.0.0.0"),  # noqa: S104 - see above
    )
