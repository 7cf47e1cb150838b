"""Tasks' work on a private git server and its forge: real git over HTTP, a stand-in for the API."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.forges import FORGES
from tests.support.publishing import (
    TOKEN,
    House,
    Publisher,
    added,
    changed,
    running_house,
    running_publisher,
)
from tests.support.repositories import git

from orchestrator.domain.publication import PublicationState, PublishMode, PublishRequest
from orchestrator.errors import (
    BranchTaken,
    ForgeFailure,
    ForgeRefused,
    ForgeUnknown,
    InvalidRequest,
    NothingToPublish,
    PublishConflict,
    PublishError,
    PushRefused,
    RepositoryRefusesCredentials,
    TaskIsDryRun,
    TaskNotFound,
)

BRANCH = PublishRequest(PublishMode.BRANCH)
PULL = PublishRequest(PublishMode.PULL_REQUEST, title="Add a file", body="As asked.")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with running_house(tmp_path, "gitea") as found:
        yield found


@pytest.fixture
async def desk(house: House, tmp_path: Path, postgres_url: str) -> AsyncIterator[Publisher]:
    async with running_publisher(tmp_path / "data", postgres_url, house.credentials()) as found:
        yield found


async def test_a_branch_holds_the_patch_on_the_start(house: House, desk: Publisher) -> None:
    task = await desk.ended("t1", [house.url()], added("new.txt"))
    publication = await desk.publish("t1", BRANCH)
    assert publication.state is PublicationState.PUBLISHED
    (made,) = publication.repositories
    assert house.ref("berth/t1") == made.commit
    assert house.content("berth/t1", "new.txt") == "new"
    bare = house.root / "served" / "acme" / "private.git"
    assert git(bare, "rev-parse", "berth/t1^") == task.start[0].commit
    told = git(bare, "log", "-1", "--format=%an <%ae>%n%at%n%B", "berth/t1").splitlines()
    assert task.finished_at is not None
    assert told[:3] == ["Berth <berth@localhost>", str(int(task.finished_at.timestamp())),
                        "Add a file. Please."]  # fmt: skip
    assert "Berth-Task: t1" in told
    assert made.base is not None
    assert (made.base.branch, made.base.moved) == ("main", False)
    assert house.forge.requests == []
    assert list((house.root / "data" / "publish").iterdir()) == []


@pytest.mark.parametrize("kind", FORGES)
async def test_a_pull_request_on_each_forge(kind: str, tmp_path: Path, postgres_url: str) -> None:
    async with running_house(tmp_path, kind) as house:
        data, credentials = tmp_path / "data", house.credentials()
        async with running_publisher(data, postgres_url, credentials) as desk:
            await desk.ended("t1", [house.url()], added("new.txt"), left_out=["nested"])
            publication = await desk.publish("t1", PULL)
            (made,) = publication.repositories
            (pull,) = house.forge.pulls
            assert made.pull_request_url == house.forge.url(pull)
            assert (pull["head"], pull["base"]) == ("berth/t1", "main")
            assert pull["title"] == "Add a file"
            assert pull["body"].startswith("As asked.")
            assert "`nested`" in pull["body"]
            assert await desk.publish("t1", PULL) == publication
            assert len(house.forge.pulls) == 1


async def test_the_same_call_again_changes_nothing_and_another_is_refused(
    house: House, desk: Publisher
) -> None:
    await desk.ended("t1", [house.url()], added("new.txt"))
    first = await desk.publish("t1", BRANCH)
    pushes = len(house.server.requests)
    assert await desk.publish("t1", BRANCH) == first
    assert len(house.server.requests) == pushes
    with pytest.raises(PublishConflict, match="berth/t1"):
        await desk.publish("t1", PublishRequest(PublishMode.BRANCH, branch="other"))
    assert house.ref("other") is None


async def test_a_moved_base_and_its_conflicts_are_told(house: House, desk: Publisher) -> None:
    await desk.ended("t1", [house.url()], changed("a.txt", "a", "ours"))
    await desk.ended("t2", [house.url()], added("new.txt"))
    source = house.source()
    theirs = source.commit("theirs", {"a.txt": "theirs\n"})
    source.git("push", "--quiet", "origin", "main")
    first = (await desk.publish("t1", PULL)).repositories[0].base
    assert first is not None
    assert (first.branch, first.moved, first.conflicts) == ("main", True, ("a.txt",))
    (pull,) = house.forge.pulls
    assert "has moved" in pull["body"]
    assert "conflicts with it in `a.txt`" in pull["body"]
    second = (await desk.publish("t2", BRANCH)).repositories[0].base
    assert second is not None
    assert (second.moved, second.conflicts) == (True, ())
    assert house.ref("main") == theirs
    assert house.content("berth/t1", "a.txt") == "ours"


@pytest.mark.parametrize("branch", ["main", "taken", "taken/below", "dir"])
async def test_branches_that_are_not_ours_stay(house: House, desk: Publisher, branch: str) -> None:
    source = house.source()
    source.git("push", "--quiet", "origin", "HEAD:refs/heads/taken", "HEAD:refs/heads/dir/one")
    await desk.ended("t1", [house.url()], added("new.txt"))
    with pytest.raises(BranchTaken, match=branch):
        await desk.publish("t1", PublishRequest(PublishMode.BRANCH, branch=branch))
    assert house.ref("taken") == house.ref("main") == source.head
    # Nothing is outside, so that another name may be tried.
    await desk.publish("t1", PublishRequest(PublishMode.BRANCH, branch="free"))
    assert house.content("free", "new.txt") == "new"


@pytest.mark.parametrize(
    "branch", ["", "a b", "-x", "a..b", "x.lock", "HEAD", "refs/heads/x", "@", "a\n", "x" * 300]
)
async def test_bad_names_of_branches(house: House, desk: Publisher, branch: str) -> None:
    await desk.ended("t1", [house.url()], added("new.txt"))
    with pytest.raises(InvalidRequest, match="branch"):
        await desk.publish("t1", PublishRequest(PublishMode.BRANCH, branch=branch))


async def test_several_repositories_are_linked(house: House, desk: Publisher) -> None:
    urls = [house.url(), house.url("second")]
    diff = added("new.txt", prefix="private/") + added("other.txt", prefix="second/")
    await desk.ended("t1", urls, diff)
    made = (await desk.publish("t1", PULL)).repositories
    assert [each.name for each in made] == ["private", "second"]
    assert house.content("berth/t1", "new.txt") == "new"
    assert house.content("berth/t1", "other.txt", "second") == "new"
    first, second = house.forge.pulls
    assert house.forge.url(second) in first["body"]
    assert house.forge.url(first) in second["body"]


async def test_only_changed_repositories_are_published(house: House, desk: Publisher) -> None:
    await desk.ended("t1", [house.url(), house.url("second")], added("x", prefix="second/"))
    (made,) = (await desk.publish("t1", PULL)).repositories
    assert made.name == "second"
    assert house.ref("berth/t1") is None
    assert len(house.forge.pulls) == 1


async def test_all_branches_or_none(house: House, desk: Publisher) -> None:
    """The second server takes the trial and refuses the push, as one with rules does."""
    hook = house.root / "served" / "acme" / "second.git" / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\necho no {TOKEN} >&2\nexit 1\n")
    hook.chmod(0o755)
    diff = added("new.txt", prefix="private/") + added("other.txt", prefix="second/")
    await desk.ended("t1", [house.url(), house.url("second")], diff)
    with pytest.raises(PushRefused, match="hook declined") as caught:
        await desk.publish("t1", BRANCH)
    assert TOKEN not in f"{caught.value.detail}{caught.value.facts}"
    assert house.ref("berth/t1") is None
    assert house.ref("berth/t1", "second") is None
    hook.unlink()
    await desk.publish("t1", PublishRequest(PublishMode.BRANCH, branch="now"))
    assert house.ref("now") is not None
    assert house.ref("now", "second") is not None


async def test_a_push_whose_answer_was_lost_counts(house: House, desk: Publisher) -> None:
    await desk.ended("t1", [house.url()], added("new.txt"))
    house.server.drops_pushes = 1
    (made,) = (await desk.publish("t1", BRANCH)).repositories
    assert house.ref("berth/t1") == made.commit


async def test_a_crash_between_push_and_record_is_mended_by_repeating(
    house: House, desk: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.ended("t1", [house.url()], added("new.txt"))
    publications = desk.publish._publications

    class Killed(Exception):
        """Stands for the process's end: nothing after it runs."""

    keep = publications.keep

    async def die(publication: object) -> object:
        if getattr(publication, "state", None) is PublicationState.PUSHED:
            raise Killed
        return await keep(publication)  # type: ignore[arg-type]  # what the flow gave

    monkeypatch.setattr(publications, "keep", die)
    with pytest.raises(Killed):
        await desk.publish("t1", PULL)
    monkeypatch.undo()
    pushed = house.ref("berth/t1")
    assert pushed is not None
    with pytest.raises(PublishConflict):
        await desk.publish("t1", BRANCH)
    (made,) = (await desk.publish("t1", PULL)).repositories
    assert made.commit == pushed == house.ref("berth/t1")
    assert len(house.forge.pulls) == 1


