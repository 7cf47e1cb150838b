"""Values of template expressions: their forms, the fields of tool results, and the filters."""

import re
from collections.abc import Callable, Mapping
from functools import partial

Value = str | int | tuple[str, ...]
"""What an expression yields: text, a number or lines."""

Filter = Callable[[Value], Value]


class TemplateError(ValueError):
    """A template that cannot be parsed, or that asks for what the conversation does not have."""


def as_text(value: Value) -> str:
    """Return a value as text, lines joined by newlines."""
    return "\n".join(value) if isinstance(value, tuple) else str(value)


def as_lines(value: Value) -> tuple[str, ...]:
    """Return a value as lines; text that ends in a newline has no empty last line."""
    if isinstance(value, tuple):
        return value
    text = str(value).removesuffix("\n")
    return tuple(text.split("\n")) if text else ()


def exit_code(result: str) -> int:
    """Return the exit code that a result of `bash` names."""
    found = re.search(r"^exit code: (-?\d+)$", result, re.MULTILINE)
    if found is None:
        raise TemplateError("the tool result has no line 'exit code: N'")
    return int(found[1])


def section(name: str, result: str) -> str:
    """Return the text under the line `<name>:` of a result of `bash`, empty if there is none.

    The sections come in the order stdout, stderr, so stdout ends at the last `stderr:` line: a
    program that prints such a line itself then only moves where its own output is cut.
    """
    lines = result.split("\n")
    heading = f"{name}:"
    if heading not in lines:
        return ""
    if name == "stderr":
        start = len(lines) - lines[::-1].index(heading)
        return "\n".join(lines[start:])
    start = lines.index(heading) + 1
    rest = lines[start:]
    end = len(rest) - 1 - rest[::-1].index("stderr:") if "stderr:" in rest else len(rest)
    return "\n".join(rest[:end])


FIELDS: Mapping[str, Callable[[str], Value]] = {
    "text": str,
    "lines": as_lines,
    "exit_code": exit_code,
    "stdout": partial(section, "stdout"),
    "stderr": partial(section, "stderr"),
}


def _fence(value: Value) -> str:
    text = as_text(value).removesuffix("\n")
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def _extract(pattern: re.Pattern[str], value: Value) -> tuple[str, ...]:
    found = (pattern.search(line) for line in as_lines(value))
    return tuple(match[min(1, pattern.groups)] or "" for match in found if match)


def _int(value: Value) -> int:
    try:
        return int(as_text(value).strip())
    except ValueError as error:
        raise TemplateError(f"not a number: {as_text(value)[:80]!r}") from error


# Filters by the kind of their one argument; each argument comes before the value.
PLAIN: Mapping[str, Filter] = {
    "count": lambda value: len(as_lines(value)),
    "fence": _fence,
    "trim": lambda value: as_text(value).strip(),
    "int": _int,
}
WITH_NUMBER: Mapping[str, Callable[[int, Value], Value]] = {
    "first": lambda n, value: as_lines(value)[:n],
    "last": lambda n, value: as_lines(value)[-n:] if n else (),
}
WITH_TEXT: Mapping[str, Callable[[str, Value], Value]] = {
    "prefix": lambda text, value: tuple(text + line for line in as_lines(value)),
    "join": lambda text, value: text.join(as_lines(value)),
    "default": lambda text, value: value if as_text(value) else text,
}
WITH_PATTERN: Mapping[str, Callable[[re.Pattern[str], Value], Value]] = {
    "matching": lambda re_, value: tuple(ln for ln in as_lines(value) if re_.search(ln)),
    "excluding": lambda re_, value: tuple(ln for ln in as_lines(value) if not re_.search(ln)),
    "extract": _extract,
}
