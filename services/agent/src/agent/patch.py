"""A patch as git prints it: its entries, and one section of text for each of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

_SECTION = b"diff --git "
_NULL = "0" * 40


@dataclass(frozen=True, slots=True)
class Entry:
    """One changed path, as git's raw diff tells it; a rename has the old and the new path."""

    old_mode: str
    new_mode: str
    old: str
    new: str
    state: str
    paths: tuple[bytes, ...]

    @property
    def blobs(self) -> tuple[str, ...]:
        """The contents before and after, as far as there are any."""
        return tuple(name for name in (self.old, self.new) if name != _NULL)

    @property
    def before(self) -> bytes:
        """The start's entry, or none, as `git update-index --index-info` takes it."""
        return f"{self.old_mode} {self.old}\t".encode() + self.paths[0]


@dataclass(frozen=True, slots=True)
class RawPatch:
    """The entries and the text of a patch, in the same order."""

    entries: tuple[Entry, ...]
    text: bytes

    @property
    def is_text(self) -> bool:
        """True if the patch can be handed on as text."""
        return _is_text(self.text)

    def sections(self) -> list[bytes]:
        """The text of each entry."""
        pieces = iter(_pieces(self.text))
        # What became another type of file is shown as deleted and made anew.
        counts = [2 if entry.state.startswith("T") else 1 for entry in self.entries]
        return [b"".join(islice(pieces, count)) for count in counts]


def parse(output: bytes) -> RawPatch:
    """Read what `git diff-index -z --raw -p` prints (git's documentation, "raw output format")."""
    if not output:
        return RawPatch((), b"")
    raw, _, text = output.partition(b"\0\0")
    fields = raw.rstrip(b"\0").split(b"\0")
    entries, position = [], 0
    while position < len(fields):
        old_mode, new_mode, old, new, state = fields[position].decode().split(" ")
        count = 2 if state[0] in "RC" else 1
        paths = tuple(fields[position + 1 : position + 1 + count])
        entries.append(Entry(old_mode.removeprefix(":"), new_mode, old, new, state, paths))
        position += 1 + count
    return RawPatch(tuple(entries), text)


def mend(patch: RawPatch, all_binary: RawPatch) -> tuple[RawPatch, tuple[Entry, ...]]:
    """Make a patch text.

    Each section that is none is replaced by its binary form. A symbolic link has no such form:
    if its target is no text, its entry is taken out.

    Args:
        patch: The patch as git makes it by itself.
        all_binary: The patch with all files shown as binary.

    Returns:
        The patch without the entries that were taken out, and these.
    """
    if patch.entries != all_binary.entries:  # what counts as a rename may depend on it
        patch = all_binary
    kept: list[tuple[Entry, bytes]] = []
    taken_out: list[Entry] = []
    sections = zip(patch.entries, patch.sections(), all_binary.sections(), strict=True)
    for entry, plain, binary in sections:
        form = plain if _is_text(plain) else binary
        if _is_text(form):
            kept.append((entry, form))
        else:
            taken_out.append(entry)
    text = b"".join(section for _, section in kept)
    return RawPatch(tuple(entry for entry, _ in kept), text), tuple(taken_out)


def with_rename_prefix(patch: bytes, prefix: str) -> bytes:
    """The patch with `prefix` before the names of renames too, which git leaves as they are."""
    return b"".join(_prefixed(piece, prefix.encode()) for piece in _pieces(patch))


def shown(path: bytes) -> str:
    """A path as text; bytes that are not UTF-8 are written as `\\xNN`."""
    return path.decode(errors="backslashreplace")


def largest(sizes: Sequence[tuple[int, Entry]], budget: int) -> list[Entry]:
    """The entries to leave out, the largest first, so that the rest stays within the budget."""
    excess = sum(size for size, _ in sizes) - budget
    chosen = []
    for size, entry in sorted(sizes, key=lambda each: each[0], reverse=True):
        if excess <= 0:
            break
        chosen.append(entry)
        excess -= size
    return chosen


def _pieces(text: bytes) -> list[bytes]:
    """A patch cut where a file begins. No line of a hunk can look like such a beginning."""
    bodies = (b"\n" + text).split(b"\n" + _SECTION)[1:]
    ends = [b"\n"] * (len(bodies) - 1) + [b""]
    return [_SECTION + body + end for body, end in zip(bodies, ends, strict=False)]


def _prefixed(section: bytes, prefix: bytes) -> bytes:
    marks = (section.find(mark) for mark in (b"\n@@ ", b"\nGIT binary patch\n"))
    end = min((at for at in marks if at >= 0), default=len(section))
    head, body = section[:end], section[end:]
    for key in (b"\nrename from ", b"\nrename to "):
        before, found, name = head.partition(key)
        if found:
            quote, name = (b'"', name[1:]) if name.startswith(b'"') else (b"", name)
            head = before + found + quote + prefix + name
    return head + body


def _is_text(data: bytes) -> bool:
    # Git takes a file for binary only if there is a null character near its start.
    if b"\0" in data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
