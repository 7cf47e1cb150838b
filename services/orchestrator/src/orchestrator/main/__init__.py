"""The composition root: the only place that names implementations of ports."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from orchestrator.api.services import Services
from orchestrator.data_directory import held
from orchestrator.flow.at_exit import remove_containers, stop_containers
from orchestrator.flow.recover import recover
from orchestrator.main.containers import make_containers
from orchestrator.main.duties import make_fleet, take_up_duties
from orchestrator.main.outside import start_outside
from orchestrator.main.services import make_services
from orchestrator.main.work import make_work
from orchestrator.settings import ContainersAtExit, Settings


@asynccontextmanager
async def running(settings: Settings, *, keep_containers: bool = True) -> AsyncIterator[Services]:
    """Everything the service needs, started; stopped again at the end, in reverse order.

    Args:
        settings: All settings.
        keep_containers: False removes the deployment's containers at the end, with their work.

    Raises:
        BerthError: A part cannot start; the sentence says what to do.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(held(settings.data_dir))
        outside = await start_outside(settings, stack)
        metadata, runtime = outside.metadata, outside.runtime
        containers = make_containers(settings, outside)
        await metadata.executors.register()
        # After our containers have ended: until then nobody else may use them.
        stack.push_async_callback(metadata.resign)
        if not keep_containers:
            stack.push_async_callback(remove_containers, runtime)
        elif settings.containers_at_exit is ContainersAtExit.STOP:
            stack.push_async_callback(stop_containers, runtime, containers.lease, containers.pool)
        work = await make_work(settings, outside, containers)
        stack.push_async_callback(work.custody.tidy.stop)
        fleet = make_fleet(settings, metadata, containers, work.engine)
        await fleet.beat()
        stack.callback(asyncio.create_task(fleet.live()).cancel)
        await containers.adopt()
        await containers.disk.take_over()
        await work.engine.start(work.run_task)
        stack.push_async_callback(work.engine.stop)
        stack.push_async_callback(containers.running.stop)
        await recover(metadata.tasks, work.engine)
        take_up_duties(metadata, containers, fleet, stack)
        yield make_services(settings, outside, containers, work)
