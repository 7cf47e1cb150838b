"""Serve the API until told to stop."""

import asyncio
import socket
from collections.abc import Callable

import uvicorn

from orchestrator.api.app import create_app
from orchestrator.errors import ConfigurationError
from orchestrator.flow.running import RunningTasks
from orchestrator.main import running
from orchestrator.settings import Settings

BACKLOG = 512
SHUTDOWN_SECONDS = 10


class _Server(uvicorn.Server):
    """Ends the running tasks before it waits for the requests that wait for them."""

    def __init__(self, config: uvicorn.Config, tasks: RunningTasks) -> None:
        super().__init__(config)
        self._tasks = tasks

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._tasks.cancel_all()
        await super().shutdown(sockets)


async def serve(
    settings: Settings,
    on_ready: Callable[[str], None] = lambda _url: None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run the service.

    Args:
        settings: All settings; `port` 0 takes a free port.
        on_ready: Called with the API's address once it answers.
        stop: Ends the service when set; SIGINT and SIGTERM always do.

    Raises:
        BerthError: A part cannot start, or the port is taken.
    """
    with _listen(settings) as listener:
        async with running(settings) as services:
            app = create_app(services, max_body_bytes=settings.max_body_bytes)
            config = uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            )
            server = _Server(config, services.running)
            host, port = listener.getsockname()[:2]
            on_ready(f"http://{host}:{port}")
            watching = asyncio.create_task(_stop_when(server, stop))
            try:
                await server.serve(sockets=[listener])
            finally:
                watching.cancel()


def _listen(settings: Settings) -> socket.socket:
    try:
        return socket.create_server((settings.host, settings.port), backlog=BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {settings.host}:{settings.port} ({error.strerror}). Give another "
            "port, or stop what uses this one."
        ) from None


async def _stop_when(server: uvicorn.Server, stop: asyncio.Event | None) -> None:
    if stop is not None:
        await stop.wait()
        server.should_exit = True
