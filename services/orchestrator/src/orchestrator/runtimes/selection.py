"""The choice of the runtime."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from orchestrator.errors import RuntimeUnavailable
from orchestrator.settings import RuntimeChoice

Probe = Callable[[], Awaitable[str | None]]
"""Says why a runtime cannot be used here, with a remedy; None if it can."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The runtime to use, never `auto`, and a sentence on why."""

    choice: RuntimeChoice
    reason: str


async def choose(wanted: RuntimeChoice, *, docker: Probe, sandbox: Probe) -> Selection:
    """Choose a runtime.

    One that was asked for is probed and taken, or nothing is. Otherwise it is Docker where engine
    and image are ready, else the sandbox. Nothing runs without isolation.

    Args:
        wanted: What the settings ask for.
        docker: Probe of the Docker engine and the agent's image.
        sandbox: Probe of bubblewrap.

    Raises:
        RuntimeUnavailable: Nothing that may be used can be; the text has every reason and remedy.
    """
    if wanted is RuntimeChoice.AUTO:
        return _decide(*await asyncio.gather(docker(), sandbox()))
    problem = await (docker if wanted is RuntimeChoice.DOCKER else sandbox)()
    if problem is not None:
        raise RuntimeUnavailable(
            f"The runtime {wanted} was asked for and cannot be used. {problem}", runtime=wanted
        )
    return Selection(wanted, f"The runtime {wanted} was asked for (BERTH_RUNTIME).")


def _decide(docker_problem: str | None, sandbox_problem: str | None) -> Selection:
    if docker_problem is None:
        return Selection(RuntimeChoice.DOCKER, "A Docker engine answers and has the agent's image.")
    if sandbox_problem is None:
        return Selection(
            RuntimeChoice.SANDBOX, f"bubblewrap works and Docker does not: {docker_problem}"
        )
    raise RuntimeUnavailable(
        "No runtime can be used. "
        f"Docker: {docker_problem} Sandbox: {sandbox_problem} One of the two is enough."
    )
