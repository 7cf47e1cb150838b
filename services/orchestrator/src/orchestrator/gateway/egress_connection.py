"""One connection from a container: what it asks for is checked, recorded and carried out."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Protocol

import h11
import structlog

from orchestrator.domain.egress import Destination
from orchestrator.errors import EgressError, EgressRequestInvalid, EgressUnreachable
from orchestrator.gateway.egress_account import Account
from orchestrator.gateway.egress_line import Line, connected, next_event
from orchestrator.gateway.egress_policy import EgressPolicy, Route
from orchestrator.gateway.egress_relay import Remote, exchange, tunnel
from orchestrator.gateway.egress_request import (
    Wanted,
    onward_request,
    read_credentials,
    read_inner,
    read_wanted,
    refusal,
    require_no_upgrade,
)
from orchestrator.gateway.egress_terms import EgressTerms
from orchestrator.gateway.egress_upstream import open_upstream_tunnel
from orchestrator.gateway.interception import SECURE
from orchestrator.gateway.redaction import Redaction

log = structlog.get_logger(__name__)

MAX_HEAD_BYTES = 32 * 1024
HEAD_SECONDS = 15.0
FAREWELL_SECONDS = 5.0

FindAccount = Callable[[tuple[str, str] | None], Account]
"""The task that has these credentials; raises `EgressUnattributed` if none or several may."""


class Tls(Protocol):
    """TLS on both sides of a request that the gateway reads."""

    @property
    def outward(self) -> ssl.SSLContext:
        """How to connect to servers."""
        ...

    def meet(self, terms: EgressTerms, host: str) -> ssl.SSLContext:
        """How to answer a program that connects to a host."""
        ...


class EgressConnection:
    """Serves one connection.

    Args:
        client: The connection.
        policy: What may be reached.
        find_account: Tells whose connection it is.
        tls: Reads what has a secret added; None if nothing can have one.
    """

    def __init__(
        self, client: Line, policy: EgressPolicy, find_account: FindAccount, tls: Tls | None = None
    ) -> None:
        self._client = client
        self._policy = policy
        self._find_account = find_account
        self._tls = tls
        self._state = _new_state()

    async def serve(self) -> None:
        """Serve it to its end; what goes wrong is told to the client."""
        account: Account | None = None
        destination: Destination | None = None
        try:
            request = await self._read_request()
            account = self._find_account(read_credentials(request.headers))
            wanted = read_wanted(request)
            destination = wanted.destination
            terms = await account.current_terms()
            with account.connection(destination):
                if wanted.target is None and terms.is_about(SECURE, destination):
                    request = await self._request_inside(destination, terms)
                    wanted = read_inner(request, destination)
                await self._carry_out(request, wanted, account, terms)
        except EgressError as error:
            if account is not None:
                await account.refuse(error, destination)
            await self._refuse(error)
        except (OSError, h11.ProtocolError) as error:
            # A side hung up or fell silent in the middle. The other sees its connection end.
            log.debug("egress_broke_off", error=type(error).__name__)

    async def _read_request(self) -> h11.Request:
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                event = await next_event(self._state, self._client.read)
        except TimeoutError:
            raise EgressRequestInvalid("The request did not arrive in time.") from None
        except h11.RemoteProtocolError as error:
            raise EgressRequestInvalid(f"This is not an HTTP request: {error}.") from None
        if not isinstance(event, h11.Request):
            raise ConnectionResetError
        return event

    async def _request_inside(self, destination: Destination, terms: EgressTerms) -> h11.Request:
        """The request in a tunnel that ends here, since it may have a secret added."""
        if self._tls is None or self._state.trailing_data[0]:
            raise EgressRequestInvalid("TLS must wait until the tunnel stands.")
        context = self._tls.meet(terms, destination.host)
        await self._client.write(self._state.send(_connected()) or b"")
        try:
            await self._client.start_tls(context)
            self._state = _new_state()
            return await self._read_request()
        except OSError:
            raise EgressRequestInvalid(
                f"The program made no TLS connection to {destination.host}. There the gateway adds "
                "a secret: programs must trust the certificates in SSL_CERT_FILE."
            ) from None

    async def _carry_out(
        self, request: h11.Request, wanted: Wanted, account: Account, terms: EgressTerms
    ) -> None:
        destination, method = wanted.destination, request.method.decode()
        added = self._policy.added(wanted, method, terms.injections)
        if wanted.scheme == SECURE or any(each.replaces for each in added):
            require_no_upgrade(request)
        route = await self._policy.route(wanted, terms, added)
        async with AsyncExitStack() as stack:
            line, early = await self._connect(route, wanted, stack)
            await account.reach(destination)
            async with asyncio.timeout(account.idle_seconds) as idle:
                remote = Remote(line, account, destination, idle)
                if wanted.target is None:
                    await self._open_tunnel(remote, early)
                else:
                    proxy = None if wanted.scheme == SECURE else route.proxy
                    onward = onward_request(request, wanted, added, proxy)
                    redaction = Redaction(each.secret for each in added)
                    await exchange(self._client, self._state, remote, onward, redaction)

    async def _connect(
        self, route: Route, wanted: Wanted, stack: AsyncExitStack
    ) -> tuple[Line, bytes]:
        """A connection to the destination, and what has come on it already."""
        destination, early = wanted.destination, b""
        line = await self._line(route, destination, stack)
        is_plain = wanted.target is not None and wanted.scheme != SECURE
        if route.proxy is not None and not is_plain:
            early = await open_upstream_tunnel(line, route.proxy, destination)
        if wanted.target is not None and not is_plain:
            await self._require_proof(line, destination, early)
        return line, early

    async def _require_proof(self, line: Line, destination: Destination, early: bytes) -> None:
        host, what = destination.host, destination.authority
        if self._tls is None or early:
            raise EgressUnreachable(f"{what} does not wait for TLS.", host=host)
        try:
            await line.start_tls(self._tls.outward, host)
        except ssl.SSLCertVerificationError as error:
            raise EgressUnreachable(
                f"{what} does not prove to be {host} ({error.verify_message}): it gets no secret.",
                host=host,
            ) from None
        except OSError:
            raise EgressUnreachable(f"{what} does not speak TLS with us.", host=host) from None

    async def _line(self, route: Route, destination: Destination, stack: AsyncExitStack) -> Line:
        for address in route.addresses:
            with suppress(OSError):  # then the next one
                return await stack.enter_async_context(connected(address, route.port))
        what = destination.authority if route.proxy is None else "The proxy that this machine uses"
        raise EgressUnreachable(f"{what} does not accept connections.", host=destination.host)

    async def _open_tunnel(self, remote: Remote, early: bytes) -> None:
        await self._client.write((self._state.send(_connected()) or b"") + early)
        await tunnel(self._client, remote, self._state.trailing_data[0])

    async def _refuse(self, error: EgressError) -> None:
        if self._state.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return  # an answer is under way already: all that is left is to break it off
        response, body = refusal(error)
        said = (response, h11.Data(data=body), h11.EndOfMessage())
        with suppress(OSError):  # who does not wait for the answer does not get it
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._client.write(b"".join(self._state.send(each) or b"" for each in said))


def _new_state() -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)


def _connected() -> h11.Response:
    return h11.Response(status_code=200, headers=[], reason=b"Connected")
