"""The command lines that start a sandbox; pure, so that they can be read and tested."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from orchestrator.domain.container import Limits

WORKSPACE_INSIDE = "/workspace"
SOCKET_DIRECTORY_INSIDE = "/run/berth"
HOME_INSIDE = "/home/berth"
HOSTNAME = "sandbox"
STAGE = PurePosixPath("/run/berth/stage")
FILE_BLOCK_BYTES = 512  # of the shell's `ulimit -f`
WORKER_OOM_SCORE = -250
LOG_BLOCK_BYTES = 4096
LOG_BLOCKS = 512
BWRAP_MINIMUM = (0, 5, 0)  # --perms, --clearenv
BWRAP_SIZES_TMPFS = (0, 7, 0)
BWRAP_DISABLES_USERNS = (0, 8, 0)

# Waits for the word that the sandbox is on record. If the one who would give it is gone, the pipe
# is at its end, `read` fails, and the sandbox ends by itself instead of running unknown to all.
_WAIT_FOR_RELEASE = 'read -r _ && exec "$@" </dev/null'

# `dd` copies each read at once, so the log is never behind, and three files of LOG_BLOCKS reads
# bound it whatever the worker writes.
_KEEP_LOG = f"""
log=$1
shift
"$@" 2>&1 | while dd of="$log" bs={LOG_BLOCK_BYTES} count={LOG_BLOCKS} status=none && [ -s "$log" ]
do
    if [ -e "$log.1" ]; then mv -f "$log.1" "$log.2"; fi
    mv -f "$log" "$log.1"
done
"""


@dataclass(frozen=True, slots=True)
class Mount:
    """A part of this machine that is seen inside, read-only unless `writable`.

    Args:
        source: Path on this machine, or on the stage.
        target: Path inside.
        optional: Left out if there is no such source.
    """

    source: str
    target: str
    writable: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Box:
    """What one sandbox is made of.

    `links` are pairs of target and path, the command starts in `directory`, `temporary_bytes` is
    the size of each of its tmpfs.
    `bwrap_version` decides which options can be given.
    """

    uid: int
    gid: int
    mounts: tuple[Mount, ...]
    links: tuple[tuple[str, str], ...]
    environment: Mapping[str, str]
    command: tuple[str, ...]
    directory: str
    temporary_bytes: int
    bwrap_version: tuple[int, ...]
    info_fd: int | None = None
    seccomp_fd: int | None = None


def bwrap_argv(box: Box) -> list[str]:
    """The bubblewrap command of a sandbox.

    Without `--die-with-parent`: sandboxes outlive the orchestrator that started them. Bubblewrap
    itself is process 1 inside and reaps.
    """
    argv = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc"]
    argv += ["--unshare-uts", "--unshare-cgroup-try"]
    if box.bwrap_version >= BWRAP_DISABLES_USERNS:
        argv.append("--disable-userns")
    argv += ["--uid", str(box.uid), "--gid", str(box.gid), "--hostname", HOSTNAME]
    argv += ["--new-session", "--cap-drop", "ALL", "--clearenv"]
    for name, value in box.environment.items():
        argv += ["--setenv", name, value]
    argv += ["--ro-bind", "/usr", "/usr"]
    for target, path in box.links:
        argv += ["--symlink", target, path]
    argv += ["--proc", "/proc", "--dev", "/dev"]
    size = ["--size", str(box.temporary_bytes)] if box.bwrap_version >= BWRAP_SIZES_TMPFS else []
    for path in ("/dev/shm", "/tmp"):  # noqa: S108 - paths inside the sandbox
        argv += ["--perms", "1777", *size, "--tmpfs", path]
    for path in ("/run", "/home"):
        argv += [*size, "--tmpfs", path]
    argv += ["--dir", HOME_INSIDE, "--dir", "/var", "--symlink", "/tmp", "/var/tmp"]  # noqa: S108
    for mount in box.mounts:
        argv += [_mount_option(mount), mount.source, mount.target]
    argv += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", box.directory]
    if box.info_fd is not None:
        argv += ["--info-fd", str(box.info_fd)]
    if box.seccomp_fd is not None:
        argv += ["--seccomp", str(box.seccomp_fd)]
    return [*argv, "--", *box.command]


def released_command(command: Sequence[str], max_processes: int | None) -> tuple[str, ...]:
    """The command, started inside once a line arrives on its standard input.

    Args:
        command: What is to run.
        max_processes: Limit to set as a resource limit, or None if a control group has it. Since
            Linux 5.14 it counts the processes of one user namespace.
    """
    limited = (
        command if max_processes is None else ("prlimit", f"--nproc={max_processes}", *command)
    )
    return ("/bin/sh", "-c", _WAIT_FOR_RELEASE, "sh", *limited)


def stage_path(name: str) -> str:
    """Where a directory named `name` in `launch_argv`'s `staged` is found by bubblewrap."""
    return str(STAGE / name)


