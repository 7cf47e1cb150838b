"""Expectations: what a turn asks of a request, checked one by one and reported as a diff."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpt_oss.scripted.conversation import ChatRequest, Message, Progress, tool_name
from gpt_oss.scripted.turn import Expect

_EXCERPT = 600


@dataclass(frozen=True, slots=True)
class Seen:
    """What expectations look at."""

    request: ChatRequest
    progress: Progress

    @property
    def last(self) -> Message:
        """The last message."""
        return self.request.messages[-1]

    @property
    def last_result(self) -> Message | None:
        """The last tool result, if there is one."""
        results = (m for m in reversed(self.request.messages) if m.role == "tool")
        return next(results, None)

    @property
    def last_result_text(self) -> str:
        """Text of the last tool result, empty if there is none."""
        return self.last_result.text if self.last_result else ""

    @property
    def last_result_tool(self) -> str:
        """Name of the tool that gave the last tool result, empty if there is none."""
        return tool_name(self.request.messages, self.last_result) if self.last_result else ""

    @property
    def system_text(self) -> str:
        """Text of all system and developer messages."""
        texts = (m.text for m in self.request.messages if m.role in ("system", "developer"))
        return "\n".join(texts)


@dataclass(frozen=True, slots=True)
class Check:
    """How one key of `expect` is checked: what it reads, and when that is as expected."""

    read: Callable[[Seen], Any]
    holds: Callable[[Any, Any], bool]
    verb: str = ""


def _equal(expected: object, got: object) -> bool:
    return expected == got


def _contains(expected: str, got: str) -> bool:
    return expected in got


def _found(expected: re.Pattern[str], got: str) -> bool:
    return expected.search(got) is not None


CHECKS: Mapping[str, Check] = {
    "tools_offered": Check(
        lambda seen: seen.request.tool_names, lambda want, got: set(want) <= set(got)
    ),
    "tools_not_offered": Check(
        lambda seen: seen.request.tool_names, lambda want, got: not set(want) & set(got), "none of"
    ),
    "last_role": Check(lambda seen: seen.last.role, _equal),
    "last_contains": Check(lambda seen: seen.last.text, _contains, "contains"),
    "last_matches": Check(lambda seen: seen.last.text, _found, "matches"),
    "last_tool_name": Check(lambda seen: seen.last_result_tool, _equal),
    "last_tool_contains": Check(lambda seen: seen.last_result_text, _contains, "contains"),
    "last_tool_matches": Check(lambda seen: seen.last_result_text, _found, "matches"),
    "tool_results": Check(lambda seen: len(seen.progress.results), _equal),
    "message_count": Check(lambda seen: len(seen.request.messages), _equal),
    "max_message_count": Check(
        lambda seen: len(seen.request.messages), lambda want, got: got <= want, "at most"
    ),
    "system_contains": Check(lambda seen: seen.system_text, _contains, "contains"),
    "stream": Check(lambda seen: bool(seen.request.stream), _equal),
    "model": Check(lambda seen: seen.request.model, _equal),
}


def mismatch(expect: Expect, seen: Seen) -> str:
    """Return a unified diff of what was expected and what came, empty if all holds."""
    wanted: list[str] = []
    got: list[str] = []
    for key, check in CHECKS.items():
        expected = getattr(expect, key)
        if expected is None:
            continue
        actual = check.read(seen)
        lines = _lines(key, expected, check.verb)
        wanted += lines
        got += lines if check.holds(expected, actual) else _lines(key, actual)
    return unified(wanted, got)


def unified(expected: Sequence[str], got: Sequence[str]) -> str:
    """Return a unified diff of lines, empty if they are the same."""
    return "\n".join(difflib.unified_diff(expected, got, "expected", "got", lineterm=""))


def _lines(key: str, value: object, verb: str = "") -> list[str]:
    head = f"{key}: {verb}".rstrip()
    if isinstance(value, list):
        return [head, *(f"  - {item}" for item in value)]
    text = value.pattern if isinstance(value, re.Pattern) else str(value)
    if len(text) > _EXCERPT:
        text = f"{text[: _EXCERPT // 2]}\n[...]\n{text[-_EXCERPT // 2 :]}"
    if "\n" in text:
        return [head, *(f"  | {line}" for line in text.split("\n"))]
    return [f"{head} {text}".rstrip()]
