"""Who may talk to the worker: the orchestrator that claimed it, and nobody else.

A worker starts unclaimed. The first caller, before any tool has run, claims it with a key that
then exists only in the memory of both: not in the environment, the arguments or a file, where a
tool could read it. A restarted worker is unclaimed again.
"""

import hmac

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.errors import BadRequest, Conflict, NotOurs

OPEN_PATHS = frozenset({"/health", "/claim"})
MIN_KEY_LENGTH = 16


class Claim:
    """The key this worker was claimed with, once it is."""

    def __init__(self) -> None:
        self._key = b""

    @property
    def made(self) -> bool:
        """True after the first claim."""
        return bool(self._key)

    def make(self, key: str) -> None:
        """Claim the worker; the same key again is welcome.

        Raises:
            BadRequest: The key is too short.
            Conflict: It is claimed with another key.
        """
        if len(key) < MIN_KEY_LENGTH:
            raise BadRequest(f"a key has at least {MIN_KEY_LENGTH} characters")
        if self._key and not self.fits(key):
            raise Conflict("this worker is claimed with another key")
        self._key = key.encode()

    def fits(self, key: str) -> bool:
        """True if the worker is claimed with this key."""
        return self.made and hmac.compare_digest(self._key, key.encode())


class RequireClaim:
    """Middleware that lets only the claimant through, except to the open paths."""

    def __init__(self, app: ASGIApp, claim: Claim) -> None:
        self._app = app
        self._claim = claim

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            given = Headers(scope=scope).get("authorization", "")
            if not self._claim.fits(given.removeprefix("Bearer ")):
                error = NotOurs("the worker is claimed by another key, or not at all")
                response = JSONResponse(
                    {"code": error.code, "detail": str(error)}, status_code=error.status
                )
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def claim_route(request: Request, claim: Claim) -> JSONResponse:
    """`POST /claim` {key}: make this worker the caller's."""
    body = await request.json()
    key = body.get("key") if isinstance(body, dict) else None
    if not isinstance(key, str):
        raise BadRequest("give a JSON object with a key")
    claim.make(key)
    return JSONResponse({"claimed": True})
