"""A gateway with a container that is only a directory, and programs that speak to it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.support.package_index import HOST
from tests.support.worker_process import container_at

from orchestrator.domain.container import Container, Endpoint
from orchestrator.domain.egress import (
    Allowlist,
    Destination,
    EgressLimits,
    PackageSources,
    parse_rule,
)
from orchestrator.domain.events import NewEvent
from orchestrator.domain.injection import Injection
from orchestrator.gateway.address import Resolver
from orchestrator.gateway.egress import EgressGateway
from orchestrator.gateway.egress_address import EgressAddresses
from orchestrator.gateway.egress_policy import EgressPolicy
from orchestrator.gateway.egress_terms import (
    EgressTerms,
    LookUp,
    TermsOf,
    same_for_all,
)
from orchestrator.gateway.egress_upstream import Upstream
from orchestrator.gateway.interception import Interception

LIMITS = EgressLimits(
    task_bytes=2**30,
    workspace_bytes=2**30,
    task_connections=8,
    workspace_connections=12,
    idle_seconds=20,
)


@dataclass(slots=True)
class Names:
    """A resolver whose answers are given one after the other; the last one stays."""

    answers: dict[str, list[Sequence[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str, _port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.answers:
            raise OSError("no such name")
        left = self.answers[host]
        return left.pop(0) if len(left) > 1 else left[0]


def gateway(
    *rules: str,
    resolver: Resolver | None = None,
    allow_hosts: Sequence[str] = (HOST,),
    limits: EgressLimits = LIMITS,
    credentials: dict[Destination, str] | None = None,
    environment: dict[str, str] | None = None,
    terms_of: TermsOf | None = None,
    roots: bytes | None = None,
) -> EgressGateway:
    """A gateway that allows what the rules say."""
    policy = EgressPolicy(
        Allowlist([parse_rule(rule) for rule in rules]),
        EgressAddresses(allow_hosts, resolver or Names()),
        credentials or {},
        Upstream(environment or {}),
    )
    return EgressGateway(
        policy, terms_of or same_for_all(limits), PackageSources(), interception(roots)
    )


def interception(roots: bytes | None = None) -> Interception:
    """Interception that trusts these certificates, or none: loading the machine's takes long."""
    outward = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if roots is not None:
        outward.load_verify_locations(cadata=roots.decode())
    return Interception(None, roots or b"", outward)


def with_secrets(*added: Injection, rules: Sequence[str] = ()) -> TermsOf:
    """Terms under which the workspace `w1` has secrets added, and no other."""

    def terms_of(workspace_id: str) -> LookUp:
        own = added if workspace_id == "w1" else ()

        async def look_up() -> EgressTerms:
            return EgressTerms(LIMITS, tuple(parse_rule(rule) for rule in rules), own)

        return look_up

    return terms_of


def container(directory: Path) -> Container:
    """A container that sees a directory."""
    return container_at(Endpoint(directory / "worker.sock", "http://worker"))


@dataclass(slots=True)
class Inside:
    """A task in a container that may go out, seen from inside."""

    socket: Path
    events: list[NewEvent]
    user: str
    password: str

    def whats(self) -> list[object]:
        """What the events are about, in order."""
        return [event.data["what"] for event in self.events]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the gateway."""
        return await asyncio.open_unix_connection(str(self.socket))

    async def say(self, text: str | bytes) -> bytes:
        """All that is answered to these bytes."""
        reader, writer = await self.connect()
        try:
            writer.write(text.encode() if isinstance(text, str) else text)
            async with asyncio.timeout(30):
                return await reader.read()
        finally:
            writer.close()

    async def tunnel(
        self, authority: str
    ) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
        """The head of the answer to CONNECT, and the connection."""
        reader, writer = await self.connect()
        writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        async with asyncio.timeout(30):
            head = await reader.readuntil(b"\r\n\r\n")
        return head, reader, writer


@asynccontextmanager
async def admitted(
    way: EgressGateway, directory: Path, task: str = "task", workspace: str = "w1"
) -> AsyncIterator[Inside]:
    """A task that may go out of the container at a directory."""
    directory.mkdir(exist_ok=True)
    events: list[NewEvent] = []

    async def report(event: NewEvent) -> None:
        events.append(event)

    async with way.admit(
        task, replace(container(directory), workspace_id=workspace), report
    ) as admission:
        given = admission.egress_pass
        assert given is not None
        yield Inside(directory / "egress.sock", events, given.user, given.password)
