"""What the tool calls of the current request belong to: a directory, and variables."""

from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType

from mcp.server.mcpserver.exceptions import ToolError

task_root: ContextVar[Path] = ContextVar("task_root")
"""Root of the current task. One server object serves many tasks, so it is set for each request."""

task_variables: ContextVar[Mapping[str, str]] = ContextVar(
    "task_variables", default=MappingProxyType({})
)
"""Environment variables that the current task's commands get besides those of this process."""


def current_root() -> Path:
    """Return the root of the task that the current request belongs to.

    Raises:
        ToolError: no root was set for this request.
    """
    try:
        return task_root.get()
    except LookupError:
        raise ToolError("no workspace is attached to this request") from None
