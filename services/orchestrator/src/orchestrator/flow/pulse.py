"""Notice that a worker has fallen silent while something waits for its answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from orchestrator.domain.container import HANG_SECONDS, Container
from orchestrator.errors import WorkerHangs

Answers = Callable[[Container], Awaitable[bool]]
"""Whether the worker in a container answers a health question, in some seconds."""

AGAIN_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a worker may be silent.

    Args:
        every_seconds: Between questions that are answered, and before the first.
        hang_seconds: How long it answers no question at all before it counts as hanging.
        questions: How many it must leave unanswered at least: a moment in which this process itself
            stood still is not the worker's silence.
    """

    every_seconds: float = 3.0
    hang_seconds: float = HANG_SECONDS
    questions: int = 2


PATIENT = Patience()


@asynccontextmanager
async def answering(
    container: Container, answers: Answers, patience: Patience = PATIENT
) -> AsyncIterator[None]:
    """Break off what runs in the context once the container's worker hangs.

    Args:
        container: Where the worker is.
        answers: Asks it.
        patience: How long it may be silent.

    Raises:
        WorkerHangs: It does.
    """
    limit = asyncio.timeout(None)

    async def watch() -> None:
        await until_silent(container, answers, patience)
        limit.reschedule(asyncio.get_running_loop().time())

    try:
        async with limit:
            watching = asyncio.create_task(watch())
            try:
                yield
            finally:
                watching.cancel()
    except TimeoutError:
        if not limit.expired():
            raise
        raise WorkerHangs(
            f"The worker of {container.name} hangs: it answered nothing for "
            f"{patience.hang_seconds:.0f} s, as if its processes were stopped from outside or by a "
            "command. They were ended. See what the last command does, and send the task again.",
            container=container.name,
        ) from None


async def until_silent(container: Container, answers: Answers, patience: Patience) -> None:
    """Ask a worker now and then; returns once it hangs."""
    clock = asyncio.get_running_loop().time
    while True:
        await asyncio.sleep(patience.every_seconds)
        since, unanswered = clock(), 0
        while not await answers(container):
            unanswered += 1
            silent = clock() - since >= patience.hang_seconds
            if silent and unanswered >= patience.questions:
                return
            await asyncio.sleep(AGAIN_SECONDS)