@pytest.mark.parametrize("trouble", ["fails", "loses"])
async def test_a_failing_forge_is_asked_again_by_repeating(
    house: House, desk: Publisher, trouble: str
) -> None:
    await desk.ended("t1", [house.url()], added("new.txt"))
    setattr(house.forge, trouble, 1)
    with pytest.raises(ForgeFailure, match="try again"):
        await desk.publish("t1", PULL)
    assert house.ref("berth/t1") is not None
    (made,) = (await desk.publish("t1", PULL)).repositories
    assert len(house.forge.pulls) == 1
    assert made.pull_request_url == house.forge.url(house.forge.pulls[0])


async def test_what_a_forge_never_takes_leaves_no_branch(house: House, desk: Publisher) -> None:
    await desk.ended("t1", [house.url()], added("new.txt"))
    house.forge.refuses = True
    with pytest.raises(ForgeRefused, match="Drafts are not supported"):
        await desk.publish("t1", replace(PULL, draft=True))
    assert house.ref("berth/t1") is None
    house.forge.refuses = False
    (made,) = (await desk.publish("t1", PULL)).repositories
    assert house.ref("berth/t1") == made.commit


async def test_a_token_that_may_not_push(house: House, desk: Publisher) -> None:
    await desk.ended("t1", [house.url()], added("new.txt"))
    house.server.refuses_pushes = True
    with pytest.raises(RepositoryRefusesCredentials, match=r"127\.0\.0\.1 refuses"):
        await desk.publish("t1", BRANCH)
    assert house.ref("berth/t1") is None


