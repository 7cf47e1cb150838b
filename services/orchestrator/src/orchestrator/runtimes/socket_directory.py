"""The directories in which workers' unix sockets lie."""

import hashlib
import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from orchestrator.domain.container import Endpoint
from orchestrator.errors import ConfigurationError
from orchestrator.runtimes.trees import remove_tree

SOCKET_NAME = "worker.sock"
BELOW_DATA = "run"
SOCKET_URL = "http://worker"
MAX_SOCKET_PATH_BYTES = 107  # sockaddr_un holds 108 with the final zero
LONGEST_NAME = len("repo-") + 16 + 1 + 32


class SocketDirectories:
    """One directory a container, all under one that only our user can enter.

    Workers run under another user id, and with user namespaces under one we cannot know, so a
    container's own directory is open to all; the parent is what keeps others out. Mounted alone
    into a container, the parent plays no part there.

    Args:
        data_dir: Where Berth keeps its data; the sockets lie in `run` under it if the paths are
            short enough for sockets, else in a private directory under the temporary directory.

    Raises:
        ConfigurationError: No path is short enough, or the private directory is not ours.
    """

    def __init__(self, data_dir: Path) -> None:
        self.root = _root(data_dir.absolute())

    def path(self, name: str) -> Path:
        """The directory of the container with this name on the machine."""
        return self.root / name

    def endpoint(self, name: str) -> Endpoint:
        """Where the worker of this container listens."""
        return Endpoint(uds=self.path(name) / SOCKET_NAME, url=SOCKET_URL)

    def make(self, name: str) -> Path:
        """Make the container's directory anew, without a socket of an earlier worker."""
        _make_private(self.root)
        path = self.path(name)
        path.mkdir(exist_ok=True)
        path.chmod(0o777)
        remove_tree(path / SOCKET_NAME)  # a container may have made a directory of it
        return path

    def write(self, name: str, text: str) -> Path:
        """Put a file for all containers beside their directories; returns its path."""
        _make_private(self.root)
        file = self.root / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
        file.chmod(0o644)
        return file

    def names(self) -> Sequence[str]:
        """The containers that have a directory."""
        if not self.root.is_dir():
            return ()
        return sorted(entry.name for entry in self.root.iterdir() if entry.is_dir())

    def remove(self, name: str) -> None:
        """Delete the container's directory, if there is one."""
        remove_tree(self.path(name))


def is_short_enough(root: Path) -> bool:
    """True if the sockets of all containers can lie below this directory."""
    longest = root / ("x" * LONGEST_NAME) / SOCKET_NAME
    return len(os.fsencode(longest)) <= MAX_SOCKET_PATH_BYTES


def _root(data_dir: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
    temporary = Path(tempfile.gettempdir()).absolute() / f"berth-{os.geteuid()}" / digest
    for root in (data_dir / BELOW_DATA, temporary):
        if is_short_enough(root):
            return root
    raise ConfigurationError(
        f"No path for unix sockets is short enough: neither {data_dir} nor the temporary "
        f"directory {temporary.parent.parent}. Set BERTH_DATA_DIR to a shorter path."
    )


def _make_private(root: Path) -> None:
    for path in (root.parent, root):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = root.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
        raise ConfigurationError(f"{root} is not a directory of our user; remove it.")
    root.chmod(0o700)
