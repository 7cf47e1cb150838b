"""A toolbox that cuts long results for the model and keeps the whole where it can be read."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from orchestrator.domain.conversation import ToolResult, ToolSpec
from orchestrator.domain.excerpt import excerpt
from orchestrator.ports import Progress, Toolbox


class OutputKeeper(Protocol):
    """What of `ports.Worker` is needed here."""

    async def keep_output(self, task_id: str, name: str, text: str) -> str:
        """Keep a long tool output in the task's tree; returns the path the model can read."""
        ...


class KeptOutput:
    """Wraps a toolbox of one task.

    Args:
        inner: The toolbox whose results are cut.
        keeper: Keeps the whole results in the task's tree; the task's worker.
        task_id: The task.
        limit: Most characters of a result that the model gets.
        prefix: What the names of kept files begin with.
    """

    def __init__(
        self, inner: Toolbox, keeper: OutputKeeper, task_id: str, limit: int, prefix: str = ""
    ) -> None:
        self._inner = inner
        self._keeper = keeper
        self._task_id = task_id
        self._limit = limit
        self._prefix = prefix

    async def tools(self) -> Sequence[ToolSpec]:
        """The inner toolbox's tools."""
        return await self._inner.tools()

    async def call(
        self,
        name: str,
        arguments: dict[str, object],
        *,
        key: str = "",
        progress: Progress | None = None,
    ) -> ToolResult:
        """Call the tool; a long result is cut, and a note in it says where the whole lies."""
        result = await self._inner.call(name, arguments, key=key, progress=progress)
        if len(result.text) <= self._limit:
            return result
        file = f"{self._prefix}{key.zfill(4)}-{name}.txt"
        path = await self._keeper.keep_output(self._task_id, file, result.text)
        return replace(result, text=excerpt(result.text, self._limit, f"the whole is in {path}"))
