"""Tokens of GitHub App installations: asked for with the App's key, kept until they expire."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import jwt
from pydantic import AwareDatetime, BaseModel, SecretStr

from orchestrator.errors import ConfigurationError
from orchestrator.gateway.credentials_file import GithubApp, read_secret
from orchestrator.gateway.forges.http import ForgeHttp

# A token must outlive the fetch or push it is handed to.
RENEW_BEFORE = timedelta(minutes=15)
# GitHub takes at most ten minutes, and clocks differ.
CLOCK_SKEW = timedelta(seconds=60)
PROOF_LIFETIME = timedelta(minutes=8)


class _Answer(BaseModel):
    token: SecretStr
    expires_at: AwareDatetime


@dataclass(frozen=True, slots=True)
class _Kept:
    token: SecretStr = field(repr=False)
    renew_at: datetime


def _now() -> datetime:
    return datetime.now(UTC)


class InstallationTokens:
    """Hands out tokens of installations; one request at a time for each."""

    def __init__(self, http: ForgeHttp, now: Callable[[], datetime] = _now) -> None:
        self._http = http
        self._now = now
        self._kept: dict[tuple[str, GithubApp], _Kept] = {}
        self._locks: defaultdict[GithubApp, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def token(self, app: GithubApp, api_url: str) -> SecretStr:
        """A token that lives for a while yet.

        Raises:
            ForgeRefused: GitHub does not take the App's key or knows no such installation.
            ForgeFailure: GitHub's API does not answer.
            ConfigurationError: The key cannot be read.
        """
        async with self._locks[app]:
            kept = self._kept.get((api_url, app))
            if kept is None or self._now() >= kept.renew_at:
                kept = await self._ask(app, api_url)
                self._kept[api_url, app] = kept
            return kept.token

    async def _ask(self, app: GithubApp, api_url: str) -> _Kept:
        key = await asyncio.to_thread(read_secret, app.private_key_path)
        proof = _proof(app, key, self._now())
        answer = await self._http.ask(
            "POST",
            f"{api_url}/app/installations/{app.installation_id}/access_tokens",
            _Answer,
            headers={"Authorization": f"Bearer {proof}"},
        )
        return _Kept(answer.token, answer.expires_at - RENEW_BEFORE)


def _proof(app: GithubApp, key: str, now: datetime) -> str:
    claims = {"iat": now - CLOCK_SKEW, "exp": now + PROOF_LIFETIME, "iss": str(app.app_id)}
    try:
        return jwt.encode(claims, key, algorithm="RS256")
    except (jwt.PyJWTError, ValueError, TypeError):
        raise ConfigurationError(
            f"{app.private_key_path} is not the private key of a GitHub App: name its PEM file."
        ) from None
