"""The Python that runs the worker in a sandbox, and where its parts lie on this machine."""

import importlib.util
import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from orchestrator.errors import RuntimeUnavailable

INSIDE = PurePosixPath("/opt/berth")
PYTHON_INSIDE = INSIDE / "python"
SITE_INSIDE = INSIDE / "site-packages"
PACKAGES_INSIDE = INSIDE / "packages"
WORKER_PACKAGES = ("agent", "mcp_servers")
DEPENDENCY = "uvicorn"  # where it lies, all that the worker needs is installed


@dataclass(frozen=True, slots=True)
class Interpreter:
    """What has to be mounted and set so that `executable` runs the worker's packages.

    `prefix` is None if the interpreter lies under /usr, which sandboxes see anyway.
    """

    executable: str
    prefix: Path | None
    site_packages: Path
    packages: tuple[Path, ...]
    environment: tuple[tuple[str, str], ...]

    def digest_facts(self) -> list[str]:
        """What changes when the interpreter or the worker's code does."""
        return [
            sys.version,
            self.executable,
            str(self.site_packages),
            *(f"{path}:{_newest(path)}" for path in self.packages),
        ]


def find_interpreter() -> Interpreter:
    """The interpreter of this process and the worker's packages, without importing them.

    Raises:
        RuntimeUnavailable: The worker's packages are not installed here.
    """
    prefix = Path(sys.base_prefix).resolve()
    executable = f"python{sys.version_info.major}.{sys.version_info.minor}"
    environment = [
        ("PYTHONPATH", f"{PACKAGES_INSIDE}:{SITE_INSIDE}"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ]
    site_packages = _package(DEPENDENCY).parent
    packages = tuple(_package(name) for name in WORKER_PACKAGES)
    if prefix.is_relative_to("/usr"):
        return Interpreter(
            str(prefix / "bin" / executable), None, site_packages, packages, tuple(environment)
        )
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        # The path compiled into the binary is that of the host.
        environment.append(("LD_LIBRARY_PATH", str(PYTHON_INSIDE / "lib")))
    return Interpreter(
        str(PYTHON_INSIDE / "bin" / executable), prefix, site_packages, packages, tuple(environment)
    )


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeUnavailable(
            f"The Python package {name!r} is not installed, so no sandbox can run the worker. "
            "Install Berth with its extra `agent`.",
            package=name,
        )
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def _newest(package: Path) -> float:
    times = [
        (Path(directory) / name).stat().st_mtime
        for directory, _, names in os.walk(package)
        for name in names
        if name.endswith(".py")
    ]
    return max(times, default=0.0)
