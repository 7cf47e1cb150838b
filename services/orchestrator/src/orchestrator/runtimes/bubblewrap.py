"""Whether bubblewrap works on this machine, found out by running it."""

import asyncio
import os
import re
import shutil
from pathlib import Path

from orchestrator.domain.container import Limits
from orchestrator.runtimes.sandbox_command import (
    BWRAP_MINIMUM,
    Box,
    bwrap_argv,
    launch_argv,
)
from orchestrator.runtimes.system_tree import system_links, system_mounts

PROBE_SECONDS = 10.0
KERNEL_COUNTS_BY_NAMESPACE = (5, 14, 0)
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGES = {"bwrap": "bubblewrap", "setsid": "util-linux", "unshare": "util-linux"}
_ROOT_PACKAGES = {"setpriv": "util-linux"}
# Switches that forbid user namespaces: file under /proc/sys, forbidding value, what to set.
_SWITCHES = (
    ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "an AppArmor profile for bwrap with the rule `userns,`, or "
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)


def missing_program(*, as_root: bool) -> str | None:
    """A sentence that names the first missing program and its package, or None."""
    needed = _PACKAGES | (_ROOT_PACKAGES if as_root else {})
    for program, package in needed.items():
        if shutil.which(program, path=SEARCH_PATH) is None:
            return (
                f"The program {program} is missing; install the package {package} "
                f"(Debian and Ubuntu: apt-get install {package})."
            )
    return None


def parse_version(text: str) -> tuple[int, ...]:
    """The first version number in a text, as three integers; () if there is none."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return () if found is None else tuple(int(part or 0) for part in found.groups())


def explain_failure(output: str, sysctl: Path = Path("/proc/sys")) -> str:
    """A sentence on why bubblewrap could not make a sandbox, with the setting to look at.

    Args:
        output: What bubblewrap and its helpers wrote.
        sysctl: Where the kernel's settings lie.
    """
    said = " ".join(output.split()) or "it wrote nothing"
    for file, forbidding, remedy in _SWITCHES:
        setting = sysctl / file
        if setting.exists() and setting.read_text(encoding="ascii").strip() == forbidding:
            return f"User namespaces are switched off ({said}); allow them: {remedy}."
    if "proc" in said:
        return (
            f"A sandbox cannot have its own /proc here ({said}). Inside a container, start that "
            "container with --security-opt systempaths=unconfined."
        )
    return (
        f"bubblewrap cannot make a sandbox here ({said}). Inside a container, that container "
        "must allow namespaces (seccomp, AppArmor, CAP_SYS_ADMIN for root)."
    )


def counts_processes_by_namespace(release: str) -> bool:
    """True if the resource limit on processes counts those of one user namespace (Linux 5.14).

    Args:
        release: The kernel's release, as `uname -r` prints it.
    """
    return parse_version(release) >= KERNEL_COUNTS_BY_NAMESPACE


async def installed_version() -> tuple[int, ...]:
    """The version of the installed bubblewrap."""
    _, output = await _run(["bwrap", "--version"])
    return parse_version(output)


async def sandbox_problem(uid: int) -> str | None:
    """Why sandboxes cannot be made on this machine, with a remedy; None if they can.

    Args:
        uid: User id that sandboxes get if we are root.
    """
    as_root = os.geteuid() == 0
    missing = missing_program(as_root=as_root)
    if missing is not None:
        return missing
    version = await installed_version()
    if version < BWRAP_MINIMUM:
        wanted = ".".join(map(str, BWRAP_MINIMUM))
        return f"The installed bubblewrap is older than {wanted}; install a newer one."
    inside = (uid, uid) if as_root else (os.getuid(), os.getgid())
    box = Box(
        uid=inside[0],
        gid=inside[1],
        mounts=system_mounts(),
        links=system_links(),
        environment={"PATH": SEARCH_PATH},
        command=("true",),
        directory="/",
        temporary_bytes=2**20,
        bwrap_version=version,
    )
    argv = launch_argv(
        bwrap_argv(box),
        groups=(),
        drop_to=uid if as_root else None,
        staged={},
        limits=Limits(memory_bytes=2**20, cpus=1.0, pids=64),
    )
    code, output = await _run(argv)
    return None if code == 0 else explain_failure(output)


async def _run(argv: list[str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": SEARCH_PATH},
    )
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return -1, f"no end after {PROBE_SECONDS:g} s"
    code = process.returncode
    return -1 if code is None else code, output.decode(errors="replace")
