"""The steps of a task as they are kept: what a loop that runs again is told instead of doing them.

Their form is a contract with tasks that were begun by an earlier release: fields may be added with
a default, and none may go.
"""

from dataclasses import dataclass

from orchestrator.domain.conversation import Message, ModelTurn, ToolResult, ToolSpec

TOOLS = "tools"
CONVERSATION = "conversation"
MODEL = "model"
TOOL = "tool"

EMPTY_ANSWER = "Your last turn had neither an answer nor a tool call. Call a tool, or answer."
REPEATED = "\n[You have now made this call {count} times with this same result. Do something else.]"


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A completed step: its name, and its result as JSON."""

    name: str
    output: str

    @property
    def kind(self) -> str:
        """What sort of step it is: the first word of its name."""
        return self.name.split(" ", 1)[0]

    @property
    def number(self) -> int:
        """The number of a model or tool step; 0 for the others."""
        words = self.name.split(" ")
        return int(words[1]) if len(words) > 1 and words[1].isdecimal() else 0


@dataclass(frozen=True, slots=True)
class UserMessage:
    """What a user said to a task while it ran; `number` rises by one within a task, from 1."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Offered:
    """The tools on offer."""

    offered: tuple[ToolSpec, ...]


@dataclass(frozen=True, slots=True)
class Inherited:
    """The conversation of an earlier task that this one builds on."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A model call; `heard` is what the user had said before it."""

    turn: ModelTurn
    seconds: float
    heard: tuple[UserMessage, ...] = ()


@dataclass(frozen=True, slots=True)
class Called:
    """A tool call."""

    result: ToolResult
    seconds: float


def model_step(number: int) -> str:
    """The name of a model step."""
    return f"{MODEL} {number}"


def tool_step(number: int, tool: str) -> str:
    """The name of a tool step."""
    return f"{TOOL} {number} {tool}"
