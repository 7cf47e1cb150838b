"""What a task may spend, and the decision whether it may go on."""

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.errors import BudgetExhausted


class StopReason(StrEnum):
    """Why a task's loop ended."""

    ANSWERED = "answered"
    MAX_STEPS = "max_steps"
    MAX_TOKENS = "max_tokens"
    MAX_SECONDS = "max_seconds"
    INVALID_TURNS = "invalid_turns"
    REPEATED_CALL = "repeated_call"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of one task.

    `max_steps` counts model and tool calls, `max_tokens` prompt and completion tokens of all
    calls together, `max_seconds` wall time from the start of the loop.
    """

    max_steps: int
    max_tokens: int
    max_seconds: float


@dataclass(frozen=True, slots=True)
class Spent:
    """What a task has spent so far, in the units of `Budget`."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0


def exhausted(budget: Budget, spent: Spent) -> StopReason | None:
    """The limit that forbids another step, or None if the task may go on."""
    if spent.seconds >= budget.max_seconds:
        return StopReason.MAX_SECONDS
    if spent.tokens >= budget.max_tokens:
        return StopReason.MAX_TOKENS
    if spent.steps >= budget.max_steps:
        return StopReason.MAX_STEPS
    return None


def used_up(reason: StopReason, budget: Budget) -> BudgetExhausted:
    """The error that tells which limit a task reached."""
    limit = {
        StopReason.MAX_STEPS: f"{budget.max_steps} steps",
        StopReason.MAX_TOKENS: f"{budget.max_tokens:,} tokens",
        StopReason.MAX_SECONDS: f"{budget.max_seconds:,.10g} seconds",
    }[reason]
    return BudgetExhausted(
        f"The task used up its budget of {limit} before the model answered. What it did is kept; "
        "give a larger budget to go further.",
        reason=reason.value,
    )
