"""Errors as `application/problem+json` (RFC 9457), mapped in this one place."""

from collections.abc import Mapping

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import JsonValue
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from orchestrator.errors import BerthError, InvalidRequest, NotFound

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS_SHOWN = 20
SERVER_ERROR = 500


def problem(
    status: int, code: str, detail: str, more: Mapping[str, JsonValue] | None = None
) -> JSONResponse:
    """A problem response; `code` is stable and meant for programs, `detail` for people."""
    body = {"type": f"urn:berth:{code}", "status": status, "code": code, "detail": detail}
    return JSONResponse({**(more or {}), **body}, status_code=status, media_type=MEDIA_TYPE)


def install_problem_handlers(app: FastAPI) -> None:
    """Make every error of the app a problem response."""
    app.add_exception_handler(BerthError, _berth_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _defect)


async def _berth_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, BerthError):
        raise error
    if error.status >= SERVER_ERROR:
        log.error("request_failed", path=request.url.path, code=error.code, detail=error.detail)
    return problem(error.status, error.code, error.detail, error.facts)


async def _validation_error(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    # Inputs are left out: they may be long, or secret.
    found: list[JsonValue] = [
        {"field": ".".join(str(part) for part in each["loc"]), "problem": str(each["msg"])}
        for each in error.errors()[:MAX_ERRORS_SHOWN]
    ]
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body") or "the body"
    return problem(
        InvalidRequest.status,
        InvalidRequest.code,
        f"The request is not valid: {where}: {first['msg']}.",
        {"errors": found},
    )


async def _http_error(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    code = NotFound.code if error.status_code == NotFound.status else f"http_{error.status_code}"
    response = problem(error.status_code, code, f"{error.detail}.")
    response.headers.update(error.headers or {})
    return response


async def _defect(request: Request, error: Exception) -> JSONResponse:
    log.error("request_broke", path=request.url.path, error=type(error).__name__)
    return problem(
        BerthError.status,
        BerthError.code,
        f"Berth failed in a way it should not ({type(error).__name__}); the log has the details.",
    )
