"""Serve the API until told to stop."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import TypeVar

import uvicorn

from orchestrator.api.app import create_app
from orchestrator.api.services import Services
from orchestrator.errors import ConfigurationError
from orchestrator.flow.running import RunningTasks
from orchestrator.main import running
from orchestrator.settings import Settings

BACKLOG = 512
SHUTDOWN_SECONDS = 5
LATE_SECONDS = 0.02

T = TypeVar("T")


@contextmanager
def stopped_by_signals() -> Iterator[asyncio.Event]:
    """An event that SIGINT and SIGTERM set while the context lasts."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def unless(stop: asyncio.Event, work: "asyncio.Task[T]") -> T | None:
    """The result of `work`; None if `stop` was set first, which cancels the work."""
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        stopping.cancel()
        work.cancel()
        await asyncio.wait({work})


async def serve(
    settings: Settings,
    stop: asyncio.Event,
    on_ready: Callable[[str], None] = lambda _url: None,
    *,
    keep_containers: bool = True,
) -> None:
    """Run the service until `stop` is set, then end all that it started.

    Args:
        settings: All settings; `port` 0 takes a free port.
        stop: Ends the service when set, also while it starts.
        on_ready: Called with the API's address once it answers.
        keep_containers: False removes the deployment's containers at the end, with their work.

    Raises:
        BerthError: A part cannot start, or the port is taken.
    """
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(_listen(settings))
        started = stack.enter_async_context(running(settings, keep_containers=keep_containers))
        services = await unless(stop, asyncio.create_task(started))
        if services is not None:
            await _answer(services, settings, listener, stop, on_ready)


async def _answer(
    services: Services,
    settings: Settings,
    listener: socket.socket,
    stop: asyncio.Event,
    on_ready: Callable[[str], None],
) -> None:
    config = uvicorn.Config(
        create_app(services, max_body_bytes=settings.max_body_bytes),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = _Server(config, services.running)
    on_ready(_address(listener))
    watching = asyncio.create_task(_exit_when(server, stop))
    try:
        await server.serve(sockets=[listener])
    finally:
        watching.cancel()


class _Server(uvicorn.Server):
    """Interrupts the running tasks before it waits for the requests that wait for them."""

    def __init__(self, config: uvicorn.Config, tasks: RunningTasks) -> None:
        super().__init__(config)
        self._tasks = tasks

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: uvicorn would raise them anew and so skip our own clearing up."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, interrupt the tasks, let those who wait for them know."""
        for server in self.servers:
            server.close()
        await self._tasks.stop()
        await super().shutdown(sockets)


def _listen(settings: Settings) -> socket.socket:
    place = (settings.host, settings.port)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server(place, family=family, backlog=BACKLOG)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise ConfigurationError(
            f"Cannot listen on {settings.host}:{settings.port} ({reason}). Give another port, or "
            "stop what uses this one."
        ) from None
    # asyncio sets this only where a socket names its protocol; without it answers wait 40 ms for
    # the client's delayed acknowledgement. Connections inherit it.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _exit_when(server: uvicorn.Server, stop: asyncio.Event) -> None:
    await stop.wait()
    server.should_exit = True
