"""Replacing passages of a text: exactly first, then line by line regardless of indentation."""

import difflib
from dataclasses import dataclass


class EditError(ValueError):
    """An edit that cannot be applied; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One passage to find and what to put in its place."""

    old: str
    new: str


def split_newlines(text: str) -> tuple[str, str]:
    """Return the text with "\\n" line ends, and the line end to restore when writing it.

    A text that mixes both kinds is left as it is.
    """
    crlf = text.count("\r\n")
    if crlf and crlf == text.count("\n"):
        return text.replace("\r\n", "\n"), "\r\n"
    return text, "\n"


def apply_edits(text: str, edits: list[Edit]) -> str:
    """Apply edits one after the other, each to the result of those before it.

    Raises:
        EditError: an edit matches nothing, or more than one place.
    """
    body, newline = split_newlines(text)
    for number, edit in enumerate(edits, 1):
        old, new = (
            (edit.old.replace("\r\n", "\n"), edit.new.replace("\r\n", "\n"))
            if newline == "\r\n"
            else (edit.old, edit.new)
        )
        body = _apply(body, old, new, number)
    return body.replace("\n", newline) if newline == "\r\n" else body


def unified_diff(old: str, new: str, path: str) -> str:
    """Return the change of one file as a unified diff."""
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{path}", f"b/{path}"
    )
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _apply(body: str, old: str, new: str, number: int) -> str:
    if not old:
        raise EditError(f"edit {number}: oldText is empty")
    count = body.count(old)
    if count == 1:
        return body.replace(old, new)
    if count > 1:
        raise _ambiguous(number, count)
    return _apply_to_lines(body, old, new, number)


def _apply_to_lines(body: str, old: str, new: str, number: int) -> str:
    lines = body.split("\n")
    wanted = old.strip("\n").split("\n")
    bare = [line.strip() for line in lines]
    bare_wanted = [line.strip() for line in wanted]
    if not any(bare_wanted):
        raise EditError(f"edit {number}: oldText does not occur in the file")
    places = [
        at
        for at in range(len(lines) - len(wanted) + 1)
        if bare[at : at + len(wanted)] == bare_wanted
    ]
    if len(places) > 1:
        raise _ambiguous(number, len(places))
    if not places:
        raise EditError(
            f"edit {number}: oldText does not occur in the file{_nearest(lines, wanted)}"
        )
    at = places[0]
    found = lines[at : at + len(wanted)]
    lines[at : at + len(wanted)] = _shifted(new.strip("\n").split("\n"), wanted, found)
    return "\n".join(lines)


def _shifted(new: list[str], wanted: list[str], found: list[str]) -> list[str]:
    """Move new lines from the indentation that was asked for to the one that was found."""
    first = next(index for index, line in enumerate(wanted) if line.strip())
    asked, real = _indent(wanted[first]), _indent(found[first])
    return [
        real + line[len(asked) :] if line.strip() and line.startswith(asked) else line
        for line in new
    ]


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _ambiguous(number: int, count: int) -> EditError:
    return EditError(
        f"edit {number}: oldText occurs {count} times; add lines around it until it is unique"
    )


def _nearest(lines: list[str], wanted: list[str]) -> str:
    first = next(line.strip() for line in wanted if line.strip())
    for index, line in enumerate(lines, 1):
        if line.strip() == first:
            return f"; its first line is line {index}, but the lines after it differ"
    return ""
