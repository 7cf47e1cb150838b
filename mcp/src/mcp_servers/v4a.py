"""The patch format of `apply_patch`, read into actions.

*** Begin Patch
*** Update File: src/app.py
*** Move to: src/main.py
@@ def greet():
 context
-old line
+new line
*** End Patch
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

BEGIN = "*** Begin Patch"
END = "*** End Patch"
ADD = "*** Add File: "
DELETE = "*** Delete File: "
UPDATE = "*** Update File: "
MOVE = "*** Move to: "
END_OF_FILE = "*** End of File"


class PatchError(ValueError):
    """A patch that is malformed or does not fit; the message says what and where."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a hunk: kept (" "), removed ("-") or added ("+")."""

    kind: Literal[" ", "-", "+"]
    text: str


@dataclass(frozen=True, slots=True)
class Hunk:
    """One change. `anchors` are lines to find first, in order, as the `@@` lines name them."""

    anchors: tuple[str, ...]
    lines: tuple[Line, ...]
    at_end: bool = False

    def old(self) -> list[str]:
        """Return the lines that the file must hold."""
        return [line.text for line in self.lines if line.kind != "+"]


@dataclass(frozen=True, slots=True)
class AddFile:
    """A file to make."""

    path: str
    content: str


@dataclass(frozen=True, slots=True)
class DeleteFile:
    """A file to delete."""

    path: str


@dataclass(frozen=True, slots=True)
class UpdateFile:
    """A file to change, and to move if `move_to` is set."""

    path: str
    hunks: tuple[Hunk, ...]
    move_to: str | None = None


Action = AddFile | DeleteFile | UpdateFile


def parse(patch: str) -> list[Action]:
    """Parse a patch.

    Raises:
        PatchError: it is malformed; the message names the line.
    """
    lines = patch.replace("\r\n", "\n").strip("\n ").split("\n")
    if lines[0].rstrip() != BEGIN:
        raise PatchError(f"line 1: a patch starts with '{BEGIN}'")
    if lines[-1].strip() != END:
        raise PatchError(f"line {len(lines)}: a patch ends with '{END}'")
    reader = _Reader(lines[:-1])
    actions: list[Action] = []
    while reader.skip_blank() is not None:
        actions.append(_parse_action(reader))
    if not actions:
        raise PatchError("the patch changes no file")
    return actions


class _Reader:
    """The lines of a patch and how far they have been read."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._next = 1

    def peek(self) -> str | None:
        """Return the next line, or None after the last."""
        return self._lines[self._next] if self._next < len(self._lines) else None

    def skip_blank(self) -> str | None:
        """Move past empty lines and return the next one, or None after the last."""
        while self.peek() == "":
            self.take()
        return self.peek()

    def after_blank(self) -> str | None:
        """Return the next line that is not empty, or None, without moving."""
        return next(filter(None, self._lines[self._next :]), None)

    def take(self) -> str:
        """Return the next line and move past it."""
        self._next += 1
        return self._lines[self._next - 1]

    def take_value(self, prefix: str) -> str | None:
        """Return what follows `prefix` if the next line starts with it, and move past it."""
        line = self.peek()
        if line is None or not line.startswith(prefix):
            return None
        value = self.take()[len(prefix) :].strip()
        if not value:
            raise self.error(f"'{prefix.strip()}' names no file")
        return value

    def error(self, reason: str) -> PatchError:
        """Return an error about the line that was taken last."""
        return PatchError(f"line {self._next}: {reason}")


def _parse_action(reader: _Reader) -> Action:
    if (path := reader.take_value(ADD)) is not None:
        return AddFile(path, _parse_content(reader))
    if (path := reader.take_value(DELETE)) is not None:
        return DeleteFile(path)
    if (path := reader.take_value(UPDATE)) is not None:
        move_to = reader.take_value(MOVE)
        hunks = _parse_hunks(reader)
        if not hunks and move_to is None:
            raise reader.error(f"the update of {path} has no hunks")
        return UpdateFile(path, tuple(hunks), move_to)
    line = reader.take()
    raise reader.error(
        f"expected '{ADD.strip()}', '{DELETE.strip()}' or '{UPDATE.strip()}' and a path, "
        f"found {line!r}"
    )


def _parse_content(reader: _Reader) -> str:
    lines: list[str] = []
    while (line := reader.peek()) is not None and not _ends_section(line):
        reader.take()
        if line == "" and _ends_section(reader.after_blank()):
            break
        if not line.startswith("+"):
            raise reader.error(f"each line of a new file starts with '+', found {line!r}")
        lines.append(line[1:] + "\n")
    return "".join(lines)


def _parse_hunks(reader: _Reader) -> list[Hunk]:
    hunks: list[Hunk] = []
    while not _ends_update(reader.skip_blank()):
        hunks.append(_parse_hunk(reader))
    return hunks


def _parse_hunk(reader: _Reader) -> Hunk:
    anchors: list[str] = []
    while (line := reader.peek()) is not None and line.startswith("@@"):
        anchor = reader.take()[2:].removeprefix(" ")
        if anchor.strip():
            anchors.append(anchor)
    lines: list[Line] = []
    at_end = False
    while not at_end and not _ends_hunk(line := reader.peek()) and line is not None:
        reader.take()
        at_end = _is_end_of_file(line)
        if line == "" and _ends_hunk(reader.after_blank()):
            break  # Empty lines that only set the next hunk or section apart.
        if not at_end:
            lines.append(_parse_line(reader, line))
    if not lines:
        raise reader.error("a hunk without lines")
    return Hunk(tuple(anchors), tuple(lines), at_end)


def _parse_line(reader: _Reader, line: str) -> Line:
    match line[:1]:
        case "":  # An empty context line whose blank was dropped.
            return Line(" ", "")
        case " " | "-" | "+" as kind:
            return Line(kind, line[1:])
        case _:
            raise reader.error(
                f"each line of a hunk starts with ' ', '-', '+' or '@@', found {line!r}"
            )


def _ends_section(line: str | None) -> bool:
    return line is None or line.startswith("*** ")


def _ends_update(line: str | None) -> bool:
    return _ends_section(line) and not (line and _is_end_of_file(line))


def _ends_hunk(line: str | None) -> bool:
    return line is None or line.startswith("@@") or _ends_update(line)


def _is_end_of_file(line: str) -> bool:
    return line.rstrip() == END_OF_FILE
