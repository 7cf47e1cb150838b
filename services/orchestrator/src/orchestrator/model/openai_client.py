"""Chat models behind an OpenAI-compatible endpoint."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2
from openai import (
    APIError,
    APIStatusError,
    AsyncOpenAI,
    DefaultAioHttpClient,
)

from orchestrator.domain.conversation import Message, ModelTurn, Role, ToolSpec
from orchestrator.errors import (
    ConfigurationError,
    ModelFailure,
    ModelRefused,
    ModelResponseInvalid,
    ModelTimeout,
    ModelUnavailable,
)
from orchestrator.model.answer import LOST, Answer, BrokeOff, Speech
from orchestrator.model.streamed_turn import StreamFailed
from orchestrator.ports import OnText

RETRIES = 2
RETRY_SECONDS = 0.5
CONNECT_SECONDS = 10.0
IDLE_SECONDS = 120.0
SHOWN = 300
NO_KEY = "none"
SHORTEST_KEY = 8
OVERLOADED = frozenset({408, 409, 429})
CLIENT_ERRORS = 400
SERVER_ERRORS = 500


def endpoint_url(url: str) -> str:
    """The endpoint's base address ending in `/v1`, whether or not the user wrote that.

    Raises:
        ConfigurationError: It is no plain web address. A password has no place in it, since the
            address is shown in errors and by `/health`.
    """
    trimmed = url.strip().rstrip("/")
    if not _is_plain(trimmed):
        raise ConfigurationError(
            "GPT_OSS_URL is not a plain web address. Write it as http://host:port or "
            "https://host/path, without user, password or query; a key goes into LLM_API_KEY."
        )
    return trimmed if trimmed.endswith("/v1") else f"{trimmed}/v1"


def _is_plain(url: str) -> bool:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return known and not ("@" in parts.netloc or parts.query or parts.fragment)


def _sendable_key(api_key: str) -> str:
    key = api_key.strip() or NO_KEY
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(
            "LLM_API_KEY has characters that cannot be sent. Check that it was copied whole and "
            "without anything else."
        )
    return key


class _Interrupted(Exception):
    """An answer that broke off or reported that the endpoint failed; asking again may help."""

    def __init__(self, failure: ModelFailure, retries_taken: int) -> None:
        super().__init__(failure.detail)
        self.failure = failure
        self.retries_taken = retries_taken


class OpenAIModel:
    """`ports.Model` by the `openai` client.

    Lost connections and overload are tried again twice, whether they come before the answer or in
    the middle of it.

    Args:
        url: Base address of the endpoint, with or without `/v1`.
        api_key: Sent as a bearer token; never logged.
        idle_seconds: How long an answer that has begun may be silent.

    Raises:
        ConfigurationError: The address or the key cannot be used.
    """

    def __init__(self, url: str, api_key: str, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._url = endpoint_url(url)
        self._api_key = _sendable_key(api_key)
        self._idle_seconds = idle_seconds
        self._client = AsyncOpenAI(
            base_url=self._url,
            api_key=self._api_key,
            max_retries=RETRIES,
            http_client=DefaultAioHttpClient(base_url=self._url, follow_redirects=False),
        )

    async def complete(
        self,
        model: str,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec],
        timeout_seconds: float,
        on_text: OnText | None = None,
    ) -> ModelTurn:
        """Ask for the next turn; see `ports.Model.complete`."""
        request: dict[str, Any] = {
            "model": model,
            "messages": [_message_to_wire(message) for message in messages],
            "stream_options": {"include_usage": True},
        }
        if tools:
            request["tools"] = [_tool_to_wire(tool) for tool in tools]
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._ask(request, on_text)
        except TimeoutError as error:
            raise ModelTimeout(
                f"The model at {self._url} did not answer within {timeout_seconds:.3g} s. "
                "Give the task more seconds, or check the endpoint's load.",
                url=self._url,
            ) from error

    async def _ask(self, request: dict[str, Any], on_text: OnText | None) -> ModelTurn:
        taken = 0
        while True:
            try:
                return await self._try(request, RETRIES - taken, Speech(on_text))
            except _Interrupted as interrupted:
                taken += interrupted.retries_taken + 1
                if taken > RETRIES:
                    raise interrupted.failure from interrupted.__cause__
            await asyncio.sleep(RETRY_SECONDS * taken)

    async def _try(self, request: dict[str, Any], retries: int, speech: Speech) -> ModelTurn:
        """Ask until an answer begins, and read it."""
        client = self._client.with_options(max_retries=retries)
        taken = 0
        try:
            # The raw answer: the client's own reading of it takes any shape for a completion.
            async with client.chat.completions.with_streaming_response.create(
                **request, stream=True, timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS)
            ) as response:
                taken = response.retries_taken
                answer = Answer(
                    response.iter_bytes(),
                    media_type=response.headers.get("content-type", "").partition(";")[0].strip(),
                    url=self._url,
                    idle_seconds=self._idle_seconds,
                )
                return await answer.read(speech)
        except StreamFailed as failed:
            failure = self._reported(failed)
            if isinstance(failure, ModelUnavailable):
                raise _Interrupted(failure, taken) from None
            raise failure from None
        except BrokeOff as error:
            raise _Interrupted(self._unreachable(), taken) from error
        except APIStatusError as error:
            # Without its cause, which may quote our key in a log.
            raise self._refusal(error.status_code, error.message) from None
        except APIError as error:
            # Its kind APITimeoutError is meant too: only connecting has a limit of its own.
            raise self._unreachable() from error
        except aiohttp.ClientError as error:
            # The client translates all others.
            raise ModelResponseInvalid(
                f"What listens at {self._url} does not speak HTTP. Check GPT_OSS_URL.",
                url=self._url,
            ) from error
        except LOST as error:
            # Lost in the middle of a refusal's body.
            raise self._unreachable() from error

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    def _unreachable(self) -> ModelUnavailable:
        return ModelUnavailable(
            f"The model endpoint {self._url} cannot be reached or hung up. Check GPT_OSS_URL "
            "and that the model service runs.",
            url=self._url,
        )

    def _reported(self, failed: StreamFailed) -> ModelFailure:
        """An error that came inside a stream; without a status it is the endpoint's own."""
        return self._refusal(failed.status or SERVER_ERRORS, failed.said)

    def _refusal(self, status: int, message: str) -> ModelFailure:
        said = self._without_key(message)[:SHOWN]
        if status < CLIENT_ERRORS:
            return ModelUnavailable(
                f"The model endpoint {self._url} sends its callers elsewhere (HTTP {status}), "
                "which is not followed. Give the final address in GPT_OSS_URL.",
                url=self._url,
                status=status,
            )
        if status in OVERLOADED or status >= SERVER_ERRORS:
            return ModelUnavailable(
                f"The model endpoint {self._url} failed or is overloaded ({said}). Try again "
                "later.",
                url=self._url,
                status=status,
            )
        return ModelRefused(
            f"The model endpoint {self._url} refused the request ({said}). Check LLM_API_KEY and "
            "LLM_MODEL.",
            url=self._url,
            status=status,
        )

    def _without_key(self, text: str) -> str:
        """Some endpoints quote the key they refuse; a very short one is a word, not a secret."""
        if len(self._api_key) < SHORTEST_KEY:
            return text
        return text.replace(self._api_key, "[key]")


def _message_to_wire(message: Message) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role.value, "content": message.text}
    if message.role is Role.TOOL:
        wire["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        wire["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
        # GPT-OSS works better when it is handed back the thoughts that led to its calls.
        if message.reasoning:
            wire["reasoning_content"] = message.reasoning
    return wire


def _tool_to_wire(tool: ToolSpec) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": json.loads(tool.parameters),
        },
    }
