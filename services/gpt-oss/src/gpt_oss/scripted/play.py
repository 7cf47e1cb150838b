"""Plays: YAML scripts that say what the scripted model answers, turn by turn.

A play:

    name: list-files
    examples: [List the files in this repository]   # shown by the fallback play
    when: {matches: ['list the files']}             # fits the query?
    turns:
      - expect: {tools_offered: [list_directory]}
        calls: [{tool: list_directory, arguments: {path: .}}]
      - say: 'Entries: {{ tool[-1].lines | count }}'

Regular expressions are searched for with `^` and `$` at line ends (MULTILINE); those of `when`
ignore case. Texts and arguments are templates, see `gpt_oss.scripted.template`; `raw`, `body` and
`raw_arguments` are sent as they stand. `Play` and the classes of `gpt_oss.scripted.turn` describe
every key; an unknown key is an error that names the file, the turn (counted from 0) and the key.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import yaml
from pydantic import Field, ValidationError, model_validator

from gpt_oss.scripted.turn import Part, QueryRegex, Turn

SHIPPED = Path(__file__).parent / "plays"
"""The directory of the plays that come with the package."""


class PlayError(ValueError):
    """A play that cannot be loaded; the message names the file, the turn and the key."""


class When(Part):
    """Which queries a play answers: all keys that are given must hold.

    Attributes:
        matches: At least one of these regular expressions is found in the query.
        words: All of these words are in the query, case ignored.
        always: The play fits any query.
    """

    matches: list[QueryRegex] = Field(default_factory=list)
    words: list[str] = Field(default_factory=list)
    always: bool = False

    @model_validator(mode="after")
    def _some_condition(self) -> Self:
        if not (self.matches or self.words or self.always):
            raise ValueError("say which queries fit: matches, words or always")
        return self

    def fits(self, query: str) -> bool:
        """Tell whether the query fits."""
        present = {word.casefold() for word in re.findall(r"\w+", query)}
        return (not self.matches or any(regex.search(query) for regex in self.matches)) and all(
            word.casefold() in present for word in self.words
        )


class Play(Part):
    """A named script.

    Attributes:
        name: Unique name; clients see it as `system_fingerprint` `scripted:<name>`.
        description: What it shows, for readers.
        examples: Queries that it answers, for the fallback play's list.
        when: Which queries it answers.
        turns: The answers in order.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    description: str = ""
    examples: list[str] = Field(default_factory=list)
    when: When
    turns: list[Turn] = Field(min_length=1)

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if any(turn.repeat == "forever" for turn in self.turns[:-1]):
            raise ValueError("only the last turn may repeat forever: later turns are never played")
        return self

    def turn_at(self, position: int) -> int | None:
        """Return the index of the turn that gives the reply number `position`, if there is one."""
        first = 0
        for index, turn in enumerate(self.turns):
            if turn.repeat == "forever" or position <= first + turn.repeat:
                return index
            first += turn.repeat + 1
        return None

    def first_position(self, index: int) -> int:
        """Return the position of the first reply that the turn with this index gives."""
        return sum(1 + turn.repeat for turn in self.turns[:index] if turn.repeat != "forever")


def play_from_yaml(text: str, origin: str = "play") -> Play:
    """Parse one play; `PlayError` messages begin with `origin`."""
    try:
        content = yaml.load(text, Loader=_LOADER)  # noqa: S506 - both loaders are safe ones
    except yaml.YAMLError as error:
        raise PlayError(f"{origin}: not YAML: {error}") from error
    try:
        return Play.model_validate(content)
    except ValidationError as error:
        raise PlayError("\n".join(_problems(origin, error))) from error


def load_plays(paths: Sequence[Path]) -> list[Play]:
    """Load plays in the order in which they are tried.

    Args:
        paths: Files, or directories whose `*.yaml` files are taken in the order of their names.

    Raises:
        PlayError: A file is missing or wrong, or two plays have the same name.
    """
    plays: list[Play] = []
    origins: dict[str, Path] = {}
    for file in _files(paths):
        play = play_from_yaml(file.read_text(encoding="utf-8"), origin=str(file))
        if play.name in origins:
            raise PlayError(f"{file}: the name {play.name!r} is taken by {origins[play.name]}")
        origins[play.name] = file
        plays.append(play)
    return plays


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(path.glob("*.yaml"))
        elif path.is_file():
            yield path
        else:
            raise PlayError(f"{path}: no such file or directory")


def _problems(origin: str, error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_context=False):
        location = list(problem["loc"])
        where = origin
        if location[:1] == ["turns"] and len(location) > 1:
            where = f"{origin}: turn {location[1]}"
            location = location[2:]
        key = ".".join(str(step) for step in location)
        unknown = problem["type"] == "extra_forbidden"
        said = "unknown key" if unknown else problem["msg"].removeprefix("Value error, ")
        yield ": ".join(part for part in (where, key, said) if part)


# libyaml reads the shipped plays ten times faster; wheels have it nearly everywhere.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
