"""The file that holds, or says where to find, what git servers ask for."""

import os
import re
import shutil
import stat
import tomllib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from orchestrator.domain.repository import RepositoryUrl, parse_repository_url
from orchestrator.errors import ConfigurationError, RepositoryUrlRefused

MAX_SECRET_BYTES = 64 * 1024
_FIELD = re.compile(r"[a-z_]{1,20}|[0-9]{1,4}")
_POSITION = re.compile(r"\(at [^()]*\)$")


class ForgeKind(StrEnum):
    """Which API a forge speaks."""

    GITHUB = "github"
    GITLAB = "gitlab"
    GITEA = "gitea"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GithubApp(_Strict):
    """An installation of a GitHub App, whose tokens live for an hour."""

    app_id: int = Field(gt=0)
    installation_id: int = Field(gt=0)
    private_key_path: Path


class Entry(_Strict):
    """The credentials for all repositories below one address."""

    url: str
    username: str | None = Field(default=None, pattern=r"^[^\s:@/]+$")
    token: SecretStr | None = None
    token_file: Path | None = None
    token_env: str | None = None
    github_app: GithubApp | None = None
    ssh_key: Path | None = None
    known_hosts: Path | None = None
    forge: ForgeKind | None = None
    api_url: str | None = None

    @field_validator("url")
    @classmethod
    def _is_prefix(cls, url: str) -> str:
        try:
            prefix = prefix_of(url)
        except RepositoryUrlRefused:
            prefix = None
        if prefix is None or prefix.scheme == "file":
            raise ValueError("give https://host, ssh://host, or one of these with a path")
        return url

    @field_validator("api_url")
    @classmethod
    def _is_web_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("give an https:// address without a user")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        ways = (self.token, self.token_file, self.token_env, self.github_app)
        count = sum(way is not None for way in ways)
        is_ssh = prefix_of(self.url).scheme == "ssh"
        if is_ssh != (self.ssh_key is not None) or is_ssh != (self.known_hosts is not None):
            raise ValueError("ssh_key and known_hosts belong to an ssh:// address, and both to it")
        if count > 1 or (count == 0 and not is_ssh):
            raise ValueError("give one of token, token_file, token_env and github_app")
        if is_ssh and count:
            raise ValueError("a token belongs into an entry of its own, with the https:// address")
        return self

    @property
    def prefix(self) -> RepositoryUrl:
        """The address that all of its repositories begin with."""
        return prefix_of(self.url)

    @property
    def secret_files(self) -> tuple[Path, ...]:
        """Files that nobody else may read."""
        app_key = self.github_app.private_key_path if self.github_app else None
        return tuple(path for path in (self.token_file, self.ssh_key, app_key) if path is not None)


class _File(_Strict):
    credential: tuple[Entry, ...] = ()


def prefix_of(url: str) -> RepositoryUrl:
    """The canonical form of an address that may name a host alone.

    Raises:
        RepositoryUrlRefused: It is none.
    """
    below = parse_repository_url(f"{url.rstrip('/').removesuffix('.git')}/x")
    return RepositoryUrl(below.scheme, below.host, below.port, below.path.removesuffix("/x"))


def matching(entries: Sequence[Entry], url: RepositoryUrl) -> Entry | None:
    """The entry with the longest address that the repository lies below, if any does."""
    found = [entry for entry in entries if _covers(entry.prefix, url)]
    return max(found, key=lambda entry: len(entry.prefix.path), default=None)


def read_credentials(path: Path, environment: Mapping[str, str]) -> tuple[Entry, ...]:
    """The entries of a file; everything they name is there and kept from others.

    Raises:
        ConfigurationError: Something is missing, readable for others, or not well-formed. The
            sentence never quotes the file.
    """
    text = read_secret(path)
    try:
        entries = _File.model_validate(tomllib.loads(text)).credential
    except tomllib.TOMLDecodeError as error:
        position = _POSITION.search(str(error))
        raise ConfigurationError(
            f"{path} is not valid TOML {position[0] if position else ''}: correct it."
        ) from None
    except ValidationError as error:
        raise ConfigurationError(_told(path, error)) from None
    for entry in entries:
        _require_files(path, entry)
        if entry.ssh_key is not None:
            _require_programs(environment)
        if entry.token_env is not None and not environment.get(entry.token_env):
            raise ConfigurationError(
                f"{path} names the variable {entry.token_env}, which is not set: set it."
            )
    return entries


def read_secret(path: Path) -> str:
    """The text of a file that nobody else can read.

    Raises:
        ConfigurationError: It is missing, too large, no text, or readable for others.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigurationError(f"{path} is no regular file: name one.")
            if status.st_mode & 0o077 or status.st_uid not in (0, os.geteuid()):
                raise ConfigurationError(
                    f"{path} holds a secret and others can read or change it: make it the "
                    "service's own with chown, and chmod 600."
                )
            content = file.read(MAX_SECRET_BYTES + 1)
            if len(content) > MAX_SECRET_BYTES:
                raise ConfigurationError(f"{path} is too large for a file of secrets.")
            return content.decode()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8 text.") from None


def _require_files(path: Path, entry: Entry) -> None:
    for file in entry.secret_files:
        read_secret(file)
    if entry.known_hosts is not None and not entry.known_hosts.is_file():
        raise ConfigurationError(f"{entry.known_hosts}, named in {path}, is no file.")


def _require_programs(environment: Mapping[str, str]) -> None:
    # git starts ssh with its options through a shell.
    for program in ("ssh", "sh"):
        if shutil.which(program, path=environment.get("PATH")) is None:
            raise ConfigurationError(
                f"{program} was not found, which ssh_key needs: install it, or name tokens for "
                "https:// addresses. The orchestrator's image has none: run the service from a "
                "checkout."
            )


def _covers(prefix: RepositoryUrl, url: RepositoryUrl) -> bool:
    same_host = (prefix.scheme, prefix.host, prefix.port) == (url.scheme, url.host, url.port)
    return same_host and f"{url.path}/".startswith(f"{prefix.path}/")


def _told(path: Path, error: ValidationError) -> str:
    """What is wrong, without the values, which may be secrets."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    # A field that is unknown may be a secret in the wrong place.
    parts = (str(part) for part in first["loc"])
    place = ".".join(part if _FIELD.fullmatch(part) else "…" for part in parts)
    return f"{path} is not as it should be: {place}: {first['msg'].removeprefix('Value error, ')}."
