"""The answers to what cannot be done: always JSON, `{code, detail}`."""

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ExceptionHandler

from agent.errors import BadRequest, StorageFailed, WorkerError

log = logging.getLogger(__name__)


def answer(error: WorkerError) -> JSONResponse:
    """The answer to a request that was refused."""
    return JSONResponse({"code": error.code, "detail": str(error)}, status_code=error.status)


def handlers() -> dict[type[Exception], ExceptionHandler]:
    """What the application does about exceptions."""
    return {
        WorkerError: _worker_error,
        HTTPException: _http_error,
        OSError: _storage_error,
        Exception: _defect,
    }


async def _worker_error(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, WorkerError):
        raise error
    return answer(error)


async def _http_error(_request: Request, error: Exception) -> JSONResponse:
    """No such route, or not with this method."""
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse(
        {"code": BadRequest.code, "detail": error.detail},
        status_code=error.status_code,
        headers=error.headers,
    )


async def _storage_error(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, OSError):
        raise error
    log.error("storage failed: %s", error)
    return answer(StorageFailed(f"the workspace cannot be used: {error.strerror or error}"))


async def _defect(_request: Request, _error: Exception) -> JSONResponse:
    """A defect of ours; the server logs it with its traceback."""
    return answer(WorkerError("the worker failed; its log tells more"))
