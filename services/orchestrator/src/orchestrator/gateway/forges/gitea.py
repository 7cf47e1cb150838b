"""Pull requests on Gitea and Forgejo (REST API, version 1)."""

from pydantic import BaseModel, SecretStr

from orchestrator.domain.repository import RepositoryUrl
from orchestrator.gateway.forges.http import ForgeHttp
from orchestrator.gateway.forges.path import owner_and_name
from orchestrator.ports import Proposal, PullRequest

DRAFT = "WIP: "
# Ours is among the newest: it is looked for right after it was opened.
NEWEST = "50"


class _End(BaseModel):
    ref: str


class _Pull(BaseModel):
    number: int
    html_url: str
    head: _End
    base: _End

    def to_pull_request(self) -> PullRequest:
        return PullRequest(self.number, self.html_url)


class GiteaForge:
    """`ports.Forge` for one repository on Gitea."""

    def __init__(self, http: ForgeHttp, api_url: str, token: SecretStr, url: RepositoryUrl) -> None:
        self._http = http
        owner, name = owner_and_name(url)
        self._pulls = f"{api_url}/repos/{owner}/{name}/pulls"
        self._headers = {"Authorization": f"token {token.get_secret_value()}"}

    async def find(self, head: str, base: str) -> PullRequest | None:
        """See `ports.Forge`."""
        query = {"state": "all", "sort": "recentupdate", "limit": NEWEST}
        found = await self._http.ask(
            "GET", self._pulls, list[_Pull], headers=self._headers, query=query
        )
        ours = (pull for pull in found if (pull.head.ref, pull.base.ref) == (head, base))
        pull = next(ours, None)
        return pull.to_pull_request() if pull else None

    async def open(self, proposal: Proposal) -> PullRequest:
        """See `ports.Forge`."""
        pull = await self._http.ask(
            "POST",
            self._pulls,
            _Pull,
            headers=self._headers,
            body={
                "title": f"{DRAFT if proposal.draft else ''}{proposal.title}",
                "head": proposal.head,
                "base": proposal.base,
                "body": proposal.body,
            },
        )
        return pull.to_pull_request()

    async def describe(self, pull: PullRequest, body: str) -> None:
        """See `ports.Forge`."""
        await self._http.ask(
            "PATCH",
            f"{self._pulls}/{pull.number}",
            _Pull,
            headers=self._headers,
            body={"body": body},
        )
