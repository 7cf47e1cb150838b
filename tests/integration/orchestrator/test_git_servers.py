"""Mirrors of repositories on real git servers, well-behaved and not."""

import asyncio
import datetime
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.support.git_server import GitServer, serve_git
from tests.support.repositories import (
    SourceRepository,
    bare_copy,
    empty_repository,
    git,
    new_repository,
    sample_repository,
)

from orchestrator.domain.repository import parse_repository_url
from orchestrator.domain.task import StartPoint
from orchestrator.errors import (
    RepositoryCorrupt,
    RepositoryEmpty,
    RepositoryError,
    RepositoryNeedsCredentials,
    RepositoryTooLarge,
    RepositoryUnreachable,
    RepositoryUrlRefused,
    UnknownRef,
)
from orchestrator.gateway.address import Resolver, resolve
from orchestrator.gateway.mirrors import GitRepositories


@pytest.fixture
def source(tmp_path: Path) -> SourceRepository:
    repository = sample_repository(tmp_path / "source")
    (tmp_path / "served").mkdir()
    bare = bare_copy(repository, tmp_path / "served" / "sample.git")
    repository.git("remote", "add", "origin", str(bare))
    return repository


@pytest.fixture
async def server(tmp_path: Path, source: SourceRepository) -> AsyncIterator[GitServer]:
    async with serve_git(tmp_path / "served") as running:
        yield running


def build(
    data_dir: Path,
    *,
    allow_hosts: Sequence[str] = ("127.0.0.1",),
    max_repository_bytes: int = 100_000_000,
    timeout_seconds: float = 30.0,
    max_memory_bytes: int = 1_000_000_000,
    resolver: Resolver = resolve,
    environment: dict[str, str] | None = None,
) -> GitRepositories:
    return GitRepositories(
        data_dir,
        allow_paths=[],
        allow_hosts=allow_hosts,
        max_repository_bytes=max_repository_bytes,
        timeout_seconds=timeout_seconds,
        max_file_bytes=1_000_000,
        max_memory_bytes=max_memory_bytes,
        resolver=resolver,
        environment=environment,
    )


async def start(repositories: GitRepositories, address: str, ref: str | None = None) -> StartPoint:
    return await repositories.start_point(parse_repository_url(address), "sample", ref)


def mirrors(data_dir: Path) -> list[str]:
    return sorted(path.name for path in (data_dir / "mirrors").glob("*"))


async def test_fetches_once_and_again_only_when_something_moved(
    tmp_path: Path, server: GitServer, source: SourceRepository
) -> None:
    repositories = build(tmp_path / "data")
    address = server.url("sample")
    assert await start(repositories, address) == StartPoint("sample", source.head, "main")
    assert server.fetches == 1
    await start(repositories, address)
    assert server.fetches == 1
    commit = source.commit("next", {"next.txt": "x"})
    source.git("push", "--quiet", "origin", "main")
    assert (await start(repositories, address)).commit == commit
    assert server.fetches == 2
    again = build(tmp_path / "data")
    assert (await start(again, address)).commit == commit
    assert server.fetches == 2


async def test_callers_at_once_share_one_fetch(
    tmp_path: Path, server: GitServer, source: SourceRepository
) -> None:
    repositories = build(tmp_path / "data")
    starts = await asyncio.gather(*(start(repositories, server.url("sample")) for _ in range(20)))
    assert {found.commit for found in starts} == {source.head}
    assert server.fetches == 1
    listings = sum("info/refs" in line for line in server.requests)
    assert listings < 10


async def test_at_most_four_fetches_at_once(
    tmp_path: Path, server: GitServer, source: SourceRepository
) -> None:
    for number in range(8):
        bare_copy(source, server.root / f"copy{number}.git")
    repositories = build(tmp_path / "data")
    await asyncio.gather(*(start(repositories, server.url(f"copy{n}")) for n in range(8)))
    assert 1 <= server.most_fetches_at_once <= 4


