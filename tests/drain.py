"""Queue many tasks at once and see them drain: `python -m tests.drain`."""

import argparse
import asyncio
import sys

from tests.support.drain import Drained, drain

MEBIBYTE = 2**20


def main() -> int:
    """Drain and report; 1 if a task was lost, failed or out of its turn."""
    parser = argparse.ArgumentParser(prog="drain", description=__doc__)
    parser.add_argument("--runtime", choices=("docker", "sandbox"), default="sandbox")
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--workspaces", type=int, default=20)
    given = parser.parse_args()
    found = asyncio.run(drain(given.runtime, given.tasks, given.workspaces))
    print(f"queued in {found.queued_seconds:.1f} s, drained in {found.seconds:.1f} s: "
          f"{found.tasks / found.seconds:.1f} tasks a second")  # fmt: skip
    print(f"orchestrator: {found.warm / MEBIBYTE:.1f} MB after a quarter, "
          f"{found.end / MEBIBYTE:.1f} MB at the end")  # fmt: skip
    wrong = problems(found)
    print("\n".join(wrong) or "every task ended once, in its turn")
    return 1 if wrong else 0


def problems(found: Drained) -> list[str]:
    """What is not as it should be."""
    wrong = []
    if found.endings != {"succeeded": found.tasks}:
        wrong += [f"endings: {found.endings}", *found.failures]
    for workspace, tokens in found.submitted.items():
        if found.order[workspace] != [(token, turn) for token in tokens for turn in (0, 1)]:
            wrong.append(f"workspace {workspace} was worked on out of turn")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
