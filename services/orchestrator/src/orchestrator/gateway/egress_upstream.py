"""The proxy that this machine itself must use to get out, if there is one."""

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import h11

from orchestrator.domain.egress import Destination, parse_host
from orchestrator.errors import ConfigurationError, EgressRequestInvalid, EgressUnreachable
from orchestrator.gateway.egress_line import CONNECT_SECONDS, Line, next_event

OK = 200
_DEFAULT_PORT = 80


@dataclass(frozen=True, slots=True)
class UpstreamProxy:
    """A proxy outside; `authorization` is what it wants as `Proxy-Authorization`."""

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)


class Upstream:
    """Which destinations are reached by a proxy.

    Args:
        environment: With `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in either case.

    Raises:
        ConfigurationError: A proxy is not of the form http://host:port.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        everything = _variable(environment, "all_proxy")
        self._plain = _read_proxy(_variable(environment, "http_proxy") or everything)
        self._tunnels = _read_proxy(_variable(environment, "https_proxy") or everything)
        self._direct = tuple(
            name for each in _variable(environment, "no_proxy").split(",") if (name := each.strip())
        )

    def proxy_for(self, destination: Destination, *, plain: bool) -> UpstreamProxy | None:
        """The proxy to use for a destination; None if it is reached directly."""
        if any(_names(entry, destination) for entry in self._direct):
            return None
        return self._plain if plain else self._tunnels


async def open_upstream_tunnel(line: Line, proxy: UpstreamProxy, destination: Destination) -> bytes:
    """Ask a proxy for a tunnel; returns what has come through it already.

    Raises:
        EgressUnreachable: The proxy does not open one.
        OSError: It hung up.
    """
    state = h11.Connection(h11.CLIENT)
    authority = destination.authority
    headers = [("Host", authority), *proxy_headers(proxy)]
    asked = h11.Request(method="CONNECT", target=authority, headers=headers)
    await line.write((state.send(asked) or b"") + (state.send(h11.EndOfMessage()) or b""))
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            answer = await next_event(state, line.read)
    except (h11.RemoteProtocolError, TimeoutError):
        answer = None
    if not isinstance(answer, h11.Response) or answer.status_code != OK:
        said = answer.status_code if isinstance(answer, h11.Response) else "nothing"
        raise EgressUnreachable(
            f"The proxy that this machine uses does not lead to {authority}: it said {said}.",
            host=destination.host,
        )
    return state.trailing_data[0]


def proxy_headers(proxy: UpstreamProxy) -> list[tuple[str, str]]:
    """What a request to the proxy has in addition."""
    return [] if proxy.authorization is None else [("Proxy-Authorization", proxy.authorization)]


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.upper()) or ""


def _names(entry: str, destination: Destination) -> bool:
    """Whether an entry of NO_PROXY is about a destination: a host, a domain, or `*`."""
    name = entry.lower().removeprefix("*").removeprefix(".")
    if not name:
        return entry == "*"
    ends = f".{destination.host}", f".{destination.authority}"
    return any(end.endswith(f".{name}") for end in ends)


def _read_proxy(url: str) -> UpstreamProxy | None:
    if not url:
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    name = parts.hostname or ""
    try:
        host = parse_host(f"[{name}]" if ":" in name else name)
        port = parts.port or _DEFAULT_PORT
    except (ValueError, EgressRequestInvalid):
        host, port = "", 0
    if not host or parts.scheme != "http":
        raise ConfigurationError(
            "HTTP_PROXY, HTTPS_PROXY and ALL_PROXY must be of the form http://host:port."
        )
    if parts.username is None:
        return UpstreamProxy(host, port)
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return UpstreamProxy(host, port, f"Basic {base64.b64encode(pair.encode()).decode()}")
