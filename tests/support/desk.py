"""Trees, clones and patches of a real workspace, without the worker's HTTP around them."""

import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from tests.support.repositories import SourceRepository, git, new_repository

from agent.changes import ChangeReader, Changes
from agent.clones import Clones
from agent.layout import Layout
from agent.preparation import Preparation
from agent.records import PlacedFile, Start
from agent.requests import PrepareRequest
from agent.trees import Trees
from agent.way_out import WayOut

URL = "https://example.org/ada/sample.git"


class Desk:
    """A workspace and the parts of the worker that work on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.layout = Layout(directory / "workspace")
        self.clones = Clones(self.layout)
        self.trees = Trees(self.layout)
        self.reader = ChangeReader(self.layout, self.trees)
        self.preparation = Preparation(self.layout, self.trees, self.reader, WayOut(None))

    async def give(self, source: SourceRepository, name: str = "sample") -> None:
        """Send a repository to the workspace, as the orchestrator does."""
        await self.clones.receive(name, URL, chunks(bundle(source)))

    async def prepare(
        self,
        task: str = "t",
        start: Mapping[str, str] | None = None,
        files: Mapping[str, bytes] | None = None,
        *,
        install: bool = False,
    ) -> tuple[str, ...]:
        """Prepare a task; returns what it tells of dependencies."""
        request = PrepareRequest(
            task,
            tuple(Start(name, commit) for name, commit in (start or {}).items()),
            tuple(PlacedFile(name, content) for name, content in (files or {}).items()),
            install,
        )
        return await self.preparation(request)

    async def start(
        self, files: Mapping[str, str | bytes] | None = None, task: str = "t"
    ) -> "Bench":
        """A task on a new repository with these files."""
        source = new_repository(self.directory / f"source-{task}", files)
        return await self.start_from(source, task=task)

    async def start_from(self, source: SourceRepository, task: str = "t") -> "Bench":
        """A task on a repository at its HEAD."""
        name = source.path.name
        await self.give(source, name)
        await self.prepare(task, {name: source.head})
        return Bench(self, source, task)


class Bench:
    """A task on one repository, and what its patch makes of the start commit."""

    def __init__(self, desk: Desk, source: SourceRepository, task: str) -> None:
        self.desk = desk
        self.source = source
        self.task = task
        self.commit = source.head

    @property
    def root(self) -> Path:
        return self.desk.layout.task(self.task)

    @property
    def clone(self) -> Path:
        return self.desk.layout.clone(self.source.path.name)

    @property
    def worktree(self) -> SourceRepository:
        """The task's tree as its own git sees it."""
        return SourceRepository(self.root)

    async def changes(self) -> Changes:
        return await self.desk.reader.changes(self.task)

    def applied(self, changes: Changes) -> str:
        """The tree that the patch makes of the start commit."""
        return applied_tree(self.source.path, self.commit, changes.diff, self._scratch("applied"))

    def expected(self) -> str:
        """The tree that git makes of the task's files, as a fresh clone would see them."""
        return seen_tree(self.source.path, self.commit, self.root, self._scratch("expected"))

    async def verified(self) -> Changes:
        """The changes, after a check that they say what the tree says."""
        changes = await self.changes()
        assert self.applied(changes) == self.expected()
        return changes

    def _scratch(self, kind: str) -> Path:
        number = len(list(self.desk.directory.glob(f"{kind}-*")))
        return self.desk.directory / f"{kind}-{number}"


def bundle(source: SourceRepository) -> bytes:
    """Everything in a repository as one bundle."""
    done = subprocess.run(
        ("git", "bundle", "create", "--quiet", "-", "--branches", "--tags"),
        cwd=source.path,
        capture_output=True,
        check=True,
    )
    return done.stdout


async def chunks(content: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def fresh_clone(source: Path, commit: str, target: Path) -> None:
    """A clone as a user has one, at a commit."""
    git(source, "clone", "--quiet", "--shared", "--no-checkout", str(source), str(target))
    git(target, "checkout", "--quiet", "--detach", commit)


def applied_tree(source: Path, commit: str, diff: str, target: Path) -> str:
    fresh_clone(source, commit, target)
    if diff:
        git(target, "apply", "--index", "--whitespace=nowarn", "-", stdin=diff.encode())
    return git(target, "write-tree")


def seen_tree(source: Path, commit: str, root: Path, target: Path) -> str:
    fresh_clone(source, commit, target)
    for entry in target.iterdir():
        if entry.name != ".git":
            run("rm", "-rf", str(entry))
    for entry in root.iterdir() if root.is_dir() else ():
        if entry.name not in (".git", ".berth"):
            run("cp", "-a", "--", str(entry), str(target))
    git(target, "add", "--all")
    return git(target, "write-tree")


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def names(changes: Changes) -> Sequence[str]:
    return sorted(changes.changed_files)