async def test_a_full_commit_id_is_fetched_by_itself(
    tmp_path: Path, server: GitServer, source: SourceRepository
) -> None:
    source.git("switch", "--quiet", "--create", "short-lived")
    lost = source.commit("lost", {"lost.txt": "x"})
    source.git("push", "--quiet", "origin", f"{lost}:refs/pull/1/head")
    repositories = build(tmp_path / "data")
    assert (await start(repositories, server.url("sample"), lost)).commit == lost
    fetches = server.fetches
    assert (await start(repositories, server.url("sample"), lost)).commit == lost
    assert server.fetches == fetches
    with pytest.raises(UnknownRef, match="0" * 40):
        await start(repositories, server.url("sample"), "0" * 40)


async def test_unknown_names_cost_no_fetch_and_leave_nothing(
    tmp_path: Path, server: GitServer
) -> None:
    with pytest.raises(UnknownRef, match="nothing"):
        await start(build(tmp_path / "data"), server.url("sample"), "nothing")
    assert server.fetches == 0
    assert mirrors(tmp_path / "data") == []


async def test_an_empty_repository(tmp_path: Path, server: GitServer) -> None:
    bare_copy(empty_repository(tmp_path / "empty"), server.root / "empty.git")
    with pytest.raises(RepositoryEmpty):
        await start(build(tmp_path / "data"), server.url("empty"))
    assert mirrors(tmp_path / "data") == []


async def test_servers_that_insist_on_the_suffix(
    tmp_path: Path, server: GitServer, source: SourceRepository
) -> None:
    server.needs_suffix = True
    repositories = build(tmp_path / "data")
    assert (await start(repositories, server.url("sample.git"))).commit == source.head
    asked = len(server.requests)
    await start(repositories, server.url("sample.git"))
    assert all("sample.git/" in line for line in server.requests[asked:])


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "https://example.org/sample.git/info/refs?service=git-upload-pack",
    ],
)
async def test_redirects_are_not_followed(tmp_path: Path, server: GitServer, target: str) -> None:
    server.redirect = target
    with pytest.raises(RepositoryUnreachable, match="final address"):
        await start(build(tmp_path / "data"), server.url("sample"))
    assert mirrors(tmp_path / "data") == []


async def test_a_redirect_to_another_port_is_not_followed(
    tmp_path: Path, server: GitServer
) -> None:
    async with serve_git(server.root) as other:
        server.redirect = other.url("sample.git/info/refs?service=git-upload-pack")
        with pytest.raises(RepositoryUnreachable, match="final address"):
            await start(build(tmp_path / "data"), server.url("sample"))
        assert other.requests == []


async def test_a_private_repository_needs_credentials(tmp_path: Path, server: GitServer) -> None:
    server.credentials = ("ada", "secret")
    with pytest.raises(RepositoryNeedsCredentials, match=r"127\.0\.0\.1"):
        await start(build(tmp_path / "data"), server.url("sample"))


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, RepositoryNeedsCredentials, "credentials"),
        (403, RepositoryNeedsCredentials, "credentials"),
        (404, RepositoryUnreachable, "no repository"),
        (429, RepositoryUnreachable, "try again later"),
        (500, RepositoryUnreachable, "error: 500"),
        (503, RepositoryUnreachable, "error: 503"),
    ],
)
async def test_statuses_have_their_meaning(
    tmp_path: Path, server: GitServer, status: int, error: type[RepositoryError], words: str
) -> None:
    server.status = status
    with pytest.raises(error, match=words):
        await start(build(tmp_path / "data"), server.url("sample"))
    assert mirrors(tmp_path / "data") == []


@pytest.mark.parametrize(
    "garbage", [b"", b"<html>hello</html>", b"ffff" * 100, b"\0" * 5000, b"001e# service=git-up"]
)
async def test_garbage_is_not_a_repository(
    tmp_path: Path, server: GitServer, garbage: bytes
) -> None:
    server.garbage = garbage
    with pytest.raises(RepositoryUnreachable):
        await start(build(tmp_path / "data"), server.url("sample"))


async def test_a_slow_server_is_given_up(
    tmp_path: Path, server: GitServer, children: Callable[[], set[int]]
) -> None:
    server.drip = True
    begun = time.monotonic()
    with pytest.raises(RepositoryUnreachable, match="too long"):
        await start(build(tmp_path / "data", timeout_seconds=0.7), server.url("sample"))
    assert time.monotonic() - begun < 5
    assert children() == set()


