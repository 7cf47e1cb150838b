"""What lies on disk for each sandbox: its record, its workspace and its log."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path

from orchestrator.runtimes.deployment import Deployment
from orchestrator.runtimes.sandbox_command import rotated_logs
from orchestrator.runtimes.sandbox_record import SandboxRecord
from orchestrator.runtimes.trees import remove_tree

RECORD_NAME = "state.json"
WORKSPACE_NAME = "workspace"
LOG_NAME = "worker.log"


class SandboxStore:
    """The directories of one deployment's sandboxes, one a container.

    A sandbox exists if it has a record. A directory without one holds only a workspace that
    waits for its next container. A sandbox from the pool stays in the directory it was made in,
    its *home*, and a link with its new name leads there: made in one step, and only once.

    Args:
        root: Directory of them all, shared by deployments.
    """

    def __init__(self, root: Path, deployment: Deployment) -> None:
        self.root = root
        self._deployment = deployment

    def names(self) -> Sequence[str]:
        """The containers that have a directory, by the names they have now."""
        homes = self._homes()
        entries = homes.keys() - {home for name, home in homes.items() if home != name}
        return sorted(name for name in map(self._deployment.plain, entries) if name is not None)

    def home(self, name: str) -> str:
        """The name under which the container of this name was made, or would be."""
        qualified = self._deployment.qualify(name)
        link = self.root / qualified
        return str(link.readlink()) if link.is_symlink() else qualified

    def bind(self, pooled: str, name: str) -> bool:
        """Give a sandbox another name; False if that one is taken or there is no such sandbox."""
        if pooled not in self.names():
            return False
        try:
            (self.root / self._deployment.qualify(name)).symlink_to(self.home(pooled))
        except FileExistsError:
            return False
        return True

    def exists(self, name: str) -> bool:
        """True if the container has a directory, be it only for its workspace."""
        return self._directory(name).exists()

    def read(self, name: str) -> SandboxRecord | None:
        """The record of a sandbox; None if it is unreadable.

        Raises:
            FileNotFoundError: There is no such sandbox.
        """
        return SandboxRecord.read(self._directory(name) / RECORD_NAME)

    def write(self, name: str, record: SandboxRecord) -> None:
        """Keep a record."""
        record.write(self._directory(name) / RECORD_NAME)

    def forget(self, name: str) -> None:
        """Delete the record and keep the workspace."""
        (self._directory(name) / RECORD_NAME).unlink(missing_ok=True)

    def make_root(self) -> None:
        """Make the directory of them all, which only our user can enter."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)

    def workspace(self, name: str) -> Path:
        """The workspace directory."""
        return self._directory(name) / WORKSPACE_NAME

    def make_workspace(self, name: str) -> Path:
        """The workspace directory, made if need be."""
        workspace = self.workspace(name)
        workspace.mkdir(mode=0o700, parents=True, exist_ok=True)
        return workspace

    def fresh_log(self, name: str) -> Path:
        """The log file for a start; earlier logs are deleted."""
        log = self._directory(name) / LOG_NAME
        for file in rotated_logs(log):
            file.unlink(missing_ok=True)
        return log

    def tail(self, name: str, lines: int) -> str:
        """The last lines of the log."""
        kept: deque[str] = deque(maxlen=lines)
        for file in rotated_logs(self._directory(name) / LOG_NAME):
            if file.exists():
                with file.open(encoding="utf-8", errors="replace") as stream:
                    kept.extend(stream)
        return "".join(kept)

    def delete(self, name: str) -> None:
        """Delete all that is kept of a container; its processes must have ended."""
        link, home = self.root / self._deployment.qualify(name), self.root / self.home(name)
        if link != home:
            link.unlink()
        doomed = home.with_name(f".removed-{home.name}")
        remove_tree(doomed)
        if home.exists():
            home.rename(doomed)  # gone from every listing in one step
            remove_tree(doomed)

    def tidy(self) -> Sequence[str]:
        """Delete links that lead nowhere and what interrupted deletions left; returns names."""
        homes = self._homes()
        lost = [self.root / name for name, home in homes.items() if home not in homes]
        lost += [
            path
            for path in (self.root.glob(".removed-*") if self.root.exists() else ())
            if self._deployment.plain(path.name.removeprefix(".removed-")) is not None
        ]
        for path in lost:
            remove_tree(path)
        return [path.name for path in lost]

    def _homes(self) -> dict[str, str]:
        """The home of each entry of this deployment, by the entry's name."""
        if not self.root.exists():
            return {}
        return {
            entry.name: str(entry.readlink()) if entry.is_symlink() else entry.name
            for entry in self.root.iterdir()
            if not entry.name.startswith(".") and self._deployment.plain(entry.name) is not None
        }

    def _directory(self, name: str) -> Path:
        return self.root / self.home(name)
