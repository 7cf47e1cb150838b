"""What the loop's tests put around it: tools with prepared results, and a clock that is held."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from orchestrator.domain.conversation import ToolResult, ToolSpec
from orchestrator.ports import Progress

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
        self, name: str, arguments: dict[str, object], progress: Progress | None = None
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
