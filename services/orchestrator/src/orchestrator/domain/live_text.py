"""What a model is saying at this moment, in pieces."""

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of a turn's text as it comes.

    Attributes:
        attempt: Names one speaking of the turn: a turn that is asked for again, after a lost
            connection or a crash, has another.
        offset: How many characters (Unicode code points) of this attempt came before.
        text: The piece; never empty.
    """

    attempt: str
    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class LiveText:
    """A piece of what is being said in a step of a task."""

    task_id: str
    step: int
    delta: TextDelta


def joined(pieces: Iterable[LiveText]) -> list[LiveText]:
    """The pieces with neighbours that continue each other made one."""
    runs: list[list[LiveText]] = []
    for piece in pieces:
        if runs and _continues(runs[-1][-1], piece):
            runs[-1].append(piece)
        else:
            runs.append([piece])
    return [_one(run) for run in runs]


def _continues(before: LiveText, piece: LiveText) -> bool:
    return (before.task_id, before.step, before.delta.attempt) == (
        piece.task_id,
        piece.step,
        piece.delta.attempt,
    ) and piece.delta.offset == before.delta.offset + len(before.delta.text)


def _one(run: list[LiveText]) -> LiveText:
    first = run[0]
    text = "".join(piece.delta.text for piece in run)
    return replace(first, delta=replace(first.delta, text=text))
