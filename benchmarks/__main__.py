"""Run the benchmarks: `python -m benchmarks`."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from benchmarks.clones import clones
from benchmarks.figures import Figure, report, save
from benchmarks.house import house
from benchmarks.idle import bound, sleeping
from benchmarks.interrupting import interrupting
from benchmarks.measures import checkpoint, checkpoint_path, cold, memory, step, warm
from benchmarks.preserving import preserving
from benchmarks.readers import readers
from benchmarks.takeover import takeover
from benchmarks.way_out import transfer
from orchestrator.logs import configure_logging
from orchestrator.settings import RuntimeChoice

MAX_TRANSFERS = 5
MAX_TAKEOVERS = 5


def main() -> int:
    """Measure and report; with --strict a target that is not reached is a failure."""
    parser = argparse.ArgumentParser(prog="benchmarks/run", description=__doc__)
    choices = [RuntimeChoice.DOCKER, RuntimeChoice.SANDBOX]
    parser.add_argument("--runtime", type=RuntimeChoice, choices=choices, default=choices[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a target is missed")
    given = parser.parse_args()
    configure_logging("error")
    with tempfile.TemporaryDirectory(prefix="berth-bench-") as directory:
        Path(directory).chmod(0o711)
        figures = asyncio.run(measure(Path(directory), given.runtime, given.rounds))
    print(f"runtime: {given.runtime}, rounds: {given.rounds}")
    print(report(figures))
    print(f"all samples: {save(figures)}")
    return 1 if given.strict and not all(each.reached for each in figures) else 0


async def measure(directory: Path, choice: RuntimeChoice, rounds: int) -> list[Figure]:
    """All figures of one runtime."""
    async with house(directory, choice) as parts:
        return [
            await cold(parts, choice, rounds),
            await warm(parts, rounds),
            await step(parts, rounds),
            await checkpoint(parts, rounds),
            await checkpoint_path(parts, rounds),
            *await preserving(parts, rounds),
            await interrupting(parts, rounds),
            await memory(parts),
            *await sleeping(parts, rounds),
            await bound(parts, rounds),
            await transfer(parts, min(rounds, MAX_TRANSFERS)),
            *await clones(parts, directory, min(rounds, MAX_TRANSFERS)),
            # The last, for their services take over the leases of whoever gives no sign of life.
            await readers(parts, directory, choice, rounds),
            await takeover(parts, directory, choice, min(rounds, MAX_TAKEOVERS)),
        ]


if __name__ == "__main__":
    sys.exit(main())
