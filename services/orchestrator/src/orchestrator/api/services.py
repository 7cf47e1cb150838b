"""What the routes work with."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from orchestrator.flow.compare import Compare
from orchestrator.flow.configure import Configure
from orchestrator.flow.container_control import ContainerControl
from orchestrator.flow.continuation import Say
from orchestrator.flow.fork import Fork
from orchestrator.flow.publish import Publish
from orchestrator.flow.running import RunningTasks
from orchestrator.flow.submit import Submit
from orchestrator.flow.uploads import Uploads
from orchestrator.ports import EventLog, LiveTextChannel, RuntimeInfo, TaskStore


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model answers, and which others may be asked for."""

    url: str
    name: str
    further: tuple[str, ...]
    scripted: bool


@dataclass(frozen=True, slots=True)
class Services:
    """The running service, put together in `main`."""

    version: str
    executor_id: str
    submit: Submit
    say: Say
    fork: Fork
    compare: Compare
    publish: Publish
    configure: Configure
    running: RunningTasks
    uploads: Uploads
    tasks: TaskStore
    events: EventLog
    live_text: LiveTextChannel
    containers: ContainerControl
    runtime_info: RuntimeInfo
    model: ModelInfo
    max_query_chars: int
    max_file_bytes: int


def services_of(request: Request) -> Services:
    """The services that the app's lifespan has put together."""
    services: Services = request.app.state.services
    return services


Use = Annotated[Services, Depends(services_of)]
