"""What a container plants in its tree and git directory, on its way out as a checkpoint.

Nothing of it may run with the orchestrator's rights: whatever is planted writes to a place on this
machine that no container sees, so only a run outside of the wall can leave the mark.
"""

import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.custody import Machine, ToolEvents
from tests.support.escape import TASK, Cell, cell
from tests.support.runtimes import Bench

from orchestrator.domain.budget import Budget
from orchestrator.domain.events import EventKind, NewEvent
from orchestrator.domain.repository import parse_repository_url
from orchestrator.domain.task import NewTask, StartPoint
from orchestrator.domain.workspace import workspace_of
from orchestrator.errors import BundleRefused
from orchestrator.flow.lease import Leased
from orchestrator.gateway.scratch import Scratch

HOOKS = (
    "applypatch-msg commit-msg fsmonitor-watchman post-checkout post-commit post-index-change "
    "post-merge post-receive post-rewrite post-update pre-auto-gc pre-commit pre-push "
    "pre-receive pre-rebase proc-receive reference-transaction update"
)
SETTINGS = (
    "alias.fetch core.askPass core.editor core.fsmonitor core.gitProxy core.pager core.sshCommand "
    "credential.helper diff.evil.command diff.evil.textconv diff.external filter.evil.clean "
    "filter.evil.process filter.evil.smudge gpg.program init.templateDir merge.evil.driver "
    "pager.log remote.origin.uploadpack uploadpack.packObjectsHook"
)
EVIL = "/workspace/evil"
INSIDE = "/workspace/ran"
PLANT = f"""
set -e
printf '#!/bin/sh\\necho ran >> {INSIDE}\\necho ran > MARK\\nexec cat\\n' > {EVIL}
chmod +x {EVIL}
mkdir -p /workspace/hooks
for hook in {HOOKS}; do ln -s {EVIL} /workspace/hooks/$hook; done
cat > /workspace/settings <<'END'
SETTINGS
END
for directory in $(find /workspace -name HEAD -printf '%h\\n'); do
  cat /workspace/settings >> $directory/config
  rm -rf $directory/hooks
  ln -s /workspace/hooks $directory/hooks
  mkdir -p $directory/info
  echo '* filter=evil diff=evil merge=evil' > $directory/info/attributes
done
echo '* filter=evil diff=evil merge=evil' > .gitattributes
echo work > file
git commit --allow-empty -qm mine </dev/null || true
"""


@dataclass(frozen=True, slots=True)
class Bringing:
    """A task in a container, a machine that brings its checkpoints out, and the mark."""

    bench: Bench
    inmate: Cell
    machine: Machine
    events: ToolEvents
    task: NewTask
    mark: Path

    @property
    def leased(self) -> Leased:
        return Leased(self.inmate.container, self.inmate.worker, 1)

    async def run(self, step: int, command: str) -> str:
        """A step of the task; each makes a checkpoint."""
        result = await self.inmate.call("bash", key=str(step), command=command)
        data = {"id": f"c{step}", "name": "bash", "arguments": '{"command": "true"}'}
        await self.events.append(TASK, NewEvent(EventKind.TOOL, step, {**data}))
        return result.text

    async def plant(self) -> None:
        """Plant everything, and see that inside it runs."""
        settings = ["[core]\nhooksPath = /workspace/hooks\n[user]\nname = a\nemail = a@x.org"]
        for each in SETTINGS.split():
            section, _, key = each.rpartition(".")
            outer, _, inner = section.partition(".")
            header = f'[{outer} "{inner}"]' if inner else f"[{outer}]"
            settings.append(f"{header}\n{key} = {EVIL}")
        plant = PLANT.replace("MARK", str(self.mark)).replace("SETTINGS", "\n".join(settings))
        told = await self.run(2, plant)
        assert "exit code: 0" in told, told
        assert "ran" in (await self.inmate.call("bash", command=f"cat {INSIDE}")).text


@pytest.fixture
async def bringing(bench: Bench) -> AsyncIterator[Bringing]:
    events = ToolEvents()
    root = bench.data_dir
    machine = Machine(root / "machine", root / "objects", root, events)
    async with cell(bench, prepared=False) as inmate:
        url = parse_repository_url(str(inmate.source.path))
        workspace = workspace_of([url])
        start = (StartPoint(workspace.repositories[0].name, inmate.source.head, "main"),)
        task = NewTask(TASK, "?", workspace, start, (), Budget(100, 10**6, 100.0))
        await machine.supply(task, inmate.worker)
        yield Bringing(bench, inmate, machine, events, task, root / "mark")


