"""Is the service up, and what it runs on."""

from fastapi import APIRouter
from pydantic import BaseModel

from orchestrator.api.services import Use

router = APIRouter(tags=["health"])


class RuntimeBody(BaseModel):
    """The runtime in use, why it was chosen, and which limits this machine enforces."""

    name: str
    reason: str
    enforced: list[str]
    not_enforced: list[str]


class ModelBody(BaseModel):
    """The model in use; `scripted` is true if its answers come from a script.

    A request may name one of `further` instead.
    """

    url: str
    name: str
    further: list[str]
    scripted: bool


class HealthBody(BaseModel):
    """The service's health; `executor` is the id of this orchestrator among several."""

    status: str
    version: str
    executor: str
    runtime: RuntimeBody
    model: ModelBody


@router.get("/health", response_model=HealthBody, summary="Health, runtime and model")
async def health(services: Use) -> HealthBody:
    """Answers as long as the process serves requests."""
    info, model = services.runtime_info, services.model
    return HealthBody(
        status="ok",
        version=services.version,
        executor=services.executor_id,
        runtime=RuntimeBody(
            name=info.name,
            reason=info.reason,
            enforced=list(info.enforced),
            not_enforced=list(info.not_enforced),
        ),
        model=ModelBody(
            url=model.url, name=model.name, further=list(model.further), scripted=model.scripted
        ),
    )
