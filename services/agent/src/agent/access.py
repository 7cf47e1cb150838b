"""Who may talk to the worker: the orchestrator that claimed it, and nobody else.

A worker starts unclaimed. The first caller, before any tool has run, claims it with a key that
then exists only in the memory of both: not in the environment, the arguments or a file, where a
tool could read it. A restarted worker is unclaimed again.
"""

import hmac
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.answers import answer
from agent.errors import BadRequest, Conflict, NotOurs

OPEN_PATHS = frozenset({"/health", "/warm", "/claim"})
_KEY = re.compile(r"[\x21-\x7e]{16,512}")
_SCHEME = "Bearer "


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
            BadRequest: The key is too short or cannot be sent in a header.
            Conflict: It is claimed with another key.
        """
        if not _KEY.fullmatch(key):
            raise BadRequest("a key has 16 to 512 visible ASCII characters")
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
            if not (given.startswith(_SCHEME) and self._claim.fits(given.removeprefix(_SCHEME))):
                error = NotOurs("the worker is claimed by another key, or not at all")
                await answer(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)
