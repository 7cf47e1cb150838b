"""A model endpoint that passes everything on to another, and keeps what it was asked."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Json = dict[str, Any]
WAIT_SECONDS = 20.0


@dataclass(slots=True)
class Overheard:
    """What a model was asked.

    Args:
        url: The endpoint.
        requests: The bodies of all requests so far.
        held_from: The number of the first request whose answer is held up until the gate opens.
        gate: Lets those answers through.
        headers: The headers of all requests so far.
        refuses: Answer 401, and quote what the request was authorized with.
    """

    url: str = ""
    requests: list[Json] = field(default_factory=list)
    held_from: int = 10**9
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    refuses: bool = False

    @property
    def last(self) -> list[Json]:
        """The messages of the last request."""
        messages: list[Json] = self.requests[-1]["messages"]
        return messages

    async def asked(self, count: int) -> None:
        """Wait until there were so many requests."""
        async with asyncio.timeout(WAIT_SECONDS):
            while len(self.requests) < count:
                await asyncio.sleep(0.01)


def texts(messages: Sequence[Json], role: str) -> list[str]:
    """What somebody said in a conversation."""
    return [message["content"] for message in messages if message["role"] == role]


def check_legal(messages: Sequence[Json]) -> None:
    """See that a conversation is one: instructions once, every call with its own result."""
    assert [message["role"] for message in messages].count("system") == 1
    assert messages[0]["role"] == "system"
    open_calls: list[str] = []
    ids: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            open_calls.remove(message["tool_call_id"])
            continue
        assert open_calls == []
        open_calls = [call["id"] for call in message.get("tool_calls") or ()]
        ids += open_calls
    assert open_calls == []
    assert len(ids) == len(set(ids))


@asynccontextmanager
async def overheard(model_url: str) -> AsyncIterator[Overheard]:
    """Serve on a free port while the context lasts."""
    heard = Overheard()
    transport = httpx2.AsyncHTTPTransport(trust_env=False)
    async with httpx2.AsyncClient(transport=transport, timeout=60) as http:

        async def complete(request: Request) -> Response:
            body = await request.body()
            heard.requests.append(json.loads(body))
            heard.headers.append(dict(request.headers))
            if heard.refuses:
                said = f"Incorrect API key provided: {request.headers.get('authorization')}"
                return JSONResponse({"error": {"message": said, "code": "invalid_api_key"}}, 401)
            number = len(heard.requests)
            answer = await http.post(
                f"{model_url}/chat/completions",
                content=body,
                headers={"Content-Type": "application/json"},
            )
            if number >= heard.held_from:
                await heard.gate.wait()
            kind = answer.headers["content-type"]
            return Response(answer.content, answer.status_code, media_type=kind)

        app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
        config = uvicorn.Config(app, port=0, log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        heard.url = f"http://127.0.0.1:{port}/v1"
        try:
            yield heard
        finally:
            heard.gate.set()
            server.should_exit = True
            await serving