async def test_a_cancelled_caller_leaves_no_process(
    tmp_path: Path, server: GitServer, children: Callable[[], set[int]]
) -> None:
    server.drip = True
    asking = asyncio.create_task(start(build(tmp_path / "data"), server.url("sample")))
    async with asyncio.timeout(60):
        while not server.requests:
            await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert children() == set()


async def test_an_endless_listing_is_cut(
    tmp_path: Path, server: GitServer, children: Callable[[], set[int]]
) -> None:
    server.endless = True
    repositories = build(tmp_path / "data", max_memory_bytes=50_000_000)
    with pytest.raises(RepositoryTooLarge, match="memory"):
        await start(repositories, server.url("sample"))
    assert children() == set()


async def test_an_endless_pack_is_cut(
    tmp_path: Path, server: GitServer, children: Callable[[], set[int]]
) -> None:
    server.endless_pack = True
    repositories = build(tmp_path / "data", max_repository_bytes=5_000_000)
    with pytest.raises(RepositoryTooLarge, match="BERTH_MAX_REPOSITORY_BYTES"):
        await start(repositories, server.url("sample"))
    assert children() == set()
    assert mirrors(tmp_path / "data") == []


async def test_a_compressed_bomb_is_cut(
    tmp_path: Path, server: GitServer, children: Callable[[], set[int]]
) -> None:
    server.bomb = True
    repositories = build(tmp_path / "data", max_memory_bytes=50_000_000)
    with pytest.raises(RepositoryTooLarge, match="memory"):
        await start(repositories, server.url("sample"))
    assert children() == set()


async def test_a_repository_over_the_limit_is_refused_and_removed(
    tmp_path: Path, server: GitServer, source: SourceRepository
) -> None:
    source.commit("large", {"large.bin": os.urandom(3_000_000)})
    source.git("push", "--quiet", "origin", "main")
    repositories = build(tmp_path / "data", max_repository_bytes=1_000_000)
    with pytest.raises(RepositoryTooLarge, match="BERTH_MAX_REPOSITORY_BYTES"):
        await start(repositories, server.url("sample"))
    assert mirrors(tmp_path / "data") == []


async def test_a_mirror_that_grows_over_the_limit_is_refused(
    tmp_path: Path, server: GitServer, source: SourceRepository
) -> None:
    repositories = build(tmp_path / "data", max_repository_bytes=1_000_000)
    await start(repositories, server.url("sample"))
    source.commit("large", {"large.bin": os.urandom(3_000_000)})
    source.git("push", "--quiet", "origin", "main")
    for _ in range(2):
        with pytest.raises(RepositoryTooLarge):
            await start(repositories, server.url("sample"))


async def test_crafted_trees_are_refused(
    tmp_path: Path, server: GitServer, source: SourceRepository
) -> None:
    crafted = new_repository(tmp_path / "crafted")
    blob = crafted.git("hash-object", "-w", "--stdin", stdin=b"[core]\n\tfsmonitor = evil\n")
    inner = crafted.git("mktree", stdin=f"100644 blob {blob}\tconfig\n".encode())
    entry = b"40000 .GIT\0" + bytes.fromhex(inner)
    tree = crafted.git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", stdin=entry)
    commit = crafted.git("commit-tree", tree, "-m", "crafted")
    crafted.git("update-ref", "refs/heads/main", commit)
    bare_copy(crafted, server.root / "crafted.git")
    with pytest.raises(RepositoryCorrupt, match="do harm"):
        await start(build(tmp_path / "data"), server.url("crafted"))
    assert mirrors(tmp_path / "data") == []


async def test_harmless_flaws_of_old_histories_are_taken(tmp_path: Path, server: GitServer) -> None:
    old = new_repository(tmp_path / "old")
    blob = old.git("hash-object", "-w", "--stdin", stdin=b"x")
    entry = b"0100644 file\0" + bytes.fromhex(blob)
    tree = old.git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", stdin=entry)
    person = b"Ada <ada@example.org> 1700000000 +051800"
    text = b"tree %s\nauthor %s\ncommitter %s\n\nold\n" % (tree.encode(), person, person)
    commit = old.git("hash-object", "-w", "-t", "commit", "--literally", "--stdin", stdin=text)
    old.git("update-ref", "refs/heads/main", commit)
    bare_copy(old, server.root / "old.git")
    assert (await start(build(tmp_path / "data"), server.url("old"))).commit == commit


