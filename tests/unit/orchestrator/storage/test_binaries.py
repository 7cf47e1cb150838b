import subprocess
from pathlib import Path

import pytest

from orchestrator.errors import ConfigurationError
from orchestrator.storage.postgres.binaries import (
    Installation,
    blocking_directory,
    choose_installation,
    copy_installation,
    find_installations,
)


def test_the_installed_versions_are_found() -> None:
    found = find_installations()
    for major, installation in found.items():
        said = subprocess.run(
            [installation.program("postgres"), "--version"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert f" {major}." in said


def test_new_data_gets_the_newest_version_and_old_data_its_own() -> None:
    found = {major: Installation(major, Path(str(major))) for major in (16, 18)}
    assert choose_installation(found, None).major == 18
    assert choose_installation(found, 16).major == 16
    with pytest.raises(ConfigurationError, match="Postgres 17"):
        choose_installation(found, 17)


def test_the_directory_in_the_way_is_named(passable_directory: Path) -> None:
    inner = passable_directory / "closed" / "open"
    inner.mkdir(parents=True)
    assert blocking_directory(inner) is None
    inner.parent.chmod(0o700)
    assert blocking_directory(inner) == inner.parent
    assert blocking_directory(passable_directory) is None


def test_a_copy_runs_and_is_made_once(passable_directory: Path) -> None:
    installation = choose_installation(find_installations(), None)
    abandoned = passable_directory / "bin-0.0.1-15"
    abandoned.mkdir()
    copied = copy_installation(installation, passable_directory)
    assert copied.home.is_relative_to(passable_directory)
    assert not abandoned.exists()
    for name in ("postgres", "initdb"):
        subprocess.run([copied.program(name), "--version"], check=True, capture_output=True)
    made = copied.program("postgres").stat().st_ctime_ns
    assert copy_installation(installation, passable_directory) == copied
    assert copied.program("postgres").stat().st_ctime_ns == made
    size = sum(path.stat().st_size for path in passable_directory.rglob("*") if path.is_file())
    assert size < 30_000_000
