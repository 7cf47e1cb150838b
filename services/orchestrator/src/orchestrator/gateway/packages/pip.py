"""pip: its options, and the defaults that stand in its own code."""

import ast
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from orchestrator.gateway.packages.found import Found
from orchestrator.gateway.packages.machine import Machine, Run

_SECTIONS = ("global.", "install.", ":env:.")  # the later ones count
# The index's address stands in pip itself, as does the host that its files come from.
_DEFAULTS = (
    "from pip._internal.models.index import PyPI; "
    "print(PyPI.simple_url); print(f'https://{PyPI.file_storage_domain}/')"
)


async def find_pip(found: Found, machine: Machine) -> None:
    """Ask pip."""
    python, options = await _options(machine.run)
    if python is None:
        found.missing("pip")
        return
    if "cert" in options:
        found.certificates = Path(options["cert"])
    if "index-url" in options:
        index = found.add(options["index-url"], "pip")
        if index is not None:
            found.variables["PIP_INDEX_URL"] = index
    else:
        for url in (await machine.run((python, "-c", _DEFAULTS)) or "").split():
            found.add(url, "pip")
    more = [found.add(url, "pip") for url in options.get("extra-index-url", "").split()]
    usable = " ".join(url for url in more if url is not None)
    if usable:
        found.variables["PIP_EXTRA_INDEX_URL"] = usable
    if "trusted-host" in options:
        found.variables["PIP_TRUSTED_HOST"] = " ".join(options["trusted-host"].split())


def read_options(listed: str) -> Mapping[str, str]:
    """The options that count for `pip install`, from what `pip config list` prints."""
    options: dict[str, str] = {}
    for section in _SECTIONS:
        for line in listed.splitlines():
            name, equals, value = line.partition("=")
            if equals and name.startswith(section):
                with suppress(ValueError, SyntaxError):
                    options[name.removeprefix(section)] = str(ast.literal_eval(value))
    return options


async def _options(run: Run) -> tuple[str | None, Mapping[str, str]]:
    """A Python that has pip, and its options."""
    for python in (sys.executable, "python3"):
        listed = await run((python, "-m", "pip", "config", "list"))
        if listed is not None:
            return python, read_options(listed)
    return None, {}
