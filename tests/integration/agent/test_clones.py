"""Clones and the bundles that fill them."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.desk import URL, Desk, bundle, chunks
from tests.support.repositories import SourceRepository, git, new_repository, sample_repository

from agent.errors import BadRequest, GitFailed


def refs(clone: Path) -> dict[str, str]:
    lines = git(clone, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    return dict(line.split(" ") for line in lines)


def names_left(desk: Desk) -> list[str]:
    return sorted(path.name for path in desk.layout.repositories.iterdir())


async def test_a_full_clone(desk: Desk) -> None:
    source = sample_repository(desk.directory / "sample")
    await desk.give(source)
    clone = desk.layout.clone("sample")
    found = refs(clone)
    assert found["refs/remotes/origin/main"] == source.head
    assert found["refs/remotes/origin/feature"] == source.commit_of("feature")
    assert set(found) >= {"refs/tags/v1", "refs/tags/light"}
    assert git(clone, "config", "remote.origin.url") == URL
    assert names_left(desk) == ["sample.git"]
    (held,) = await desk.clones.held()
    assert held.name == "sample"
    assert {source.head, source.commit_of("feature")} <= set(held.tips)


async def test_an_update_brings_new_moved_and_deleted_branches(desk: Desk) -> None:
    source = sample_repository(desk.directory / "sample")
    await desk.give(source)
    before = source.head
    source.git("reset", "--quiet", "--hard", "HEAD^")
    source.commit("rewritten", {"a": "1\n"})
    source.git("branch", "--delete", "--force", "feature")
    source.git("branch", "feature/more")
    source.git("tag", "--force", "light")
    # What the clone has is left out, as in the bundles that come later.
    await desk.clones.receive("sample", URL, chunks(bundle_without(source, before)))
    found = refs(desk.layout.clone("sample"))
    assert found["refs/remotes/origin/main"] == source.head
    assert found["refs/tags/light"] == source.head
    assert "refs/remotes/origin/feature" not in found
    assert "refs/remotes/origin/feature/more" in found


async def test_a_task_has_its_own_branches_and_tags(desk: Desk) -> None:
    bench = await desk.start({"a": "1\n"})
    tree = bench.worktree
    mine = tree.commit("mine", {"b": "1\n"})
    tree.git("tag", "mine")
    bench.source.commit("theirs", {"a": "2\n"})
    await desk.give(bench.source, bench.source.path.name)
    assert refs(bench.clone) == {"refs/remotes/origin/main": bench.source.head}
    own = refs(bench.root)
    assert own["refs/heads/main"] == own["refs/tags/mine"] == mine
    assert own["refs/remotes/origin/main"] == bench.commit
    assert tree.git("status", "--porcelain") == ""


async def test_a_tag_gives_way_to_those_below_it(desk: Desk) -> None:
    bench = await desk.start({"a": "1\n"})
    for name, gone in (("v1", "none"), ("v1/first", "v1"), ("v1", "v1/first")):
        if gone != "none":
            bench.source.git("tag", "--delete", gone)
        bench.source.git("tag", name)
        await desk.give(bench.source, bench.source.path.name)
        tags = [name for name in refs(bench.clone) if name.startswith("refs/tags/")]
        assert tags == [f"refs/tags/{name}"]


async def test_a_pinned_commit_arrives(desk: Desk) -> None:
    source = sample_repository(desk.directory / "sample")
    pinned = f"refs/berth/pinned/{source.head}"
    source.git("update-ref", pinned, source.head)
    content = subprocess.run(
        ("git", "bundle", "create", "-q", "-", pinned),
        cwd=source.path,
        capture_output=True,
        check=True,
    ).stdout
    await desk.clones.receive("sample", URL, chunks(content))
    assert refs(desk.layout.clone("sample")) == {pinned: source.head}


@pytest.mark.parametrize("damage", ["empty", "garbage", "header only", "truncated", "flipped"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
async def test_a_broken_bundle_changes_nothing(desk: Desk, damage: str, first: bool) -> None:
    source = sample_repository(desk.directory / "sample")
    before = {}
    if not first:
        await desk.give(source)
        before = refs(desk.layout.clone("sample"))
        source.commit("next", {"data": os.urandom(4_000)})
    whole = bundle(source)
    content = {
        "empty": b"",
        "garbage": b"no bundle at all\n",
        "header only": whole[: whole.index(b"\n\n") + 2],
        "truncated": whole[: len(whole) * 2 // 3],
        "flipped": whole[:-200] + bytes([whole[-200] ^ 0xFF]) + whole[-199:],
    }[damage]
    with pytest.raises(GitFailed):
        await desk.clones.receive("sample", URL, chunks(content))
    if first:
        assert names_left(desk) == []
    else:
        assert refs(desk.layout.clone("sample")) == before
        assert names_left(desk) == ["sample.git"]
    await desk.give(source)
    assert refs(desk.layout.clone("sample"))["refs/remotes/origin/main"] == source.head


async def test_a_bundle_that_needs_what_the_clone_lacks(desk: Desk) -> None:
    source = sample_repository(desk.directory / "sample")
    base = source.head
    source.commit("next", {"a": "1\n"})
    with pytest.raises(GitFailed):
        await desk.clones.receive("sample", URL, chunks(bundle_without(source, base)))
    assert names_left(desk) == []


async def test_a_stream_that_breaks_off(desk: Desk) -> None:
    source = sample_repository(desk.directory / "sample")

    async def broken() -> AsyncIterator[bytes]:
        yield bundle(source)[:100]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await desk.clones.receive("sample", URL, broken())
    assert names_left(desk) == []


async def test_one_repository_received_many_times_at_once(desk: Desk) -> None:
    source = sample_repository(desk.directory / "sample")
    await asyncio.gather(*(desk.give(source) for _ in range(5)))
    assert names_left(desk) == ["sample.git"]
    assert refs(desk.layout.clone("sample"))["refs/remotes/origin/main"] == source.head
    source.commit("next", {"a": "1\n"})
    await asyncio.gather(*(desk.give(source) for _ in range(5)))
    assert refs(desk.layout.clone("sample"))["refs/remotes/origin/main"] == source.head


async def test_a_slow_sender_does_not_hold_up_another(desk: Desk) -> None:
    source = sample_repository(desk.directory / "sample")
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield bundle(source)[:10]
        await go_on.wait()
        yield bundle(source)[10:]

    first = asyncio.create_task(desk.clones.receive("sample", URL, slow()))
    async with asyncio.timeout(60):
        await desk.give(source)
        go_on.set()
        await first


async def test_rests_of_a_killed_worker_go(desk: Desk) -> None:
    source = sample_repository(desk.directory / "sample")
    await desk.give(source)
    clone = desk.layout.clone("sample")
    half = desk.layout.repositories / ".incoming-abc"
    (half / "clone.git" / "objects").mkdir(parents=True)
    (clone / "packed-refs.lock").touch()
    (clone / "refs" / "remotes" / "origin").mkdir(parents=True, exist_ok=True)
    (clone / "refs" / "remotes" / "origin" / "main.lock").touch()
    await desk.clones.clear_interrupted()
    assert names_left(desk) == ["sample.git"]
    source.commit("next", {"a": "1\n"})
    await desk.give(source)
    assert refs(clone)["refs/remotes/origin/main"] == source.head


@pytest.mark.parametrize("damage", ["config", "objects", "head", "all"])
async def test_a_damaged_clone_is_not_held_and_comes_back(desk: Desk, damage: str) -> None:
    bench = await desk.start({"a": "1\n"})
    name, clone = bench.source.path.name, bench.clone
    if damage == "config":
        (clone / "config").write_text("[broken\n")
    elif damage == "head":
        (clone / "HEAD").unlink()
    else:
        for path in (clone / "objects").rglob("*"):
            if path.is_file():
                path.unlink()
        if damage == "all":
            (clone / "config").unlink()
    assert await desk.clones.held() == []
    await desk.give(bench.source, name)
    assert [each.name for each in await desk.clones.held()] == [name]
    await desk.prepare("next", {name: bench.commit})
    # The task that runs meanwhile keeps its tree and its patch.
    (bench.root / "a").write_text("2\n")
    assert (await bench.verified()).changed_files == ("a",)
    assert bench.worktree.git("status", "--porcelain") == " M a"


async def test_a_missing_tip_is_noticed(desk: Desk) -> None:
    source = new_repository(desk.directory / "sample")
    await desk.give(source)
    git(desk.layout.clone("sample"), "update-ref", "refs/tags/x", source.head)
    packed = desk.layout.clone("sample") / "refs" / "tags" / "x"
    packed.write_text("1" * 40 + "\n")
    assert await desk.clones.held() == []


@pytest.mark.parametrize("url", ["x\ny", "x\0y", "\ud800", "x" * 5_000])
async def test_what_is_no_address(desk: Desk, url: str) -> None:
    with pytest.raises(BadRequest):
        await desk.clones.receive("sample", url, chunks(b"x"))
    assert not desk.layout.repositories.exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", "x.git", "x.lock", "-x", ".x", "a\n"])
async def test_what_is_no_name(desk: Desk, name: str) -> None:
    with pytest.raises(BadRequest):
        await desk.clones.receive(name, URL, chunks(b"x"))


@pytest.mark.parametrize("url", ['https://x/"quoted"', "back\\slash", "x # y ; z", "é"])
async def test_odd_addresses_are_kept(desk: Desk, url: str) -> None:
    source = sample_repository(desk.directory / "sample")
    await desk.clones.receive("sample", url, chunks(bundle(source)))
    assert git(desk.layout.clone("sample"), "config", "remote.origin.url") == url


def bundle_without(source: SourceRepository, commit: str) -> bytes:
    """All names, but not the objects of a commit, nor the demand to have it."""
    names = source.git(
        "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags"
    )
    wanted = [line.split(" ")[0] for line in names.splitlines()] + [f"^{commit}"]
    pack = subprocess.run(
        ("git", "pack-objects", "--revs", "--stdout", "--thin", "-q"),
        cwd=source.path,
        input=("\n".join(wanted) + "\n").encode(),
        capture_output=True,
        check=True,
    ).stdout
    return b"# v2 git bundle\n" + names.encode() + b"\n\n" + pack
