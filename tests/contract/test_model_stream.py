"""What every `ports.Model` makes of streams, sound and broken."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.scripted import scripted_model

from orchestrator.domain.conversation import Message, ModelTurn, Role, ToolCall, Usage
from orchestrator.domain.live_text import TextDelta
from orchestrator.errors import (
    ModelFailure,
    ModelRefused,
    ModelResponseInvalid,
    ModelTimeout,
    ModelUnavailable,
)
from orchestrator.model.openai_client import OpenAIModel

MODEL = "a-model"
LIMIT = 8.0
ATTEMPTS = 3
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"connection: close\r\n\r\n"
)
DONE = b"data: [DONE]\n\n"
STORY = "Once upon a time there was a repository that nobody dared to touch. " * 4
PLAYS: dict[str, dict[str, Any]] = {
    "story": {"say": STORY, "reasoning": "They want a story.", "piece_seconds": 0.02},
    "calls": {
        "say": "I look.",
        "calls": [
            {"tool": "read", "arguments": {"path": "a" * 100}},
            {"tool": "list", "raw_arguments": "{}"},
        ],
    },
}
Json = dict[str, Any]
Send = Callable[[asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory: Path = tmp_path_factory.mktemp("plays")
    for name, turn in PLAYS.items():
        script = {"name": name, "when": {"matches": [f"^{name}$"]}, "turns": [turn]}
        (directory / f"{name}.yaml").write_text(yaml.safe_dump(script))
    with scripted_model(directory) as model:
        yield model.url


class Server:
    """Answers each request as the next of its senders says, the last one for ever."""

    def __init__(self, senders: Sequence[Send]) -> None:
        self._senders = senders
        self.url = ""
        self.requests: list[Json] = []
        self.gone = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        self.requests.append(json.loads(await reader.readexactly(length)))
        send = self._senders[min(len(self.requests), len(self._senders)) - 1]
        try:
            await send(writer)
            await writer.drain()
        except ConnectionError:
            self.gone.set()
        writer.close()


@asynccontextmanager
async def served(*senders: Send) -> AsyncIterator[Server]:
    handler = Server(senders)
    server = await asyncio.start_server(handler.handle, "127.0.0.1", 0)
    handler.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield handler
    finally:
        server.close()


def sending(*parts: bytes, head: bytes = HEAD) -> Send:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(head + b"".join(parts))

    return send


def event(content: object) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()


def delta(finish_reason: str | None = None, **content: object) -> bytes:
    return event({"choices": [{"index": 0, "delta": content, "finish_reason": finish_reason}]})


def called(**call: object) -> bytes:
    return delta(tool_calls=[call])


STOP = delta("stop")


class Heard(list[TextDelta]):
    """The pieces that came."""

    @property
    def attempts(self) -> list[str]:
        """The text of each attempt, in order; the pieces of each must continue each other."""
        texts: dict[str, str] = {}
        for piece in self:
            assert piece.text
            assert piece.offset == len(texts.get(piece.attempt, ""))
            texts[piece.attempt] = texts.get(piece.attempt, "") + piece.text
        return list(texts.values())


async def ask(
    url: str,
    query: str = "x",
    seconds: float = LIMIT,
    heard: Heard | None = None,
    idle_seconds: float = LIMIT,
) -> ModelTurn:
    model = OpenAIModel(url, "key-0123456789", idle_seconds=idle_seconds)
    on_text = None if heard is None else heard.append
    try:
        return await model.complete(MODEL, [Message(Role.USER, query)], [], seconds, on_text)
    finally:
        await model.close()


async def told(*parts: bytes) -> ModelTurn:
    """The turn in a stream of these parts."""
    async with served(sending(*parts)) as server:
        turn = await ask(server.url)
    assert len(server.requests) == 1
    return turn


async def failure(*parts: bytes, attempts: int = 1) -> ModelFailure:
    """What a stream of these parts fails with, after so many requests."""
    async with served(sending(*parts)) as server:
        with pytest.raises(ModelFailure) as raised:
            await ask(server.url)
    assert len(server.requests) == attempts
    assert raised.value.facts["url"] == f"{server.url}/v1"
    return raised.value


async def test_text_comes_in_pieces_while_the_model_still_speaks(endpoint: str) -> None:
    times: list[float] = []
    heard = Heard()

    def on_text(piece: TextDelta) -> None:
        times.append(time.monotonic())
        heard.append(piece)

    model = OpenAIModel(endpoint, "key")
    turn = await model.complete(MODEL, [Message(Role.USER, "story")], [], LIMIT, on_text)
    ended = time.monotonic()
    await model.close()

    assert turn.message.text == STORY
    assert turn.message.reasoning == "They want a story."
    assert turn.finish_reason == "stop"
    assert turn.usage.completion_tokens > 0
    assert heard.attempts == [STORY]
    assert len(heard) > 5
    assert ended - times[0] > 0.02 * (len(heard) - 1)
    assert any(later - earlier > 0.01 for earlier, later in pairwise(times))


async def test_calls_are_put_together_from_their_pieces(endpoint: str) -> None:
    heard = Heard()
    turn = await ask(endpoint, "calls", heard=heard)
    first, second = turn.message.tool_calls
    assert first == ToolCall("call_0_0", "read", json.dumps({"path": "a" * 100}))
    assert second == ToolCall("call_0_1", "list", "{}")
    assert turn.finish_reason == "tool_calls"
    assert heard.attempts == ["I look."]


async def test_a_stream_and_its_usage_are_asked_for() -> None:
    async with served(sending(STOP, DONE)) as server:
        await ask(server.url)
    assert server.requests[0]["stream"] is True
    assert server.requests[0]["stream_options"] == {"include_usage": True}


async def test_everything_that_a_stream_tells() -> None:
    turn = await told(
        b": a comment\n\nevent: chunk\nid: 7\nretry: 5\n",
        event({"choices": [{"delta": {"role": "assistant", "content": None}}], "usage": None}),
        delta(reasoning="Hm"),
        delta(reasoning_content="."),
        delta(content="Hé"),
        b": keep-alive\r\n\r\n",
        delta(content="llo"),
        event({"choices": [{"index": 1, "delta": {"content": "another choice"}}]}),
        event({"choices": None, "model": "m"}),
        delta("length"),
        event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}),
        DONE,
    )
    message = Message(Role.ASSISTANT, "Héllo", reasoning="Hm.")
    assert turn == ModelTurn(message, Usage(5, 2), finish_reason="length", model="m")


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(
            [
                {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{1"}},
                {"index": 1, "id": "b", "function": {"name": "g"}},
                {"index": 0, "function": {"arguments": "}"}},
                {"index": 1, "function": {"arguments": "{2}"}},
            ],
            id="interleaved",
        ),
        pytest.param(
            [
                {"id": "a", "function": {"name": "f", "arguments": ""}},
                {"function": {"arguments": "{1}"}},
                {"id": "b", "function": {"name": "g", "arguments": "{2}"}},
            ],
            id="without-index",
        ),
        pytest.param(
            [
                {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{1}"}},
                {"index": 0, "id": "b", "function": {"name": "g", "arguments": "{2}"}},
            ],
            id="one-index-for-all",
        ),
        pytest.param(
            [
                {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}},
                {"index": 0, "id": "x", "function": {"name": None, "arguments": "1}"}},
                {"index": 1, "id": "b", "function": {"name": "g", "arguments": None}},
                {"index": 1, "id": "", "function": {"name": "", "arguments": "{2}"}},
            ],
            id="a-new-id-for-each-piece",
        ),
        pytest.param(
            [
                {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}},
                {"index": 0, "id": "a", "function": {"name": "f", "arguments": "1}"}},
                {"index": 7, "id": "b", "function": {"name": "g", "arguments": "{2}"}},
            ],
            id="name-and-id-repeated",
        ),
    ],
)
async def test_the_ways_in_which_calls_are_cut(pieces: list[Json]) -> None:
    turn = await told(*(called(**piece) for piece in pieces), delta("tool_calls"), DONE)
    assert turn.message.tool_calls == (ToolCall("a", "f", "{1}"), ToolCall("b", "g", "{2}"))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
async def test_chunks_are_split_anywhere(size: int) -> None:
    whole = b"".join([delta(content="Grüße, "), delta(content="世界 🌍"), STOP, DONE])

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for start in range(0, len(whole), size):
            writer.write(whole[start : start + size])
            await writer.drain()

    async with served(send) as server:
        heard = Heard()
        turn = await ask(server.url, heard=heard)
    assert turn.message.text == "Grüße, 世界 🌍"
    assert heard.attempts == ["Grüße, 世界 🌍"]


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/octet-stream"])
async def test_a_stream_under_another_name_is_one(kind: str) -> None:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n\n\n".encode()
    async with served(sending(b": hi\n\n", delta(content="Hi."), STOP, head=head)) as server:
        assert (await ask(server.url)).message.text == "Hi."


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_an_endpoint_that_does_not_stream_is_understood(kind: str) -> None:
    body = json.dumps({"choices": [{"message": {"content": "Hi."}}]}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    async with served(sending(body, head=head.encode())) as server:
        heard = Heard()
        assert (await ask(server.url, heard=heard)).message.text == "Hi."
    assert heard.attempts == ["Hi."]


@pytest.mark.parametrize("end", [b"", DONE, b": bye\n\n", b"data: [DONE]"])
async def test_a_finish_reason_is_an_end(end: bytes) -> None:
    assert (await told(delta(content="Hi."), STOP, end)).message.text == "Hi."


async def test_done_is_an_end_without_a_finish_reason() -> None:
    turn = await told(delta(content="Hi."), DONE)
    assert (turn.message.text, turn.finish_reason) == ("Hi.", "stop")


@pytest.mark.parametrize("last", [b"", DONE])
async def test_a_connection_left_open_after_the_end_costs_little(last: bytes) -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + delta(content="Hi.") + STOP + last)
        while True:
            writer.write(b": still here\n\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with served(send) as server:
        assert (await ask(server.url, seconds=6)).message.text == "Hi."
        await asyncio.wait_for(server.gone.wait(), LIMIT)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [delta(content="Hi.")],
        [delta(content="Hi."), b'data: {"choices"'],
        [b": only comments\n\n"],
    ],
)
async def test_a_stream_that_ends_too_early_is_asked_for_again_and_then_given_up(
    parts: list[bytes],
) -> None:
    error = await failure(*parts, attempts=ATTEMPTS)
    assert isinstance(error, ModelUnavailable)
    assert "hung up" in error.detail


async def test_a_stream_broken_off_is_told_anew_as_another_attempt() -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD.replace(b"connection: close", b"transfer-encoding: chunked"))
        part = delta(content="Once upon")
        writer.write(b"%x\r\n%b\r\n" % (len(part), part))

    good = sending(delta(content="Once "), delta(content="more."), STOP, DONE)
    async with served(send, good) as server:
        heard = Heard()
        turn = await ask(server.url, heard=heard)
    assert turn.message.text == "Once more."
    assert heard.attempts == ["Once upon", "Once more."]


@pytest.mark.parametrize(
    ("error", "kind", "attempts"),
    [
        ({"error": {"message": "boom", "code": 500, "type": "server_error"}}, ModelUnavailable, 3),
        ({"error": {"message": "boom", "code": "503"}}, ModelUnavailable, 3),
        ({"error": {"message": "boom", "code": "no_such_thing"}}, ModelUnavailable, 3),
        ({"error": {"message": "boom"}, "choices": []}, ModelUnavailable, 3),
        ({"error": "boom"}, ModelUnavailable, 3),
        ({"error": {"message": "boom", "code": 429}}, ModelUnavailable, 3),
        ({"error": {"message": "boom", "code": 400}}, ModelRefused, 1),
        ({"object": "error", "message": "boom", "code": 404}, ModelRefused, 1),
    ],
)
async def test_an_error_inside_a_stream_is_like_one_before_it(
    error: Json, kind: type[ModelFailure], attempts: int
) -> None:
    raised = await failure(delta(content="Hi"), event(error), attempts=attempts)
    assert type(raised) is kind
    assert "boom" in raised.detail


async def test_an_error_inside_a_stream_does_not_tell_the_key() -> None:
    raised = await failure(event({"error": {"message": "key-0123456789 is bad", "code": 401}}))
    assert "[key] is bad" in raised.detail


@pytest.mark.parametrize(
    "part",
    [
        b"data: {not json\n\n",
        b"data: \xff\xfe\n\n",
        b"data: []\n\n",
        event({"choices": "text"}),
        event({"choices": [{"delta": {"content": 5}}]}),
        event({"choices": [{"delta": {"tool_calls": {}}}]}),
        event({"choices": [], "usage": {"prompt_tokens": -5}}),
        called(index=-1, id="a", function={"name": "f"}),
        called(index=0, id="a", function={"name": "f", "arguments": {}}),
        called(index=0, function={"name": "f", "arguments": ""}) + STOP,
        called(index=0, id="a", function={"arguments": ""}) + STOP,
        b"".join(called(index=n, id=f"{n}", function={"name": "f"}) for n in range(300)),
    ],
)
async def test_what_is_no_chunk_is_said_to_be_none(part: bytes) -> None:
    error = await failure(delta(content="Hi."), part, STOP, DONE)
    assert isinstance(error, ModelResponseInvalid)
    assert "is not a chat completion" in error.detail


@pytest.mark.parametrize(
    "part",
    [delta(content="x" * 60_000), delta(reasoning="x" * 60_000), b"data: " + b"x" * 60_000 + b"\n"],
)
async def test_a_stream_without_end_is_cut_at_a_size(part: bytes) -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while True:
            writer.write(part)
            await writer.drain()

    async with served(send) as server:
        with pytest.raises(ModelResponseInvalid):
            await ask(server.url, seconds=60)
        await asyncio.wait_for(server.gone.wait(), LIMIT)


async def test_a_stream_of_nothing_is_a_timeout() -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while True:
            writer.write(b": still here\n\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with served(send) as server:
        with pytest.raises(ModelTimeout):
            await ask(server.url, seconds=0.5)
        await asyncio.wait_for(server.gone.wait(), LIMIT)


async def test_an_answer_that_falls_silent_is_asked_for_again() -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + delta(content="Hi"))
        await asyncio.sleep(LIMIT)

    async with served(silent, sending(delta(content="Hi."), STOP)) as server:
        heard = Heard()
        turn = await ask(server.url, heard=heard, idle_seconds=0.2)
    assert turn.message.text == "Hi."
    assert heard.attempts == ["Hi", "Hi."]


async def test_a_model_that_thinks_for_long_before_it_speaks_is_not_silent() -> None:
    async def late(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        await writer.drain()
        await asyncio.sleep(0.6)
        writer.write(delta(content="Hi.") + STOP + DONE)

    async with served(late) as server:
        assert (await ask(server.url, idle_seconds=0.2)).message.text == "Hi."
    assert len(server.requests) == 1


async def test_cancelling_hangs_up_in_the_middle_of_an_answer() -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while True:
            writer.write(delta(content="on and on "))
            await writer.drain()
            await asyncio.sleep(0.01)

    async with served(send) as server:
        heard = Heard()
        asking = asyncio.create_task(ask(server.url, heard=heard))
        async with asyncio.timeout(LIMIT):
            while not heard:
                await asyncio.sleep(0.01)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await server.gone.wait()


async def test_a_connection_is_used_again_after_a_stream() -> None:
    connections = 0
    body = delta(content="Hi.") + STOP + DONE

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while head := (await reader.readuntil(b"\r\n\r\n")).decode().lower():
            await reader.readexactly(int(head.partition("content-length: ")[2].split("\r\n")[0]))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
            writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    model = OpenAIModel(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "k")
    for _ in range(3):
        await model.complete(MODEL, [Message(Role.USER, "x")], [], LIMIT)
    await model.close()
    server.close()
    assert connections == 1
