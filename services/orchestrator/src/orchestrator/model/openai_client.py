"""A chat model behind an OpenAI-compatible endpoint."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx2
from openai import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    DefaultAioHttpClient,
)

from orchestrator.domain.conversation import Message, ModelTurn, Role, ToolSpec
from orchestrator.errors import ModelFailure, ModelRefused, ModelTimeout, ModelUnavailable
from orchestrator.model.completion import read_turn

RETRIES = 2
CONNECT_SECONDS = 10.0
SHOWN = 300
OVERLOADED = frozenset({408, 409, 429})
SERVER_ERRORS = 500


def endpoint_url(url: str) -> str:
    """The endpoint's base address ending in `/v1`, whether or not the user wrote that."""
    trimmed = url.rstrip("/")
    return trimmed if trimmed.endswith("/v1") else f"{trimmed}/v1"


class OpenAIModel:
    """`ports.Model` by the `openai` client, which retries lost connections and overload twice.

    Args:
        url: Base address of the endpoint, with or without `/v1`.
        api_key: Sent as a bearer token; never logged.
        model: The model's name at the endpoint.
    """

    def __init__(self, url: str, api_key: str, model: str) -> None:
        self._url = endpoint_url(url)
        self._model = model
        self._client = AsyncOpenAI(
            base_url=self._url,
            api_key=api_key,
            max_retries=RETRIES,
            http_client=DefaultAioHttpClient(base_url=self._url),
        )

    async def complete(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], timeout_seconds: float
    ) -> ModelTurn:
        """Ask for the next turn; see `ports.Model.complete`."""
        request: dict[str, Any] = {
            "model": self._model,
            "messages": [_message_to_wire(message) for message in messages],
        }
        if tools:
            request["tools"] = [_tool_to_wire(tool) for tool in tools]
        connect = min(timeout_seconds, CONNECT_SECONDS)
        try:
            async with asyncio.timeout(timeout_seconds):
                completion = await self._client.chat.completions.create(
                    **request, timeout=httpx2.Timeout(timeout_seconds, connect=connect)
                )
        except (TimeoutError, APITimeoutError) as error:
            raise ModelTimeout(
                f"The model at {self._url} did not answer within {timeout_seconds:.0f} s. "
                "Give the task more seconds, or check the endpoint's load.",
                url=self._url,
            ) from error
        except APIError as error:
            raise self._failure(error) from error
        return read_turn(completion, self._url)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    def _failure(self, error: APIError) -> ModelFailure:
        if isinstance(error, APIConnectionError):
            return ModelUnavailable(
                f"The model endpoint {self._url} cannot be reached. Check GPT_OSS_URL and that "
                "the model service runs.",
                url=self._url,
            )
        status = error.status_code if isinstance(error, APIStatusError) else 0
        said = f"HTTP {status}: {error.message[:SHOWN]}" if status else error.message[:SHOWN]
        if status in OVERLOADED or status >= SERVER_ERRORS or not status:
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
