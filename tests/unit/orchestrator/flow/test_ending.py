"""How a task ended: from an outcome, a ledger and a patch."""

import pytest

from orchestrator import errors
from orchestrator.agent import Ledger
from orchestrator.domain.budget import Budget, StopReason, used_up
from orchestrator.domain.task import Patch, Receipt, TaskError, TaskStatus
from orchestrator.errors import (
    BerthError,
    ModelMisbehaved,
    ModelRepeatedItself,
    ModelTimeout,
    WorkerUnreachable,
)
from orchestrator.flow.ending import answered, cancelled, conclude, failed

LIMITS = Budget(5, 100, 2.5)


def kinds(root: type[BerthError]) -> list[type[BerthError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in kinds(child))]


def test_an_answer_is_a_success() -> None:
    outcome = answered("Two files.")
    assert (outcome.status, outcome.stop_reason) == (TaskStatus.SUCCEEDED, StopReason.ANSWERED)
    assert (outcome.answer, outcome.error) == ("Two files.", None)


def test_a_cancelled_task_says_where_its_work_is() -> None:
    outcome = cancelled()
    assert (outcome.status, outcome.stop_reason) == (TaskStatus.CANCELLED, StopReason.CANCELLED)
    assert outcome.error is not None
    assert outcome.error.code == "cancelled"
    assert "diff" in outcome.error.detail


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (used_up(StopReason.MAX_STEPS, LIMITS), StopReason.MAX_STEPS),
        (used_up(StopReason.MAX_TOKENS, LIMITS), StopReason.MAX_TOKENS),
        (used_up(StopReason.MAX_SECONDS, LIMITS), StopReason.MAX_SECONDS),
        (ModelMisbehaved("three times"), StopReason.INVALID_TURNS),
        (ModelRepeatedItself("five times"), StopReason.REPEATED_CALL),
        (ModelTimeout("too slow"), StopReason.ERROR),
        (WorkerUnreachable("gone"), StopReason.ERROR),
    ],
)
def test_a_failure_has_the_errors_words_and_its_own_reason(
    error: BerthError, reason: StopReason
) -> None:
    outcome = failed(error)
    assert outcome.status is TaskStatus.FAILED
    assert outcome.stop_reason is reason
    assert outcome.error == TaskError(error.code, error.detail)
    assert outcome.answer == ""


def test_every_kind_of_error_can_end_a_task() -> None:
    for kind in kinds(errors.BerthError):
        outcome = failed(kind("sentence", reason="max_steps"))
        assert outcome.error == TaskError(kind.code, "sentence")


def test_the_ending_tells_what_was_used_and_what_the_diff_lacks() -> None:
    ledger = Ledger(steps=3, prompt_tokens=10, completion_tokens=4, model_seconds=1.5)
    ledger.tool_seconds = 0.25
    ledger.notices["Scripted."] = None
    patch = Patch("diff", ("a",), ("vendor/lib", "big.bin"))
    ending = conclude(answered("Yes."), ledger, patch, 2.0)
    assert ending.receipt == Receipt(10, 4, 1.5, 0.25, 2.0)
    assert (ending.steps, ending.answer, ending.patch) == (3, "Yes.", patch)
    assert ending.notices[0] == "Scripted."
    assert [notice.partition(" ")[0] for notice in ending.notices[1:]] == ["vendor/lib", "big.bin"]


def test_a_failure_keeps_the_work_done_so_far() -> None:
    patch = Patch("diff", ("a",))
    ending = conclude(failed(ModelTimeout("too slow")), Ledger(steps=7), patch, 9.0)
    assert (ending.status, ending.steps, ending.patch) == (TaskStatus.FAILED, 7, patch)
