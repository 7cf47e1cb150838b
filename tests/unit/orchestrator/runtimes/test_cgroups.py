"""Control groups, on directories that look like both versions of the interface."""

from pathlib import Path

import pytest

from orchestrator.domain.container import Limits
from orchestrator.runtimes.cgroups import Cgroups

LIMITS = Limits(memory_bytes=2**28, cpus=0.5, pids=40)
ALL = frozenset({"memory", "pids", "cpu"})


def prepare(directory: Path, *files: str) -> None:
    directory.mkdir(parents=True)
    for name in files:
        (directory / name).touch()


def test_version_1_has_a_group_in_each_hierarchy(tmp_path: Path) -> None:
    memory = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    prepare(tmp_path / "memory/berth/set/box", *memory)
    prepare(tmp_path / "pids/berth/set/box", "pids.max")
    prepare(tmp_path / "cpu/berth/set/box", "cpu.cfs_period_us", "cpu.cfs_quota_us")
    files = Cgroups("set", tmp_path).create("box", LIMITS, ALL)
    assert files == tuple(
        tmp_path / controller / "berth/set/box/cgroup.procs"
        for controller in ("memory", "pids", "cpu")
    )
    for name in memory:
        assert (tmp_path / "memory/berth/set/box" / name).read_text() == str(2**28)
    assert (tmp_path / "pids/berth/set/box/pids.max").read_text() == "40"
    assert (tmp_path / "cpu/berth/set/box/cpu.cfs_quota_us").read_text() == "50000"


def test_version_2_has_one_group(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    group = tmp_path / "berth/set/box"
    prepare(group, "memory.max", "memory.swap.max", "pids.max", "cpu.max")
    files = Cgroups("set", tmp_path).create("box", LIMITS, ALL)
    assert files == (group / "cgroup.procs",)
    written = {file.name: file.read_text() for file in group.iterdir()}
    assert written == {
        "memory.max": str(2**28),
        "memory.swap.max": "0",
        "pids.max": "40",
        "cpu.max": "50000 100000",
    }


def test_limits_without_a_controller_are_left_out(tmp_path: Path) -> None:
    prepare(tmp_path / "pids/berth/set/box", "pids.max")
    files = Cgroups("set", tmp_path).create("box", LIMITS, frozenset({"pids"}))
    assert files == (tmp_path / "pids/berth/set/box/cgroup.procs",)
    assert not (tmp_path / "memory").exists()


def test_a_setting_that_the_kernel_lacks_is_an_error_and_no_new_file(tmp_path: Path) -> None:
    prepare(tmp_path / "pids/berth/set/box")
    with pytest.raises(FileNotFoundError):
        Cgroups("set", tmp_path).create("box", LIMITS, frozenset({"pids"}))
    assert list((tmp_path / "pids/berth/set/box").iterdir()) == []


def test_a_plain_directory_is_not_taken_for_control_groups(tmp_path: Path) -> None:
    assert Cgroups("set", tmp_path).usable() == frozenset()


def test_removing_what_is_not_there_succeeds(tmp_path: Path) -> None:
    Cgroups("set", tmp_path).remove("box")
