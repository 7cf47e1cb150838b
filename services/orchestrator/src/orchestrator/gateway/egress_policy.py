"""What may be reached, on which way, and what is added to it there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.domain.egress import Allowlist, Destination, HostRule
from orchestrator.errors import EgressUnreachable
from orchestrator.gateway.egress_address import EgressAddresses
from orchestrator.gateway.egress_request import Wanted
from orchestrator.gateway.egress_upstream import Upstream, UpstreamProxy

_READING = frozenset({b"GET", b"HEAD"})


@dataclass(frozen=True, slots=True)
class Route:
    """Where to connect for a destination: to itself, or to the proxy that leads there."""

    addresses: tuple[str, ...]
    port: int
    proxy: UpstreamProxy | None = None


class EgressPolicy:
    """Decides on every connection.

    Args:
        allowlist: The hosts and ports.
        addresses: Checks what they resolve to.
        credentials: Values of `Authorization` that plain requests to a destination get.
        upstream: Which of them are reached by a proxy of this machine's.
    """

    def __init__(
        self,
        allowlist: Allowlist,
        addresses: EgressAddresses,
        credentials: Mapping[Destination, str],
        upstream: Upstream,
    ) -> None:
        self._allowlist = allowlist
        self._addresses = addresses
        self._credentials = credentials
        self._upstream = upstream

    async def route(self, wanted: Wanted, rules: Sequence[HostRule] = ()) -> Route:
        """The way to what a request wants.

        Args:
            wanted: What it wants.
            rules: What its workspace may reach beside what all may.

        Raises:
            EgressError: The destination is not allowed or has no address.
        """
        destination = wanted.destination
        self._allowlist.also(rules).require(destination)
        proxy = self._upstream.proxy_for(destination, plain=wanted.target is not None)
        try:
            addresses = await self._addresses.of(destination)
        except EgressUnreachable:
            if proxy is None:
                raise
            addresses = ()  # behind such a proxy, machines often resolve no names of the outside
        if proxy is None:
            return Route(addresses, destination.port)
        return Route((proxy.host,), proxy.port, proxy)

    def authorization(self, destination: Destination, method: bytes) -> str | None:
        """What the gateway adds to a plain request; only to one that reads."""
        return self._credentials.get(destination) if method in _READING else None
