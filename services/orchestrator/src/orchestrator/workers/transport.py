"""The way to a worker: connections to its socket, and to nothing that was put in its place."""

from collections.abc import Iterable

import httpcore2
import httpx2

from orchestrator.domain.container import Endpoint
from orchestrator.unix_socket import pinned_socket

MAX_CONNECTIONS = 64
KEEPALIVE_SECONDS = 600.0


class WorkerTransport(httpx2.AsyncHTTPTransport):
    """HTTP to one worker.

    Args:
        endpoint: Where it listens.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        limits = httpx2.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE_SECONDS)
        # Workers speak plain HTTP; without this, certificates are read that nobody asks for, which
        # takes longer than waking a container.
        super().__init__(limits=limits, trust_env=False, verify=False)
        if endpoint.uds is not None:
            # The class takes no backend of ours, its pool does.
            self._pool = httpcore2.AsyncConnectionPool(
                max_connections=MAX_CONNECTIONS,
                keepalive_expiry=KEEPALIVE_SECONDS,
                uds=str(endpoint.uds),
                network_backend=_PinnedBackend(),
            )


class _PinnedBackend(httpcore2.AnyIOBackend):
    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is the library's
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            with pinned_socket(path) as pinned:
                return await super().connect_unix_socket(pinned, timeout, socket_options)
        except OSError as error:
            raise httpcore2.ConnectError(str(error)) from error
