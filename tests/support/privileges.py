"""Run the worker as a user without privileges where we are root."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

UID = 10001


@dataclass(frozen=True, slots=True)
class Unprivileged:
    """How to start Python without privileges: a command, and variables it needs."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def unprivileged() -> Unprivileged:
    """The way that works here; skips the test if there is none."""
    if os.geteuid() != 0:
        return Unprivileged((sys.executable,))
    found = _as_another_user()
    if found is None:
        pytest.skip("we are root, and no Python here can be run as another user by setpriv")
    return found


def hand_over(directory: Path) -> None:
    """Make a directory the other user's, if we run programs as another user."""
    if os.geteuid() == 0:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, UID, UID, follow_symlinks=False)


@cache
def _as_another_user() -> Unprivileged | None:
    if shutil.which("setpriv") is None:
        return None
    drop = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
    # Ours may lie in root's home directory; one of the system with the same version does as well.
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    roots = [_root_of(name) for name in ("uvicorn", "agent", "mcp_servers")]
    for way in (
        Unprivileged((*drop, sys.executable)),
        Unprivileged((*drop, system), {"PYTHONPATH": os.pathsep.join(roots)}),
    ):
        tried = subprocess.run(
            ["env", "-i", f"PATH={os.defpath}", *(f"{k}={v}" for k, v in way.environment.items()),
             *way.command, "-P", "-c", "import subprocess, uvicorn, agent.worker, mcp_servers"],
            cwd="/",
            capture_output=True,
            check=False,
        )  # fmt: skip
        if tried.returncode == 0:
            return way
    return None


def _root_of(package: str) -> str:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parents[1])
