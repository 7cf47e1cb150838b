"""Applying the hunks of a patch to a text.

Everything here is pure. A text is handled as its pieces between newlines, so the newline at the
end of a file is an empty last piece, and a file without one keeps being without one.
"""

from collections.abc import Callable, Sequence

from mcp_servers.v4a import Hunk, PatchError, UpdateFile

_CLOSEST_LIMIT = 2_000_000
_SHOWN_LINES = 20
_COMPARISONS: tuple[Callable[[str], str], ...] = (str, str.rstrip, str.strip)


def apply_hunks(text: str, update: UpdateFile) -> str:
    """Return the text with all hunks applied, each below the one before.

    Lines match exactly if they can, else regardless of trailing blanks, else regardless of
    leading and trailing blanks. Lines that are kept stay as the file has them.

    Raises:
        PatchError: a hunk does not fit.
    """
    pieces = text.split("\n")
    result: list[str] = []
    cursor = 0
    for number, hunk in enumerate(update.hunks, 1):
        start = _locate(pieces, hunk, cursor, f"{update.path}: hunk {number}")
        result += pieces[cursor:start]
        cursor = start
        for line in hunk.lines:
            if line.kind == "+":
                result.append(line.text)
                continue
            if line.kind == " ":
                result.append(pieces[cursor])
            cursor += 1
    return "\n".join(result + pieces[cursor:])


def _locate(pieces: list[str], hunk: Hunk, cursor: int, label: str) -> int:
    """Return the index of the piece where the hunk starts."""
    for anchor in hunk.anchors:
        cursor = _find_anchor(pieces, anchor, cursor, label) + 1
    old = hunk.old()
    if not old:
        return cursor if hunk.anchors else max(cursor, _end(pieces))
    starts = _candidates(pieces, hunk, cursor)
    found = _find(pieces, old, starts)
    if found is None:
        raise PatchError(_mismatch(pieces, hunk, cursor, label))
    return found


def _end(pieces: list[str]) -> int:
    """Return the index after the last line, before the empty piece of a final newline."""
    return len(pieces) - 1 if not pieces[-1] else len(pieces)


def _candidates(pieces: list[str], hunk: Hunk, cursor: int) -> Sequence[int]:
    length = len(hunk.old())
    if hunk.at_end:
        return [at for at in (_end(pieces) - length, len(pieces) - length) if at >= cursor]
    return range(cursor, len(pieces) - length + 1)


def _find(pieces: list[str], old: list[str], starts: Sequence[int]) -> int | None:
    for simplify in _COMPARISONS:
        wanted = [simplify(line) for line in old]
        for start in starts:
            if all(
                simplify(piece) == line
                for piece, line in zip(pieces[start : start + len(old)], wanted, strict=True)
            ):
                return start
    return None


def _find_anchor(pieces: list[str], anchor: str, cursor: int, label: str) -> int:
    found = _find(pieces, [anchor], range(cursor, len(pieces)))
    if found is None:
        before = _find(pieces, [anchor], range(cursor))
        hint = (
            f"; it is at line {before + 1}, before the place that was reached: put hunks in the "
            "order of the file"
            if before is not None
            else "; an anchor is a whole line of the file"
        )
        raise PatchError(f"{label}: no line {anchor!r} from line {cursor + 1} on{hint}")
    return found


def _mismatch(pieces: list[str], hunk: Hunk, cursor: int, label: str) -> str:
    old = hunk.old()
    where = "at the end of the file" if hunk.at_end else f"from line {cursor + 1} on"
    wanted = "\n".join(old[:_SHOWN_LINES]) + ("\n…" if len(old) > _SHOWN_LINES else "")
    elsewhere = _find(pieces, old, range(len(pieces) - len(old) + 1))
    if elsewhere is not None:
        hint = (
            f"They are at line {elsewhere + 1}. Put hunks in the order of the file, without overlap"
            f"{', and end of file only at its end' if hunk.at_end else ''}."
        )
    else:
        hint = _closest(pieces, old)
    return f"{label}: these lines do not occur {where}:\n{wanted}\n{hint}"


def _closest(pieces: list[str], old: list[str]) -> str:
    """Say where most of the lines are, and which is the first that differs."""
    if len(pieces) * len(old) > _CLOSEST_LIMIT:
        return "Read the file again and copy the lines as they are."
    bare, wanted = [piece.strip() for piece in pieces], [line.strip() for line in old]
    scores = [
        sum(1 for piece, line in zip(bare[at:], wanted, strict=False) if piece == line and line)
        for at in range(len(pieces))
    ]
    best = max(range(len(pieces)), key=scores.__getitem__)
    if not scores[best]:
        return "None of them is in the file; read it again."
    for offset, line in enumerate(wanted):
        at = best + offset
        if at >= len(pieces):
            return (
                f"The closest place is line {best + 1}, but the file ends before {old[offset]!r}."
            )
        if bare[at] != line:
            return (
                f"The closest place is line {best + 1}; there, line {at + 1} is {pieces[at]!r}, "
                f"but the patch has {old[offset]!r}."
            )
    return f"The closest place is line {best + 1}."
