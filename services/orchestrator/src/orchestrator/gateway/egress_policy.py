"""What may be reached, on which way, and what is added to it there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.domain.egress import Allowlist, Destination
from orchestrator.domain.injection import READING, Injection, WebPrefix, chosen
from orchestrator.errors import EgressRefused, EgressUnreachable
from orchestrator.gateway.egress_address import EgressAddresses
from orchestrator.gateway.egress_request import Wanted
from orchestrator.gateway.egress_terms import EgressTerms
from orchestrator.gateway.egress_upstream import Upstream, UpstreamProxy

_PLAIN = "http"


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
        self._injections = tuple(_injection(*each) for each in credentials.items())
        self._upstream = upstream

    def added(self, wanted: Wanted, method: str, own: Sequence[Injection]) -> Sequence[Injection]:
        """What is added to a request; `own` is its workspace's."""
        return chosen((*self._injections, *own), wanted, method)

    async def route(
        self, wanted: Wanted, terms: EgressTerms, added: Sequence[Injection] = ()
    ) -> Route:
        """The way to what a request wants.

        Args:
            wanted: What it wants.
            terms: What its workspace may do beside what all may.
            added: What is added to the request. A secret of its workspace's opens the way to where
                the operator gives it.

        Raises:
            EgressError: The destination is not allowed or has no address.
        """
        destination = wanted.destination
        if not any(each in terms.injections for each in added):
            self._require(wanted, terms)
        is_plain = wanted.target is not None and wanted.scheme == _PLAIN
        proxy = self._upstream.proxy_for(destination, plain=is_plain)
        try:
            addresses = await self._addresses.of(destination)
        except EgressUnreachable:
            if proxy is None:
                raise
            addresses = ()  # behind such a proxy, machines often resolve no names of the outside
        if proxy is None:
            return Route(addresses, destination.port)
        return Route((proxy.host,), proxy.port, proxy)

    def _require(self, wanted: Wanted, terms: EgressTerms) -> None:
        destination = wanted.destination
        try:
            self._allowlist.also(terms.rules).require(destination)
        except EgressRefused:
            if wanted.target is None or not terms.is_about(wanted.scheme, destination):
                raise
            raise EgressRefused(
                f"{destination.host} is open to this workspace only for the requests that its "
                "secrets are for: others by method or path are not allowed.",
                host=destination.host,
                port=destination.port,
            ) from None


def _injection(destination: Destination, authorization: str) -> Injection:
    """What a package manager of this machine's is configured with; only for what reads."""
    return Injection(
        prefix=WebPrefix(_PLAIN, destination),
        header="Authorization",
        value=authorization,
        secret=authorization.rpartition(" ")[2],
        methods=READING,
        replaces=False,
    )
