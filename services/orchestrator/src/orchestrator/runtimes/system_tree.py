"""The parts of this machine's system that every sandbox sees, and the few files made for it."""

from collections.abc import Mapping
from pathlib import Path

from orchestrator.runtimes.sandbox_command import HOME_INSIDE, HOSTNAME, Mount

_TOP_DIRECTORIES = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# Public files that programs under /usr look for; nothing with a secret in it.
_SYSTEM_FILES = (
    "/etc/alternatives",
    "/etc/apt/keyrings",
    "/etc/apt/trusted.gpg.d",
    "/etc/ca-certificates.conf",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/var/lib/dpkg/status",
)
_JAVA = "java-*"
# Package managers look here for their configuration, in which people keep passwords and tokens.
_PRIVATE = ("etc", "pip.conf")
EMPTY_DIRECTORY = "empty"
EMPTY_FILE = "nothing"


def system_links() -> tuple[tuple[str, str], ...]:
    """The top directories that are links into /usr here, as pairs of target and path."""
    return tuple(
        (str(Path(path).readlink()), path) for path in _TOP_DIRECTORIES if Path(path).is_symlink()
    )


def system_mounts() -> tuple[Mount, ...]:
    """The top directories that are no links, and the public parts of /etc."""
    separate = [
        path for path in _TOP_DIRECTORIES if Path(path).is_dir() and not Path(path).is_symlink()
    ]
    java = sorted(str(path) for path in Path("/etc").glob(_JAVA))
    return tuple(
        [Mount(path, path) for path in separate]
        + [Mount(path, path, optional=True) for path in (*_SYSTEM_FILES, *java)]
    )


def hidden_mounts(prefixes: Mapping[str, Path], etc: str) -> tuple[Mount, ...]:
    """What lies over the configuration that is found under directories that are shown.

    Args:
        prefixes: These directories by their paths inside.
        etc: Where the directory of the made files is.
    """
    found = [
        (path, f"{inside}/{name}")
        for inside, prefix in prefixes.items()
        for name in _PRIVATE
        if (path := prefix / name).exists()
    ]
    return tuple(
        Mount(f"{etc}/{EMPTY_DIRECTORY if path.is_dir() else EMPTY_FILE}", target)
        for path, target in found
    )


def made_files(uid: int, gid: int) -> dict[str, str]:
    """The files of /etc that are made for sandboxes, by name."""
    return {
        "group": f"root:x:0:\nberth:x:{gid}:\nnogroup:x:65534:\n",
        "hosts": f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "passwd": (
            "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n"
            f"berth:x:{uid}:{gid}:berth:{HOME_INSIDE}:/bin/bash\n"
            "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        ),
    }


def write_made_files(directory: Path, uid: int, gid: int) -> None:
    """Put the made files into a directory, readable for all."""
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    (directory / EMPTY_DIRECTORY).mkdir(exist_ok=True)
    for name, text in (made_files(uid, gid) | {EMPTY_FILE: ""}).items():
        file = directory / name
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        # Sandboxes that run hold the old file; it must not change under them.
        fresh = directory / f".{name}"
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(0o644)
        fresh.replace(file)
