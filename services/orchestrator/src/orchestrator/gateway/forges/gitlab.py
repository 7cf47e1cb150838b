"""Merge requests on GitLab (REST API, version 4)."""

from urllib.parse import quote

from pydantic import BaseModel, SecretStr

from orchestrator.domain.repository import RepositoryUrl
from orchestrator.gateway.forges.http import ForgeHttp
from orchestrator.ports import Proposal, PullRequest

DRAFT = "Draft: "


class _MergeRequest(BaseModel):
    iid: int
    web_url: str

    def to_pull_request(self) -> PullRequest:
        return PullRequest(self.iid, self.web_url)


class GitlabForge:
    """`ports.Forge` for one project on GitLab."""

    def __init__(self, http: ForgeHttp, api_url: str, token: SecretStr, url: RepositoryUrl) -> None:
        self._http = http
        project = quote(url.path.strip("/"), safe="")
        self._requests = f"{api_url}/projects/{project}/merge_requests"
        self._headers = {"Authorization": f"Bearer {token.get_secret_value()}"}

    async def find(self, head: str, base: str) -> PullRequest | None:
        """See `ports.Forge`."""
        query = {"source_branch": head, "target_branch": base, "state": "all"}
        found = await self._http.ask(
            "GET", self._requests, list[_MergeRequest], headers=self._headers, query=query
        )
        return found[0].to_pull_request() if found else None

    async def open(self, proposal: Proposal) -> PullRequest:
        """See `ports.Forge`."""
        request = await self._http.ask(
            "POST",
            self._requests,
            _MergeRequest,
            headers=self._headers,
            body={
                "source_branch": proposal.head,
                "target_branch": proposal.base,
                "title": f"{DRAFT if proposal.draft else ''}{proposal.title}",
                "description": proposal.body,
            },
        )
        return request.to_pull_request()

    async def describe(self, pull: PullRequest, body: str) -> None:
        """See `ports.Forge`."""
        await self._http.ask(
            "PUT",
            f"{self._requests}/{pull.number}",
            _MergeRequest,
            headers=self._headers,
            body={"description": body},
        )
