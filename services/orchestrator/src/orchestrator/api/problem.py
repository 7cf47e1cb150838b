"""Errors as `application/problem+json` (RFC 9457), mapped in this one place."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, JsonValue
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from orchestrator.errors import BerthError, InvalidRequest, NotFound, RequestTooLarge

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS_SHOWN = 20
MAX_FIELD_CHARS = 80
MAX_PROBLEM_CHARS = 300
SERVER_ERROR = 500
METHOD_NOT_ALLOWED = "method_not_allowed"
NOT_AN_OBJECT = ("model_attributes_type", "model_type", "dict_type", "missing")
SAID = {
    "extra_forbidden": "there is no such field",
    "missing": "this field is required",
}
NO_OBJECT = "send one JSON object, with the header Content-Type: application/json"


class ProblemBody(BaseModel):
    """An error; some codes come with further fields that name the thing concerned."""

    type: str = Field(examples=["urn:berth:unknown_ref"])
    status: int = Field(examples=[422])
    code: str = Field(description="Stable, for programs.", examples=["unknown_ref"])
    detail: str = Field(description="What happened and what to do, for people.")


PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": ProblemBody.model_json_schema()}},
    }
    for status, description in (
        ("4XX", "The request cannot be carried out as it stands"),
        ("5XX", "The service failed"),
    )
}


class ProblemResponse(JSONResponse):
    """An error as JSON in ASCII: names quoted in it may hold what UTF-8 cannot encode."""

    media_type = MEDIA_TYPE

    def render(self, content: object) -> bytes:
        """The body."""
        return json.dumps(content).encode()


def problem(
    status: int, code: str, detail: str, more: Mapping[str, JsonValue] | None = None
) -> JSONResponse:
    """A problem response; `code` is stable and meant for programs, `detail` for people."""
    body = {"type": f"urn:berth:{code}", "status": status, "code": code, "detail": detail}
    return ProblemResponse({**(more or {}), **body}, status_code=status)


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
    found = [_Invalid.read(each) for each in error.errors()[:MAX_ERRORS_SHOWN]]
    shown: list[JsonValue] = [{"field": each.field, "problem": each.problem} for each in found]
    return problem(
        InvalidRequest.status,
        InvalidRequest.code,
        f"The request is not valid: {found[0]}.",
        {"errors": shown},
    )


@dataclass(frozen=True, slots=True)
class _Invalid:
    """What is wrong with one part of a request, without the part itself: it may be secret."""

    field: str
    problem: str

    @classmethod
    def read(cls, error: Mapping[str, Any]) -> "_Invalid":
        kind, location = str(error["type"]), list(error["loc"])
        if kind == "json_invalid":
            return cls("body", f"it is not JSON ({error['ctx']['error']}, at byte {location[-1]})")
        if location == ["body"] and kind in NOT_AN_OBJECT:
            return cls("body", NO_OBJECT)
        # The first part says where FastAPI looked: body, path, query or header.
        parts = [str(part)[:MAX_FIELD_CHARS] for part in location[1:]]
        field = ".".join(part for part in parts if not part.startswith("<"))
        said = SAID.get(kind) or str(error["msg"]).removeprefix("Value error, ")
        return cls(field or "body", said[:MAX_PROBLEM_CHARS])

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    code, detail = f"http_{error.status_code}", f"{error.detail}."
    if error.status_code == HTTPStatus.NOT_FOUND:
        code, detail = NotFound.code, "There is nothing at this address: see /docs for what is."
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "another method")
        code, detail = METHOD_NOT_ALLOWED, f"{request.method} is not allowed here: use {allowed}."
    elif error.status_code == HTTPStatus.BAD_REQUEST:
        code, detail = (
            InvalidRequest.code,
            "The body cannot be read: send JSON in UTF-8, without deep nesting or huge numbers.",
        )
    elif error.status_code == RequestTooLarge.status:
        code, detail = RequestTooLarge.code, error.detail
    response = problem(error.status_code, code, detail)
    response.headers.update(error.headers or {})
    return response


async def _defect(request: Request, error: Exception) -> JSONResponse:
    log.error("request_broke", path=request.url.path, error=type(error).__name__)
    return problem(
        BerthError.status,
        BerthError.code,
        f"Berth failed in a way it should not ({type(error).__name__}); the log has the details.",
    )
