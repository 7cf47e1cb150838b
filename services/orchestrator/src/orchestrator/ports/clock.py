"""Time."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Time, so that tests can hold it."""

    def now(self) -> datetime:
        """The current time, with time zone UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...