async def test_sha256_repositories_are_named(tmp_path: Path, server: GitServer) -> None:
    path = tmp_path / "sha256"
    path.mkdir()
    git(path, "init", "--quiet", "--object-format=sha256", "--initial-branch=main")
    modern = SourceRepository(path)
    modern.commit("first")
    bare_copy(modern, server.root / "modern.git")
    with pytest.raises(RepositoryError, match="SHA-256"):
        await start(build(tmp_path / "data"), server.url("modern"))


async def test_leftovers_of_a_killed_fetch_do_no_harm(
    tmp_path: Path, server: GitServer, source: SourceRepository
) -> None:
    await start(build(tmp_path / "data"), server.url("sample"))
    (mirror,) = (tmp_path / "data" / "mirrors").iterdir()
    (mirror / "refs" / "heads" / "main.lock").write_text("")
    (mirror / "packed-refs.lock").write_text("")
    (mirror / "objects" / "pack" / "tmp_pack_x").write_bytes(b"x" * 1000)
    (mirror.parent / f"abc.{os.getpid()}.new").mkdir()
    commit = source.commit("next")
    source.git("push", "--quiet", "origin", "main")
    assert (await start(build(tmp_path / "data"), server.url("sample"))).commit == commit
    assert mirrors(tmp_path / "data") == [mirror.name]
    assert not (mirror / "objects" / "pack" / "tmp_pack_x").exists()


async def test_a_damaged_mirror_is_made_anew(
    tmp_path: Path, server: GitServer, source: SourceRepository
) -> None:
    await start(build(tmp_path / "data"), server.url("sample"))
    (mirror,) = (tmp_path / "data" / "mirrors").iterdir()
    for pack in (mirror / "objects" / "pack").iterdir():
        pack.unlink()
    assert (await start(build(tmp_path / "data"), server.url("sample"))).commit == source.head


async def test_the_first_answer_of_the_resolver_is_what_git_connects_to(
    tmp_path: Path, server: GitServer, source: SourceRepository
) -> None:
    answers = iter(["127.0.0.1", "127.0.0.2", "127.0.0.2"])
    asked = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append((host, port))
        return (next(answers),)

    async with serve_git(server.root, "127.0.0.2", server.port) as other:
        repositories = build(tmp_path / "data", allow_hosts=["repo.test"], resolver=rebinding)
        address = server.url("sample", "repo.test")
        assert (await start(repositories, address)).commit == source.head
        assert asked == [("repo.test", server.port)]
        assert server.fetches == 1
        assert other.requests == []
        await start(repositories, address)
        assert other.requests != []


async def test_a_name_that_turns_private_is_refused(tmp_path: Path, server: GitServer) -> None:
    async def private(host: str, port: int) -> Sequence[str]:
        return ("93.184.216.34", "127.0.0.1")

    repositories = build(tmp_path / "data", allow_hosts=[], resolver=private)
    with pytest.raises(RepositoryUrlRefused, match="not public"):
        await start(repositories, f"https://repo.test:{server.port}/sample")
    assert server.requests == []


async def test_plain_http_needs_an_allowed_host(tmp_path: Path, server: GitServer) -> None:
    with pytest.raises(RepositoryUrlRefused, match="https://"):
        await start(build(tmp_path / "data", allow_hosts=[]), server.url("sample"))
    with pytest.raises(RepositoryUrlRefused):
        await start(build(tmp_path / "data", allow_hosts=["127.0.0.1:1"]), server.url("sample"))
    assert server.requests == []


async def test_https_is_verified_against_the_name(tmp_path: Path, source: SourceRepository) -> None:
    certificate = _certificate(tmp_path, "repo.test")

    async def local(host: str, port: int) -> Sequence[str]:
        return ("127.0.0.1",)

    trusting = {"PATH": os.environ["PATH"], "GIT_SSL_CAINFO": str(certificate[0])}
    hosts = ["repo.test", "other.test"]
    async with serve_git(tmp_path / "served", certificate=certificate) as server:
        address = server.url("sample", "repo.test")
        repositories = build(
            tmp_path / "one", allow_hosts=hosts, resolver=local, environment=trusting
        )
        assert (await start(repositories, address)).commit == source.head
        with pytest.raises(RepositoryUnreachable, match="secure connection"):
            await start(repositories, server.url("sample", "other.test"))
        strict = build(
            tmp_path / "two",
            allow_hosts=hosts,
            resolver=local,
            environment={"PATH": os.environ["PATH"]},
        )
        with pytest.raises(RepositoryUnreachable, match="secure connection"):
            await start(strict, address)


