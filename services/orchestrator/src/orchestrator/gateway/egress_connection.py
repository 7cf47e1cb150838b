"""One connection from a container: what it asks for is checked, recorded and carried out."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress

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
    read_wanted,
    refusal,
    require_no_upgrade,
)
from orchestrator.gateway.egress_terms import EgressTerms
from orchestrator.gateway.egress_upstream import open_upstream_tunnel
from orchestrator.gateway.redaction import Redaction

log = structlog.get_logger(__name__)

MAX_HEAD_BYTES = 32 * 1024
HEAD_SECONDS = 15.0
FAREWELL_SECONDS = 5.0

FindAccount = Callable[[tuple[str, str] | None], Account]
"""The task that has these credentials; raises `EgressUnattributed` if none or several may."""


class EgressConnection:
    """Serves one connection.

    Args:
        client: The connection.
        policy: What may be reached.
        find_account: Tells whose connection it is.
    """

    def __init__(self, client: Line, policy: EgressPolicy, find_account: FindAccount) -> None:
        self._client = client
        self._policy = policy
        self._find_account = find_account
        self._state = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)

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

    async def _carry_out(
        self, request: h11.Request, wanted: Wanted, account: Account, terms: EgressTerms
    ) -> None:
        destination, method = wanted.destination, request.method.decode()
        added = self._policy.added(wanted, method, terms.injections)
        if added:
            require_no_upgrade(request)
        route = await self._policy.route(wanted, terms, added)
        async with AsyncExitStack() as stack:
            line = await self._connect(route, destination, stack)
            early = b""
            if route.proxy is not None and wanted.target is None:
                early = await open_upstream_tunnel(line, route.proxy, destination)
            await account.reach(destination)
            async with asyncio.timeout(account.idle_seconds) as idle:
                remote = Remote(line, account, destination, idle)
                if wanted.target is None:
                    await self._open_tunnel(remote, early)
                else:
                    onward = onward_request(request, wanted, added, route.proxy)
                    redaction = Redaction(each.secret for each in added)
                    await exchange(self._client, self._state, remote, onward, redaction)

    async def _connect(self, route: Route, destination: Destination, stack: AsyncExitStack) -> Line:
        for address in route.addresses:
            with suppress(OSError):  # then the next one
                return await stack.enter_async_context(connected(address, route.port))
        what = destination.authority if route.proxy is None else "The proxy that this machine uses"
        raise EgressUnreachable(f"{what} does not accept connections.", host=destination.host)

    async def _open_tunnel(self, remote: Remote, early: bytes) -> None:
        response = h11.Response(status_code=200, headers=[], reason=b"Connected")
        await self._client.write((self._state.send(response) or b"") + early)
        await tunnel(self._client, remote, self._state.trailing_data[0])

    async def _refuse(self, error: EgressError) -> None:
        if self._state.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return  # an answer is under way already: all that is left is to break it off
        response, body = refusal(error)
        said = (response, h11.Data(data=body), h11.EndOfMessage())
        with suppress(OSError):  # who does not wait for the answer does not get it
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._client.write(b"".join(self._state.send(each) or b"" for each in said))
