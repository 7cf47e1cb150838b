"""How programs in the container get out: the forwarder, and the variables that lead to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from agent.apt import SOURCES, Apt
from agent.forwarder import LOOPBACK, Forwarder

SOCKET_NAME = "egress.sock"
CERTIFICATES_NAME = "certificates.pem"
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_JAVA_KINDS = ("http", "https")
_NOT_PROXIED = "localhost,127.0.0.1,::1"
_CERTIFICATES = (
    "SSL_CERT_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
)


@dataclass(frozen=True, slots=True)
class Pass:
    """A task's credentials for the proxy, and variables for its programs."""

    user: str
    password: str
    variables: Mapping[str, str]


class WayOut:
    """Knows the variables of each task that may go out.

    Args:
        directory: Where the orchestrator puts its socket; None where containers are reached by
            TCP, which have no such way.
        apt: What programs find of apt; None if nothing is done for it.
    """

    def __init__(self, directory: Path | None, apt: Apt | None = None) -> None:
        self._directory = directory
        self._apt = apt
        self._forwarder = None if directory is None else Forwarder(directory / SOCKET_NAME)
        self._port = 0
        self._passes: dict[str, Pass] = {}

    async def start(self) -> None:
        """Open the port on loopback."""
        if self._forwarder is not None:
            self._port = await self._forwarder.start()

    async def close(self) -> None:
        """Close it and cut its connections."""
        if self._forwarder is not None:
            await self._forwarder.close()

    def grant(self, task: str, given: Pass) -> None:
        """Keep what a task was given last."""
        self._passes[task] = given
        if self._apt is not None:
            self._apt.prepare(given.variables.get(SOURCES, ""))

    def variables(self, task: str) -> Mapping[str, str]:
        """The variables for the programs of a task; none if it may not go out."""
        given = self._passes.get(task)
        if given is None or self._directory is None:
            return {}
        certificates = self._directory / CERTIFICATES_NAME
        trusted = _CERTIFICATES if certificates.is_file() else ()
        return {
            **proxy_variables(self._port, given),
            "MAVEN_OPTS": maven_options(self._port),
            **({} if self._apt is None else self._apt.variables()),
            **dict.fromkeys(trusted, str(certificates)),
            **{name: value for name, value in given.variables.items() if name != SOURCES},
        }


def proxy_variables(port: int, given: Pass) -> dict[str, str]:
    """The variables that make programs use the proxy, in the spellings that they look for."""
    user, password = quote(given.user, safe=""), quote(given.password, safe="")
    proxy = f"http://{user}:{password}@{LOOPBACK}:{port}"
    both = {**dict.fromkeys(_PROXIES, proxy), "NO_PROXY": _NOT_PROXIED}
    return both | {name.lower(): value for name, value in both.items()}


def maven_options(port: int) -> str:
    """What makes Maven use the proxy, which Java does not look for in variables.

    Without credentials, since Java has none for a proxy's tunnels: they are needed only where
    several tasks are in the container at once.
    """
    options = [f"-D{kind}.proxyHost={LOOPBACK} -D{kind}.proxyPort={port}" for kind in _JAVA_KINDS]
    return " ".join((*options, "-Daether.connector.http.useSystemProperties=true"))
