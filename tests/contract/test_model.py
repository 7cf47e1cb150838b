"""What every `ports.Model` does, on the client to OpenAI-compatible endpoints.

A real scripted model answers what a model can say, and small servers what only a broken one does.
"""

import asyncio
import json
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.scripted import scripted_model

from orchestrator.domain.conversation import Message, ModelTurn, Role, ToolCall, ToolSpec, Usage
from orchestrator.errors import (
    ConfigurationError,
    ModelFailure,
    ModelRefused,
    ModelResponseInvalid,
    ModelTimeout,
    ModelUnavailable,
)
from orchestrator.model.openai_client import OpenAIModel, endpoint_url

MODEL = "a-model"
KEY = "sk-very-secret-0123456789"
LIMIT = 5.0
READ = ToolSpec("read", "Reads a file.", '{"type": "object", "properties": {"path": {}}}')
USAGE = {"prompt_tokens": 11, "completion_tokens": 3}
PLAYS: dict[str, list[dict[str, Any]]] = {
    "plain": [{"say": "Hello.", "usage": USAGE, "expect": {"model": "a-model", "stream": True}}],
    "tools": [
        {
            "say": "I look.",
            "reasoning": "There must be a file.",
            "calls": [
                {"tool": "read", "arguments": {"path": "a"}},
                {"tool": "read", "raw_arguments": '{"path": '},
            ],
            "expect": {"tools_offered": ["read"], "system_contains": "Be brief."},
        },
        {"say": "{{ tool[0] }}{{ tool[1] }}", "expect": {"message_count": 5}},
    ],
    "no-tools": [{"say": "None.", "expect": {"tools_not_offered": ["read"]}}],
    "empty": [{"empty": True, "finish_reason": "length"}],
    "late": [{"say": "late", "delay_seconds": 30}],
    "cut": [{"say": "half of this is missing " * 50, "drop_connection": True}],
    "garbage": [{"raw": "{not json"}],
    "html": [{"raw": "<html>Welcome</html>"}],
    **{
        f"status-{status}": [
            {"status": status, "body": {"error": {"message": f"{KEY} is no good"}}}
        ]
        for status in (400, 401, 403, 404, 422, 429, 500, 503)
    },
}
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory: Path = tmp_path_factory.mktemp("plays")
    for name, turns in PLAYS.items():
        script = {"name": name, "when": {"matches": [f"^{name}$"]}, "turns": turns}
        (directory / f"{name}.yaml").write_text(yaml.safe_dump(script))
    with scripted_model(directory) as model:
        yield model.url


@asynccontextmanager
async def model_at(url: str) -> AsyncIterator[OpenAIModel]:
    model = OpenAIModel(url, KEY)
    try:
        yield model
    finally:
        await model.close()


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[str]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def ask(url: str, query: str, seconds: float = LIMIT) -> ModelTurn:
    async with model_at(url) as model:
        return await model.complete(MODEL, [Message(Role.USER, query)], [], seconds)


async def fail(url: str, query: str = "plain", seconds: float = LIMIT) -> ModelFailure:
    """The failure of a request, which must come in time and never tell the key."""
    began = time.monotonic()
    with pytest.raises(ModelFailure) as raised:
        await ask(url, query, seconds)
    assert time.monotonic() - began < seconds + 1
    told = "".join(traceback.format_exception(raised.value))
    assert KEY not in told + repr(raised.value) + repr(raised.value.facts)
    assert raised.value.facts["url"] == endpoint_url(url)
    return raised.value


async def test_a_plain_answer(endpoint: str) -> None:
    turn = await ask(endpoint, "plain")
    assert turn == ModelTurn(
        Message(Role.ASSISTANT, "Hello."),
        Usage(11, 3),
        finish_reason="stop",
        model="berth-scripted",
        scripted="plain",
    )


async def test_an_empty_answer_is_a_turn_too(endpoint: str) -> None:
    turn = await ask(endpoint, "empty")
    assert turn.message == Message(Role.ASSISTANT)
    assert turn.finish_reason == "length"


async def test_calls_come_as_the_model_wrote_them_and_go_back_with_its_results(
    endpoint: str,
) -> None:
    messages = [Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "tools")]
    async with model_at(endpoint) as model:
        turn = await model.complete(MODEL, messages, [READ], LIMIT)
        assert turn.message == Message(
            Role.ASSISTANT,
            "I look.",
            tool_calls=(
                ToolCall("call_0_0", "read", '{"path": "a"}'),
                ToolCall("call_0_1", "read", '{"path": '),
            ),
            reasoning="There must be a file.",
        )
        assert turn.finish_reason == "tool_calls"
        results = [
            Message(Role.TOOL, text, tool_call_id=call.id, step=1)
            for text, call in zip(["one", "two"], turn.message.tool_calls, strict=True)
        ]
        last = await model.complete(MODEL, [*messages, turn.message, *results], [READ], LIMIT)
    assert last.message.text == "onetwo"


