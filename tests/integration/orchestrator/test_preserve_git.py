"""Checkpoints of a real repository, through object storage, back onto an empty machine."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.support.gcs import BUCKET, GcsServer, gcs_server

from orchestrator.clock import SystemClock
from orchestrator.domain.compaction import Compaction, CompactionLimits
from orchestrator.domain.manifest import Checkpoint, Manifest, needed_bundles
from orchestrator.flow.preserve import NewBundle, Preserve
from orchestrator.ports import ObjectStore
from orchestrator.storage.objects.files import FileObjectStore
from orchestrator.storage.objects.gcs import GcsObjectStore

LIMITS = CompactionLimits(max_bundles=3)
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


async def git(directory: Path, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "git", *arguments, cwd=directory, env=ENVIRONMENT, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, arguments
    return output.decode().strip()


class Workspace:
    """A clone in which tasks checkpoint, and the bundles it makes of that."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._chance = random.Random(7)

    async def begin(self) -> str:
        """Make a repository with one commit of history; returns that commit."""
        self.directory.mkdir()
        await git(self.directory, "init", "-q")
        (self.directory / "README").write_text("history\n")
        await git(self.directory, "add", ".")
        await git(self.directory, "commit", "-q", "-m", "history")
        return await git(self.directory, "rev-parse", "HEAD")

    async def checkpoint(self, parent: str, name: str) -> str:
        """Change files and make a commit of them on a hidden reference."""
        for number in range(3):
            content = self._chance.randbytes(self._chance.randrange(3_000))
            (self.directory / f"{Path(name).name}-{number}.bin").write_bytes(content)
        (self.directory / "README").write_text(f"now {name}\n")
        await git(self.directory, "add", "-A")
        tree = await git(self.directory, "write-tree")
        commit = await git(self.directory, "commit-tree", tree, "-p", parent, "-m", name)
        await git(self.directory, "update-ref", f"refs/berth/{name}", commit)
        return commit

    async def bundle(self, _workspace_id: str, compaction: Compaction, path: Path) -> None:
        references = [
            await git(self.directory, "for-each-ref", f"--points-at={tip}",
                      "--format=%(refname)", "refs/berth")
            for tip in compaction.tips
        ]  # fmt: skip
        without = [f"^{commit}" for commit in (*compaction.requires, *compaction.bases)]
        await git(self.directory, "bundle", "create", "-q", str(path), *references, *without)


@pytest.fixture(scope="module")
def gcs() -> Iterator[GcsServer]:
    with gcs_server() as server:
        yield server


@pytest.fixture(params=["files", "gcs"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ObjectStore]:
    if request.param == "files":
        yield FileObjectStore(tmp_path / "objects")
        return
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", request.getfixturevalue("gcs").url)
    objects = GcsObjectStore(BUCKET, f"{uuid.uuid4().hex}/")
    yield objects
    await objects.close()


async def restored_tree(preserve: Preserve, manifest: Manifest, commit: str, place: Path) -> str:
    """The tree id that a clone, which has only the repository's own history, restores."""
    for number, bundle in enumerate(needed_bundles(manifest, "code", [commit]).bundles):
        path = place.parent / f"{place.name}-{number}.bundle"
        await preserve.fetch(bundle, path)
        await git(place, "fetch", "-q", str(path), "refs/berth/*:refs/berth/*")
    await git(place, "fsck", "--strict", "--connectivity-only")
    return await git(place, "rev-parse", f"{commit}^{{tree}}")


async def test_every_checkpoint_comes_back(store: ObjectStore, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    base = await workspace.begin()
    preserve = Preserve(store, SystemClock())
    trees: dict[str, str] = {}

    async def step(task: str, number: int, parent: str) -> str:
        commit = await workspace.checkpoint(parent, f"{task}/{number}")
        on_base = parent == base
        path = tmp_path / "new.bundle"
        requires, bases = (() if on_base else (parent,)), ((base,) if on_base else ())
        plan = Compaction("code", (), (commit,), requires, bases)
        await workspace.bundle("w", plan, path)
        checkpoint = Checkpoint(step=number, repository="code", commit=commit)
        bundle = NewBundle(path, "code", (commit,), requires, bases)
        await preserve.publish("w", 1, {task: [checkpoint]}, bundle)
        trees[commit] = await git(workspace.directory, "rev-parse", f"{commit}^{{tree}}")
        return commit

    heads = [base]
    for number in range(1, 6):
        heads.append(await step("t1", number, heads[-1]))
    fork = await step("t2", 1, heads[2])
    await step("t2", 2, fork)
    before = await preserve.read("w")
    after = await preserve.compact("w", 1, workspace, tmp_path, LIMITS)
    assert before is not None
    assert after is not None
    assert len(after.bundles) < len(before.bundles)

    for manifest in (before, after):
        for commit, tree in trees.items():
            place = tmp_path / uuid.uuid4().hex
            await git(tmp_path, "clone", "-q", "--bare", "--single-branch",
                      workspace.directory.as_uri(), str(place))  # fmt: skip
            assert await restored_tree(preserve, manifest, commit, place) == tree
