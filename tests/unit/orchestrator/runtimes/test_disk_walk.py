"""Measuring directories that somebody means ill with."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.domain.disk import DiskUse
from orchestrator.errors import RuntimeFailure
from orchestrator.runtimes.disk_measure import free_bytes, measure_here, read_walk, walk_argv
from orchestrator.runtimes.disk_walk import NAME_BYTES, Walk

MIB = 2**20
ROOM = 64 * 1024
"""What directories and rounding may add."""


def walked(*roots: Path, seconds: float = 60.0) -> Walk:
    walk = Walk(seconds)
    for root in roots:
        walk.add(str(root))
    return walk


def fill(path: Path, size: int = MIB) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))


def test_files_below_count(tmp_path: Path) -> None:
    fill(tmp_path / "one" / "a")
    fill(tmp_path / "two" / "b" / "c" / "d")
    walk = walked(tmp_path / "one", tmp_path / "two")
    assert walk.whole
    assert 2 * MIB <= walk.used_bytes <= 2 * MIB + ROOM


def test_a_file_with_many_names_counts_once_and_holes_do_not(tmp_path: Path) -> None:
    fill(tmp_path / "file")
    for number in range(20):
        (tmp_path / f"name{number}").hardlink_to(tmp_path / "file")
    with (tmp_path / "hollow").open("wb") as hollow:
        hollow.truncate(2**40)
    used = walked(tmp_path).used_bytes
    assert MIB + 22 * NAME_BYTES <= used <= MIB + 22 * NAME_BYTES + ROOM


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    fill(outside / "large", 4 * MIB)
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(outside)
    (root / "file").symlink_to(outside / "large")
    (root / "loop").symlink_to(root)
    assert walked(root).used_bytes < MIB
    (tmp_path / "door").symlink_to(outside)
    assert walked(tmp_path / "door").used_bytes == 0


def test_empty_files_count(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / str(number)).touch()
    assert walked(tmp_path).used_bytes >= 1000 * NAME_BYTES


def test_what_is_not_there_holds_nothing(tmp_path: Path) -> None:
    walk = walked(tmp_path / "missing")
    assert (walk.used_bytes, walk.whole) == (0, True)


def test_without_time_it_is_not_whole(tmp_path: Path) -> None:
    fill(tmp_path / "deep" / "file")
    assert not walked(tmp_path, seconds=0.0).whole


@contextmanager
def few_files() -> Iterator[int]:
    """This process may open few more files while the context lasts."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(list(Path("/proc/self/fd").iterdir())) + 40
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, before[1]))
    try:
        yield few
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_what_is_too_deep_is_not_whole(tmp_path: Path) -> None:
    with few_files() as few:
        fill(tmp_path.joinpath(*["d"] * few, "file"))
        assert not walked(tmp_path).whole
    assert walked(tmp_path).whole


def test_it_is_one_program_that_needs_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "file")
    argv = walk_argv(sys.executable, [str(tmp_path)])
    done = subprocess.run(argv, capture_output=True, check=True, env={}, cwd="/")
    used, whole = json.loads(done.stdout)
    assert whole is True
    assert MIB <= used <= MIB + ROOM


async def test_measuring_sees_what_its_user_has_made_unreadable(tmp_path: Path) -> None:
    fill(tmp_path / "hidden" / "file")
    (tmp_path / "hidden").chmod(0)
    try:
        use = await measure_here([tmp_path])
    finally:
        (tmp_path / "hidden").chmod(0o700)
    assert use.whole
    assert MIB <= use.used_bytes <= MIB + ROOM
    assert use.seconds > 0


@pytest.mark.parametrize("said", ["", "Traceback\nMemoryError", "[1]", '["x", true]', "[1, 2, 3]"])
def test_a_program_that_failed_is_an_error(said: str) -> None:
    with pytest.raises(RuntimeFailure, match="cannot be measured"):
        read_walk(said, 1.0)


def test_the_last_line_counts() -> None:
    assert read_walk("warning\n[5, false]\n", 1.5) == DiskUse(5, 1.5, whole=False)


async def test_free_bytes(tmp_path: Path) -> None:
    assert (await free_bytes(tmp_path) or 0) > 0
    assert await free_bytes(tmp_path / "missing") is None
