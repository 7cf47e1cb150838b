"""The director: decides, from the plays and a request alone, what the model replies."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from pydantic import JsonValue

from gpt_oss.scripted import conversation, template
from gpt_oss.scripted.conversation import ChatRequest, Message, Progress
from gpt_oss.scripted.expectation import Seen, mismatch, unified
from gpt_oss.scripted.play import Play
from gpt_oss.scripted.turn import Action, Alternative, Call, Capture, Turn
from gpt_oss.scripted.value import TemplateError, as_text

_EXCERPT = 400


class ScriptMismatch(ValueError):
    """The conversation is not what the play expects; the message ends with a unified diff."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call as the protocol has it: the arguments are text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Speech:
    """An assistant message.

    Attributes:
        text: Its text, if any.
        calls: Its tool calls.
        reasoning: Its reasoning text, if any.
        finish_reason: Why it ends.
        prompt_tokens: Size of the request.
        completion_tokens: Size of the message.
        cut: Whether the connection drops in the middle of it.
        piece_seconds: How long to wait before each piece of it in a stream.
    """

    text: str | None
    calls: tuple[ToolCall, ...]
    reasoning: str | None
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cut: bool = False
    piece_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class HttpError:
    """An error status with a JSON or text body; None stands for the usual error object."""

    status: int
    body: JsonValue = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawBody:
    """A body that is sent as it stands, sense or not."""

    text: str


