"""Matching paths against glob patterns: `*`, `?`, `[…]`, `**` for any depth, and `{a,b}`."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

MAX_ALTERNATIVES = 100
_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")


class Glob:
    """A compiled pattern. One without a slash is matched against names at any depth."""

    def __init__(self, pattern: str) -> None:
        """Compile a pattern.

        Raises:
            ValueError: its braces stand for more than `MAX_ALTERNATIVES` patterns.
        """
        self._by_name = "/" not in pattern.strip("/")
        self._alternatives = [
            tuple(alternative.strip("/").split("/")) for alternative in _without_braces(pattern)
        ]

    def matches(self, parts: Sequence[str]) -> bool:
        """Say whether the path with these components matches."""
        candidate = tuple(parts[-1:]) if self._by_name else tuple(parts)
        return any(_match(wanted, candidate) for wanted in self._alternatives)


def _without_braces(pattern: str) -> list[str]:
    done: list[str] = []
    pending = [pattern]
    while pending:
        current = pending.pop()
        found = _BRACES.search(current)
        if found is None:
            done.append(current)
        else:
            before, after = current[: found.start()], current[found.end() :]
            pending += [before + choice + after for choice in found.group(1).split(",")]
        if len(done) + len(pending) > MAX_ALTERNATIVES:
            raise ValueError(f"the pattern stands for more than {MAX_ALTERNATIVES} patterns")
    return done


def _match(wanted: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Match segment by segment; `reachable` holds how many parts may be consumed so far."""
    reachable = {0}
    for segment in wanted:
        if segment == "**":
            reachable = set(range(min(reachable), len(parts) + 1))
        else:
            reachable = {
                count + 1
                for count in reachable
                if count < len(parts) and fnmatchcase(parts[count], segment)
            }
        if not reachable:
            return False
    return len(parts) in reachable
