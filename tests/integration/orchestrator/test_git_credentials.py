"""Credentials on their way to git servers: they arrive there, and nowhere else."""

import asyncio
import base64
import os
import shlex
import subprocess
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.support.forges import serve_app
from tests.support.git_server import GitServer, serve_git
from tests.support.repositories import SourceRepository, bare_copy, new_repository

from orchestrator.domain.repository import parse_repository_url
from orchestrator.domain.task import StartPoint
from orchestrator.errors import (
    ConfigurationError,
    ForgeRefused,
    RepositoryNeedsCredentials,
    RepositoryRefusesCredentials,
    RepositoryUnreachable,
    RepositoryUrlRefused,
)
from orchestrator.gateway.access import ssh_access
from orchestrator.gateway.address import Resolver, resolve
from orchestrator.gateway.credentials import Credentials
from orchestrator.gateway.credentials_file import read_credentials
from orchestrator.gateway.forges.http import ForgeHttp
from orchestrator.gateway.github_app import InstallationTokens
from orchestrator.gateway.mirrors import GitRepositories
from orchestrator.runtimes.processes import process_of

TOKEN = "canary-of-the-credentials"
BASIC = base64.b64encode(f"berth:{TOKEN}".encode()).decode()


@pytest.fixture
def source(tmp_path: Path) -> SourceRepository:
    repository = new_repository(tmp_path / "source")
    (tmp_path / "served" / "acme").mkdir(parents=True)
    bare_copy(repository, tmp_path / "served" / "acme" / "private.git")
    return repository


@pytest.fixture
async def server(tmp_path: Path, source: SourceRepository) -> AsyncIterator[GitServer]:
    async with serve_git(tmp_path / "served") as running:
        running.credentials = ("berth", TOKEN)
        yield running


