"""Where workers' sockets lie."""

import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import ConfigurationError
from orchestrator.runtimes.socket_directory import SocketDirectories

NAME = "repo-0123456789abcdef." + "d" * 32


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory with a short path; that of pytest is long."""
    directory = Path(tempfile.mkdtemp(prefix="s-", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    yield directory
    shutil.rmtree(directory)


def test_sockets_lie_under_a_short_data_directory(short: Path) -> None:
    directories = SocketDirectories(short / "data")
    assert directories.endpoint(NAME).uds == short / "data/run" / NAME / "worker.sock"


@pytest.mark.parametrize("depth", range(3, 120, 9))
def test_the_longest_name_can_always_be_bound(short: Path, depth: int) -> None:
    directories = SocketDirectories(short.joinpath("d" * depth))
    directories.make(NAME)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directories.endpoint(NAME).uds))


def test_two_long_data_directories_do_not_meet(short: Path) -> None:
    deep = short.joinpath("d" * 120)
    assert SocketDirectories(deep / "a").root != SocketDirectories(deep / "b").root


def test_others_cannot_pass_the_parent_and_any_user_id_can_write_below(short: Path) -> None:
    old = os.umask(0o077)
    try:
        path = SocketDirectories(short / "data").make(NAME)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o777
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["file", "link", "directory"])
def test_what_an_earlier_worker_left_in_place_of_its_socket_is_taken_away(
    short: Path, kind: str
) -> None:
    directories = SocketDirectories(short)
    left, other = directories.make(NAME) / "worker.sock", short / "other"
    other.mkdir()
    if kind == "file":
        left.touch()
    elif kind == "link":
        left.symlink_to(other)
    else:
        (left / "deep").mkdir(parents=True)
    assert list(directories.make(NAME).iterdir()) == []
    assert other.is_dir()


def test_removal_succeeds_twice(short: Path) -> None:
    directories = SocketDirectories(short)
    (directories.make(NAME) / "worker.sock").touch()
    directories.remove(NAME)
    directories.remove(NAME)
    assert not directories.path(NAME).exists()


def test_a_directory_that_someone_else_put_there_is_refused(short: Path) -> None:
    elsewhere = short / "elsewhere"
    elsewhere.mkdir()
    (short / "run").symlink_to(elsewhere)
    with pytest.raises(ConfigurationError, match="not a directory of our user"):
        SocketDirectories(short).make(NAME)


def test_no_short_path_at_all_is_an_error(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short / ("t" * 100)))
    with pytest.raises(ConfigurationError, match="BERTH_DATA_DIR"):
        SocketDirectories(short / ("d" * 100))


def test_a_file_for_all_is_readable_for_all(short: Path) -> None:
    file = SocketDirectories(short).write("hosts", "127.0.0.1 localhost\n")
    assert file.read_text(encoding="utf-8") == "127.0.0.1 localhost\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
