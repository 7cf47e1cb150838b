"""Pull requests on GitHub (REST API, version 2022-11-28)."""

from pydantic import BaseModel, SecretStr

from orchestrator.domain.repository import RepositoryUrl
from orchestrator.gateway.forges.http import ForgeHttp
from orchestrator.gateway.forges.path import owner_and_name
from orchestrator.ports import Proposal, PullRequest


class _Pull(BaseModel):
    number: int
    html_url: str

    def to_pull_request(self) -> PullRequest:
        return PullRequest(self.number, self.html_url)


class GithubForge:
    """`ports.Forge` for one repository on GitHub or GitHub Enterprise."""

    def __init__(self, http: ForgeHttp, api_url: str, token: SecretStr, url: RepositoryUrl) -> None:
        self._http = http
        self._owner, name = owner_and_name(url)
        self._pulls = f"{api_url}/repos/{self._owner}/{name}/pulls"
        self._headers = {
            "Authorization": f"Bearer {token.get_secret_value()}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }

    async def find(self, head: str, base: str) -> PullRequest | None:
        """See `ports.Forge`."""
        query = {"head": f"{self._owner}:{head}", "base": base, "state": "all"}
        found = await self._http.ask(
            "GET", self._pulls, list[_Pull], headers=self._headers, query=query
        )
        return found[0].to_pull_request() if found else None

    async def open(self, proposal: Proposal) -> PullRequest:
        """See `ports.Forge`."""
        pull = await self._http.ask(
            "POST",
            self._pulls,
            _Pull,
            headers=self._headers,
            body={
                "title": proposal.title,
                "head": proposal.head,
                "base": proposal.base,
                "body": proposal.body,
                "draft": proposal.draft,
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