def launch_argv(
    bwrap: Sequence[str],
    *,
    groups: Sequence[Path],
    drop_to: int | None,
    staged: Mapping[str, Path],
    limits: Limits,
) -> list[str]:
    """The command that goes under the limits and then becomes bubblewrap.

    Args:
        bwrap: The bubblewrap command.
        groups: Files of control groups to join.
        drop_to: User id to take before bubblewrap starts; given when we are root, whom the user
            namespace of a sandbox would otherwise stand for outside.
        staged: Directories to mount on the stage, by name; only with `drop_to`. That user may be
            unable to reach them where they lie, as below root's home directory. They vanish with
            the mount namespace they are made in.
        limits: Of these, those of open files and of the size of a file.
    """
    lines = ["set -eu", "umask 022", *(f"echo 0 >{shlex.quote(str(file))}" for file in groups)]
    lines += ["ulimit -c 0", f"ulimit -f {limits.largest_file_bytes // FILE_BLOCK_BYTES}"]
    # A lower hard limit than ours stays as it is.
    lines.append(f"ulimit -n {limits.open_files} 2>/dev/null || ulimit -n $(ulimit -H -n)")
    if drop_to is None:
        return ["/bin/sh", "-c", "\n".join([*lines, f"exec {shlex.join(bwrap)}"])]
    # Needs a capability that root may lack; raising the tools' scores does most of it then.
    lines.append(f"{{ echo {WORKER_OOM_SCORE} >/proc/$$/oom_score_adj; }} 2>/dev/null || :")
    lines += _stage_lines(staged)
    drop = ["setpriv", "--reuid", str(drop_to), "--regid", str(drop_to), "--clear-groups"]
    lines.append(f"exec {shlex.join([*drop, *bwrap])}")
    private = ["unshare", "--mount", "--propagation", "private"]
    return [*private, "/bin/sh", "-c", "\n".join(lines)]


def detached_argv(launch: Sequence[str], log: Path) -> list[str]:
    """The command that runs `launch` in a session of its own and keeps its output in `log`.

    It returns at once. The older parts of the output are in `rotated_logs`.
    """
    return ["setsid", "--fork", "/bin/sh", "-c", _KEEP_LOG, "sh", str(log), *launch]


def rotated_logs(log: Path) -> tuple[Path, ...]:
    """The files that hold a sandbox's output, the oldest first."""
    return (log.with_name(f"{log.name}.2"), log.with_name(f"{log.name}.1"), log)


def _mount_option(mount: Mount) -> str:
    option = "--bind" if mount.writable else "--ro-bind"
    return f"{option}-try" if mount.optional else option


def _stage_lines(staged: Mapping[str, Path]) -> list[str]:
    # The tmpfs keeps the mount points off the machine's own file systems.
    lines = [f"mkdir -p {STAGE}", f"mount -t tmpfs -o mode=0755,size=64k stage {STAGE}"]
    for name, source in staged.items():
        point = shlex.quote(stage_path(name))
        lines.append(f"mkdir {point}")
        lines.append(f"mount --bind {shlex.quote(str(source))} {point}")
    return lines