async def test_a_closed_port_is_unreachable(tmp_path: Path, server: GitServer) -> None:
    repositories = build(tmp_path / "data")
    async with serve_git(server.root) as closing:
        address = closing.url("sample")
    with pytest.raises(RepositoryUnreachable, match="does not accept a connection"):
        await start(repositories, address)


async def test_proxies_of_the_environment_are_not_used(
    tmp_path: Path, server: GitServer, source: SourceRepository
) -> None:
    proxy = "http://127.0.0.1:1"
    environment = {"PATH": os.environ["PATH"], "http_proxy": proxy, "ALL_PROXY": proxy}
    repositories = build(tmp_path / "data", environment=environment)
    assert (await start(repositories, server.url("sample"))).commit == source.head


async def test_a_reader_that_stops_early_ends_git(
    tmp_path: Path,
    server: GitServer,
    source: SourceRepository,
    children: Callable[[], set[int]],
) -> None:
    source.commit("large", {"large.bin": os.urandom(5_000_000)})
    source.git("push", "--quiet", "origin", "main")
    repositories = build(tmp_path / "data")
    url = parse_repository_url(server.url("sample"))
    found = await repositories.start_point(url, "sample", None)
    chunks = await repositories.bundle(url, found, [])
    assert chunks is not None
    await anext(chunks)
    await anext(chunks)
    assert len(children()) == 1
    await chunks.aclose()
    assert children() == set()


async def test_hooks_and_settings_of_a_local_repository_do_not_run(tmp_path: Path) -> None:
    hostile = new_repository(tmp_path / "work" / "hostile")
    marker = tmp_path / "marker"
    command = f"touch {marker}"
    hook = hostile.path / ".git" / "hooks" / "reference-transaction"
    hook.write_text(f"#!/bin/sh\n{command}\n")
    hook.chmod(0o755)
    for name, value in (
        ("uploadpack.packObjectsHook", command),
        ("core.fsmonitor", command),
        ("core.sshCommand", command),
        ("core.alternateRefsCommand", command),
        ("remote.origin.url", "ext::" + command),
        ("remote.origin.promisor", "true"),
        ("remote.origin.uploadpack", command),
        ("protocol.allow", "always"),
        ("core.repositoryFormatVersion", "1"),
        ("extensions.partialClone", "origin"),
    ):
        hostile.git("config", name, value)
    blob = hostile.git("rev-parse", "HEAD:README.md")
    (hostile.path / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    repositories = GitRepositories(
        tmp_path / "data",
        allow_paths=[tmp_path / "work"],
        allow_hosts=[],
        max_repository_bytes=10_000_000,
        timeout_seconds=30.0,
        max_file_bytes=1_000,
    )
    with pytest.raises(RepositoryError):
        await start(repositories, str(hostile.path))
    assert not marker.exists()
    assert mirrors(tmp_path / "data") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
async def test_repositories_of_another_user_are_read(tmp_path: Path) -> None:
    foreign = new_repository(tmp_path / "work" / "foreign")
    for path in (foreign.path, *foreign.path.rglob("*")):
        os.chown(path, 12345, 12345)
    repositories = GitRepositories(
        tmp_path / "data",
        allow_paths=[tmp_path / "work"],
        allow_hosts=[],
        max_repository_bytes=10_000_000,
        timeout_seconds=30.0,
        max_file_bytes=1_000,
    )
    assert (await start(repositories, str(foreign.path))).ref == "main"


@pytest.fixture
def children() -> Callable[[], set[int]]:
    """Tells the processes that this one has started during the test and that still run."""
    before = _children()
    return lambda: _children() - before


def _children() -> set[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}


def _certificate(directory: Path, host: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName(
        [x509.DNSName(host), x509.IPAddress(ip_address("127.0.0.9"))]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = directory / "certificate.pem", directory / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files
