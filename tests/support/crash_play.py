"""The task of the crash sweep: fifteen steps of every kind, and the moments to kill at.

Odd steps up to 11 are model calls with one tool call after each; the sixth turn makes three calls,
and step 15 is the answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests.support.gated_model import Call, Turn
from tests.support.sleepers import wakeable

LINES = ["one", "two", "three"]
"""What `log.txt` holds in the end: each line is appended once."""

_COMMIT = (
    "export GIT_AUTHOR_DATE=2024-01-02T03:04:05Z GIT_COMMITTER_DATE=2024-01-02T03:04:05Z; "
    "git add -A && git -c user.name=Ada -c user.email=ada@example.org commit -q -m work; "
)
_PATCH = """*** Begin Patch
*** Update File: README.md
@@
-# Sample
+# Sweep
*** Add File: added/by-patch.txt
+added
*** End Patch"""


class When(StrEnum):
    """Where in a step a process is killed."""

    ACCEPTED = "accepted"
    """The task is recorded and nothing else is known."""
    ASKED = "asked"
    """The step before is recorded; the model has been asked and has not answered."""
    ANSWERED = "answered"
    """The model has answered; the orchestrator stands still before it reads that."""
    SENT = "sent"
    """The step before is recorded; the worker stands still before it begins the call."""
    MIDDLE = "middle"
    """The tool is at work: its call is in the journal and has no result."""
    EFFECT = "effect"
    """The worker has recorded the result; the orchestrator stands still before it does."""
    ENDING = "ending"
    """The answer is recorded; the worker stands still before it gives the patch."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the task: the model's turn it belongs to, and its call there, if it is one."""

    number: int
    turn: int
    call: int | None = None
    tool: str = ""


@dataclass(frozen=True, slots=True)
class Moment:
    """When to kill."""

    step: Step
    when: When

    @property
    def is_in_command(self) -> bool:
        """Whether a command has to sleep for this moment."""
        return self.when is When.MIDDLE and self.step.tool == "bash"

    def __str__(self) -> str:
        return f"{self.step.number}-{self.step.tool or 'model'}-{self.when}"


def turns(pause_in: int = 0, seconds: int = 0) -> list[Turn]:
    """What the model calls; the command of step `pause_in` sleeps in its middle."""

    def bash(step: int, before: str, after: str) -> Call:
        pause = wakeable(seconds) if step == pause_in else ""
        return Call("bash", {"command": before + pause + after})

    return [
        (Call("write_file", {"path": "notes/first.txt", "content": "first\n"}),),
        (bash(4, "echo one >> log.txt; ", "echo two >> log.txt; wc -l < log.txt"),),
        (
            bash(
                6,
                "for n in $(seq 10); do echo $n >> long.txt; sleep 0.02; done; ",
                "chmod 755 long.txt; ln -s long.txt link; wc -l < long.txt",
            ),
        ),
        (bash(8, _COMMIT, "git rev-parse HEAD; git rev-list --count HEAD; git status --short"),),
        (Call("apply_patch", {"input": _PATCH}),),
        (
            Call("read_text_file", {"path": "log.txt"}),
            bash(13, "mv notes/first.txt notes/second.txt; rm data.bin; ", "ls -R"),
            bash(14, "echo three >> log.txt; ", "cat log.txt; git log --format=%H"),
        ),
    ]


def steps() -> list[Step]:
    """All steps, numbered as the orchestrator does."""
    found: list[Step] = []
    for turn, calls in enumerate([*turns(), ()]):
        found.append(Step(len(found) + 1, turn))
        for number, call in enumerate(calls):
            found.append(Step(len(found) + 1, turn, number, call.tool))
    return found


def moments() -> list[Moment]:
    """Every moment of the sweep, in the order of the task."""
    found = [Moment(steps()[0], When.ACCEPTED)]
    for step in steps():
        found += [Moment(step, when) for when in _whens(step)]
    return [*found, Moment(steps()[-1], When.ENDING)]


def _whens(step: Step) -> Iterator[When]:
    if step.call is None:
        yield from (When.ASKED, When.ANSWERED)
        return
    yield When.SENT
    if step.tool != "read_text_file":  # what only reads is journalled at its end alone
        yield When.MIDDLE
    yield When.EFFECT