async def test_a_token_that_the_forge_refuses_stops_before_the_push(
    house: House, desk: Publisher
) -> None:
    await desk.ended("t1", [house.url()], added("new.txt"))
    house.forge.token = "another"
    with pytest.raises(ForgeRefused, match="renew"):
        await desk.publish("t1", PULL)
    assert house.ref("berth/t1") is None


async def test_an_unknown_forge_stops_before_the_push(
    house: House, tmp_path: Path, postgres_url: str
) -> None:
    path = tmp_path / "plain.toml"
    path.write_text(f'[[credential]]\nurl = "{house.url()}"\nusername = "berth"\ntoken = "{TOKEN}"')
    path.chmod(0o600)
    async with running_publisher(tmp_path / "data", postgres_url, path) as desk:
        await desk.ended("t1", [house.url()], added("new.txt"))
        with pytest.raises(ForgeUnknown, match="mode branch"):
            await desk.publish("t1", PULL)
        assert house.ref("berth/t1") is None
        await desk.publish("t1", BRANCH)
        assert house.ref("berth/t1") is not None


async def test_what_cannot_be_published(house: House, desk: Publisher) -> None:
    await desk.ended("dry", [house.url()], added("new.txt"), dry_run=True)
    await desk.ended("same", [house.url()], "")
    await desk.ended("local", ["/srv/somewhere"], added("new.txt"))
    await desk.ended("crafted", [house.url()], added("../../outside"))
    await desk.ended("git", [house.url()], added(".GIT/config"))
    await desk.ended("broken", [house.url()], changed("a.txt", "never there", "x"))
    for task_id, error in {
        "dry": TaskIsDryRun,
        "same": NothingToPublish,
        "local": PublishError,
        "crafted": PublishError,
        "git": PublishError,
        "broken": PublishError,
        "none": TaskNotFound,
    }.items():
        with pytest.raises(error) as caught:
            await desk.publish(task_id, BRANCH)
        assert type(caught.value) is error
    assert house.ref("berth/*") is None


async def test_a_task_from_a_tag_is_based_on_the_default_branch(
    house: House, desk: Publisher
) -> None:
    source = house.source()
    source.git("tag", "v1")
    source.commit("second", {"b.txt": "b\n"})
    source.git("push", "--quiet", "origin", "main", "v1")
    await desk.ended("t1", [house.url()], added("new.txt"), ref="v1")
    (made,) = (await desk.publish("t1", PULL)).repositories
    assert made.base is not None
    assert (made.base.branch, made.base.moved, made.base.conflicts) == ("main", True, ())


async def test_nothing_of_the_repository_runs_here(house: House, desk: Publisher) -> None:
    """Attributes, filters and merge drivers of a repository stay words."""
    source = house.source()
    mark = house.root / "ran"
    source.commit("attributes", {".gitattributes": "* filter=evil merge=evil diff=evil\n"})
    source.commit("settings", {".gitconfig": f'[filter "evil"]\nclean = touch {mark}\n'})
    source.git("push", "--quiet", "origin", "main")
    await desk.ended("t1", [house.url()], changed("a.txt", "a", "ours"))
    source.commit("theirs", {"a.txt": "theirs\n"})
    source.git("push", "--quiet", "origin", "main")
    (made,) = (await desk.publish("t1", BRANCH)).repositories
    assert made.base is not None
    assert made.base.conflicts == ("a.txt",)
    assert not mark.exists()
