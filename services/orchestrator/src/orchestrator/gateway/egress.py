"""The gateway's side for everything but git: tasks get out to where the operator allows it."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from orchestrator.domain.container import Container
from orchestrator.domain.egress import EgressPass, PackageSources
from orchestrator.gateway.egress_account import Account, WorkspaceUse
from orchestrator.gateway.egress_door import Door
from orchestrator.gateway.egress_policy import EgressPolicy
from orchestrator.gateway.egress_terms import EgressTerms, TermsOf
from orchestrator.gateway.interception import Interception
from orchestrator.ports import Admission, Report


class NoAdmission:
    """`ports.Admission` where containers are reached by TCP and have no way out through us."""

    @property
    def egress_pass(self) -> EgressPass | None:
        """None."""
        return None

    def take_refusals(self) -> tuple[str, ...]:
        """Nothing was refused."""
        return ()


class EgressGateway:
    """`ports.Egress` over a unix socket for each container.

    Args:
        policy: What may be reached.
        terms_of: What the tasks of a workspace may do.
        sources: How package managers inside find what they install from.
        interception: Reads the requests that secrets are added to.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        terms_of: TermsOf,
        sources: PackageSources,
        interception: Interception,
    ) -> None:
        self._policy = policy
        self._terms_of = terms_of
        self._sources = sources
        self._interception = interception
        self._doors: dict[Path, Door] = {}
        self._turning = asyncio.Lock()
        self._used: defaultdict[str, WorkspaceUse] = defaultdict(WorkspaceUse)

    @asynccontextmanager
    async def admit(
        self, task_id: str, container: Container, report: Report
    ) -> AsyncIterator[Admission]:
        """See `ports.Egress.admit`."""
        if container.endpoint.uds is None:
            yield NoAdmission()
            return
        directory = container.endpoint.uds.parent
        look_up = self._terms_of(container.workspace_id)
        terms = await look_up()
        account = Account(
            task_id,
            self._used[container.workspace_id],
            EgressPass(task_id, secrets.token_urlsafe(16), self._sources.variables),
            terms=terms,
            look_up=look_up,
            report=report,
        )
        door = await self._entered(directory, account, terms)
        try:
            yield account
        finally:
            await self._left(directory, door, account)

    async def _entered(self, directory: Path, account: Account, terms: EgressTerms) -> Door:
        async with self._turning:
            door = self._doors.get(directory)
            if door is None:
                door = Door(directory, self._policy, self._interception)
                await door.open(terms)
                self._doors[directory] = door
            else:
                door.trust(terms)
            door.admit(account)
            return door

    async def _left(self, directory: Path, door: Door, account: Account) -> None:
        try:
            await door.dismiss(account)
        finally:
            async with self._turning:
                if not door.accounts and self._doors.get(directory) is door:
                    del self._doors[directory]
                    await door.close()
