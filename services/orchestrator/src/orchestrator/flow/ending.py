"""Decide how a task ended."""

from dataclasses import dataclass

from orchestrator.agent import Ledger
from orchestrator.domain.budget import StopReason
from orchestrator.domain.task import Ending, Patch, Receipt, TaskError, TaskStatus
from orchestrator.errors import (
    BerthError,
    BudgetExhausted,
    ModelMisbehaved,
    ModelRepeatedItself,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a task's work: an answer, or why there is none."""

    status: TaskStatus
    stop_reason: StopReason
    answer: str = ""
    error: TaskError | None = None


def answered(answer: str) -> Outcome:
    """The model answered."""
    return Outcome(TaskStatus.SUCCEEDED, StopReason.ANSWERED, answer)


def cancelled() -> Outcome:
    """Somebody, or the service's own shutdown, cancelled the task."""
    error = TaskError("cancelled", "The task was cancelled; what it did so far is in its diff.")
    return Outcome(TaskStatus.CANCELLED, StopReason.CANCELLED, error=error)


def failed(error: BerthError) -> Outcome:
    """An error ended the task."""
    told = TaskError(error.code, error.detail)
    return Outcome(TaskStatus.FAILED, _stop_reason(error), error=told)


def conclude(outcome: Outcome, ledger: Ledger, patch: Patch, wall_seconds: float) -> Ending:
    """Everything that is known of a task at its end."""
    left_out = [
        f"{path} is changed but not in the diff (a nested repository, unreadable, or too large)."
        for path in patch.left_out
    ]
    receipt = Receipt(
        prompt_tokens=ledger.prompt_tokens,
        completion_tokens=ledger.completion_tokens,
        model_seconds=ledger.model_seconds,
        tool_seconds=ledger.tool_seconds,
        wall_seconds=wall_seconds,
    )
    return Ending(
        status=outcome.status,
        stop_reason=outcome.stop_reason,
        answer=outcome.answer,
        patch=patch,
        steps=ledger.steps,
        receipt=receipt,
        error=outcome.error,
        notices=(*ledger.notices, *left_out),
    )


def _stop_reason(error: BerthError) -> StopReason:
    if isinstance(error, BudgetExhausted):
        return StopReason(str(error.facts["reason"]))
    if isinstance(error, ModelMisbehaved):
        return StopReason.INVALID_TURNS
    if isinstance(error, ModelRepeatedItself):
        return StopReason.REPEATED_CALL
    return StopReason.ERROR
