"""go: its module proxies and its checksum database."""

import re
from collections.abc import Mapping
from pathlib import Path

from orchestrator.gateway.packages.found import Found
from orchestrator.gateway.packages.machine import Machine, read_text

_NAMES = ("GOPROXY", "GOSUMDB", "GOPRIVATE", "GONOPROXY", "GONOSUMDB")
_WORDS = ("direct", "off", "")


async def find_go(found: Found, machine: Machine) -> None:
    """Ask go; where it is missing, read what it would."""
    said = await machine.run(("go", "env", *_NAMES))
    if said is None:
        options = _configured(machine)
    else:
        options = dict(zip(_NAMES, said.split("\n"), strict=False))
    if not options.get("GOPROXY"):
        found.missing("go")
        return
    usable = {
        **options,
        "GOPROXY": _proxies(found, options["GOPROXY"]),
        "GOSUMDB": _checksums(found, options.get("GOSUMDB", "")),
    }
    found.variables |= {name: value for name, value in usable.items() if value}


def _configured(machine: Machine) -> Mapping[str, str]:
    """What variables and the user's file of go say."""
    environment = machine.environment
    base = environment.get("XDG_CONFIG_HOME") or str(machine.home / ".config")
    file = read_text(Path(environment.get("GOENV") or Path(base, "go", "env"))) or ""
    lines = (line.partition("=") for line in file.splitlines())
    kept = {name.strip(): value.strip() for name, _, value in lines}
    return {name: environment.get(name) or kept.get(name, "") for name in _NAMES}


def _proxies(found: Found, listed: str) -> str:
    """A list of proxies, of which each is tried after the one before it failed."""
    usable: list[str] = []
    # A comma says that the next is tried if this one has no such module; a bar, after any failure.
    for url, separator in re.findall(r"([^,|]*)([,|]?)", listed):
        kept = url if url in _WORDS else found.add(url, "go")
        if kept:
            usable += [kept, separator]
    return "".join(usable).rstrip(",|")


def _checksums(found: Found, database: str) -> str:
    """A checksum database: its name, which may have its key behind it, and at times its address."""
    name, _, url = database.partition(" ")
    if name in _WORDS:
        return name
    if not url:
        found.add(f"https://{name.partition('+')[0]}", "go")
        return name
    kept = found.add(url.strip(), "go")
    return name if kept is None else f"{name} {kept}"
