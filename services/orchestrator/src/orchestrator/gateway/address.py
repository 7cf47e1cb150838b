"""Which repositories may be reached, and through which network address."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

from orchestrator.domain.repository import RepositoryUrl
from orchestrator.errors import RepositoryUnreachable, RepositoryUrlRefused
from orchestrator.gateway.access import NO_ACCESS, Access
from orchestrator.gateway.local_path import locate

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Maps a host and a port to network addresses; raises OSError if the name has none."""

RESOLVE_SECONDS = 10.0
MAX_PINNED = 8

_GLOBAL_IPV6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_NOT_PUBLIC = tuple(
    ip_network(text)
    for text in (
        "100.64.0.0/10",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
    )
)


@dataclass(frozen=True, slots=True)
class Remote:
    """What git is told in order to reach a repository that passed the policy.

    `location` is an address or a directory. `pin` is curl's `host:port:address` entry, empty
    where there is no name to resolve. `address` is the first network address of the host.
    """

    url: RepositoryUrl
    location: str
    pin: str = ""
    address: str = ""
    access: Access = NO_ACCESS

    @property
    def scheme(self) -> str:
        """The only transport that git may use: `https`, `http`, `ssh` or `file`."""
        return self.url.scheme

    def with_access(self, access: Access) -> "Remote":
        """The same place, entered with these credentials."""
        location = self.location
        if access.user:
            location = location.replace("ssh://", f"ssh://{access.user}@", 1)
        return replace(self, location=location, access=access)


class AddressPolicy:
    """Decides what may be reached.

    Args:
        allow_paths: Directories that local repositories may be taken from.
        allow_hosts: `host` or `host:port` that may have addresses which are not public, and may
            be reached by plain http.
        resolver: Asked exactly once for each decision; the answer is what git connects to.
    """

    def __init__(
        self,
        allow_paths: Sequence[Path],
        allow_hosts: Sequence[str],
        resolver: Resolver,
        resolve_seconds: float = RESOLVE_SECONDS,
    ) -> None:
        self._allow_paths = tuple(allow_paths)
        self._allow_hosts = frozenset(host.lower().removesuffix(".") for host in allow_hosts)
        self._resolver = resolver
        self._resolve_seconds = resolve_seconds

    async def admit(self, url: RepositoryUrl) -> Remote:
        """Where git shall connect for this address.

        Raises:
            RepositoryUrlRefused: The policy forbids it.
            RepositoryUnreachable: The name does not resolve or the directory is no repository.
        """
        if url.scheme == "file":
            found = await asyncio.to_thread(locate, Path(url.path), self._allow_paths)
            return Remote(url, str(found))
        allowed = is_allowed_host(url, self._allow_hosts)
        if url.scheme == "http" and not allowed:
            raise RepositoryUrlRefused(
                f"Plain http to {url.host} is not allowed: give the https:// address.",
                host=url.host,
            )
        addresses = await self._addresses(url)
        if not allowed and not all(is_public(address) for address in addresses):
            raise RepositoryUrlRefused(
                f"{url.host} has an address that is not public. If it is your own git server, "
                "start Berth with this host in BERTH_ALLOW_HOSTS.",
                host=url.host,
            )
        return Remote(url, str(url), pin_of(url, addresses), str(addresses[0]))

    async def _addresses(self, url: RepositoryUrl) -> Sequence[IPv4Address | IPv6Address]:
        literal = _literal(url.host)
        if literal is not None:
            return (literal,)
        try:
            async with asyncio.timeout(self._resolve_seconds):
                answers = await self._resolver(url.host, url.port)
            addresses = tuple(ip_address(answer) for answer in answers)
        except TimeoutError:
            raise RepositoryUnreachable(
                f"The name {url.host} was not resolved in time: try again.", host=url.host
            ) from None
        except (OSError, ValueError):
            addresses = ()
        if not addresses:
            raise RepositoryUnreachable(
                f"The name {url.host} does not resolve to an address: check its spelling.",
                host=url.host,
            )
        return addresses


async def resolve(host: str, port: int) -> Sequence[str]:
    """The machine's own resolver.

    Raises:
        OSError: The name has no address.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_allowed_host(url: RepositoryUrl, allow_hosts: frozenset[str]) -> bool:
    """True if the operator named this host, with this port or without any."""
    names = {url.host, url.bracketed_host, f"{url.bracketed_host}:{url.port}"}
    return not names.isdisjoint(allow_hosts)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """True for global unicast addresses that lead to nothing else.

    An IPv6 address that carries an IPv4 address is as public as that one.
    """
    if isinstance(address, IPv6Address):
        embedded = _embedded(address)
        if embedded is not None:
            return is_public(embedded)
        if address not in _GLOBAL_IPV6:
            return False
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def pin_of(url: RepositoryUrl, addresses: Sequence[IPv4Address | IPv6Address]) -> str:
    """Curl's entry that ties a host name to these addresses; empty for a literal address."""
    if _literal(url.host) is not None:
        return ""
    spelled = (
        f"[{address}]" if isinstance(address, IPv6Address) else str(address)
        for address in addresses[:MAX_PINNED]
    )
    return f"{url.host}:{url.port}:{','.join(spelled)}"


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