async def test_without_tools_none_are_offered(endpoint: str) -> None:
    assert (await ask(endpoint, "no-tools")).message.text == "None."


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/", " \n"])
async def test_an_endpoint_is_found_with_and_without_v1(endpoint: str, ending: str) -> None:
    base = endpoint.removesuffix("/v1")
    assert (await ask(base + ending, "plain")).message.text == "Hello."
    assert endpoint_url(base + ending) == f"{base}/v1"


async def test_two_requests_at_once_get_their_own_answers(endpoint: str) -> None:
    async with model_at(endpoint) as model:
        turns = await asyncio.gather(
            *(
                model.complete(MODEL, [Message(Role.USER, query)], [], LIMIT)
                for query in ["plain", "no-tools"] * 8
            )
        )
    assert [turn.message.text for turn in turns] == ["Hello.", "None."] * 8


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_a_refusal_is_told_at_once(endpoint: str, status: int) -> None:
    began = time.monotonic()
    error = await fail(endpoint, f"status-{status}")
    assert isinstance(error, ModelRefused)
    assert error.facts["status"] == status
    assert "[key] is no good" in error.detail
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_overload_is_told_after_bounded_retries(endpoint: str, status: int) -> None:
    error = await fail(endpoint, f"status-{status}")
    assert isinstance(error, ModelUnavailable)
    assert error.facts["status"] == status


async def test_a_model_that_hangs_is_a_timeout(endpoint: str) -> None:
    error = await fail(endpoint, "late", 0.4)
    assert isinstance(error, ModelTimeout)
    assert "0.4 s" in error.detail


@pytest.mark.parametrize("query", ["garbage", "html"])
async def test_what_is_not_json_is_no_completion(endpoint: str, query: str) -> None:
    assert isinstance(await fail(endpoint, query), ModelResponseInvalid)


async def test_an_answer_that_breaks_off_is_no_answer(endpoint: str) -> None:
    assert isinstance(await fail(endpoint, "cut"), ModelUnavailable)


async def test_a_model_that_is_down_is_unavailable_soon() -> None:
    async with served(sending(b"")) as url:
        pass
    error = await fail(url, seconds=20)
    assert isinstance(error, ModelUnavailable)
    assert "cannot be reached" in error.detail


async def test_a_cancelled_request_hangs_up() -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await reader.read()
        gone.set()
        writer.close()

    async with served(handle) as url, model_at(url) as model, asyncio.timeout(60):
        running = asyncio.create_task(model.complete(MODEL, [Message(Role.USER, "x")], [], 60))
        await arrived.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await gone.wait()


