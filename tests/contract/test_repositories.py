"""What every implementation of the `Repositories` port does, on real local repositories."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.support.repositories import (
    BINARY,
    SourceRepository,
    bare_copy,
    empty_repository,
    git,
    new_repository,
    sample_repository,
)

from orchestrator.domain.repository import RepositoryUrl, parse_repository_url
from orchestrator.domain.task import StartPoint
from orchestrator.errors import (
    RepositoryEmpty,
    RepositoryUnreachable,
    RepositoryUrlRefused,
    RequestTooLarge,
    UnknownRef,
)
from orchestrator.gateway.mirrors import GitRepositories
from orchestrator.ports import Repositories

MAX_FILE_BYTES = 10_000
Build = Callable[[Path, Path], Repositories]


def _git_repositories(data_dir: Path, allowed: Path) -> Repositories:
    return GitRepositories(
        data_dir,
        allow_paths=[allowed],
        allow_hosts=[],
        max_repository_bytes=100_000_000,
        timeout_seconds=30.0,
        max_file_bytes=MAX_FILE_BYTES,
    )


@pytest.fixture(params=[_git_repositories], ids=["git"])
def repositories(request: pytest.FixtureRequest, tmp_path: Path) -> Repositories:
    build: Build = request.param
    return build(tmp_path / "data", tmp_path / "work")


@pytest.fixture
def source(tmp_path: Path) -> SourceRepository:
    return sample_repository(tmp_path / "work" / "sample")


class Receiver:
    """A worker's bare clone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)
        git(path, "init", "--quiet", "--bare", "--initial-branch=main")

    async def take(self, repositories: Repositories, url: RepositoryUrl, start: StartPoint) -> int:
        """Receive what is missing for `start`; bytes received, 0 if nothing was."""
        chunks = await repositories.bundle(url, start, self.tips)
        if chunks is None:
            return 0
        file = self.path / "incoming.bundle"
        file.write_bytes(b"".join([chunk async for chunk in chunks]))
        # Only what mirrors the remote's branches is pruned; tags may be the worker's own.
        for refspecs in (
            ("--prune", str(file), "+refs/heads/*:refs/remotes/origin/*"),
            (str(file), "+refs/tags/*:refs/tags/*", "+refs/berth/*:refs/berth/*"),
        ):
            git(self.path, "fetch", "--quiet", "--no-tags", *refspecs)
        return file.stat().st_size

    @property
    def tips(self) -> Sequence[str]:
        return git(self.path, "for-each-ref", "--format=%(objectname)").split()

    def ref(self, name: str) -> str:
        return git(self.path, "rev-parse", "--verify", name)

    def has(self, commit: str) -> bool:
        """True if the commit is there with all that belongs to it."""
        git(self.path, "rev-list", "--objects", "--quiet", commit)
        return True


def _url(source: SourceRepository) -> RepositoryUrl:
    return parse_repository_url(str(source.path))


async def test_head_is_the_default(repositories: Repositories, source: SourceRepository) -> None:
    start = await repositories.start_point(_url(source), "sample", None)
    assert start == StartPoint("sample", source.head, "main")
    source.git("switch", "--quiet", "feature")
    start = await repositories.start_point(_url(source), "sample", None)
    assert start == StartPoint("sample", source.head, "feature")


@pytest.mark.parametrize(
    ("ref", "revision"),
    [
        ("main", "main"),
        ("feature", "feature"),
        ("refs/heads/feature", "feature"),
        ("v1", "v1"),
        ("refs/tags/v1", "v1"),
        ("light", "light"),
        ("HEAD", "main"),
    ],
)
async def test_names_resolve_to_commits(
    repositories: Repositories, source: SourceRepository, ref: str, revision: str
) -> None:
    start = await repositories.start_point(_url(source), "sample", ref)
    assert start == StartPoint("sample", source.commit_of(revision), ref)


async def test_a_branch_goes_before_a_tag_and_before_a_commit(
    repositories: Repositories, source: SourceRepository
) -> None:
    source.git("tag", "both", "v1")
    source.git("branch", "both", "feature")
    source.git("branch", source.head[:8], "v1")
    both = await repositories.start_point(_url(source), "sample", "both")
    assert both.commit == source.commit_of("refs/heads/both")
    hexadecimal = await repositories.start_point(_url(source), "sample", source.head[:8])
    assert hexadecimal.commit == source.commit_of("v1")