async def test_nothing_planted_runs_as_checkpoints_go_out_and_come_back(
    bringing: Bringing,
) -> None:
    one, task, machine = bringing, bringing.task, bringing.machine
    await one.plant()
    await machine.export(task, one.leased)
    await one.run(4, "echo more >> file; rm -rf .git/hooks")
    await machine.export(task, one.leased)
    assert (await machine.manifest(task)).checkpoints[TASK]

    there = Machine(one.bench.data_dir / "other", one.bench.data_dir / "objects",
                    one.bench.data_dir, one.events)  # fmt: skip
    async with cell(one.bench, one.inmate.runtime, prepared=False) as fresh:
        restored = await there.restore(task, fresh.worker)
        assert (restored.lost, restored.step) == (True, 4)
        patch = await fresh.worker.patch(TASK)
        assert patch.diff == (await one.inmate.worker.patch(TASK)).diff
        assert "+* filter=evil" in patch.diff
        assert (await fresh.worker.difference(TASK, 2, 4)).changed_files == ("file",)

    # As publishing makes a commit of it.
    scratch = Scratch(machine.repositories.git, one.bench.data_dir / "scratch.git")
    opened = await machine.repositories.objects(task.workspace.repositories[0].url)
    await scratch.make([opened.parent])
    start = task.start[0]
    trees = await scratch.trees({start.name: start.commit}, patch.diff)
    await scratch.commit(trees[start.name], start.commit, "m", "a <a@x.org>", datetime.now(UTC))
    assert not one.mark.exists()


PLANTED = {
    "another spelling of .git": "mkdir .GIT; cp .git/config .GIT/config",
    "a repository in the tree": "rm -rf .GIT; mkdir inner; cp -r .git inner/; echo x > inner/x",
    "links to elsewhere": "rm -rf inner; ln -s /etc/passwd passwd; ln -s / root; ln -s ../.. up",
    "a link in place of .git": "mv .git /workspace/moved; ln -s /workspace/moved .git",
}
SUBMODULE = (
    "printf '[submodule \"x\"]\\npath = x\\nurl = --upload-pack=/workspace/evil\\n' > .gitmodules"
)
FORGE = """
set -e
cd /workspace/records/t
export GIT_DIR=$(echo $PWD/*.git)
blob=$(printf '[core]\\n\\tfsmonitor = /workspace/evil\\n' | git hash-object -w --stdin)
raw() {
  python3 -c 'import sys; sys.stdout.buffer.write(sys.argv[1].encode() + bytes(1)
+ bytes.fromhex(sys.argv[2]))' "$1" "$2" | git hash-object -t tree -w --literally --stdin
}
top=$(raw '40000 .GIT' $(raw '100644 config' $blob))
for ref in $(git for-each-ref --format='%(refname)' refs/berth); do
  old=$(git rev-parse $ref)
  new=$(echo forged | git -c user.name=a -c user.email=a@x.org commit-tree $top)
  git update-ref $ref $new
  sed -i s/$old/$new/g checkpoints.json
  echo forged $ref
done
"""


async def test_crafted_trees_are_refused_or_harmless(bringing: Bringing) -> None:
    one, machine = bringing, bringing.machine
    await one.plant()
    for number, (name, planted) in enumerate(PLANTED.items()):
        told = await one.run(4 + number, f"set -e; {planted}; echo {number} >> file")
        assert "exit code: 0" in told, (name, told)
        with suppress(BundleRefused):
            await machine.export(one.task, one.leased)
        assert not one.mark.exists(), name
    await one.run(20, SUBMODULE)
    with pytest.raises(BundleRefused):
        await machine.export(one.task, one.leased)
    assert not one.mark.exists()
    found = _names_in(one.bench.data_dir / "machine" / "checkpoints")
    assert "file" in found
    assert not [name for name in found if ".git" in name.lower().split("/")]


async def test_a_forged_checkpoint_with_a_git_directory_in_it_is_refused(
    bringing: Bringing,
) -> None:
    """The container writes the tree itself, where the worker would have left things out."""
    one, machine = bringing, bringing.machine
    await one.run(2, "echo work > file")
    # Read by tools that leave no checkpoint: what is forged would be replaced by the next.
    told = await one.inmate.call("bash", command=FORGE)
    assert "forged refs/berth/t/2" in told.text, told
    with pytest.raises(BundleRefused):
        await machine.export(one.task, one.leased)
    assert await machine.preserve.read(one.task.workspace.id) is None
    found = _names_in(one.bench.data_dir / "machine" / "checkpoints")
    assert not [name for name in found if ".git" in name.lower().split("/")]


def _names_in(checkpoints: Path) -> set[str]:
    """All paths in the trees of all commits that the machine has taken in."""
    found: set[str] = set()
    for repository in checkpoints.glob("*/*.git"):
        git = ("git", f"--git-dir={repository}")
        options = ("cat-file", "--batch-all-objects", "--batch-check=%(objecttype) %(objectname)")
        listed = subprocess.run((*git, *options), capture_output=True, text=True, check=True)
        for line in listed.stdout.splitlines():
            kind, name = line.split()
            if kind == "commit":
                tree = (*git, "ls-tree", "-r", "-t", "--name-only", name)
                done = subprocess.run(tree, capture_output=True, text=True, check=True)
                found.update(done.stdout.splitlines())
    return found
