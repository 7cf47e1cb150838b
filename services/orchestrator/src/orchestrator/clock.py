"""The system's time."""

import time
from datetime import UTC, datetime


class SystemClock:
    """`ports.Clock` by the machine's clocks."""

    def now(self) -> datetime:
        """The current time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()
