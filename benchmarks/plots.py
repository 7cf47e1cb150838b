"""Plot what keeping a tree costs: `python -m benchmarks.plots`. Needs `requirements/plots.txt`."""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot

from benchmarks.figures import OUTPUT
from benchmarks.house import house
from benchmarks.scaling import CHANGES, Point, points
from orchestrator.logs import configure_logging
from orchestrator.settings import RuntimeChoice


@dataclass(frozen=True, slots=True)
class _Panel:
    """One set of curves."""

    title: str
    unit: str
    value: Callable[[Point], float]


PANELS = (
    _Panel("checkpoint, in the container", "ms", lambda point: point.checkpoint_ms),
    _Panel("export to object storage", "ms", lambda point: point.export_ms),
    _Panel("bundle", "kB", lambda point: point.bundle_bytes / 1024),
    _Panel("restore on an empty volume", "ms", lambda point: point.restore_ms),
)


def main() -> int:
    """Measure, print the table and write the PNG."""
    parser = argparse.ArgumentParser(prog="benchmarks/plot", description=__doc__)
    choices = [RuntimeChoice.DOCKER, RuntimeChoice.SANDBOX]
    parser.add_argument("--runtime", type=RuntimeChoice, choices=choices, default=choices[0])
    given = parser.parse_args()
    configure_logging("error")
    with tempfile.TemporaryDirectory(prefix="berth-bench-") as directory:
        Path(directory).chmod(0o711)
        found = asyncio.run(measured(Path(directory), given.runtime))
    print(f"plot: {drawn(found, given.runtime)}")
    return 0


async def measured(directory: Path, choice: RuntimeChoice) -> list[Point]:
    """All points, each printed as it comes."""
    print("  files  changed  checkpoint      export      bundle     restore")
    found = []
    async with house(directory, choice) as parts:
        async for point in points(parts):
            found.append(point)
            costs = "".join(f"{panel.value(point):12.1f}" for panel in PANELS)
            print(f"{point.files:7}{point.changed:9}{costs}", flush=True)
    return found


def drawn(found: Sequence[Point], choice: RuntimeChoice) -> Path:
    """Draw a panel for each cost, a curve for each size of change; returns the PNG."""
    mpl.use("Agg")
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(4.2 * len(PANELS), 3.8))
    for panel, axis in zip(PANELS, axes, strict=True):
        for changed in CHANGES:
            curve = [point for point in found if point.changed == changed]
            heights = [panel.value(point) for point in curve]
            axis.plot([point.files for point in curve], heights, "o-", label=f"{changed} changed")
        axis.set(title=panel.title, xlabel="files in the tree", ylabel=panel.unit, xscale="log")
        axis.set_ylim(bottom=0)
        axis.grid(visible=True, alpha=0.3)
    axes[0].legend()
    figure.suptitle(f"What keeping a tree costs ({choice})")
    figure.tight_layout()
    OUTPUT.mkdir(exist_ok=True)
    path = OUTPUT / f"keeping-{choice}.png"
    figure.savefig(path, dpi=110)
    return path


if __name__ == "__main__":
    sys.exit(main())
