"""What Berth may show to git servers and forges."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import SecretStr

from orchestrator.domain.repository import DEFAULT_PORTS, RepositoryUrl
from orchestrator.errors import ConfigurationError, ForgeUnknown, RepositoryUrlRefused
from orchestrator.gateway.access import NO_ACCESS, Access, http_access, ssh_access
from orchestrator.gateway.credentials_file import Entry, ForgeKind, matching, read_secret
from orchestrator.gateway.github_app import InstallationTokens

_DEFAULT_SSH_USER = "git"
# All three take any name with a token, but for these.
_TOKEN_USERS = {ForgeKind.GITHUB: "x-access-token", ForgeKind.GITLAB: "oauth2"}
_ANY_USER = "berth"
_KNOWN_FORGES = {
    "github.com": (ForgeKind.GITHUB, "https://api.github.com"),
    "gitlab.com": (ForgeKind.GITLAB, "https://gitlab.com/api/v4"),
    "codeberg.org": (ForgeKind.GITEA, "https://codeberg.org/api/v1"),
    "gitea.com": (ForgeKind.GITEA, "https://gitea.com/api/v1"),
}
_API_PATHS = {
    ForgeKind.GITHUB: "/api/v3",
    ForgeKind.GITLAB: "/api/v4",
    ForgeKind.GITEA: "/api/v1",
}


class Credentials:
    """Finds the credentials for a repository.

    Args:
        entries: What the credentials file says.
        environment: Where `token_env` is looked up.
        installations: Gets tokens of GitHub Apps.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        environment: Mapping[str, str],
        installations: InstallationTokens,
    ) -> None:
        self._entries = tuple(entries)
        self._environment = environment
        self._installations = installations

    def require_ssh_key(self, url: RepositoryUrl) -> None:
        """Refuse an ssh address there is no key for, before anybody looks its host up.

        Raises:
            RepositoryUrlRefused: It is one.
        """
        if url.scheme == "ssh" and matching(self._entries, url) is None:
            raise RepositoryUrlRefused(
                f"Berth has no ssh key for {url.host}: give the https:// address, or name a key "
                "in the file that BERTH_GIT_CREDENTIALS names.",
                host=url.host,
            )

    async def access(self, url: RepositoryUrl, address: str) -> Access:
        """What git is given for this repository; nothing if there is no entry.

        Args:
            url: The repository.
            address: The network address that its host was found to have.
        """
        entry = matching(self._entries, url)
        if entry is None:
            return NO_ACCESS
        if entry.ssh_key is not None and entry.known_hosts is not None:
            user = entry.username or _DEFAULT_SSH_USER
            return ssh_access(
                url, user, entry.ssh_key.absolute(), entry.known_hosts.absolute(), address
            )
        token = await self._token(entry)
        kind = self._forge(url, entry)
        default = _ANY_USER if kind is None else _TOKEN_USERS.get(kind, _ANY_USER)
        return http_access(url, entry.username or default, token.get_secret_value())

    async def forge(self, url: RepositoryUrl) -> tuple[ForgeKind, str, SecretStr]:
        """The kind of forge the repository lies on, its API's address, and a token for it.

        Raises:
            ForgeUnknown: The kind is not known, or there is no token.
        """
        web = _web_address(url)
        entry = matching(self._entries, web)
        kind = self._forge(web, entry)
        if kind is None:
            raise ForgeUnknown(
                f"It is not known which API {url.host} speaks: set forge to github, gitlab or "
                "gitea for it in the credentials file, or publish with mode branch.",
                host=url.host,
            )
        if entry is None:
            raise ForgeUnknown(
                f"Berth has no token for {url.host}: add one for {web} to the credentials file, "
                "or publish with mode branch.",
                host=url.host,
            )
        return kind, _api_url(web, entry, kind), await self._token(entry)

    def _forge(self, url: RepositoryUrl, entry: Entry | None) -> ForgeKind | None:
        if entry is not None and entry.forge is not None:
            return entry.forge
        if entry is not None and entry.github_app is not None:
            return ForgeKind.GITHUB
        known = _KNOWN_FORGES.get(url.host)
        return known[0] if known else None

    async def _token(self, entry: Entry) -> SecretStr:
        if entry.github_app is not None:
            api_url = _api_url(entry.prefix, entry, ForgeKind.GITHUB)
            return await self._installations.token(entry.github_app, api_url)
        if entry.token_file is not None:
            # Read each time, so that a renewed token counts at once.
            return _cleaned(await asyncio.to_thread(read_secret, entry.token_file), entry)
        if entry.token_env is not None:
            return _cleaned(self._environment.get(entry.token_env, ""), entry)
        return _cleaned(entry.token.get_secret_value() if entry.token else "", entry)


def _cleaned(raw: str, entry: Entry) -> SecretStr:
    token = raw.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError(
            f"The token for {entry.url} in the credentials file is empty or no token: correct it."
        )
    return SecretStr(token)


def _web_address(url: RepositoryUrl) -> RepositoryUrl:
    if url.scheme != "ssh":
        return url
    return replace(url, scheme="https", port=DEFAULT_PORTS["https"])


def _api_url(url: RepositoryUrl, entry: Entry, kind: ForgeKind) -> str:
    if entry.api_url is not None:
        return entry.api_url
    known = _KNOWN_FORGES.get(url.host)
    if known is not None and known[0] is kind:
        return known[1]
    port = "" if url.port == DEFAULT_PORTS[url.scheme] else f":{url.port}"
    return f"{url.scheme}://{url.bracketed_host}{port}{_API_PATHS[kind]}"
