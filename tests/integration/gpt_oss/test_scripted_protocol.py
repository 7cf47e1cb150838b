"""The protocol, spoken by the client library that users have, to the command as a process."""

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx2
import openai
import pytest
import yaml
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

PLAYS = r"""
tools:
  - say: Let me look.
    calls:
      - {tool: bash, arguments: {command: 'ls -la "some dir" && echo ünï'}}
      - {tool: read_text_file, arguments: {path: README.md, head: 3}}
  - expect: {last_role: tool, last_tool_contains: Berth}
    say: 'It says: {{ tool[-1] }}'
broken:
  - {calls: [{tool: bash, raw_arguments: '{"command": '}]}
strict:
  - {say: never, expect: {tools_offered: [bash, fly]}}
empty:
  - {empty: true}
reasoning:
  - {say: Four., reasoning: Two and two., finish_reason: length}
usage:
  - {say: hello, usage: {prompt_tokens: 120000, completion_tokens: 7}}
error:
  - {status: 503, headers: {retry-after: '7'}}
overload:
  - {status: 429, body: {error: {message: slow down, code: busy}}}
textual:
  - {status: 500, body: 'upstream died'}
garbage:
  - {raw: '<html>not json</html>'}
badstream:
  - {raw: "data: {\"choices\": [\n\n"}
drop:
  - {say: a long answer that never ends, drop_connection: true}
slow:
  - {say: at last, delay_seconds: 0.4}
loop:
  - {calls: [{tool: bash, arguments: {command: 'true'}}], repeat: forever}
"""


