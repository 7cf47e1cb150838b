"""A container's way out: a socket in the directory that the container sees."""

import asyncio
import os
import secrets
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import structlog

from orchestrator.errors import ContainerStartFailed, EgressUnattributed
from orchestrator.gateway.egress_account import Account
from orchestrator.gateway.egress_connection import EgressConnection
from orchestrator.gateway.egress_line import CHUNK_BYTES, Line
from orchestrator.gateway.egress_policy import EgressPolicy
from orchestrator.gateway.egress_terms import EgressTerms
from orchestrator.gateway.interception import Interception

log = structlog.get_logger(__name__)

SOCKET_NAME = "egress.sock"
CERTIFICATES_NAME = "certificates.pem"
BACKLOG = 128
MAX_WAITING = 256
"""Most connections of one container, those included whose request has not arrived yet."""


class Door:
    """Listens for one container. Who comes in by it is known to be that container.

    Its programs can write to the directory, so nothing is ever opened there: what is put into it is
    made beside it, where they cannot reach, and moved in.
    """

    def __init__(self, directory: Path, policy: EgressPolicy, interception: Interception) -> None:
        self._directory = directory
        self._policy = policy
        self._interception = interception
        self._trusted: bytes | None = None
        self._accounts: dict[str, Account] = {}
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[object]] = set()

    @property
    def accounts(self) -> Mapping[str, Account]:
        """The tasks that may go out, by their ids."""
        return self._accounts

    @property
    def outward(self) -> ssl.SSLContext:
        """How to connect to servers that secrets are for."""
        return self._interception.outward

    async def open(self, terms: EgressTerms) -> None:
        """Begin to listen.

        Args:
            terms: What the tasks of the container may do.

        Raises:
            ContainerStartFailed: The container has put something in the way.
        """
        self.trust(terms)
        with self._unhindered():
            if self._trusted is None:  # what may be there is of an earlier time
                (self._directory / CERTIFICATES_NAME).unlink(missing_ok=True)
            listening = self._listen()
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listening, limit=CHUNK_BYTES, backlog=BACKLOG
        )

    async def close(self) -> None:
        """Stop listening and end what is left."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(set(self._connections))

    def meet(self, terms: EgressTerms, host: str) -> ssl.SSLContext:
        """How to answer a program that connects to a host that a secret is for."""
        self.trust(terms)
        return self._interception.context(terms, host)

    def trust(self, terms: EgressTerms) -> None:
        """Have programs inside trust what they need to under these terms.

        Raises:
            ContainerStartFailed: The container has put something in the way.
        """
        trusted = self._interception.trusted(terms)
        if trusted is None or trusted == self._trusted:
            return
        with self._unhindered():
            self._put(CERTIFICATES_NAME, trusted)
        self._trusted = trusted

    def admit(self, account: Account) -> None:
        """Let a task out."""
        self._accounts[account.task_id] = account

    async def dismiss(self, account: Account) -> None:
        """Let a task out no longer and cut its connections."""
        if self._accounts.get(account.task_id) is account:
            del self._accounts[account.task_id]
        await account.close()

    def _find_account(self, credentials: tuple[str, str] | None) -> Account:
        if credentials is None:
            if len(self._accounts) == 1:
                return next(iter(self._accounts.values()))
            raise EgressUnattributed(
                "Several tasks share this container: use the proxy with the credentials in "
                "HTTPS_PROXY."
            )
        account = self._accounts.get(credentials[0])
        if account is None or not account.is_opened_by(credentials[1]):
            raise EgressUnattributed(
                "No running task has these proxy credentials: take those in HTTPS_PROXY."
            )
        return account

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        current = asyncio.current_task()
        client = Line(reader, writer)
        if current is None or len(self._connections) >= MAX_WAITING:
            await client.close()
            return
        self._connections.add(current)
        try:
            await EgressConnection(client, self._policy, self._find_account, self).serve()
        except asyncio.CancelledError:
            # The task has ended, or we do: to the server that called us this is no failure.
            writer.transport.abort()
        except Exception:
            log.exception("egress_broke", container=self._directory.name)
        finally:
            self._connections.discard(current)
            await client.close()

    @contextmanager
    def _unhindered(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ContainerStartFailed(
                f"The way out of {self._directory.name} cannot be opened ({error.strerror}): "
                "remove that container with DELETE /containers/… and send the task again."
            ) from error

    def _listen(self) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX)
        beside = self._beside()
        try:
            listening.bind(str(beside))
            beside.chmod(0o666)  # a container's user id is not ours
            listening.listen(BACKLOG)
            beside.rename(self._directory / SOCKET_NAME)
        except OSError:
            listening.close()
            beside.unlink(missing_ok=True)
            raise
        return listening

    def _put(self, name: str, content: bytes) -> None:
        beside = self._beside()
        try:
            beside.write_bytes(content)
            beside.chmod(0o644)
            beside.rename(self._directory / name)
        except OSError:
            beside.unlink(missing_ok=True)
            raise

    def _beside(self) -> Path:
        return self._directory.parent / f".{os.getpid()}-{secrets.token_hex(4)}"
