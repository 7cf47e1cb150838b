"""What the loop's tests put around it: tools with prepared results, and a clock that is held."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from pydantic import TypeAdapter

from orchestrator.domain.conversation import ToolResult, ToolSpec
from orchestrator.ports import Progress

T = TypeVar("T")
Answer = Callable[[dict[str, object]], Awaitable[ToolResult]]

ANYTHING = '{"type": "object"}'
PATH = '{"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}'


@dataclass(slots=True)
class HeldClock:
    """A `ports.Clock` that stands still until a test moves it."""

    seconds: float = 0.0

    def now(self) -> datetime:
        return datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


class PlainSteps:
    """`ports.Steps` that keep nothing: the loop's tests run it once."""

    async def run(self, name: str, kind: type[T], work: Callable[[], Awaitable[T]]) -> T:
        result = await work()
        assert isinstance(result, kind)
        return result


@dataclass(slots=True)
class KeptSteps:
    """`ports.Steps` in memory: what was completed once is returned when the loop runs again."""

    kept: dict[str, object] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)

    async def run(self, name: str, kind: type[T], work: Callable[[], Awaitable[T]]) -> T:
        if name not in self.kept:
            self.kept[name] = TypeAdapter(kind).dump_json(await work())
            self.done.append(name)
        kept = self.kept[name]
        assert isinstance(kept, bytes)
        return TypeAdapter(kind).validate_json(kept)


@dataclass(slots=True)
class PreparedTools:
    """A `ports.Toolbox` whose tools answer by functions; it remembers the calls it got."""

    answers: dict[str, Answer]
    schemas: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    async def tools(self) -> Sequence[ToolSpec]:
        return [
            ToolSpec(name, f"The tool {name}.", self.schemas.get(name, ANYTHING))
            for name in self.answers
        ]

    async def call(
        self,
        name: str,
        arguments: dict[str, object],
        *,
        key: str = "",
        progress: Progress | None = None,
    ) -> ToolResult:
        self.calls.append((name, arguments))
        return await self.answers[name](arguments)


def always(text: str) -> Answer:
    """A tool with one and the same result."""

    async def answer(_: dict[str, object]) -> ToolResult:
        return ToolResult(text)

    return answer


def counting(text: str) -> Answer:
    """A tool whose results are numbered, so that no two are the same."""
    count = 0

    async def answer(_: dict[str, object]) -> ToolResult:
        nonlocal count
        count += 1
        return ToolResult(f"{text} {count}")

    return answer