async def test_tags_of_tags_are_followed(
    repositories: Repositories, source: SourceRepository
) -> None:
    source.git("tag", "--annotate", "--message=again", "v1-again", "v1")
    source.git("tag", "--annotate", "--message=again", "v1-thrice", "v1-again")
    start = await repositories.start_point(_url(source), "sample", "v1-thrice")
    assert start.commit == source.commit_of("v1")


async def test_commits_resolve_in_full_and_abbreviated(
    repositories: Repositories, source: SourceRepository
) -> None:
    first = source.commit_of("v1")
    for ref in (first, first.upper(), first[:7], first[:12]):
        start = await repositories.start_point(_url(source), "sample", ref)
        assert start == StartPoint("sample", first, ref)


async def test_a_commit_no_branch_leads_to_is_fetched_and_shipped(
    repositories: Repositories, source: SourceRepository, tmp_path: Path
) -> None:
    source.git("switch", "--quiet", "--detach")
    lost = source.commit("lost", {"lost.txt": "x"})
    source.git("switch", "--quiet", "main")
    start = await repositories.start_point(_url(source), "sample", lost)
    receiver = Receiver(tmp_path / "clone")
    await receiver.take(repositories, _url(source), start)
    assert receiver.has(lost)


async def test_a_detached_head_is_a_start_point(
    repositories: Repositories, source: SourceRepository, tmp_path: Path
) -> None:
    source.git("switch", "--quiet", "--detach")
    commit = source.commit("detached")
    start = await repositories.start_point(_url(source), "sample", None)
    assert start == StartPoint("sample", commit, "HEAD")
    receiver = Receiver(tmp_path / "clone")
    await receiver.take(repositories, _url(source), start)
    assert receiver.has(commit)


@pytest.mark.parametrize(
    "ref",
    [
        "nothing",
        "v",
        "0123456",
        "0" * 40,
        "1" * 39,
        "refs/heads/nothing",
        "refs/berth/x",
        "tags/v1",
    ],
)
async def test_unknown_names_are_named(
    repositories: Repositories, source: SourceRepository, ref: str
) -> None:
    with pytest.raises(UnknownRef) as unknown:
        await repositories.start_point(_url(source), "sample", ref)
    assert ref in unknown.value.detail


@pytest.mark.parametrize(
    "ref",
    [
        *("", "-x", "--upload-pack=x", "a b", "a\nb", "a..b", "a~1", "main^", "a:b", "@{-1}", "@"),
        *("/a", "a/", "a//b", ".a", "a/.b", "a.", "x.lock", "a\\b", "a*", "\ud800", "x" * 300),
    ],
)
async def test_malformed_names_never_reach_git(
    repositories: Repositories, source: SourceRepository, ref: str
) -> None:
    with pytest.raises(UnknownRef):
        await repositories.start_point(_url(source), "sample", ref)


async def test_blobs_and_trees_are_no_start_points(
    repositories: Repositories, source: SourceRepository
) -> None:
    blob = source.git("rev-parse", "main:README.md")
    source.git("tag", "blob", blob)
    for ref in ("blob", blob, source.git("rev-parse", "main:src")):
        with pytest.raises(UnknownRef):
            await repositories.start_point(_url(source), "sample", ref)


async def test_a_repository_without_commits_is_empty(
    repositories: Repositories, tmp_path: Path
) -> None:
    source = empty_repository(tmp_path / "work" / "empty")
    with pytest.raises(RepositoryEmpty):
        await repositories.start_point(_url(source), "empty", None)
    commit = source.commit("first")
    assert (await repositories.start_point(_url(source), "empty", None)).commit == commit


@pytest.mark.parametrize(
    ("branches", "expected"),
    [(["main", "x"], "main"), (["master", "x"], "master"), (["only"], "only")],
)
async def test_a_dangling_head_falls_back(
    repositories: Repositories, tmp_path: Path, branches: list[str], expected: str
) -> None:
    source = new_repository(tmp_path / "work" / "dangling")
    source.git("branch", "--move", "main", "temporary")
    for branch in branches:
        source.git("branch", branch)
    source.git("symbolic-ref", "HEAD", "refs/heads/gone")
    source.git("branch", "--delete", "--force", "temporary")
    start = await repositories.start_point(_url(source), "dangling", None)
    assert start.ref == expected


async def test_a_dangling_head_among_many_asks_for_a_ref(
    repositories: Repositories, tmp_path: Path
) -> None:
    source = new_repository(tmp_path / "work" / "dangling")
    source.git("branch", "--move", "main", "one")
    source.git("branch", "two")
    source.git("symbolic-ref", "HEAD", "refs/heads/gone")
    with pytest.raises(UnknownRef, match="give a ref"):
        await repositories.start_point(_url(source), "dangling", None)
    assert (await repositories.start_point(_url(source), "dangling", "two")).ref == "two"


