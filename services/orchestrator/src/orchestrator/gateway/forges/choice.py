"""Chooses the forge that a repository lies on."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from pydantic import SecretStr

from orchestrator.domain.repository import RepositoryUrl
from orchestrator.gateway.credentials import Credentials
from orchestrator.gateway.credentials_file import ForgeKind
from orchestrator.gateway.forges.gitea import GiteaForge
from orchestrator.gateway.forges.github import GithubForge
from orchestrator.gateway.forges.gitlab import GitlabForge
from orchestrator.gateway.forges.http import ForgeHttp
from orchestrator.ports import Forge

Build = Callable[[ForgeHttp, str, SecretStr, RepositoryUrl], Forge]
_KINDS: Mapping[ForgeKind, Build] = MappingProxyType(
    {
        ForgeKind.GITHUB: GithubForge,
        ForgeKind.GITLAB: GitlabForge,
        ForgeKind.GITEA: GiteaForge,
    }
)


class HttpForges:
    """`ports.Forges` by the forges' REST APIs."""

    def __init__(self, http: ForgeHttp, credentials: Credentials) -> None:
        self._http = http
        self._credentials = credentials

    async def of(self, url: RepositoryUrl) -> Forge:
        """See `ports.Forges`."""
        kind, api_url, token = await self._credentials.forge(url)
        return _KINDS[kind](self._http, api_url, token, url)
