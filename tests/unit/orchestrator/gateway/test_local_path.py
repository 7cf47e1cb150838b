"""Local repositories: what leads out of the allowed directories is refused."""

from pathlib import Path

import pytest
from tests.support.repositories import SourceRepository, bare_copy, git, new_repository

from orchestrator.errors import RepositoryError, RepositoryUnreachable, RepositoryUrlRefused
from orchestrator.gateway.local_path import MAX_POINTER_BYTES, locate


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def inside(root: Path) -> SourceRepository:
    return new_repository(root / "inside")


@pytest.fixture
def outside(tmp_path: Path) -> SourceRepository:
    return new_repository(tmp_path / "outside")


def test_plain_bare_and_linked(root: Path, inside: SourceRepository) -> None:
    bare = bare_copy(inside, root / "bare.git")
    inside.git("worktree", "add", "--quiet", str(root / "linked"))
    assert locate(inside.path, [root]) == inside.path / ".git"
    assert locate(inside.path / ".git", [root]) == inside.path / ".git"
    assert locate(bare, [root]) == bare
    linked = locate(root / "linked", [root])
    assert linked == inside.path / ".git" / "worktrees" / "linked"


def test_a_linked_root_counts_as_what_it_leads_to(
    tmp_path: Path, root: Path, inside: SourceRepository
) -> None:
    (tmp_path / "alias").symlink_to(root)
    assert locate(tmp_path / "alias" / "inside", [root]) == inside.path / ".git"
    assert locate(inside.path, [tmp_path / "alias"]) == inside.path / ".git"


def test_a_root_may_be_the_repository_itself(inside: SourceRepository) -> None:
    assert locate(inside.path, [inside.path]) == inside.path / ".git"


def test_a_neighbour_with_the_same_beginning_is_outside(root: Path) -> None:
    neighbour = new_repository(root.parent / "root-2")
    with pytest.raises(RepositoryUrlRefused):
        locate(neighbour.path, [root])


def test_nothing_is_allowed_by_default(inside: SourceRepository) -> None:
    with pytest.raises(RepositoryUrlRefused):
        locate(inside.path, [])


def test_outside_existence_is_not_told(
    root: Path, outside: SourceRepository, tmp_path: Path
) -> None:
    (root / "there").symlink_to(outside.path)
    (root / "gone").symlink_to(tmp_path / "nowhere")
    (root / "loop").symlink_to(root / "loop")
    paths = (outside.path, tmp_path / "nowhere", root / "there", root / "gone")
    sentences = set()
    for path in paths:
        with pytest.raises(RepositoryUrlRefused) as refused:
            locate(path, [root])
        sentences.add(refused.value.detail.replace(str(path), "PATH"))
    assert len(sentences) == 1
    with pytest.raises((RepositoryUrlRefused, RepositoryUnreachable)):
        locate(root / "loop", [root])


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize(
    "way", ["git-link", "git-file", "commondir", "objects", "pack", "alternates"]
)
def test_history_from_outside_is_refused(
    root: Path, inside: SourceRepository, outside: SourceRepository, way: str, existing: bool
) -> None:
    there = outside.path / ".git" if existing else outside.path / "nothing"
    dot_git = inside.path / ".git"
    match way:
        case "git-link":
            dot_git.rename(root / "moved")
            dot_git.symlink_to(there)
        case "git-file":
            dot_git.rename(root / "moved")
            dot_git.write_text(f"gitdir: {there}\n")
        case "commondir":
            (dot_git / "commondir").write_text(f"{there}\n")
        case "objects":
            (dot_git / "objects").rename(root / "moved")
            (dot_git / "objects").symlink_to(there / "objects")
        case "pack":
            pack = dot_git / "objects" / "pack"
            pack.rmdir()
            pack.symlink_to(there / "objects")
        case _:
            (dot_git / "objects" / "info").mkdir(exist_ok=True)
            (dot_git / "objects" / "info" / "alternates").write_text(f"{there}/objects\n")
    with pytest.raises(RepositoryUrlRefused, match="--allow-path DIR") as refused:
        locate(inside.path, [root])
    assert str(outside.path) not in refused.value.detail


def test_borrowing_is_followed_to_its_end(
    root: Path, inside: SourceRepository, outside: SourceRepository
) -> None:
    git(root, "clone", "--quiet", "--shared", "inside", "one")
    git(root, "clone", "--quiet", "--shared", "one", "two")
    assert locate(root / "two", [root]) == root / "two" / ".git"
    lenders = inside.path / ".git" / "objects" / "info" / "alternates"
    lenders.write_text(f"# a comment\n\n{outside.path}/.git/objects\n")
    with pytest.raises(RepositoryUrlRefused, match="another directory"):
        locate(root / "two", [root])


@pytest.mark.parametrize("content", ['"/\\157utside"\n', "x" * (MAX_POINTER_BYTES + 1), "\0"])
def test_pointers_that_cannot_be_followed_are_refused(
    inside: SourceRepository, root: Path, content: str
) -> None:
    (inside.path / ".git" / "objects" / "info" / "alternates").write_text(content)
    with pytest.raises(RepositoryUnreachable, match="cannot be read"):
        locate(inside.path, [root])


def test_what_is_no_repository(root: Path) -> None:
    (root / "file").write_text("x")
    (root / "odd").mkdir()
    (root / "odd" / ".git").write_text("nonsense")
    for name in ("", "file", "odd", "missing"):
        with pytest.raises(RepositoryUnreachable, match="no git repository"):
            locate(root / name, [root])


def test_shallow_clones_name_the_remedy(root: Path, inside: SourceRepository) -> None:
    git(root, "clone", "--quiet", "--depth=1", f"file://{inside.path}", "shallow")
    (root / "shallow" / ".git" / "shallow").write_text(f"{inside.head}\n")
    with pytest.raises(RepositoryError, match="unshallow"):
        locate(root / "shallow", [root])
