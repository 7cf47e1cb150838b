"""Turns: what a play expects of one request, and what the model then says or does."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from gpt_oss.scripted import template


def _compile(flags: re.RegexFlag, pattern: object) -> object:
    if not isinstance(pattern, str):
        return pattern
    try:
        return re.compile(pattern, flags)
    except re.error as error:
        raise ValueError(f"bad regular expression {pattern!r}: {error}") from error


def _check_template(text: str) -> str:
    template.parse(text)
    return text


def _check_expression(text: str) -> str:
    template.parse_expression(text)
    return text


def _texts_in(value: JsonValue) -> Iterator[str]:
    """Yield every text in a JSON value; keys of objects are not templates and are left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts_in(item)


def _check_arguments(arguments: dict[str, JsonValue]) -> dict[str, JsonValue]:
    for text in _texts_in(arguments):
        template.parse(text)
    return arguments


Regex = Annotated[re.Pattern[str], BeforeValidator(lambda raw: _compile(re.MULTILINE, raw))]
QueryRegex = Annotated[
    re.Pattern[str], BeforeValidator(lambda raw: _compile(re.MULTILINE | re.IGNORECASE, raw))
]
TemplateText = Annotated[str, AfterValidator(_check_template)]
ExpressionText = Annotated[str, AfterValidator(_check_expression)]
Arguments = Annotated[dict[str, JsonValue], AfterValidator(_check_arguments)]


class Part(BaseModel):
    """A part of a play; an unknown key or a value of another type is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Expect(Part):
    """What the request must look like; a mismatch is answered with HTTP 400 and a diff.

    Attributes:
        tools_offered: Tools that must be among those offered.
        tools_not_offered: Tools that must not be.
        last_role: Role of the last message.
        last_contains: Text in the last message.
        last_matches: Regular expression found in the last message.
        last_tool_name: Tool that gave the last tool result.
        last_tool_contains: Text in the last tool result.
        last_tool_matches: Regular expression found in the last tool result.
        tool_results: Number of tool results since the play started.
        message_count: Number of messages in the request.
        max_message_count: The most messages that the request may have.
        system_contains: Text in the system or developer messages.
        stream: Whether the answer is asked for as a stream.
        model: Name of the model asked for.
    """

    tools_offered: list[str] | None = None
    tools_not_offered: list[str] | None = None
    last_role: str | None = None
    last_contains: str | None = None
    last_matches: Regex | None = None
    last_tool_name: str | None = None
    last_tool_contains: str | None = None
    last_tool_matches: Regex | None = None
    tool_results: int | None = None
    message_count: int | None = None
    max_message_count: int | None = None
    system_contains: str | None = None
    stream: bool | None = None
    model: str | None = None


class Capture(Part):
    """Catches named groups, for `{{ capture.NAME }}` in this turn and later ones.

    Attributes:
        source: Expression whose value is searched (key `from`).
        pattern: Regular expression with named groups; it must be found.
    """

    source: ExpressionText = Field(alias="from", default="tool[-1]")
    pattern: Regex

    @model_validator(mode="after")
    def _has_names(self) -> Self:
        if not self.pattern.groupindex:
            raise ValueError("the pattern has no named group (?P<name>...)")
        return self


class Call(Part):
    """A tool call.

    Attributes:
        tool: Name of the tool; it need not be offered.
        arguments: Its arguments.
        raw_arguments: The arguments as text, sent verbatim, to play invalid JSON.
    """

    tool: str
    arguments: Arguments | None = None
    raw_arguments: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.arguments is not None and self.raw_arguments is not None:
            raise ValueError("give arguments or raw_arguments, not both")
        return self


class UsageOverride(Part):
    """Token counts to report instead of the estimate of four characters a token."""

    prompt_tokens: int | None = Field(default=None, ge=0)
    completion_tokens: int | None = Field(default=None, ge=0)


class Action(Part):
    """What the model does. One of: speak (`say`, `calls`), `empty`, `status`, `raw`.

    Attributes:
        say: Text of the message.
        calls: Tool calls of the message.
        reasoning: Reasoning text of the message.
        finish_reason: Instead of `tool_calls` or `stop`.
        usage: Token counts instead of the estimate.
        empty: A message with neither text nor calls.
        status: An HTTP error with this status.
        body: Its body; default: an error object in the usual form.
        headers: Its extra headers.
        raw: A body sent verbatim with status 200.
        delay_seconds: Wait before the answer.
        piece_seconds: Wait before each piece of a streamed answer.
        drop_connection: Cut the connection in the middle of the message.
    """

    say: TemplateText | None = None
    calls: list[Call] = Field(default_factory=list)
    reasoning: TemplateText | None = None
    finish_reason: str | None = None
    usage: UsageOverride = UsageOverride()
    empty: bool = False
    status: int | None = Field(default=None, ge=400, le=599)
    body: JsonValue = None
    headers: dict[str, str] = Field(default_factory=dict)
    raw: str | None = None
    delay_seconds: float = Field(default=0, ge=0)
    piece_seconds: float = Field(default=0, ge=0)
    drop_connection: bool = False

    def kinds(self) -> list[str]:
        """Name the kinds of action that the keys ask for; there must be exactly one."""
        speaks = self.say is not None or self.calls
        asked = {
            "say or calls": bool(speaks or (self.drop_connection and not self.empty)),
            "empty": self.empty,
            "status": self.status is not None,
            "raw": self.raw is not None,
        }
        return [kind for kind, given in asked.items() if given]

    @model_validator(mode="after")
    def _error_parts(self) -> Self:
        if self.status is None and (self.headers or self.body is not None):
            raise ValueError("body and headers need a status")
        return self


class Alternative(Action):
    """One of a turn's choices: taken if all its conditions hold, so one without is the rest.

    Attributes:
        when_tool_matches: Regular expression found in the last tool result.
        when_query_matches: Regular expression found in the query, case ignored.
    """

    when_tool_matches: Regex | None = None
    when_query_matches: QueryRegex | None = None

    @model_validator(mode="after")
    def _one_action(self) -> Self:
        _require_one(self.kinds())
        return self


class Turn(Action):
    """One answer of the model.

    Attributes:
        expect: What the request must look like.
        capture: Texts to remember for templates.
        choose: Alternatives; the first that fits is played. They replace the turn's own action.
        repeat: Play this turn again for so many following turns, or `forever`.
    """

    expect: Expect = Expect()
    capture: list[Capture] = Field(default_factory=list)
    choose: list[Alternative] = Field(default_factory=list)
    repeat: Annotated[int, Field(ge=0)] | Literal["forever"] = 0

    @model_validator(mode="after")
    def _one_action(self) -> Self:
        if self.choose and (ignored := self.model_fields_set & Action.model_fields.keys()):
            raise ValueError(f"put into the alternatives of choose: {', '.join(sorted(ignored))}")
        _require_one([*self.kinds(), *(["choose"] if self.choose else [])])
        return self


def _require_one(kinds: list[str]) -> None:
    if len(kinds) != 1:
        given = " and ".join(kinds) or "none"
        raise ValueError(
            f"give exactly one of say/calls, choose, empty, status, raw, drop_connection: {given}"
        )
