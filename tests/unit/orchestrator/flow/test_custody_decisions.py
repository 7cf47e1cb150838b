"""Which checkpoints are taken out of a container, and what it takes to bring a tree back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.conversation import ToolCall
from orchestrator.domain.manifest import Checkpoint
from orchestrator.domain.task import StartPoint
from orchestrator.errors import BundleRefused
from orchestrator.flow.export import listed
from orchestrator.flow.restore import DoneCall, Restored, missing, reached
from orchestrator.flow.stored import newest_step
from orchestrator.ports import HeldCheckpoints, HeldPart, Origin

START, ONE, TWO, STATE = ("0" * 40, "1" * 40, "2" * 40, "a" * 40)
ORIGIN = Origin("w", "code", None, StartPoint("code", START, "main"))


def part(**changes: object) -> HeldPart:
    whole = {
        "name": "code",
        "start": START,
        "commit": TWO,
        "state": STATE,
        "checkpoints": {"2": ONE, "10": TWO},
    }
    return HeldPart(**(whole | changes))  # type: ignore[arg-type]  # a test's own wrong values


def done(*steps: int) -> list[DoneCall]:
    return [DoneCall(step, ToolCall(f"c{step}", "bash", "{}")) for step in steps]


class TestListed:
    def test_in_order_of_the_steps_and_the_newest_with_its_state(self) -> None:
        assert listed(part(), ORIGIN, "12") == (
            Checkpoint(step=2, repository="code", commit=ONE),
            Checkpoint(step=10, repository="code", commit=TWO),
            Checkpoint(step=12, repository="code", commit=TWO, state=STATE),
        )

    @pytest.mark.parametrize(
        ("changes", "key"),
        [
            ({"state": "HEAD"}, "12"),
            ({"commit": ""}, "12"),
            ({"start": ONE}, "12"),
            ({"start": ""}, "12"),
            ({"checkpoints": {"2": "--upload-pack=x"}}, "12"),
            ({"checkpoints": {"../x": ONE}}, "12"),
            ({"checkpoints": {"9" * 40: ONE}}, "12"),
            ({}, "start"),
        ],
    )
    def test_what_cannot_be_is_refused(self, changes: dict[str, object], key: str) -> None:
        with pytest.raises(BundleRefused):
            listed(part(**changes), ORIGIN, key)


class TestNewestStep:
    def checkpoint(self, step: int, repository: str, state: str | None = STATE) -> Checkpoint:
        return Checkpoint(step=step, repository=repository, commit=ONE, state=state)

    def test_only_a_step_with_all_repositories_counts(self) -> None:
        stored = [
            self.checkpoint(2, "a"),
            self.checkpoint(2, "b"),
            self.checkpoint(4, "a"),
            self.checkpoint(4, "b", None),
        ]
        found = newest_step(stored, ["a", "b"], None)
        assert found is not None
        assert (found.step, found.states) == (2, {"a": STATE, "b": STATE})

    def test_before_a_step(self) -> None:
        stored = [self.checkpoint(2, "a"), self.checkpoint(4, "a")]
        found = newest_step(stored, ["a"], 4)
        assert found is not None
        assert found.step == 2
        assert newest_step(stored, ["a"], 2) is None
        assert newest_step([], ["a"], None) is None


class TestMissing:
    def test_what_the_newest_checkpoint_or_the_journal_has_is_there(self) -> None:
        held = HeldCheckpoints(True, "4", "", frozenset({"5"}))
        assert missing(done(2, 4, 5), held) == []
        assert missing(done(2, 4, 5, 7), held) == done(7)
        assert reached(held) == 5

    def test_of_a_new_tree_everything_is_missing(self) -> None:
        held = HeldCheckpoints(True)
        assert missing(done(2, 4), held) == done(2, 4)
        assert reached(held) == 0

    @given(st.sets(st.integers(2, 40)), st.integers(0, 40), st.sets(st.integers(2, 40)))
    def test_every_completed_call_is_known_or_missing(
        self, steps: set[int], newest: int, ended: set[int]
    ) -> None:
        key = str(newest) if newest else ""
        held = HeldCheckpoints(True, key, "", frozenset(map(str, ended)))
        found = {each.step for each in missing(done(*sorted(steps)), held)}
        assert found == {step for step in steps if step > newest and step not in ended}


def test_the_sentence_names_what_was_done_again() -> None:
    assert "after step 4." in Restored(True, 4).sentence
    assert "at the start" in Restored(True, 0, (2, 4)).sentence
    assert "2 tool calls" in Restored(True, 0, (2, 4)).sentence
