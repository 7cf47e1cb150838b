"""TLS on both sides of the requests that the gateway has to read."""

import asyncio
import ssl
from pathlib import Path

from orchestrator.gateway.authority import Authorities, outward_context
from orchestrator.gateway.egress_terms import EgressTerms

SECURE = "https"


class Interception:
    """The gateway in the place of the servers that secrets are for, and nobody else's.

    Args:
        certificates: PEM of what programs in containers trust; None leaves that to the image,
            unless there is something to read.
        roots: PEM of what they trust then.
        outward: How the gateway connects to the servers.
    """

    def __init__(self, certificates: bytes | None, roots: bytes, outward: ssl.SSLContext) -> None:
        self._certificates = certificates
        self._roots = roots
        self._authorities = Authorities()
        self.outward = outward

    def trusted(self, terms: EgressTerms) -> bytes | None:
        """What the programs of a workspace are to trust, as PEM; None leaves that to the image."""
        hosts = _hosts(terms)
        if not hosts:
            return self._certificates
        return self._roots.rstrip() + b"\n" + self._authorities.of(hosts).certificate

    def context(self, terms: EgressTerms, host: str) -> ssl.SSLContext:
        """How to answer a program of the workspace that connects to a host.

        Raises:
            ValueError: No secret of the workspace is for it.
        """
        return self._authorities.of(_hosts(terms)).context(host)


def no_interception(certificates: bytes | None = None) -> Interception:
    """For a gateway without secrets: it reads nothing and would trust no server.

    Loading a machine's certificates takes longer than the rest of the gateway's start.
    """
    return Interception(certificates, b"", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


async def make_interception(certificates: bytes | None) -> Interception:
    """Interception that trusts this machine's certificates, and those that are given.

    Raises:
        ValueError: The certificates cannot be read.
    """
    outward = await asyncio.to_thread(outward_context, certificates)
    roots = certificates
    if roots is None:
        roots = await asyncio.to_thread(_machine_roots)
    return Interception(certificates, roots, outward)


def _machine_roots() -> bytes:
    file = ssl.get_default_verify_paths().cafile
    return b"" if file is None else Path(file).read_bytes()


def _hosts(terms: EgressTerms) -> frozenset[str]:
    return frozenset(
        each.prefix.destination.host for each in terms.injections if each.prefix.scheme == SECURE
    )
