"""A model endpoint inside the test: it tells when it is asked and answers when it is let."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

ASKED_SECONDS = 60.0
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that the model makes."""

    tool: str
    arguments: dict[str, object]


Turn = tuple[Call, ...]


@dataclass(slots=True)
class Conversation:
    """The part the model plays in one task: its turns in order, then an answer.

    Which turn it is at follows from the request alone, so a request that is repeated gets the same
    turn again. The answer is a digest of all tool results: it differs if any of them does.

    Args:
        turns: What the model calls, turn by turn.
    """

    turns: Sequence[Turn]
    asked: list[int] = field(default_factory=list)
    _gates: dict[int, asyncio.Event] = field(default_factory=dict)
    _answered: dict[int, asyncio.Event] = field(default_factory=dict)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    def hold(self, turn: int) -> None:
        """Do not give this turn, counted from 0, before `release`."""
        self._gates[turn] = asyncio.Event()

    def release(self, turn: int) -> None:
        """Let a turn that is held be given."""
        self._gates[turn].set()

    def release_all(self) -> None:
        """Hold nothing any more."""
        for gate in self._gates.values():
            gate.set()

    async def until_asked(self, turn: int) -> None:
        """Wait until the orchestrator has asked for a turn."""
        async with asyncio.timeout(ASKED_SECONDS), self._news:
            await self._news.wait_for(lambda: turn in self.asked)

    async def until_given(self, turn: int) -> None:
        """Wait until a turn has been written to whoever asked for it."""
        async with asyncio.timeout(ASKED_SECONDS):
            await self._answered.setdefault(turn, asyncio.Event()).wait()

    async def next_message(self, messages: Sequence[Json]) -> tuple[int, Json]:
        """The number of the turn that these messages lead to, and what the model then says."""
        turn = sum(message["role"] == "assistant" for message in messages)
        async with self._news:
            self.asked.append(turn)
            self._news.notify_all()
        if turn in self._gates:
            await self._gates[turn].wait()
        if turn < len(self.turns):
            return turn, _calling(turn, self.turns[turn])
        results = [message["content"] for message in messages if message["role"] == "tool"]
        digest = hashlib.sha256(json.dumps(results).encode()).hexdigest()
        return turn, {"role": "assistant", "content": f"{len(results)} results: {digest}"}

    def given(self, turn: int) -> None:
        """A turn has been written."""
        self._answered.setdefault(turn, asyncio.Event()).set()


class GatedModel:
    """Serves conversations, each found by the last word of its task's query."""

    def __init__(self) -> None:
        self._conversations: dict[str, Conversation] = {}
        self.url = ""
        self.asked: list[tuple[str, int]] = []
        """Every request so far, by token and turn, of all conversations in their order."""

    def add(self, token: str, turns: Sequence[Turn]) -> Conversation:
        """A conversation for the task whose query ends with `token`."""
        conversation = Conversation(turns)
        self._conversations[token] = conversation
        return conversation

    def forget(self, token: str) -> None:
        """Let go of a conversation."""
        del self._conversations[token]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request for a chat completion."""
        messages = (await request.json())["messages"]
        query = next(each["content"] for each in messages if each["role"] == "user")
        token = query.split()[-1]
        conversation = self._conversations[token]
        turns_before = sum(each["role"] == "assistant" for each in messages)
        self.asked.append((token, turns_before))
        turn, message = await conversation.next_message(messages)
        response = web.json_response(_completion(message))
        await response.prepare(request)
        await response.write_eof()
        conversation.given(turn)
        return response


@asynccontextmanager
async def gated_model() -> AsyncIterator[GatedModel]:
    """A model that listens on a free port of loopback while the context lasts."""
    model = GatedModel()
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", model.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        model.url = f"http://{host}:{port}"
        yield model
    finally:
        await runner.cleanup()


def _calling(turn: int, calls: Turn) -> Json:
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": f"call_{turn}_{number}",
                "type": "function",
                "function": {"name": call.tool, "arguments": json.dumps(call.arguments)},
            }
            for number, call in enumerate(calls)
        ],
    }


def _completion(message: Json) -> Json:
    reason = "tool_calls" if message.get("tool_calls") else "stop"
    return {
        "id": "gated",
        "object": "chat.completion",
        "created": 1,
        "model": "gated",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
