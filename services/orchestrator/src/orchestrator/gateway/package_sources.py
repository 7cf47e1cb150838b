"""Where this machine's own package managers install from, asked of them at run time.

So containers use the indexes and mirrors that the operator has configured for the machine.
"""

import ast
import asyncio
import base64
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from orchestrator.domain.egress import Destination, HostRule, PackageSources, parse_host
from orchestrator.errors import EgressRequestInvalid
from orchestrator.settings import EgressPreset

Run = Callable[[Sequence[str]], Awaitable[str | None]]
"""Runs a client and returns what it prints; None if it is missing or fails."""

CLIENT_SECONDS = 20.0
# A client needs its own configuration, which may lie in variables, and no other secret of ours.
_CLIENTS_VARIABLES = re.compile(
    r"(PATH|HOME|USER|LOGNAME|TMPDIR|LANG|LC_\w+|XDG_\w+|VIRTUAL_ENV|PYTHON\w*|APT_CONFIG|PREFIX"
    r"|(PIP|NPM)_\w+)",
    re.IGNORECASE,
)
_WEB = {"http": 80, "https": 443}
_PIP_SECTIONS = ("global.", "install.", ":env:.")  # the later ones count
# The index's address stands in pip itself, as does the host that its files come from.
_PIP_DEFAULTS = (
    "from pip._internal.models.index import PyPI; "
    "print(PyPI.simple_url); print(f'https://{PyPI.file_storage_domain}/')"
)


@dataclass(slots=True)
class _Found:
    """What is known so far."""

    rules: dict[HostRule, None] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    credentials: dict[Destination, str] = field(default_factory=dict)
    certificates: Path | None = None
    notices: dict[str, None] = field(default_factory=dict)

    def add(self, url: str, client: str) -> str | None:
        """Take a web address over; returns it without credentials, None if it cannot be used."""
        parts = urlsplit(url)
        try:
            port = parts.port or _WEB[parts.scheme]
            host = parse_host(
                f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
            )
        except (ValueError, KeyError, EgressRequestInvalid):
            self.notices[
                f"{client} is configured with a {parts.scheme or 'nameless'} address, which "
                "containers cannot use: it is left out."
            ] = None
            return None
        destination = Destination(host, port)
        self.rules[HostRule(host, frozenset({port}))] = None
        if parts.username is not None:
            self._keep_credentials(
                parts.scheme, destination, client, parts.username, parts.password
            )
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def _keep_credentials(
        self, scheme: str, destination: Destination, client: str, user: str, password: str | None
    ) -> None:
        if scheme == "https":
            self.notices[
                f"{client} is configured with credentials for {destination.host}. They stay "
                "outside, and nothing can be added to an encrypted connection: containers ask "
                "without them."
            ] = None
            return
        pair = f"{unquote(user)}:{unquote(password or '')}"
        self.credentials[destination] = f"Basic {base64.b64encode(pair.encode()).decode()}"


async def run_client(command: Sequence[str]) -> str | None:
    """`Run` as a child process of ours."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=client_environment(os.environ),
        )
    except OSError:
        return None
    try:
        async with asyncio.timeout(CLIENT_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        output = b""
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return output.decode(errors="replace") if process.returncode == 0 else None


def client_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a client is given."""
    return {
        name: value for name, value in environment.items() if _CLIENTS_VARIABLES.fullmatch(name)
    }


async def find_sources(presets: Sequence[EgressPreset], run: Run = run_client) -> PackageSources:
    """Ask the clients of these presets where they install from."""
    found = _Found()
    for preset in dict.fromkeys(presets):
        await _FINDERS[preset](found, run)
    return PackageSources(
        tuple(found.rules),
        found.variables,
        found.credentials,
        found.certificates,
        tuple(found.notices),
    )


def read_pip_options(listed: str) -> Mapping[str, str]:
    """The options that count for `pip install`, from what `pip config list` prints."""
    options: dict[str, str] = {}
    for section in _PIP_SECTIONS:
        for line in listed.splitlines():
            name, equals, value = line.partition("=")
            if equals and name.startswith(section):
                with suppress(ValueError, SyntaxError):
                    options[name.removeprefix(section)] = str(ast.literal_eval(value))
    return options


async def _pip_options(run: Run) -> tuple[str | None, Mapping[str, str]]:
    """A Python that has pip, and its options."""
    for python in (sys.executable, "python3"):
        listed = await run((python, "-m", "pip", "config", "list"))
        if listed is not None:
            return python, read_pip_options(listed)
    return None, {}


async def _find_pip(found: _Found, run: Run) -> None:
    python, options = await _pip_options(run)
    if python is None:
        found.notices["pip is not installed on this machine: its preset allows nothing."] = None
        return
    if "cert" in options:
        found.certificates = Path(options["cert"])
    if "index-url" in options:
        index = found.add(options["index-url"], "pip")
        if index is not None:
            found.variables["PIP_INDEX_URL"] = index
    else:
        for url in (await run((python, "-c", _PIP_DEFAULTS)) or "").split():
            found.add(url, "pip")
    more = [found.add(url, "pip") for url in options.get("extra-index-url", "").split()]
    usable = " ".join(url for url in more if url is not None)
    if usable:
        found.variables["PIP_EXTRA_INDEX_URL"] = usable
    if "trusted-host" in options:
        found.variables["PIP_TRUSTED_HOST"] = " ".join(options["trusted-host"].split())


async def _find_npm(found: _Found, run: Run) -> None:
    url = (await run(("npm", "config", "get", "registry")) or "").strip()
    if not url:
        found.notices["npm is not installed on this machine: its preset allows nothing."] = None
        return
    registry = found.add(url, "npm")
    if registry is not None:
        found.variables["NPM_CONFIG_REGISTRY"] = registry


async def _find_apt(found: _Found, run: Run) -> None:
    listed = (await run(("apt-get", "indextargets", "--format", "$(REPO_URI)")) or "").split()
    if not listed:
        found.notices["apt has no sources on this machine: its preset allows nothing."] = None
    for url in dict.fromkeys(listed):
        found.add(url, "apt")


_FINDERS = {
    EgressPreset.PIP: _find_pip,
    EgressPreset.NPM: _find_npm,
    EgressPreset.APT: _find_apt,
}
