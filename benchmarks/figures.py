"""What was measured, and how it is reported."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from os import cpu_count, getloadavg
from pathlib import Path
from statistics import median

OUTPUT = Path(__file__).parent / "output"


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured median, or another share of the samples that its name says.

    `floor` is what the machine itself needs for the least such thing, measured in the same run;
    `target` is what we mean to reach on two idle cores. Both are in `unit`.
    """

    name: str
    unit: str
    value: float
    target: float
    floor: float
    floor_name: str
    samples: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """How many times the floor it takes."""
        return self.value / self.floor if self.floor else 0.0

    @property
    def reached(self) -> bool:
        """Whether the target is reached."""
        return self.value <= self.target


def figure(
    name: str, unit: str, samples: Sequence[float], *, target: float, floor: tuple[str, float]
) -> Figure:
    """A figure from its samples."""
    return Figure(name, unit, median(samples), target, floor[1], floor[0], tuple(samples))


def report(figures: Sequence[Figure]) -> str:
    """A table of the figures."""
    lines = [f"{'figure':44} {'value':>10} {'target':>8} {'floor':>8} {'ratio':>6}  floor is"]
    for each in figures:
        mark = " " if each.reached else "!"
        lines.append(
            f"{each.name:44} {each.value:7.1f} {each.unit:2}{mark}{each.target:8.0f} "
            f"{each.floor:8.1f} {each.ratio:6.1f}  {each.floor_name}"
        )
    return "\n".join(lines)


def save(figures: Sequence[Figure]) -> Path:
    """Write the figures as JSON; returns the file."""
    OUTPUT.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    path = OUTPUT / f"{now:%Y%m%dT%H%M%S}.json"
    machine = {"cpus": cpu_count(), "load": getloadavg()[0], "python": platform.python_version()}
    body = {
        "at": now.isoformat(),
        "machine": machine,
        "figures": [{**asdict(each), "ratio": each.ratio} for each in figures],
    }
    path.write_text(json.dumps(body, indent=2))
    return path