async def test_full_bundle_builds_a_clone(
    repositories: Repositories, source: SourceRepository, tmp_path: Path
) -> None:
    start = await repositories.start_point(_url(source), "sample", None)
    receiver = Receiver(tmp_path / "clone")
    assert await receiver.take(repositories, _url(source), start) > 0
    assert receiver.has(start.commit)
    assert receiver.ref("refs/remotes/origin/feature") == source.commit_of("feature")
    assert receiver.ref("refs/tags/v1") == source.git("rev-parse", "v1")
    assert git(receiver.path, "ls-tree", "-r", start.commit) == source.git("ls-tree", "-r", "main")


async def test_nothing_is_sent_to_who_has_it(
    repositories: Repositories, source: SourceRepository, tmp_path: Path
) -> None:
    url = _url(source)
    receiver = Receiver(tmp_path / "clone")
    await receiver.take(repositories, url, await repositories.start_point(url, "sample", None))
    for ref in (None, "feature", "v1"):
        start = await repositories.start_point(url, "sample", ref)
        assert await receiver.take(repositories, url, start) == 0
        assert receiver.has(start.commit)


async def test_incremental_bundles_are_small(
    repositories: Repositories, source: SourceRepository, tmp_path: Path
) -> None:
    url = _url(source)
    source.commit("big", {"big.bin": bytes(i * i % 251 for i in range(300_000))})
    receiver = Receiver(tmp_path / "clone")
    start = await repositories.start_point(url, "sample", None)
    full = await receiver.take(repositories, url, start)
    source.commit("small", {"small.txt": "x"})
    source.git("branch", "old", "v1")
    start = await repositories.start_point(url, "sample", None)
    increment = await receiver.take(repositories, url, start)
    assert 0 < increment < full / 2
    assert receiver.has(source.head)
    assert receiver.ref("refs/remotes/origin/old") == source.commit_of("v1")


async def test_forced_pushes_and_deletions_arrive(
    repositories: Repositories, source: SourceRepository, tmp_path: Path
) -> None:
    url = _url(source)
    receiver = Receiver(tmp_path / "clone")
    first = await repositories.start_point(url, "sample", None)
    await receiver.take(repositories, url, first)
    source.git("branch", "--delete", "--force", "feature")
    source.git("tag", "--delete", "light")
    source.git("branch", "feature/below")
    source.git("reset", "--quiet", "--hard", "v1")
    rewritten = source.commit("rewritten", {"other.txt": "x"})
    start = await repositories.start_point(url, "sample", None)
    assert start.commit == rewritten
    await receiver.take(repositories, url, start)
    assert receiver.has(rewritten)
    assert receiver.ref("refs/remotes/origin/main") == rewritten
    assert receiver.ref("refs/remotes/origin/feature/below") == first.commit
    for gone in ("feature", "light"):
        with pytest.raises(UnknownRef):
            await repositories.start_point(url, "sample", gone)
    # What was resolved before stays available to a task that is about to start.
    late = Receiver(tmp_path / "late")
    await late.take(repositories, url, first)
    assert late.has(first.commit)


async def test_unrelated_and_malformed_haves_are_ignored(
    repositories: Repositories, source: SourceRepository, tmp_path: Path
) -> None:
    url = _url(source)
    start = await repositories.start_point(url, "sample", None)
    have = ["0" * 40, "a" * 40, "--all", "HEAD", "", "^" + start.commit, "b" * 64, "x\ny"]
    chunks = await repositories.bundle(url, start, have)
    assert chunks is not None
    bundle = b"".join([chunk async for chunk in chunks])
    (tmp_path / "bundle").write_bytes(bundle)
    git(tmp_path, "clone", "--quiet", "--bare", "bundle", "clone")
    assert Receiver(tmp_path / "clone").has(start.commit)


async def test_a_bundle_needs_a_commit_that_was_fetched(
    repositories: Repositories, source: SourceRepository
) -> None:
    for commit in ("0" * 40, "HEAD", "--all"):
        with pytest.raises(UnknownRef):
            await repositories.bundle(_url(source), StartPoint("sample", commit, "main"), [])


