"""The whole crash sweep: `scripts/sweep`."""

import argparse
import asyncio
import signal
import sys
import time

from tests.support.crash_play import moments
from tests.support.runtimes import problem_with
from tests.support.sweep import Case, Result, run_cases, table
from tests.support.victims import Victim

RUNTIMES = ("docker", "sandbox")


def main() -> int:
    """Run the sweep; 1 if a case failed or a runtime is missing."""
    given = _parser().parse_args()
    # So that whoever ends the sweep, also in the background, ends its services.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    wanted = [
        Case(runtime, victim, moment)
        for runtime in given.runtime or RUNTIMES
        for victim in given.victim or Victim
        for moment in moments()
        if not given.moment or any(each in str(moment) for each in given.moment)
    ]
    for runtime in dict.fromkeys(case.runtime for case in wanted):
        problem = asyncio.run(problem_with(runtime))
        if problem is not None:
            print(f"sweep: {runtime} cannot be used: {problem}", file=sys.stderr)
            return 1
    began = time.monotonic()
    results = asyncio.run(run_cases(wanted, _tell, given.lanes))
    print(f"\n{table(results)}\n{time.monotonic() - began:.0f} s in all")
    return 1 if any(each.problem for each in results) else 0


def _tell(result: Result) -> None:
    verdict = f"FAILED {result.problem}" if result.problem else "ok"
    print(f"{result.case!s:52} {result.seconds:5.1f} s  {verdict}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sweep", description=__doc__)
    parser.add_argument("--runtime", action="append", choices=RUNTIMES)
    parser.add_argument("--victim", action="append", type=Victim, choices=list(Victim))
    parser.add_argument(
        "--moment", action="append", help="only moments whose name has this in it, as 4-bash-middle"
    )
    parser.add_argument("--lanes", type=int, default=2, help="services at once (default: 2)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
