"""What a tree lacks that was made of a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

_SHOWN_PATHS = 10
_SHOWN_CHARS = 200


@dataclass(frozen=True, slots=True)
class Lacking:
    """Paths that no checkpoint could carry, such as files that are too large.

    Args:
        older: They are in the tree as an earlier checkpoint or the start had them.
        missing: They are not in the tree.
    """

    older: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What the user is told; empty if nothing is lacking."""
        told = []
        if self.older:
            told.append(f"{_named(self.older)}: as at the start or at an earlier step")
        if self.missing:
            told.append(f"{_named(self.missing)}: missing")
        if not told:
            return ""
        return (
            "Some paths could not be kept by checkpoints (too large, unreadable, or a repository "
            f"of their own) and are not in the tree as they were: {'; '.join(told)}."
        )


NOTHING = Lacking()


def _named(paths: Sequence[str]) -> str:
    shown = ", ".join(path[:_SHOWN_CHARS] for path in paths[:_SHOWN_PATHS])
    more = len(paths) - _SHOWN_PATHS
    return f"{shown} and {more} more" if more > 0 else shown
