"""An incremental parser of server-sent events (WHATWG HTML, section 9.2)."""

import re

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):
    """A line or an event is larger than the parser may hold."""


class EventStream:
    """Cuts a stream into its events' data, wherever the network has split it.

    Only `data` fields count here; comments and all other fields are skipped.

    Args:
        max_bytes: The most that one event may have.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._line = bytearray()
        self._data: list[bytes] = []
        self._held = 0
        self._after_return = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[str]:
        """Take the next bytes; returns the data of the events that they complete.

        Raises:
            EventTooLarge: The event under way is larger than allowed.
        """
        if self._after_return and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_return = False
        if not chunk:
            return []
        self._after_return = chunk.endswith(b"\r")
        *ends, rest = _LINE_END.split(chunk)
        events = []
        for end in ends:
            event = self._take_line(bytes(self._line) + end)
            self._line.clear()
            if event is not None:
                events.append(event)
        self._line += rest
        self._check(len(self._line))
        return events

    def _take_line(self, line: bytes) -> str | None:
        """The event's data if this line ends one that has any."""
        if self._at_start:
            line = line.removeprefix(_BYTE_ORDER_MARK)
            self._at_start = False
        if not line:
            event = b"\n".join(self._data) if self._data else None
            self._data.clear()
            self._held = 0
            return None if event is None else event.decode(errors="replace")
        field, _, value = line.partition(b":")
        if field == b"data":
            self._held += len(value) + 1
            self._check(0)
            self._data.append(value.removeprefix(b" "))
        return None

    def _check(self, more: int) -> None:
        if self._held + more > self._max_bytes:
            raise EventTooLarge(f"an event has more than {self._max_bytes:,} bytes")