Outcome = Speech | HttpError | RawBody


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model does now, and in which play.

    Attributes:
        play: Name of the play.
        position: Number of the reply in it, from 0.
        delay_seconds: How long to wait first.
        outcome: What is sent then.
    """

    play: str
    position: int
    delay_seconds: float
    outcome: Outcome


def direct(plays: Sequence[Play], request: ChatRequest) -> Reply:
    """Decide the reply to a request.

    Args:
        plays: All plays in the order in which they are tried.
        request: The whole conversation.

    Raises:
        ScriptMismatch: No play fits, the play is over, an expectation does not hold, no
            alternative fits, or a template asks for what the conversation does not have.
    """
    play, start = choose_play(plays, request.messages)
    progress = conversation.progress(request.messages, start)
    index = play.turn_at(progress.position)
    if index is None:
        raise ScriptMismatch(
            f"Play {play.name!r} is over: it has no reply number {progress.position}.\n"
            + unified(["(no further request)"], [f"last message: {request.messages[-1].role}"])
        )
    where = f"play {play.name!r}, turn {index}"
    turn = play.turns[index]
    if diff := mismatch(turn.expect, Seen(request, progress)):
        raise ScriptMismatch(f"The request is not what {where} expects.\n{diff}")
    try:
        context = template.Context(
            query=progress.query,
            results=progress.results,
            captures=_captures(play, index, progress),
            examples=[example for each in plays for example in each.examples],
        )
        action = _choose(turn, progress)
        outcome = _outcome(action, context, progress.position, request)
    except TemplateError as error:
        got = [
            line
            for number, text in enumerate(progress.results)
            for line in (f"tool[{number}]:", *text[:_EXCERPT].split("\n"))
        ]
        raise ScriptMismatch(
            f"The conversation lacks what {where} needs.\n"
            + unified([str(error)], got or ["(no tool results)"])
        ) from error
    return Reply(play.name, progress.position, action.delay_seconds, outcome)


def choose_play(plays: Sequence[Play], messages: Sequence[Message]) -> tuple[Play, int]:
    """Return the play that is on, and the index of the user message that started it.

    The first user message starts the first play that fits it. A later one starts another only
    if it directly follows an answer and a play for particular queries fits it; so notes and
    messages that arrive during a play change nothing.
    """
    current: tuple[Play, int] | None = None
    answered = False
    for index, message in enumerate(messages):
        if message.role == "user" and (answered or current is None):
            fitting = next((play for play in plays if play.when.fits(message.text)), None)
            if fitting and (current is None or not fitting.when.always):
                current = (fitting, index)
            elif current is None:
                raise ScriptMismatch(
                    "No play fits the first user message.\n"
                    + unified(
                        [f"a query for {play.name}" for play in plays],
                        message.text[:_EXCERPT].split("\n"),
                    )
                )
        if message.role not in ("system", "developer"):
            answered = message.is_answer
    if current is None:
        raise ScriptMismatch(
            "The request has no user message.\n"
            + unified(["user"], [message.role for message in messages])
        )
    return current


def _captures(play: Play, index: int, progress: Progress) -> dict[str, str]:
    """Catch the named groups of this turn and, as far as they are still there, earlier ones."""
    caught: dict[str, str] = {}
    for number, turn in enumerate(play.turns[: index + 1]):
        context = template.Context(
            query=progress.query,
            results=progress.results[: _results_before(play, number, progress)],
            captures=caught,
        )
        for capture in turn.capture:
            try:
                caught |= _catch(capture, context)
            except TemplateError:
                # It held when that turn was played, so a client has dropped messages since. Only
                # a template that asks for the group makes this an error.
                if number == index:
                    raise
    return caught


def _results_before(play: Play, index: int, progress: Progress) -> int:
    """Return how many tool results there were when a turn was played first."""
    first = play.first_position(index)
    places = (given.results_before for given in progress.given if given.position == first)
    return next(places, len(progress.results) if play.turn_at(progress.position) == index else 0)


def _catch(capture: Capture, context: template.Context) -> dict[str, str]:
    text = as_text(template.parse_expression(capture.source).evaluate(context))
    found = capture.pattern.search(text)
    if found is None:
        raise TemplateError(f"capture {capture.pattern.pattern!r} is not found in {capture.source}")
    return found.groupdict(default="")


def _choose(turn: Turn, progress: Progress) -> Action:
    if not turn.choose:
        return turn
    last = progress.results[-1] if progress.results else ""
    for alternative in turn.choose:
        if _fits(alternative, progress.query, last):
            return alternative
    raise TemplateError(
        "a tool result or query that fits one of: "
        + ", ".join(_condition(alternative) for alternative in turn.choose)
    )


def _fits(alternative: Alternative, query: str, result: str) -> bool:
    conditions = (
        (alternative.when_tool_matches, result),
        (alternative.when_query_matches, query),
    )
    return all(regex is None or regex.search(text) for regex, text in conditions)


def _condition(alternative: Alternative) -> str:
    patterns = (alternative.when_tool_matches, alternative.when_query_matches)
    return " and ".join(repr(regex.pattern) for regex in patterns if regex)


def _outcome(
    action: Action, context: template.Context, position: int, request: ChatRequest
) -> Outcome:
    if action.status is not None:
        return HttpError(action.status, action.body, action.headers)
    if action.raw is not None:
        return RawBody(action.raw)
    text = None if action.say is None else template.parse(action.say).fill(context)
    reasoning = None if action.reasoning is None else template.parse(action.reasoning).fill(context)
    calls = tuple(
        ToolCall(conversation.call_id(position, number), call.tool, _arguments(call, context))
        for number, call in enumerate(action.calls)
    )
    said = len(text or "") + len(reasoning or "")
    said += sum(len(call.name) + len(call.arguments) for call in calls)
    prompt, completion = action.usage.prompt_tokens, action.usage.completion_tokens
    return Speech(
        text=text,
        calls=calls,
        reasoning=reasoning,
        finish_reason=action.finish_reason or ("tool_calls" if calls else "stop"),
        prompt_tokens=request.estimated_tokens() if prompt is None else prompt,
        completion_tokens=(
            conversation.estimated_tokens(said) if completion is None else completion
        ),
        cut=action.drop_connection,
        piece_seconds=action.piece_seconds,
    )


def _arguments(call: Call, context: template.Context) -> str:
    if call.raw_arguments is not None:
        return call.raw_arguments
    return json.dumps(_filled(call.arguments or {}, context), ensure_ascii=False)


def _filled(value: JsonValue, context: template.Context) -> JsonValue:
    fill = partial(_filled, context=context)
    if isinstance(value, str):
        return template.parse(value).fill_value(context)
    if isinstance(value, list):
        return [fill(item) for item in value]
    if isinstance(value, dict):
        return {key: fill(item) for key, item in value.items()}
    return value
