"""Where a path leads."""

from pathlib import Path

import pytest

from orchestrator.engine_proxy.guard import require_plain
from orchestrator.engine_proxy.order import PlainPath
from orchestrator.errors import EngineCallRefused


def test_directories_and_files_are_plain(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_text("")
    require_plain(PlainPath(tmp_path / "directory", is_directory=True))
    require_plain(PlainPath(tmp_path / "file", is_directory=False))


def test_the_other_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_text("")
    for name, is_directory in (("directory", False), ("file", True)):
        with pytest.raises(EngineCallRefused, match="is not a"):
            require_plain(PlainPath(tmp_path / name, is_directory=is_directory))


def test_links_are_refused_wherever_they_are(tmp_path: Path) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "last").symlink_to("/")
    (tmp_path / "first").symlink_to(tmp_path / "real")
    for path in (tmp_path / "last", tmp_path / "first" / "inner"):
        with pytest.raises(EngineCallRefused, match="symbolic link"):
            require_plain(PlainPath(path, is_directory=True))


def test_what_the_proxy_cannot_see_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineCallRefused, match="cannot see"):
        require_plain(PlainPath(tmp_path / "none", is_directory=True))
