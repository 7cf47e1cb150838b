r"""The text language of plays: fills answers and arguments from real tool results.

A template is text with expressions in double braces. An expression is a source, then any number
of filters, each after a bar: `{{ tool[0].lines | matching "\.py$" | first 20 }}`.

Sources:

    query               the user message that started the play
    capture.NAME        a named group caught by a turn's `capture`
    examples            the example queries of all loaded plays, one a line
    tool[N]             the text of a tool result since then; negative N counts from the end
    tool[N].text        the same
    tool[N].lines       its lines
    tool[N].exit_code   the number in its line `exit code: N` (results of `bash`)
    tool[N].stdout      the section headed `stdout:`
    tool[N].stderr      the section headed `stderr:`
    "text"              a literal; `{{ "{{" }}` writes two braces; a backslash escapes only a quote

Filters work on lines; text is split into lines and lines are joined by newlines as needed:

    count               how many lines
    first N, last N     the first or last N lines
    matching "re"       lines in which the regular expression is found
    excluding "re"      lines in which it is not
    extract "re"        from each line where it is found, group 1 (or the whole match)
    prefix "text"       put text before each line
    join "text"         one line, joined by text
    fence               a Markdown code block (its fence is longer than any inside)
    trim                without white space at both ends
    default "text"      text if the value is empty
    int                 as a number; an argument that is only this expression stays a number

Filled text is never read as a template again, so tool results cannot inject expressions. `parse`
raises `TemplateError` for what the language does not know, `Template.fill` for a source that the
conversation does not have.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

from gpt_oss.scripted.value import (
    FIELDS,
    PLAIN,
    WITH_NUMBER,
    WITH_PATTERN,
    WITH_TEXT,
    Filter,
    TemplateError,
    Value,
    as_text,
)


@dataclass(frozen=True, slots=True)
class Context:
    """What templates are filled from.

    Attributes:
        query: Text of the user message that started the play.
        results: Texts of the tool results since then, oldest first.
        captures: Named groups caught so far.
        examples: Example queries of all loaded plays.
    """

    query: str = ""
    results: Sequence[str] = ()
    captures: Mapping[str, str] = field(default_factory=dict)
    examples: Sequence[str] = ()


Source = Callable[[Context], Value]


@dataclass(frozen=True, slots=True)
class Expression:
    """A source and the filters its value goes through."""

    source: Source
    filters: tuple[Filter, ...]

    def evaluate(self, context: Context) -> Value:
        """Return the value in this context; `TemplateError` if it lacks what is asked for."""
        value = self.source(context)
        for apply in self.filters:
            value = apply(value)
        return value


@dataclass(frozen=True, slots=True)
class Template:
    """Literal text and expressions in turn."""

    parts: tuple[str | Expression, ...]

    def fill(self, context: Context) -> str:
        """Return the text with all expressions replaced by their values."""
        return "".join(
            part if isinstance(part, str) else as_text(part.evaluate(context))
            for part in self.parts
        )

    def fill_value(self, context: Context) -> str | int:
        """Like `fill`, but a template that is one expression with a number stays a number."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Expression):
            value = self.parts[0].evaluate(context)
            return value if isinstance(value, int) else as_text(value)
        return self.fill(context)


_STRING = r'"(?:[^"\\]|\\.)*"'
_EXPRESSION = re.compile(r"\{\{((?:" + _STRING + r'|(?!\}\})[^"])*)\}\}', re.DOTALL)
_STAGES = re.compile(r"((?:" + _STRING + r'|[^"|])*)(?:\||\Z)', re.DOTALL)
_TOOL = re.compile(r"tool\[(-?\d+)\](?:\.(\w+))?")
_CAPTURE = re.compile(r"capture\.(\w+)")
_CALL = re.compile(r"(\w+)(?:\s+(?:(\d+)|(" + _STRING + r")))?", re.DOTALL)


@lru_cache(maxsize=1024)
def parse(text: str) -> Template:
    """Parse a template; `TemplateError` names what is wrong in it."""
    parts: list[str | Expression] = []
    position = 0
    for found in _EXPRESSION.finditer(text):
        parts.append(_literal(text[position : found.start()]))
        parts.append(parse_expression(found[1]))
        position = found.end()
    parts.append(_literal(text[position:]))
    return Template(tuple(part for part in parts if part != ""))


@lru_cache(maxsize=1024)
def parse_expression(text: str) -> Expression:
    """Parse what stands between the braces; `TemplateError` names what is wrong in it."""
    source, *filters = _split_stages(text.strip())
    return Expression(_source(source), tuple(_filter(stage) for stage in filters))


def _literal(text: str) -> str:
    if "{{" in text:
        raise TemplateError(f"'{{{{' is never closed: {text[text.index('{{') :][:60]!r}")
    return text


def _split_stages(text: str) -> Iterator[str]:
    position = 0
    while True:
        found = _STAGES.match(text, position)
        if found is None:
            raise TemplateError(f"a quote is never closed: {text[:60]!r}")
        yield found[1].strip()
        position = found.end()
        if not found[0].endswith("|"):
            return


def _source(text: str) -> Source:
    if text == "query":
        return lambda context: context.query
    if text == "examples":
        return lambda context: tuple(context.examples)
    if found := _CAPTURE.fullmatch(text):
        return partial(_captured, found[1])
    if found := _TOOL.fullmatch(text):
        return _tool_source(int(found[1]), found[2] or "text")
    if re.fullmatch(_STRING, text, re.DOTALL):
        literal = _unquote(text)
        return lambda context: literal
    raise TemplateError(
        f"unknown source {text!r}: use query, capture.NAME, tool[N], tool[N].FIELD, examples "
        "or a quoted text"
    )


def _captured(name: str, context: Context) -> str:
    if name not in context.captures:
        caught = ", ".join(sorted(context.captures)) or "none"
        raise TemplateError(f"no capture named {name!r} so far (captures: {caught})")
    return context.captures[name]


def _tool_source(index: int, field_name: str) -> Source:
    if field_name not in FIELDS:
        raise TemplateError(f"unknown field {field_name!r}: use one of {', '.join(FIELDS)}")
    read = FIELDS[field_name]

    def source(context: Context) -> Value:
        count = len(context.results)
        if not -count <= index < count:
            raise TemplateError(f"tool[{index}] is missing: {count} tool results so far")
        return read(context.results[index])

    return source


def _filter(text: str) -> Filter:
    found = _CALL.fullmatch(text)
    if found is None:
        raise TemplateError(f"not a filter: {text!r}")
    name, number, string = found.groups()
    if name in PLAIN and number is None and string is None:
        return PLAIN[name]
    if name in WITH_NUMBER and number is not None:
        return partial(WITH_NUMBER[name], int(number))
    if name in WITH_TEXT and string is not None:
        return partial(WITH_TEXT[name], _unquote(string))
    if name in WITH_PATTERN and string is not None:
        return partial(WITH_PATTERN[name], _pattern(_unquote(string)))
    known = ", ".join((*PLAIN, *WITH_NUMBER, *WITH_TEXT, *WITH_PATTERN))
    raise TemplateError(f"unknown filter or wrong argument: {text!r} (filters: {known})")


def _unquote(quoted: str) -> str:
    # Other backslashes stay, so that regular expressions need no doubling.
    return quoted[1:-1].replace('\\"', '"')


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise TemplateError(f"bad regular expression {text!r}: {error}") from error
