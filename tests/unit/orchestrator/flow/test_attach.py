"""Files of a request, found in a real store and in real repositories."""

from pathlib import Path

import pytest
from tests.support.repositories import new_repository

from orchestrator.domain.repository import parse_repository_url
from orchestrator.domain.request import InlineFile
from orchestrator.domain.task import InputFile, StartPoint
from orchestrator.domain.workspace import Workspace, scratch_workspace, workspace_of
from orchestrator.errors import FileConflict, InvalidRequest, UnknownFile
from orchestrator.flow.attach import Attach
from orchestrator.flow.uploads import Uploads
from orchestrator.gateway.mirrors import GitRepositories
from orchestrator.storage.objects import FileObjectStore

Given = tuple[Workspace, tuple[StartPoint, ...]]
SCRATCH: Given = (scratch_workspace("t1"), ())


@pytest.fixture
def objects(tmp_path: Path) -> FileObjectStore:
    return FileObjectStore(tmp_path / "objects")


@pytest.fixture
def uploads(objects: FileObjectStore) -> Uploads:
    return Uploads(objects)


@pytest.fixture
def repositories(tmp_path: Path) -> GitRepositories:
    return GitRepositories(
        tmp_path / "data",
        allow_paths=[tmp_path / "work"],
        allow_hosts=[],
        max_repository_bytes=100_000_000,
        timeout_seconds=30.0,
        max_file_bytes=10_000,
    )


@pytest.fixture
def attach(objects: FileObjectStore, repositories: GitRepositories) -> Attach:
    return Attach(objects, repositories)


async def started(repositories: GitRepositories, *paths: Path) -> Given:
    workspace = workspace_of([parse_repository_url(str(path)) for path in paths])
    points = [await repositories.start_point(r.url, r.name, None) for r in workspace.repositories]
    return workspace, tuple(points)


@pytest.fixture
async def one(repositories: GitRepositories, tmp_path: Path) -> Given:
    files = {"src/app.py": "app\n", "README.md": "first\n", "files/own.txt": "own\n"}
    source = new_repository(tmp_path / "work" / "one", files)
    (source.path / "README.md").write_text("not committed\n")
    return await started(repositories, source.path)


@pytest.fixture
async def two(repositories: GitRepositories, tmp_path: Path) -> Given:
    for name in ("left", "right"):
        new_repository(tmp_path / "work" / name, {f"{name}.txt": name, "both.txt": name})
    return await started(repositories, tmp_path / "work" / "left", tmp_path / "work" / "right")


async def test_files_come_in_order_from_wherever_they_are(
    attach: Attach, uploads: Uploads, one: Given
) -> None:
    await uploads.put("data/table.csv", b"1,2\n")
    wanted: list[InlineFile | str] = [
        InlineFile("./notes//a.txt", b"\x00\xff"),
        "README.md",
        "data/table.csv",
    ]
    assert await attach(wanted, *one) == (
        InputFile("notes/a.txt", b"\x00\xff"),
        InputFile("README.md", b"first\n"),
        InputFile("data/table.csv", b"1,2\n"),
    )


async def test_nothing_wanted_is_nothing_found(attach: Attach) -> None:
    assert await attach([], *SCRATCH) == ()


async def test_an_upload_goes_before_a_path(attach: Attach, uploads: Uploads, one: Given) -> None:
    await uploads.put("README.md", b"uploaded")
    assert await attach(["README.md"], *one) == (InputFile("README.md", b"uploaded"),)
    await uploads.delete("README.md")
    assert await attach(["README.md"], *one) == (InputFile("README.md", b"first\n"),)


@pytest.mark.parametrize("name", ["nothing.txt", "src", "src/app.py/x", "SRC/app.py"])
async def test_a_name_that_is_nowhere_is_refused_by_name(
    attach: Attach, one: Given, name: str
) -> None:
    for given in (one, SCRATCH):
        with pytest.raises(UnknownFile) as refused:
            await attach(["README.md", name] if given is one else [name], *given)
        assert refused.value.facts == {"file": name}
        assert repr(name) in refused.value.detail


@pytest.mark.parametrize("name", ["../README.md", "/etc/passwd", "", ".git/config", "a\nb"])
@pytest.mark.parametrize("inline", [True, False])
async def test_a_name_that_is_no_relative_path_is_refused(
    attach: Attach, one: Given, name: str, inline: bool
) -> None:
    with pytest.raises(InvalidRequest, match="is not a file name"):
        await attach([InlineFile(name, b"") if inline else name], *one)


async def test_among_several_repositories_a_path_begins_with_the_repositorys_name(
    attach: Attach, two: Given
) -> None:
    assert await attach(["left/left.txt", "right/both.txt"], *two) == (
        InputFile("left/left.txt", b"left"),
        InputFile("right/both.txt", b"right"),
    )
    for name in ("both.txt", "left/right.txt", "left", "left/"):
        with pytest.raises(UnknownFile):
            await attach([name], *two)


@pytest.mark.parametrize(
    "names", [["a", "a"], ["a", "./a"], ["a", "a/b"], ["a/b/c", "a"], ["README.md", "README.md/x"]]
)
async def test_two_files_cannot_have_one_place(
    attach: Attach, one: Given, names: list[str]
) -> None:
    with pytest.raises(FileConflict) as refused:
        await attach([InlineFile(name, b"") for name in names], *one)
    assert refused.value.code == "file_conflict"


@pytest.mark.parametrize("name", ["own.txt", "own.txt/deeper", "own.txt/a/b"])
async def test_the_repositorys_own_files_are_not_overwritten(
    attach: Attach, one: Given, name: str
) -> None:
    with pytest.raises(FileConflict, match=r"a file files/own\.txt of its own"):
        await attach([InlineFile(name, b"")], *one)
    assert await attach([InlineFile("other.txt", b"")], *one)


async def test_a_repository_with_a_file_called_files_has_no_room_for_any(
    attach: Attach, repositories: GitRepositories, tmp_path: Path
) -> None:
    source = new_repository(tmp_path / "work" / "odd", {"files": "a file"})
    given = await started(repositories, source.path)
    with pytest.raises(FileConflict, match="a file files of its own"):
        await attach([InlineFile("a.txt", b"")], *given)


async def test_beside_several_repositories_no_place_is_taken(
    attach: Attach, repositories: GitRepositories, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        new_repository(tmp_path / "work" / name, {"files/x.txt": "own"})
    given = await started(repositories, tmp_path / "work" / "a", tmp_path / "work" / "b")
    assert await attach([InlineFile("x.txt", b"given")], *given)
