"""Find out how a repository installs what it depends on, and do it when asked."""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

INSTALL_TIMEOUT_SECONDS = 900.0
SHOWN = 400


@dataclass(frozen=True, slots=True)
class Installer:
    """A way to install dependencies: recognised by a file, done by a package manager.

    `program` is what must be installed for it; `ignored` names directories it makes in the tree; they are kept out of the patch.
    """

    file: str
    manager: str
    program: str
    command: tuple[str, ...]
    ignored: tuple[str, ...] = ()


# In each group the first whose file is there wins.
INSTALLERS: tuple[tuple[Installer, ...], ...] = (
    (
        Installer("uv.lock", "uv", "uv", ("uv", "sync", "--frozen"), (".venv",)),
        Installer(
            "requirements.txt",
            "pip",
            "python3",
            ("sh", "-c", "python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt"),
            (".venv",),
        ),
        Installer(
            "pyproject.toml",
            "pip",
            "python3",
            ("sh", "-c", "python3 -m venv .venv && .venv/bin/pip install -q -e ."),
            (".venv",),
        ),
    ),
    (
        Installer("package-lock.json", "npm", "npm", ("npm", "ci", "--no-audit"), ("node_modules",)),
        Installer("package.json", "npm", "npm", ("npm", "install", "--no-audit"), ("node_modules",)),
    ),
    (Installer("Cargo.toml", "cargo", "cargo", ("cargo", "fetch"), ()),),
    (Installer("go.mod", "go", "go", ("go", "mod", "download"), ()),),
    (Installer("pom.xml", "maven", "mvn", ("mvn", "-q", "-B", "dependency:go-offline"), ()),),
)


def detect(directory: Path) -> list[Installer]:
    """The installers that fit a directory, at most one for each language."""
    found = []
    for group in INSTALLERS:
        fitting = next((each for each in group if (directory / each.file).is_file()), None)
        if fitting is not None:
            found.append(fitting)
    return found


def describe(installers: Sequence[Installer]) -> list[str]:
    """A sentence for each installer."""
    return [f"{each.file} found: dependencies come by `{each.command[0]}`." for each in installers]


async def install(installer: Installer, directory: Path, caches: Path) -> str:
    """Run an installer in a directory and say in a sentence how it went.

    Args:
        installer: What to run.
        directory: The worktree.
        caches: Where package managers keep their downloads, shared by all tasks of a workspace.
    """
    name = f"{installer.file}: `{' '.join(installer.command[:3])}`"
    try:
        process = await asyncio.create_subprocess_exec(
            *installer.command,
            cwd=directory,
            env=_environment(caches),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except FileNotFoundError:
        return f"{installer.file} found, but `{installer.program}` is not installed here."
    try:
        async with asyncio.timeout(INSTALL_TIMEOUT_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        return f"{name} was ended after {INSTALL_TIMEOUT_SECONDS:.0f} s."
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode == 0:
        return f"{name} succeeded."
    tail = output.decode(errors="replace").strip()[-SHOWN:]
    return f"{name} failed with exit code {process.returncode}: {tail}"


def _environment(caches: Path) -> dict[str, str]:
    proxies = {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")}
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(caches),
        "XDG_CACHE_HOME": str(caches / "xdg"),
        "LANG": "C.UTF-8",
        **proxies,
    }
