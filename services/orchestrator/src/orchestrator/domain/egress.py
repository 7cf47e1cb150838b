"""Where a container may connect to: destinations, the operator's rules, and what comes of both."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from pathlib import Path

from orchestrator.errors import EgressRefused, EgressRequestInvalid

WEB_PORTS = frozenset({80, 443})
MAX_HOST_CHARS = 253
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# Resolvers take a name whose last label is such a number for an address in an odd spelling.
_NUMBER = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)")
_PORT = re.compile(r"[0-9]{1,5}")
_WILDCARD = "*."


@dataclass(frozen=True, slots=True, order=True)
class Destination:
    """A host and a port.

    The host is a lower-case name without final dot, or an address in its usual spelling.
    """

    host: str
    port: int

    @property
    def authority(self) -> str:
        """As it stands in an address; IPv6 addresses have brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def literal(self) -> IPv4Address | IPv6Address | None:
        """The address, if the host is one."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class HostRule:
    """Hosts that may be reached: one, or with `subdomains` all below it, on some ports."""

    host: str
    ports: frozenset[int] = WEB_PORTS
    subdomains: bool = False

    def __str__(self) -> str:
        """As operators write it; with several ports other than those of the web, the first."""
        name = Destination(self.host, min(self.ports))
        bare = self.ports == WEB_PORTS
        host = name.authority.rpartition(":")[0] if bare else name.authority
        return f"{_WILDCARD}{host}" if self.subdomains else host

    def names(self, host: str) -> bool:
        """Whether it is about this host, whatever the port."""
        return host.endswith(f".{self.host}") if self.subdomains else host == self.host

    def covers(self, other: "HostRule") -> bool:
        """Whether all that the other allows is allowed by this one."""
        below = self.subdomains and (
            self.names(other.host) or (other.subdomains and other.host == self.host)
        )
        same = not self.subdomains and not other.subdomains and other.host == self.host
        return (below or same) and other.ports <= self.ports


class Allowlist:
    """The operator's rules; what none of them allows is refused."""

    def __init__(self, rules: Iterable[HostRule]) -> None:
        self._rules = tuple(rules)

    def also(self, rules: Iterable[HostRule]) -> "Allowlist":
        """These rules and more."""
        return Allowlist((*self._rules, *rules))

    def require(self, destination: Destination) -> None:
        """Let a destination pass.

        Raises:
            EgressRefused: No rule allows it.
        """
        about = [rule for rule in self._rules if rule.names(destination.host)]
        if any(destination.port in rule.ports for rule in about):
            return
        host, port = destination.host, destination.port
        if about:
            raise EgressRefused(
                f"Port {port} of {host} is not allowed: the operator names it with "
                f"BERTH_EGRESS_ALLOW={destination.authority}.",
                host=host,
                port=port,
            )
        raise EgressRefused(
            f"{host} is not allowed: the operator allows hosts with BERTH_EGRESS_ALLOW and "
            "package managers with BERTH_EGRESS_PRESETS.",
            host=host,
            port=port,
        )


@dataclass(frozen=True, slots=True)
class PackageSources:
    """What this machine's own package managers are configured with.

    Args:
        rules: Their hosts.
        variables: Environment variables that point the same managers in a container there.
        credentials: Values of `Authorization` that the gateway adds to plain requests.
        certificates: The file of certificates that they are told to trust.
        notices: Sentences on what could not be taken over.
    """

    rules: tuple[HostRule, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[Destination, str] = field(default_factory=dict, repr=False)
    certificates: Path | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EgressLimits:
    """What tasks may use of the way out.

    Bytes are those of both directions together. A workspace's are counted over all its tasks
    since the service started. A connection on which nothing moves for `idle_seconds` is cut.
    """

    task_bytes: int
    workspace_bytes: int
    task_connections: int
    workspace_connections: int
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class EgressPass:
    """What a task's tools need in order to get out: the proxy's credentials, and variables.

    The credentials tell the tasks of one container apart and open nothing that the container
    could not reach anyway.
    """

    user: str
    password: str
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EgressUse:
    """What a task moved to and from one destination."""

    destination: Destination
    connections: int
    sent: int
    received: int


def parse_host(text: str) -> str:
    """A host in the one spelling it is compared in.

    Raises:
        EgressRequestInvalid: It is neither a name nor an address in its usual spelling.
    """
    host = text.lower()
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(IPv6Address(_without_zone(host[1:-1])))
        except AddressValueError:
            raise _not_a_host(text) from None
    host = host.removesuffix(".")
    if not _NAME.fullmatch(host) or len(host) > MAX_HOST_CHARS:
        raise _not_a_host(text)
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            return str(IPv4Address(host))
        except AddressValueError:
            raise _not_a_host(text) from None
    return host


def parse_authority(text: str, default_port: int | None = None) -> Destination:
    """A destination from `host:port`; the port may be missing if there is a default.

    Raises:
        EgressRequestInvalid: It has another form, such as one with a user name.
    """
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, colon, port = text, "", ""
    if not colon and default_port is not None:
        return Destination(parse_host(host), default_port)
    if not _PORT.fullmatch(port) or not 0 < int(port) < 2**16:
        raise EgressRequestInvalid(f"{_shown(text)} is not of the form host:port.")
    return Destination(parse_host(host), int(port))


def parse_rule(text: str) -> HostRule:
    """A rule from `host`, `host:port`, `*.domain` or `*.domain:port`.

    Raises:
        EgressRequestInvalid: It has another form.
    """
    subdomains = text.startswith(_WILDCARD)
    rest = text.removeprefix(_WILDCARD)
    bare = rest.endswith("]") or ":" not in rest
    destination = parse_authority(rest, default_port=443 if bare else None)
    if subdomains and destination.literal is not None:
        raise EgressRequestInvalid(f"{_shown(text)} is not a host: addresses have no subdomains.")
    ports = WEB_PORTS if bare else frozenset({destination.port})
    return HostRule(destination.host, ports, subdomains)


def _without_zone(text: str) -> str:
    if "%" in text:
        raise AddressValueError
    return text


def _not_a_host(text: str) -> EgressRequestInvalid:
    return EgressRequestInvalid(f"{_shown(text)} is not a host name or address.")


def _shown(text: str) -> str:
    return ascii(text[:80])
