"""Requests to the APIs of forges: short, bounded, never redirected."""

import json
from collections.abc import Mapping, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

import httpx2
from pydantic import JsonValue, TypeAdapter, ValidationError

from orchestrator.errors import BerthError, ForgeFailure, ForgeRefused

TIMEOUT_SECONDS = 30.0
MAX_ANSWER_BYTES = 4 * 2**20
MAX_REASON_CHARS = 200
HTTP_ERROR = 400
SERVER_ERROR = 500
UNAUTHORIZED = 401
TOO_MANY = 429
FORBIDDEN = (403, 404)
T = TypeVar("T")


class ForgeHttp:
    """A client for all forges.

    Args:
        transport: For tests; the network if None.
    """

    def __init__(self, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._transport = transport
        self._client: httpx2.AsyncClient | None = None

    async def ask(
        self,
        method: str,
        url: str,
        answer: type[T],
        *,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
        body: Mapping[str, JsonValue] | None = None,
    ) -> T:
        """One request; the answer in the form asked for.

        Raises:
            ForgeRefused: The forge does not take the credentials or the request.
            ForgeFailure: It does not answer, or not in this form.
        """
        host = urlsplit(url).hostname or url
        try:
            async with self._opened().stream(
                method, url, headers=dict(headers), params=query, json=body
            ) as response:
                content = await _content(response)
        except httpx2.HTTPError as error:
            raise ForgeFailure(
                f"The API of {host} does not answer ({type(error).__name__}): try again later.",
                host=host,
            ) from None
        if response.status_code >= HTTP_ERROR:
            raise _refusal(host, response.status_code, content, tuple(headers.values()))
        try:
            return TypeAdapter(answer).validate_json(content)
        except ValidationError:
            raise ForgeFailure(
                f"The API of {host} answered something else than documented (status "
                f"{response.status_code}): check api_url in the credentials file.",
                host=host,
            ) from None

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    def _opened(self) -> httpx2.AsyncClient:
        """The client, made when it is first needed: loading certificates takes a while."""
        if self._client is None:
            # Redirects stay unfollowed: a token must not reach a host that nobody has named.
            self._client = httpx2.AsyncClient(
                transport=self._transport,
                timeout=TIMEOUT_SECONDS,
                follow_redirects=False,
                trust_env=False,
                headers={"Accept": "application/json", "User-Agent": "berth"},
            )
        return self._client


async def _content(response: httpx2.Response) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise ForgeFailure("The API of a forge sent more than any answer takes.")
    return bytes(content)


def _refusal(host: str, status: int, content: bytes, secrets: Sequence[str]) -> BerthError:
    if status == TOO_MANY or status >= SERVER_ERROR:
        return ForgeFailure(
            f"The API of {host} answered with status {status}: try again later.", host=host
        )
    if status == UNAUTHORIZED:
        return ForgeRefused(
            f"{host} does not take Berth's token (wrong, revoked or expired): renew it in the "
            "credentials file.",
            host=host,
        )
    said = _reason(content, secrets)
    if status in FORBIDDEN:
        return ForgeRefused(
            f"{host} does not let Berth's token open pull requests here: give it the right to "
            f"read and write them{said}",
            host=host,
        )
    return ForgeRefused(f"{host} does not take the pull request{said}", host=host)


def _reason(content: bytes, secrets: Sequence[str]) -> str:
    """What the forge says, short and without anything of ours."""
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        return "."
    parts = [answer.get("message"), answer.get("errors"), answer.get("error")]
    text = "; ".join(json.dumps(part, ensure_ascii=False).strip('"') for part in parts if part)
    for secret in secrets:
        for part in (secret, *secret.split()):
            text = text.replace(part, "[hidden]")
    text = "".join(char for char in text if char.isprintable())[:MAX_REASON_CHARS]
    return f": it says {text!r}." if text else "."