def secret_file(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def build(
    tmp_path: Path,
    *lines: str,
    environment: dict[str, str] | None = None,
    tokens: InstallationTokens | None = None,
    resolver: Resolver = resolve,
) -> GitRepositories:
    path = secret_file(tmp_path / "credentials.toml", "[[credential]]\n" + "\n".join(lines))
    known = {"PATH": "/usr/bin:/bin", **(environment or {})}
    return GitRepositories(
        tmp_path / "data",
        allow_paths=[],
        allow_hosts=["127.0.0.1", "git.test"],
        max_repository_bytes=100_000_000,
        timeout_seconds=30.0,
        resolver=resolver,
        max_file_bytes=1_000_000,
        environment=known,
        credentials=Credentials(
            read_credentials(path, known), known, tokens or InstallationTokens(ForgeHttp())
        ),
    )


async def start(repositories: GitRepositories, address: str) -> StartPoint:
    return await repositories.start_point(parse_repository_url(address), "private", None)


def holding(directory: Path, secrets: Sequence[str]) -> list[Path]:
    """Files below a directory that hold a secret."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return [
        path for path in files if any(secret.encode() in path.read_bytes() for secret in secrets)
    ]


async def test_a_token_opens_a_private_repository_and_stays_out_of_all_files(
    tmp_path: Path, server: GitServer, source: SourceRepository
) -> None:
    repositories = build(tmp_path, f'url = "{server.url("acme")}"', f'token = "{TOKEN}"')
    assert (await start(repositories, server.url("acme/private"))).commit == source.head
    assert set(server.authorizations) == {f"Basic {BASIC}"}
    assert holding(tmp_path / "data", (TOKEN, BASIC)) == []
    assert TOKEN not in repr(vars(repositories))


async def test_a_host_name_is_pinned_beside_the_token(
    tmp_path: Path, server: GitServer, source: SourceRepository
) -> None:
    asked: list[str] = []

    async def once(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    address = server.url("acme/private", host="git.test")
    repositories = build(tmp_path, f'url = "{address}"', f'token = "{TOKEN}"', resolver=once)
    assert (await start(repositories, address)).commit == source.head
    assert asked == ["git.test"]


async def test_it_is_sent_to_its_own_repositories_only(tmp_path: Path, server: GitServer) -> None:
    repositories = build(tmp_path, f'url = "{server.url("acme/other")}"', f'token = "{TOKEN}"')
    with pytest.raises(RepositoryNeedsCredentials, match="BERTH_GIT_CREDENTIALS"):
        await start(repositories, server.url("acme/private"))
    assert set(server.authorizations) == {None}


@pytest.mark.parametrize("status", [None, 403])
async def test_a_refused_token_is_named_by_its_host_alone(
    tmp_path: Path, server: GitServer, status: int | None
) -> None:
    wrong = "canary-wrong"
    server.echoes = True
    server.status = status
    repositories = build(tmp_path, f'url = "{server.url("")}"', f'token = "{wrong}"')
    with pytest.raises(RepositoryRefusesCredentials, match=r"127\.0\.0\.1 refuses") as caught:
        await start(repositories, server.url("acme/private"))
    told = f"{caught.value!r}{caught.value.facts}"
    assert "canary" not in told
    assert base64.b64encode(wrong.encode()).decode()[:12] not in told
    assert "renew" in caught.value.detail


async def test_it_does_not_follow_a_redirect(tmp_path: Path, server: GitServer) -> None:
    async with serve_git(server.root, host="127.0.0.2") as other:
        server.credentials = None
        server.redirect = other.url("acme/private/info/refs?service=git-upload-pack")
        repositories = build(tmp_path, f'url = "{server.url("")}"', f'token = "{TOKEN}"')
        with pytest.raises(RepositoryUnreachable, match="redirects"):
            await start(repositories, server.url("acme/private"))
        assert other.requests == []


async def test_it_is_in_no_command_line(tmp_path: Path, server: GitServer) -> None:
    repositories = build(tmp_path, f'url = "{server.url("")}"', f'token = "{TOKEN}"')
    server.drip = True
    asking = asyncio.create_task(start(repositories, server.url("acme/private")))
    async with asyncio.timeout(60):
        while not server.requests:
            await asyncio.sleep(0.01)
    own = process_of(os.getpid())
    assert own is not None
    waiting, lines = list(own.children()), []
    while waiting:
        process = waiting.pop()
        waiting.extend(process.children())
        lines.append(Path(f"/proc/{process.pid}/cmdline").read_bytes().decode())
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert any("git" in line for line in lines)
    assert not any(TOKEN in line or BASIC in line for line in lines)


async def test_a_renewed_file_counts_at_once(tmp_path: Path, server: GitServer) -> None:
    token = secret_file(tmp_path / "token", "old\n")
    repositories = build(tmp_path, f'url = "{server.url("")}"', f'token_file = "{token}"')
    with pytest.raises(RepositoryRefusesCredentials):
        await start(repositories, server.url("acme/private"))
    token.write_text(f"{TOKEN}\n")
    await start(repositories, server.url("acme/private"))
    token.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        await start(repositories, server.url("acme/private"))


async def test_a_token_from_the_environment(tmp_path: Path, server: GitServer) -> None:
    lines = (f'url = "{server.url("")}"', 'token_env = "ACME_TOKEN"', 'username = "ada"')
    server.credentials = ("ada", TOKEN)
    with pytest.raises(ConfigurationError, match="ACME_TOKEN"):
        build(tmp_path, *lines)
    repositories = build(tmp_path, *lines, environment={"ACME_TOKEN": TOKEN})
    await start(repositories, server.url("acme/private"))


class App:
    """GitHub's route for installation tokens, as far as Berth uses it."""

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self.key = key
        self.now = datetime.now(UTC)
        self.asked = 0
        self.says = TOKEN

    async def answer(self, request: Request) -> Response:
        self.asked += 1
        proof = request.headers["authorization"].removeprefix("Bearer ")
        try:
            claims: dict[str, Any] = jwt.decode(
                proof, self.key.public_key(), algorithms=["RS256"], issuer="42",
                options={"verify_exp": False, "verify_iat": False},
            )  # fmt: skip
        except jwt.InvalidTokenError:
            return JSONResponse({"message": f"Bad proof {proof}"}, 401)
        assert claims["exp"] - claims["iat"] <= 600
        expires = (self.now + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return JSONResponse({"token": self.says, "expires_at": expires}, 201)


def pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


async def test_tokens_of_a_github_app_are_renewed_before_they_expire(
    tmp_path: Path, server: GitServer
) -> None:
    app = App(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    key = secret_file(tmp_path / "app.pem", pem(app.key))
    http = ForgeHttp()
    path = "/app/installations/7/access_tokens"
    routes = [Route(path, app.answer, methods=["POST"])]
    async with serve_app(Starlette(routes=routes)) as api:
        lines = (
            f'url = "{server.url("acme")}"',
            f'api_url = "{api}"',
            f'github_app = {{app_id = 42, installation_id = 7, private_key_path = "{key}"}}',
        )
        tokens = InstallationTokens(http, lambda: app.now)
        repositories = build(tmp_path, *lines, tokens=tokens)
        server.credentials = ("x-access-token", TOKEN)
        for _ in range(3):
            await start(repositories, server.url("acme/private"))
        assert app.asked == 1
        app.now += timedelta(minutes=46)
        app.says = "renewed"
        server.credentials = ("x-access-token", "renewed")
        await start(repositories, server.url("acme/private"))
        assert app.asked == 2
        app.now += timedelta(hours=1)
        app.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        with pytest.raises(ForgeRefused, match=r"127\.0\.0\.1") as caught:
            await start(repositories, server.url("acme/private"))
        assert "eyJ" not in caught.value.detail
        key.write_text("no key")
        with pytest.raises(ConfigurationError, match="PEM"):
            await start(repositories, server.url("acme/private"))
    await http.close()


FAKE_SSH = """#!/bin/sh
printf '%s\\n' "$@" > {record}
for last; do :; done
root={root}
eval "$(printf '%s' "$last" | sed "s#'/#'$root/#")"
"""


async def test_ssh_gets_a_key_of_its_own_and_a_pinned_address(
    tmp_path: Path, source: SourceRepository
) -> None:
    """A stand-in for `ssh` runs the command that git asks for; no sshd takes part."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    record = tmp_path / "record"
    fake = bin_ / "ssh"
    fake.write_text(FAKE_SSH.format(record=record, root=tmp_path / "served"))
    fake.chmod(0o755)
    key, hosts = secret_file(tmp_path / "key", "a key"), tmp_path / "known hosts"
    hosts.write_text("")
    lines = ('url = "ssh://127.0.0.1:2222"', f'ssh_key = "{key}"', f'known_hosts = "{hosts}"')
    environment = {"PATH": f"{bin_}:/usr/bin:/bin", "SSH_AUTH_SOCK": "/tmp/agent"}
    repositories = build(tmp_path, *lines, environment=environment)
    found = await start(repositories, "ssh://git@127.0.0.1:2222/acme/private.git")
    assert found.commit == source.head
    arguments = record.read_text().splitlines()
    assert arguments[:4] == ["-F", "none", "-i", str(key)]
    assert "HostName=127.0.0.1" in arguments
    assert "StrictHostKeyChecking=yes" in arguments
    assert "git@127.0.0.1" in arguments
    with pytest.raises(RepositoryUrlRefused, match="https://"):
        await start(repositories, "git@127.0.0.2:acme/private")


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ("git@h: Permission denied (publickey).", RepositoryRefusesCredentials, "renew"),
        ("Host key verification failed.", RepositoryUnreachable, "known_hosts"),
    ],
)
async def test_what_ssh_says_has_its_meaning(
    tmp_path: Path, said: str, error: type[Exception], words: str
) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    fake = bin_ / "ssh"
    fake.write_text(f"#!/bin/sh\necho {shlex.quote(said)} >&2\nexit 255\n")
    fake.chmod(0o755)
    key, hosts = secret_file(tmp_path / "key", "a key"), secret_file(tmp_path / "hosts", "")
    lines = ('url = "ssh://127.0.0.1"', f'ssh_key = "{key}"', f'known_hosts = "{hosts}"')
    repositories = build(tmp_path, *lines, environment={"PATH": f"{bin_}:/usr/bin:/bin"})
    with pytest.raises(error, match=words):
        await start(repositories, "git@127.0.0.1:acme/private")


def test_ssh_itself_takes_the_options(tmp_path: Path) -> None:
    key, hosts = tmp_path / "100%d key", tmp_path / "known hosts"
    url = parse_repository_url("ssh://git.example:2222/a/b")
    access = ssh_access(url, "git", key, hosts, "192.0.2.7")
    command = [*shlex.split(access.environment["GIT_SSH_COMMAND"]), "-G", "-p", "2222", url.host]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.lower()
    for line in (
        "hostname 192.0.2.7",
        "hostkeyalias [git.example]:2222",
        "stricthostkeychecking true",
        "identitiesonly yes",
        "batchmode yes",
        "forwardagent no",
        f'userknownhostsfile "{hosts}"'.lower(),
        "globalknownhostsfile /dev/null",
        "preferredauthentications publickey",
    ):
        assert line in told.splitlines() or line.replace('"', "") in told.splitlines(), line
