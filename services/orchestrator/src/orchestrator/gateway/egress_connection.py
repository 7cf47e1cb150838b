"""One connection from a container: what it asks for is checked, recorded and carried out."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress

import h11
import structlog

from orchestrator.domain.egress import Allowlist, Destination
from orchestrator.errors import EgressError, EgressRequestInvalid, EgressUnreachable
from orchestrator.gateway.egress_account import Account
from orchestrator.gateway.egress_address import EgressAddresses
from orchestrator.gateway.egress_relay import (
    Line,
    Remote,
    connected,
    exchange,
    next_event,
    tunnel,
)
from orchestrator.gateway.egress_request import (
    Wanted,
    onward_request,
    read_credentials,
    read_wanted,
    refusal,
)

log = structlog.get_logger(__name__)

MAX_HEAD_BYTES = 32 * 1024
HEAD_SECONDS = 15.0
FAREWELL_SECONDS = 5.0
_READING = frozenset({b"GET", b"HEAD"})

FindAccount = Callable[[tuple[str, str] | None], Account]
"""The task that has these credentials; raises `EgressUnattributed` if none or several may."""


class EgressPolicy:
    """What may be reached, and what is added on the way.

    Args:
        allowlist: The hosts and ports.
        addresses: Checks what they resolve to.
        credentials: Values of `Authorization` that plain requests to a destination get.
    """

    def __init__(
        self,
        allowlist: Allowlist,
        addresses: EgressAddresses,
        credentials: Mapping[Destination, str],
    ) -> None:
        self._allowlist = allowlist
        self._addresses = addresses
        self._credentials = credentials

    async def admit(self, destination: Destination) -> tuple[str, ...]:
        """The addresses to connect to.

        Raises:
            EgressError: The destination is not allowed or has no address.
        """
        self._allowlist.require(destination)
        return await self._addresses.of(destination)

    def authorization(self, destination: Destination, method: bytes) -> str | None:
        """What the gateway adds to a plain request; only to one that reads."""
        return self._credentials.get(destination) if method in _READING else None


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
            with account.connection(destination):
                await self._carry_out(request, wanted, account)
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

    async def _carry_out(self, request: h11.Request, wanted: Wanted, account: Account) -> None:
        destination = wanted.destination
        addresses = await self._policy.admit(destination)
        async with AsyncExitStack() as stack:
            line = await self._connect(addresses, destination, stack)
            await account.reach(destination)
            async with asyncio.timeout(account.idle_seconds) as idle:
                remote = Remote(line, account, destination, idle)
                if wanted.target is None:
                    await self._open_tunnel(remote)
                else:
                    authorization = self._policy.authorization(destination, request.method)
                    onward = onward_request(request, wanted, authorization)
                    await exchange(self._client, self._state, remote, onward)

    async def _connect(
        self, addresses: Iterable[str], destination: Destination, stack: AsyncExitStack
    ) -> Line:
        for address in addresses:
            with suppress(OSError):  # then the next one
                return await stack.enter_async_context(connected(address, destination.port))
        raise EgressUnreachable(
            f"{destination.authority} does not accept connections.", host=destination.host
        )

    async def _open_tunnel(self, remote: Remote) -> None:
        response = h11.Response(status_code=200, headers=[], reason=b"Connected")
        await self._client.write(self._state.send(response) or b"")
        await tunnel(self._client, remote, self._state.trailing_data[0])

    async def _refuse(self, error: EgressError) -> None:
        if self._state.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return  # an answer is under way already: all that is left is to break it off
        response, body = refusal(error)
        said = (response, h11.Data(data=body), h11.EndOfMessage())
        with suppress(OSError):  # who does not wait for the answer does not get it
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._client.write(b"".join(self._state.send(each) or b"" for each in said))
