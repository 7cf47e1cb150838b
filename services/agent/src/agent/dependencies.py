"""Find out how a repository installs what it depends on, and do it when asked."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

INSTALL_TIMEOUT_SECONDS = 900.0
SHOWN = 400


@dataclass(frozen=True, slots=True)
class Installer:
    """A way to install dependencies: recognised by a file, done by a package manager.

    `program` is what must be installed for it. `ignored` names directories it makes at the top of
    the tree.
    """

    file: str
    manager: str
    program: str
    command: tuple[str, ...]
    ignored: tuple[str, ...] = ()


def _venv(*arguments: str) -> tuple[str, ...]:
    return ("sh", "-c", f"python3 -m venv .venv && .venv/bin/pip install -q {' '.join(arguments)}")


_NPM = ("--no-audit", "--no-fund")
# In each group the first whose file is there wins.
INSTALLERS: tuple[tuple[Installer, ...], ...] = (
    (
        Installer("uv.lock", "uv", "uv", ("uv", "sync", "--frozen"), (".venv",)),
        Installer(
            "requirements.txt", "pip", "python3", _venv("-r", "requirements.txt"), (".venv",)
        ),
        Installer("pyproject.toml", "pip", "python3", _venv("-e", "."), (".venv",)),
    ),
    (
        Installer("package-lock.json", "npm", "npm", ("npm", "ci", *_NPM), ("node_modules",)),
        Installer("package.json", "npm", "npm", ("npm", "install", *_NPM), ("node_modules",)),
    ),
    (Installer("Cargo.toml", "cargo", "cargo", ("cargo", "fetch")),),
    (Installer("go.mod", "go", "go", ("go", "mod", "download")),),
    (Installer("pom.xml", "maven", "mvn", ("mvn", "-q", "-B", "dependency:go-offline")),),
)


def detect(directory: Path) -> list[Installer]:
    """The installers that fit a directory, at most one for each language."""
    found = []
    for group in INSTALLERS:
        fitting = next((each for each in group if (directory / each.file).is_file()), None)
        if fitting is not None:
            found.append(fitting)
    return found


def describe(installers: Sequence[Installer], prefix: str = "") -> list[str]:
    """A sentence for each installer; `prefix` is put before the names of files."""
    return [
        f"{prefix}{each.file} found: dependencies come by {each.manager}." for each in installers
    ]


async def install(
    installer: Installer,
    directory: Path,
    caches: Path,
    variables: Mapping[str, str],
    prefix: str = "",
) -> str:
    """Run an installer in a directory and say in a sentence how it went.

    Args:
        installer: What to run.
        directory: The worktree.
        caches: Where package managers keep their downloads, shared by all tasks of a workspace.
        variables: What leads the package manager out of the container.
        prefix: Put before the name of the file in the sentence.
    """
    name = f"{prefix}{installer.file}"
    environment = _environment(caches) | dict(variables)
    if shutil.which(installer.program, path=environment["PATH"]) is None:
        return f"{name} found, but {installer.program} is not installed here."
    await asyncio.to_thread(caches.mkdir, parents=True, exist_ok=True)
    # A file, since what an installer leaves running could hold a pipe open for ever.
    with tempfile.TemporaryFile() as output:
        try:
            code = await _run(installer.command, directory, environment, output)
        except OSError as error:
            return f"{name}: {installer.manager} could not be started: {error.strerror}."
        tail = _tail(output)
    if code is None:
        return f"{name}: {installer.manager} was ended after {INSTALL_TIMEOUT_SECONDS:.0f} s."
    if code == 0:
        return f"{name}: dependencies installed by {installer.manager}."
    return f"{name}: {installer.manager} failed with exit code {code}: {tail}"


async def _run(
    command: Sequence[str], directory: Path, environment: dict[str, str], output: IO[bytes]
) -> int | None:
    """Run a command to its end and return its exit code, or None if it took too long."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=directory,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(INSTALL_TIMEOUT_SECONDS):
            return await process.wait()
    except TimeoutError:
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also what it left running
        await process.wait()


def _tail(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - 4 * SHOWN))
    return output.read().decode(errors="replace").strip()[-SHOWN:]


def _environment(caches: Path) -> dict[str, str]:
    ours = ("BERTH_", "PYTHON")  # what is set for the worker's own sake
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        **kept,
        "HOME": str(caches),
        "XDG_CACHE_HOME": str(caches / "xdg"),
    }
