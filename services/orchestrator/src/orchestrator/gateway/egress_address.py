"""The addresses behind a destination, resolved once and checked."""

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from orchestrator.domain.egress import Destination
from orchestrator.errors import EgressRefused, EgressUnreachable
from orchestrator.gateway.address import RESOLVE_SECONDS, Resolver, is_public

MAX_TRIED = 3
"""How many of a name's addresses are tried."""


class EgressAddresses:
    """Finds the addresses that may be connected to.

    Args:
        allow_hosts: `host` or `host:port` that may have addresses which are not public. Addresses
            of the own link, among them the metadata services of clouds, must be named themselves.
        resolver: Asked once for each connection; the answer is what is connected to.
    """

    def __init__(
        self,
        allow_hosts: Sequence[str],
        resolver: Resolver,
        resolve_seconds: float = RESOLVE_SECONDS,
    ) -> None:
        self._allow_hosts = frozenset(host.lower().removesuffix(".") for host in allow_hosts)
        self._resolver = resolver
        self._resolve_seconds = resolve_seconds

    async def of(self, destination: Destination) -> tuple[str, ...]:
        """The addresses of a destination, in the order in which they are to be tried.

        Raises:
            EgressRefused: One of them is not public.
            EgressUnreachable: There is none.
        """
        literal = destination.literal
        found = (literal,) if literal is not None else await self._resolved(destination)
        if not all(self._may_have(destination, address) for address in found):
            raise EgressRefused(
                f"{destination.host} has an address that is not public: if it is a host of your "
                "own, the operator names it in BERTH_ALLOW_HOSTS.",
                host=destination.host,
                port=destination.port,
            )
        return tuple(str(address) for address in found[:MAX_TRIED])

    async def _resolved(self, destination: Destination) -> tuple[IPv4Address | IPv6Address, ...]:
        try:
            async with asyncio.timeout(self._resolve_seconds):
                answers = await self._resolver(destination.host, destination.port)
            found = tuple(ip_address(answer) for answer in answers)
        except (OSError, ValueError):  # TimeoutError is an OSError
            found = ()
        if not found:
            raise EgressUnreachable(
                f"The name {destination.host} does not resolve to an address.",
                host=destination.host,
            )
        return found

    def _may_have(self, destination: Destination, address: IPv4Address | IPv6Address) -> bool:
        if is_public(address):
            return True
        if address.is_link_local and destination.literal is None:
            return False
        names = {destination.host, destination.authority}
        return not names.isdisjoint(self._allow_hosts)