@pytest.fixture(scope="module")
def url(
    scripted: Callable[..., AbstractContextManager[Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("plays")
    for name, turns in yaml.safe_load(PLAYS).items():
        play = {"name": name, "when": {"words": [name]}, "turns": turns}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(play), encoding="utf-8")
    with scripted("--plays", str(folder)) as (where, _):
        yield where["url"]


@pytest.fixture
async def client(url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=20) as client:
        yield client


def offered(*names: str) -> Any:
    parameters = {"type": "object", "properties": {}}
    return [
        {"type": "function", "function": {"name": name, "parameters": parameters}} for name in names
    ]


def history(*messages: dict[str, Any]) -> Any:
    return list(messages)


async def _rest(stream: AsyncIterator[ChatCompletionChunk]) -> list[ChatCompletionChunk]:
    return [chunk async for chunk in stream]


async def ask(client: AsyncOpenAI, query: str, *more: dict[str, Any]) -> ChatCompletion:
    messages = history({"role": "user", "content": query}, *more)
    tools = offered("bash", "read_text_file")
    return await client.chat.completions.create(model="any", messages=messages, tools=tools)


async def test_a_conversation_with_tools(client: AsyncOpenAI) -> None:
    first = await ask(client, "tools")
    assert first.model == "berth-scripted"
    assert first.system_fingerprint == "scripted:tools"
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me look."
    calls = [call for call in choice.message.tool_calls or () if call.type == "function"]
    assert [call.id for call in calls] == ["call_0_0", "call_0_1"]
    assert [call.function.name for call in calls] == ["bash", "read_text_file"]
    assert json.loads(calls[0].function.arguments) == {"command": 'ls -la "some dir" && echo ünï'}
    assert json.loads(calls[1].function.arguments) == {"path": "README.md", "head": 3}
    assert first.usage is not None
    assert first.usage.total_tokens == first.usage.prompt_tokens + first.usage.completion_tokens
    assert first.usage.prompt_tokens > 0

    second = await ask(
        client,
        "tools",
        choice.message.to_dict(),
        {"role": "tool", "tool_call_id": "call_0_0", "content": "exit code: 0"},
        {"role": "tool", "tool_call_id": "call_0_1", "content": "# Berth"},
    )
    assert second.choices[0].message.content == "It says: # Berth"
    assert second.choices[0].finish_reason == "stop"
    assert second.choices[0].message.tool_calls is None
    assert second.id != first.id


@pytest.mark.parametrize("query", ["tools", "reasoning", "empty", "broken", "usage"])
async def test_a_stream_adds_up_to_the_plain_answer(client: AsyncOpenAI, query: str) -> None:
    plain = await ask(client, query)
    text, reasoning, finish, usage = "", "", None, []
    calls: dict[int, dict[str, str]] = {}
    stream = await client.chat.completions.create(
        model="any",
        messages=history({"role": "user", "content": query}),
        tools=offered("bash", "read_text_file"),
        stream=True,
        stream_options={"include_usage": True},
    )
    async for chunk in stream:
        assert chunk.model == "berth-scripted"
        assert chunk.system_fingerprint == f"scripted:{query}"
        usage += [chunk.usage] if chunk.usage else []
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            text += choice.delta.content or ""
            reasoning += getattr(choice.delta, "reasoning", None) or ""
            for part in choice.delta.tool_calls or ():
                call = calls.setdefault(part.index, {"id": part.id or "", "arguments": ""})
                assert part.function is not None
                call["arguments"] += part.function.arguments or ""
    message = plain.choices[0].message
    made = [call for call in message.tool_calls or () if call.type == "function"]
    assert text == (message.content or "")
    assert reasoning == (getattr(message, "reasoning", None) or "")
    assert finish == plain.choices[0].finish_reason
    assert usage == [plain.usage]
    assert [calls[index] for index in sorted(calls)] == [
        {"id": call.id, "arguments": call.function.arguments} for call in made
    ]


async def test_a_stream_without_include_usage_has_none(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="any", messages=history({"role": "user", "content": "usage"}), stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert len(chunks) >= 3
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


async def test_models(client: AsyncOpenAI) -> None:
    models = await client.models.list()
    assert [model.id for model in models.data] == ["berth-scripted"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_mismatch_is_a_bad_request_with_a_diff(client: AsyncOpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(
            model="any",
            messages=history({"role": "user", "content": "strict"}),
            tools=offered("bash"),
            stream=stream,
        )
    assert caught.value.code == "script_mismatch"
    assert "--- expected\n+++ got\n" in caught.value.message
    assert "\n-  - fly" in caught.value.message


async def test_a_query_without_a_script_gets_an_honest_answer(client: AsyncOpenAI) -> None:
    reply = await ask(client, "Make me a sandwich")
    text = reply.choices[0].message.content or ""
    assert reply.system_fingerprint == "scripted:fallback"
    assert "not a language model" in text
    assert "- Write a function slugify(text) and a test for it" in text
    assert "GPT_OSS_URL" in text


async def test_knobs_of_a_message(client: AsyncOpenAI) -> None:
    broken = (await ask(client, "broken")).choices[0].message.tool_calls or []
    assert [c.function.arguments for c in broken if c.type == "function"] == ['{"command": ']
    empty = (await ask(client, "empty")).choices[0]
    assert (empty.message.content, empty.message.tool_calls) == (None, None)
    reasoned = (await ask(client, "reasoning")).choices[0]
    assert getattr(reasoned.message, "reasoning", None) == "Two and two."
    assert reasoned.finish_reason == "length"
    usage = (await ask(client, "usage")).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (120_000, 7)
    assert usage.total_tokens == 120_007


async def test_knobs_of_an_error(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as unavailable:
        await ask(client, "error")
    assert unavailable.value.status_code == 503
    assert unavailable.value.code == "scripted_error"
    assert unavailable.value.response.headers["retry-after"] == "7"
    with pytest.raises(openai.RateLimitError, match="slow down") as busy:
        await ask(client, "overload")
    assert busy.value.code == "busy"
    with pytest.raises(openai.InternalServerError) as textual:
        await ask(client, "textual")
    assert textual.value.response.text == "upstream died"


async def test_garbage_is_sent_as_it_stands(client: AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model="any", messages=history({"role": "user", "content": "garbage"})
    )
    assert raw.http_response.text == "<html>not json</html>"
    with pytest.raises(json.JSONDecodeError):
        await ask(client, "garbage")
    stream = await client.chat.completions.create(
        model="any", messages=history({"role": "user", "content": "badstream"}), stream=True
    )
    with pytest.raises(json.JSONDecodeError):
        await _rest(aiter(stream))


async def test_a_dropped_connection(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.APIConnectionError):
        await ask(client, "drop")
    stream = await client.chat.completions.create(
        model="any", messages=history({"role": "user", "content": "drop"}), stream=True
    )
    chunks = aiter(stream)
    assert (await anext(chunks)).system_fingerprint == "scripted:drop"
    with pytest.raises(openai.APIConnectionError):
        await _rest(chunks)
    assert (await ask(client, "empty")).model == "berth-scripted"


async def test_a_delay_and_a_client_that_does_not_wait(client: AsyncOpenAI) -> None:
    start = time.monotonic()
    assert (await ask(client, "slow")).choices[0].message.content == "at last"
    assert time.monotonic() - start >= 0.4
    with pytest.raises(openai.APITimeoutError):
        await ask(client.with_options(timeout=0.1), "slow")


async def test_a_turn_that_repeats_forever(client: AsyncOpenAI) -> None:
    messages: list[dict[str, Any]] = []
    for turn in range(5):
        message = (await ask(client, "loop", *messages)).choices[0].message
        assert [call.id for call in message.tool_calls or ()] == [f"call_{turn}_0"]
        done = {"role": "tool", "tool_call_id": f"call_{turn}_0", "content": "exit code: 0"}
        messages += [message.to_dict(), done]


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"messages": []}', b'{"messages": [{"role": 1}]}', b"\xff"]
)
async def test_a_request_that_is_not_one(url: str, body: bytes) -> None:
    async with httpx2.AsyncClient() as http:
        response = await http.post(f"{url}/chat/completions", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_request"