def sending(body: bytes, kind: str = "application/json", status: str = "200 OK") -> Handler:
    """A server that answers every request with this body."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        await exchange(reader, writer, head.encode() + body)

    return handle


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: bytes
) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(reply)
    await writer.drain()
    writer.close()


def completion(**message: object) -> dict[str, object]:
    return {"choices": [{"message": message}]}


@pytest.mark.parametrize(
    "body",
    [
        None,
        5,
        [],
        "text",
        {},
        {"error": {"message": "no"}},
        {"choices": None},
        {"choices": []},
        {"choices": "text"},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": []}]},
        completion(content=5),
        completion(content=["a"]),
        completion(tool_calls={}),
        completion(tool_calls=[{}]),
        completion(tool_calls=[{"id": "1"}]),
        completion(tool_calls=[{"id": 1, "function": {"name": "x", "arguments": "{}"}}]),
        completion(tool_calls=[{"id": "1", "function": {"name": "x", "arguments": {}}}]),
        {**completion(content="x"), "usage": {"prompt_tokens": -5}},
        {**completion(content="x"), "usage": {"prompt_tokens": "many"}},
        {**completion(content="\ud800")},
    ],
)
async def test_json_that_is_no_completion_is_said_to_be_none(body: object) -> None:
    async with served(sending(json.dumps(body).encode())) as url:
        error = await fail(url)
    assert isinstance(error, ModelResponseInvalid)
    assert "is not a chat completion" in error.detail
    assert len(error.detail) < 600


@pytest.mark.parametrize("body", [b"", b"\xff\xfe\x00", b"[" * 200_000, b'{"choices": [{"mess'])
@pytest.mark.parametrize("kind", ["application/json", "text/html"])
async def test_bytes_that_are_no_json_are_said_to_be_none(body: bytes, kind: str) -> None:
    async with served(sending(body, kind)) as url:
        assert isinstance(await fail(url), ModelResponseInvalid)


@pytest.mark.parametrize(
    "body",
    [
        completion(content="Hi."),
        {**completion(content="Hi.", refusal=None, annotations=[]), "usage": None, "x": [1]},
        {**completion(content="Hi.", tool_calls=None), "model": None, "system_fingerprint": None},
    ],
)
async def test_what_a_completion_may_leave_out(body: object) -> None:
    async with served(sending(json.dumps(body).encode(), "text/plain")) as url:
        turn = await ask(url, "anything")
    assert turn == ModelTurn(Message(Role.ASSISTANT, "Hi."), Usage())


async def test_a_redirect_to_nowhere_is_a_failure() -> None:
    async with served(sending(b"", status="302 Found\r\nlocation: http://127.0.0.1:1/")) as url:
        assert isinstance(await fail(url), ModelUnavailable)


async def test_what_does_not_speak_http_is_said_not_to() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await exchange(reader, writer, b"\x00\xff220 smtp ready\r\n\r\n")

    async with served(handle) as url:
        error = await fail(url)
    assert isinstance(error, ModelResponseInvalid)
    assert "does not speak HTTP" in error.detail


async def test_a_server_that_hangs_up_is_unavailable() -> None:
    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with served(handle) as url:
        assert isinstance(await fail(url), ModelUnavailable)


async def test_half_a_body_is_unavailable_after_bounded_retries() -> None:
    requests = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        requests += 1
        await exchange(reader, writer, b'HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{"choices":')

    async with served(handle) as url:
        assert isinstance(await fail(url), ModelUnavailable)
    assert requests == 3


async def test_a_lost_connection_is_tried_again() -> None:
    requests = 0
    good = sending(json.dumps(completion(content="Hi.")).encode())

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        requests += 1
        if requests == 1:
            writer.close()
        else:
            await good(reader, writer)

    async with served(handle) as url:
        assert (await ask(url, "anything")).message.text == "Hi."


async def test_a_body_without_end_is_a_timeout() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while not writer.is_closing():
                writer.write(b"1\r\n \r\n")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            writer.close()

    async with served(handle) as url:
        assert isinstance(await fail(url, seconds=0.6), ModelTimeout)


async def test_retries_stay_within_the_time() -> None:
    overloaded = sending(b"{}", status="503 Busy\r\nretry-after: 50")
    async with served(overloaded) as url:
        assert isinstance(await fail(url, seconds=1.0), ModelTimeout)


async def test_thoughts_go_back_with_the_calls_they_led_to_and_only_with_those() -> None:
    seen: list[dict[str, Any]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert f"authorization: bearer {KEY}" in head
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        seen.append(json.loads(await reader.readexactly(length)))
        body = json.dumps(completion(content="Hi.", reasoning_content="Hm.")).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    call = ToolCall("1", "read", "{}")
    messages = [
        Message(Role.USER, "q"),
        Message(Role.ASSISTANT, "", tool_calls=(call,), reasoning="I must read."),
        Message(Role.TOOL, "text", tool_call_id="1", step=2),
        Message(Role.ASSISTANT, "Answer.", reasoning="Done."),
        Message(Role.USER, "again"),
    ]
    async with served(handle) as url, model_at(url) as model:
        turn = await model.complete(MODEL, messages, [READ], LIMIT)
    assert turn.message.reasoning == "Hm."
    (request,) = seen
    assert request["model"] == "a-model"
    assert request["messages"][1:4] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "read", "arguments": "{}"}}
            ],
            "reasoning_content": "I must read.",
        },
        {"role": "tool", "content": "text", "tool_call_id": "1"},
        {"role": "assistant", "content": "Answer."},
    ]
    assert request["tools"][0]["function"] == {
        "name": "read",
        "description": "Reads a file.",
        "parameters": {"type": "object", "properties": {"path": {}}},
    }


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://host",
        "http://",
        "http://[::1",
        "http://host:0",
        "http://host:99999",
        "http://user:password@host",
        "http://host/v1?key=password",
        "http://host/#password",
    ],
)
def test_an_address_that_cannot_work_or_holds_a_secret_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        endpoint_url(url)
    assert "password@" not in refused.value.detail
    assert "GPT_OSS_URL" in refused.value.detail


@pytest.mark.parametrize("key", ["geheim-ü", "two\nlines", "nul\0"])
async def test_a_key_that_cannot_be_sent_is_refused_and_not_told(key: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        OpenAIModel("http://host", key)
    assert key not in str(refused.value)


async def test_a_key_may_be_missing_or_have_space_around_it(endpoint: str) -> None:
    for key in ("", f" {KEY}\n"):
        model = OpenAIModel(endpoint, key)
        turn = await model.complete(MODEL, [Message(Role.USER, "plain")], [], LIMIT)
        await model.close()
        assert turn.message.text == "Hello."
