"""How git proves who we are, without a secret in a command line, an address or a file."""

import base64
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.domain.repository import DEFAULT_PORTS, RepositoryUrl

HIDDEN = "[hidden]"
CONNECT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Access:
    """What one git command is given for one repository.

    Attributes:
        variables: Names and values for the command's environment, which only its own user and
            root can read; both could read the credentials file as well.
        secrets: What must not appear in anything git or the server says.
        user: Whom ssh logs in as; empty for http.
    """

    variables: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    user: str = ""

    def __bool__(self) -> bool:
        return bool(self.variables)

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables by their names."""
        return dict(self.variables)

    def hidden(self, text: str) -> str:
        """The text without the secrets, which a server may have sent back."""
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
        return text


NO_ACCESS = Access()


def http_access(url: RepositoryUrl, user: str, token: str) -> Access:
    """A token for this host and port, as a header that goes nowhere else.

    Redirects are not followed at all, so no other host could get it either.
    """
    basic = base64.b64encode(f"{user}:{token}".encode()).decode()
    base = f"{url.scheme}://{url.bracketed_host}:{url.port}/"
    environment = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{base}.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Authorization: Basic {basic}",
    }
    return Access(tuple(environment.items()), (token, basic))


def ssh_access(url: RepositoryUrl, user: str, key: Path, known_hosts: Path, address: str) -> Access:
    """A key for this host, reached at an address that passed the policy.

    Nothing of the machine's own ssh settings, agents or known hosts takes part.
    """
    # ssh looks a host at another port up under this name.
    standard = url.port == DEFAULT_PORTS["ssh"]
    alias = url.host if standard else f"[{url.host}]:{url.port}"
    options = {
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": f'"{_literal(known_hosts)}"',
        "GlobalKnownHostsFile": "/dev/null",
        "UpdateHostKeys": "no",
        "CheckHostIP": "no",
        "PreferredAuthentications": "publickey",
        "ClearAllForwardings": "yes",
        "PermitLocalCommand": "no",
        "ConnectTimeout": str(CONNECT_SECONDS),
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "4",
        "HostName": address,
        "HostKeyAlias": alias,
    }
    command = ["ssh", "-F", "none", "-i", _literal(key)]
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    environment = {"GIT_SSH_COMMAND": shlex.join(command), "GIT_SSH_VARIANT": "ssh"}
    return Access(tuple(environment.items()), (), user)


def _literal(path: Path) -> str:
    """The path as ssh takes it, for whom `%` begins a variable."""
    return str(path).replace("%", "%%")