async def test_files_are_read_at_a_commit(
    repositories: Repositories, source: SourceRepository
) -> None:
    url, first = _url(source), source.commit_of("v1")
    await repositories.start_point(url, "sample", None)
    assert await repositories.read_file(url, first, "README.md") == b"# Sample\n"
    assert await repositories.read_file(url, first, "src/app.py") == b"print('hello')\n"
    assert await repositories.read_file(url, first, "data.bin") == BINARY
    assert await repositories.read_file(url, first, "run.sh") == b"#!/bin/sh\necho hello\n"
    assert await repositories.read_file(url, first, "old name.txt") is not None
    assert await repositories.read_file(url, source.head, "old name.txt") is None


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "src", "src/", "link", "nothing", "../README.md", "./README.md", "/README.md"),
        *("README.md/x", "*.md", ":(glob)*", ":/README.md", "-r", "a\0b", "a\nb", "\ud800"),
    ],
)
async def test_what_is_no_file_reads_as_none(
    repositories: Repositories, source: SourceRepository, path: str
) -> None:
    await repositories.start_point(_url(source), "sample", None)
    assert await repositories.read_file(_url(source), source.head, path) is None


async def test_odd_file_names_are_read(
    repositories: Repositories, source: SourceRepository
) -> None:
    names = ["*.md", "ü\n\t.txt", ":(glob)", "-r", '"quoted"']
    source.commit("odd", {name: f"content of {name}" for name in names})
    await repositories.start_point(_url(source), "sample", None)
    for name in names:
        content = await repositories.read_file(_url(source), source.head, name)
        assert content == f"content of {name}".encode()


async def test_large_files_are_refused(
    repositories: Repositories, source: SourceRepository
) -> None:
    source.commit("sizes", {"fits": b"x" * MAX_FILE_BYTES, "large": b"x" * (MAX_FILE_BYTES + 1)})
    await repositories.start_point(_url(source), "sample", None)
    fits = await repositories.read_file(_url(source), source.head, "fits")
    assert fits is not None
    with pytest.raises(RequestTooLarge, match="large"):
        await repositories.read_file(_url(source), source.head, "large")


async def test_reading_needs_a_commit_that_was_fetched(
    repositories: Repositories, source: SourceRepository
) -> None:
    with pytest.raises(UnknownRef):
        await repositories.read_file(_url(source), "0" * 40, "README.md")


async def test_bare_repositories_and_worktrees_are_taken(
    repositories: Repositories, source: SourceRepository, tmp_path: Path
) -> None:
    bare = bare_copy(source, tmp_path / "work" / "bare.git")
    linked = tmp_path / "work" / "linked"
    source.git("worktree", "add", "--quiet", str(linked), "feature")
    for path, ref in ((bare, "main"), (linked, "feature")):
        start = await repositories.start_point(parse_repository_url(str(path)), "x", None)
        assert start == StartPoint("x", source.commit_of(ref), ref)


async def test_paths_outside_are_refused_alike(
    repositories: Repositories, source: SourceRepository, tmp_path: Path
) -> None:
    outside = new_repository(tmp_path / "outside")
    (tmp_path / "work" / "way-out").symlink_to(outside.path)
    sentences = set()
    for path in (outside.path, tmp_path / "nowhere", tmp_path / "work" / "way-out"):
        with pytest.raises(RepositoryUrlRefused, match="--allow-path DIR") as refused:
            await repositories.start_point(parse_repository_url(str(path)), "x", None)
        sentences.add(refused.value.detail.replace(str(path), "PATH"))
    assert len(sentences) == 1


async def test_a_directory_without_repository_is_unreachable(
    repositories: Repositories, source: SourceRepository, tmp_path: Path
) -> None:
    for path in (tmp_path / "work", source.path / "src", source.path / "README.md"):
        with pytest.raises(RepositoryUnreachable):
            await repositories.start_point(parse_repository_url(str(path)), "x", None)


async def test_many_at_once_agree(repositories: Repositories, source: SourceRepository) -> None:
    starts = await asyncio.gather(
        *(repositories.start_point(_url(source), "sample", None) for _ in range(20))
    )
    assert {start.commit for start in starts} == {source.head}


async def test_a_mirror_that_was_deleted_is_fetched_again(
    repositories: Repositories, source: SourceRepository, tmp_path: Path
) -> None:
    url = parse_repository_url(str(source.path))
    start = StartPoint("sample", source.head, "main")
    later = _git_repositories(tmp_path / "other", tmp_path / "work")
    for each in (repositories, later):
        await each.ensure(url, start)
        await each.ensure(url, start)
        assert await each.read_file(url, start.commit, "README.md") == b"# Sample\n"
    with pytest.raises(UnknownRef):
        await repositories.ensure(url, StartPoint("sample", "1" * 40, "main"))
