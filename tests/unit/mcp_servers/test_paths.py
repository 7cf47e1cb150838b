import os
import stat
from pathlib import Path

import pytest
from mcp.server.mcpserver.exceptions import ToolError

from mcp_servers.paths import MAX_DEPTH, PathError, place, shown


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "src" / "deep").mkdir(parents=True)
    (root / "src" / "app.py").write_text("print()\n")
    (tmp_path / "secret").write_text("outside\n")
    (tmp_path / "outside").mkdir()
    return root


def located(root: Path, path: str, **options: bool) -> str:
    with place(root, path, **options) as spot:
        return spot.relative


@pytest.mark.parametrize(
    ("path", "relative"),
    [
        (".", "."),
        ("src/app.py", "src/app.py"),
        ("./src//deep/../app.py", "src/app.py"),
        ("src/..", "."),
        ("src/", "src"),
        ("new/file", None),
        ("src/new", "src/new"),
    ],
)
def test_resolves_paths_inside(root: Path, path: str, relative: str | None) -> None:
    if relative is None:
        with pytest.raises(ToolError, match="no such file"):
            located(root, path)
    else:
        assert located(root, path) == relative


def test_accepts_absolute_paths_inside(root: Path, tmp_path: Path) -> None:
    assert located(root, str(root / "src/app.py")) == "src/app.py"
    assert located(root, str(root)) == "."
    alias = tmp_path / "alias"
    alias.symlink_to(root)
    assert located(alias, str(root / "src/app.py")) == "src/app.py"
    assert located(alias, str(alias / "src/app.py")) == "src/app.py"


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../secret",
        "src/../../secret",
        "src/deep/../../../secret",
        "/etc/passwd",
        "/",
        "//etc/passwd",
    ],
)
def test_refuses_paths_that_leave(root: Path, path: str) -> None:
    with pytest.raises(PathError, match="leads outside the workspace"):
        located(root, path)


def test_refuses_a_sibling_whose_name_starts_alike(root: Path, tmp_path: Path) -> None:
    (tmp_path / "root-2").mkdir()
    with pytest.raises(PathError, match="leads outside"):
        located(root, str(tmp_path / "root-2"))
    with pytest.raises(PathError, match="leads outside"):
        located(root, f"{root}/../secret")


@pytest.mark.parametrize("target", ["../secret", "/etc/passwd", "../missing", "src/../../secret"])
def test_refuses_links_that_leave(root: Path, target: str) -> None:
    (root / "link").symlink_to(target)
    for options in ({}, {"write": True}, {"write": True, "parents": True}):
        with pytest.raises(PathError, match="leads outside"):
            located(root, "link", **options)


def test_refuses_a_linked_parent_that_leaves(root: Path, tmp_path: Path) -> None:
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "chain").symlink_to("out")
    for path in ("out/file", "chain/file", "src/../chain/file"):
        with pytest.raises(PathError, match="leads outside"):
            located(root, path, write=True, parents=True)
    assert not list((tmp_path / "outside").iterdir())


def test_follows_links_that_stay_inside(root: Path) -> None:
    (root / "relative").symlink_to("src/app.py")
    (root / "absolute").symlink_to(root / "src")
    (root / "src/deep/up").symlink_to("../..")
    assert located(root, "relative") == "src/app.py"
    assert located(root, "absolute/app.py") == "src/app.py"
    assert located(root, "src/deep/up/src/deep/up/src/app.py") == "src/app.py"
    assert located(root, "relative", follow=False) == "relative"


def test_dotdot_after_a_link_is_relative_to_its_target(root: Path) -> None:
    (root / "jump").symlink_to("src/deep")
    assert located(root, "jump/../app.py") == "src/app.py"


def test_a_dangling_link_inside_names_its_target(root: Path) -> None:
    (root / "dangling").symlink_to("src/new")
    with place(root, "dangling", write=True) as spot:
        assert (spot.relative, spot.info) == ("src/new", None)


def test_stops_at_link_loops(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises(PathError, match="symbolic links"):
        located(root, "a")


def test_stops_at_great_depth_and_leaks_no_descriptors(root: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(PathError, match="nested deeper"):
        located(root, "x/" * (MAX_DEPTH + 1) + "y", parents=True)
    located(root, "src/deep")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    "path", [".git", ".git/config", "src/.git/hooks/x", ".GIT/config", "to-git/config", "src/.git"]
)
def test_refuses_to_change_git_data(root: Path, path: str) -> None:
    (root / ".git").mkdir()
    (root / ".git/config").write_text("")
    (root / "to-git").symlink_to(".git")
    with pytest.raises(PathError, match="git's own files"):
        located(root, path, write=True, parents=True)
    assert located(root, ".git/config") == ".git/config"
    assert not (root / "src/.git").exists()


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800"])
def test_refuses_malformed_paths(root: Path, path: str) -> None:
    with pytest.raises(PathError):
        located(root, path)


def test_a_directory_swapped_for_a_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    """The descriptor of the looked-up directory stays valid; the name no longer matters."""
    with place(root, "src/app.py") as spot:
        (root / "src").rename(root / "moved")
        (root / "src").symlink_to(tmp_path / "outside")
        assert stat.S_ISREG(os.stat(spot.name, dir_fd=spot.parent).st_mode)


def test_makes_parents_only_when_asked(root: Path) -> None:
    assert located(root, "new/deeper/file", parents=True) == "new/deeper/file"
    assert (root / "new/deeper").is_dir()
    with pytest.raises(ToolError, match="not a directory"):
        located(root, "src/app.py/file", parents=True)


def test_errors_name_no_path_but_the_given_one(root: Path) -> None:
    with pytest.raises(ToolError) as caught:
        located(root, "no/such")
    assert str(caught.value) == "no/such: no such file or directory"


def test_shows_names_that_are_not_utf8() -> None:
    assert shown(os.fsdecode(b"caf\xe9")) == "caf\ufffd"
    assert shown("café") == "café"
