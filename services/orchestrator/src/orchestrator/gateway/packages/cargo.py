"""cargo: its registries, and the default that only cargo itself knows."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.gateway.packages.found import Found
from orchestrator.gateway.packages.machine import Machine, read_text

_DEFAULT = "crates-io"
_SPARSE = "sparse+"
_INDEX_VARIABLE = re.compile(r"CARGO_REGISTRIES_([A-Z0-9_]+)_INDEX")
# Cargo names its default registry only where it cannot reach it. Nobody listens on that port.
_ASK_DEFAULT = """
directory=$(mktemp -d) && trap 'rm -rf "$directory"' EXIT && cd "$directory" && mkdir src &&
: >src/lib.rs &&
printf '[package]\\nname = "ask"\\nversion = "0.0.0"\\n[dependencies]\\nask-other = "1"\\n' \
    >Cargo.toml &&
CARGO_HOME="$directory" CARGO_HTTP_PROXY=http://127.0.0.1:9 CARGO_NET_RETRY=0 cargo fetch 2>&1 ||
true
"""
_NAMED = re.compile(r"failed to (?:download from|fetch) `(https?://[^`\s]+?)(/config\.json)?`")


async def find_cargo(found: Found, machine: Machine) -> None:
    """Read cargo's configuration, and ask cargo for its default."""
    config = _read_config(machine)
    indexes = dict(_registries(config, machine.environment))
    for name, index in indexes.items():
        kept = await _add_index(found, machine, index)
        if kept is not None:
            found.variables[_variable(name)] = kept
    name, source = _source(config)
    if name == _DEFAULT and "registry" not in source:
        default = await _default(machine)
        if default is not None:
            await _add_index(found, machine, default)
        elif not indexes:
            found.missing("cargo")
        return
    registry = source.get("registry") or indexes.get(name)
    if isinstance(registry, str):
        await _add_index(found, machine, registry)
        found.notice(
            f"cargo replaces its registry by {name!r}. Containers may reach that one, and need "
            "the same [source] tables in the repository's .cargo/config.toml."
        )


def _read_config(machine: Machine) -> Mapping[str, object]:
    home = Path(machine.environment.get("CARGO_HOME") or machine.home / ".cargo")
    text = read_text(home / "config.toml") or read_text(home / "config") or ""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def _registries(
    config: Mapping[str, object], environment: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Registries with a name, and their indexes; a variable counts more than the file."""
    for name, registry in _table(config, "registries").items():
        index = environment.get(_variable(name)) or _table({"": registry}, "").get("index")
        if isinstance(index, str):
            yield name, index
    for variable, value in environment.items():
        named = _INDEX_VARIABLE.fullmatch(variable)
        if named is not None and value:
            yield named[1].lower().replace("_", "-"), value


def _source(config: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
    """What the default registry is replaced by, at the end of the chain; itself if by nothing."""
    sources, name, seen = _table(config, "source"), _DEFAULT, set[str]()
    while name not in seen:
        seen.add(name)
        next_name = _table(sources, name).get("replace-with")
        if isinstance(next_name, str):
            name = next_name
    return name, _table(sources, name)


def _table(tables: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = tables.get(name)
    return found if isinstance(found, dict) else {}


def _variable(name: str) -> str:
    return f"CARGO_REGISTRIES_{name.upper().replace('-', '_')}_INDEX"


async def _default(machine: Machine) -> str | None:
    """The index that this cargo uses if nothing else is said."""
    named = _NAMED.search(await machine.run(("sh", "-c", _ASK_DEFAULT)) or "")
    if named is None:
        return None
    return f"{_SPARSE}{named[1]}/" if named[2] else named[1]


async def _add_index(found: Found, machine: Machine, index: str) -> str | None:
    """Take an index over, and the host of its crates, which only the index knows."""
    prefix = _SPARSE if index.startswith(_SPARSE) else ""
    kept = found.add(index.removeprefix(prefix), "cargo")
    if kept is None:
        return None
    crates = await _crates(machine, kept) if prefix else None
    if crates is None or found.add(crates, "cargo") is None:
        found.notice(
            f"cargo's index {kept} does not tell where its crates lie: name that host with "
            "BERTH_EGRESS_ALLOW if it is another."
        )
    return prefix + kept


async def _crates(machine: Machine, index: str) -> str | None:
    document = await machine.fetch(f"{index.rstrip('/')}/config.json")
    try:
        told = json.loads(document or "")
    except ValueError:
        return None
    crates = told.get("dl") if isinstance(told, dict) else None
    return crates if isinstance(crates, str) else None
