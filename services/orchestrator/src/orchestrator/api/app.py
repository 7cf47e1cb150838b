"""The HTTP application."""

from fastapi import FastAPI

from orchestrator.api import (
    containers,
    files,
    health,
    publish,
    tasks,
    verbs,
    workspace_settings,
    workspaces,
)
from orchestrator.api.body_limit import BodyLimit
from orchestrator.api.problem import PROBLEM_RESPONSES, install_problem_handlers
from orchestrator.api.services import Services

DESCRIPTION = (
    "Every git repository gets its own isolated agent container: POST a question or a job with a "
    "repository, get back an answer and a patch."
)


def create_app(services: Services, *, max_body_bytes: int) -> FastAPI:
    """Make the application over running services."""
    app = FastAPI(
        title="Berth",
        version=services.version,
        description=DESCRIPTION,
        responses=PROBLEM_RESPONSES,
    )
    app.state.services = services
    app.add_middleware(BodyLimit, max_bytes=max_body_bytes)
    install_problem_handlers(app)
    for module in (
        tasks,
        verbs,
        publish,
        containers,
        workspaces,
        workspace_settings,
        files,
        health,
    ):
        app.include_router(module.router)
    return app
