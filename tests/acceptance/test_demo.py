"""The demo runs one real task with everything embedded, and leaves nothing behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from tests.acceptance.conftest import DOCKER_ONLY, SANDBOX_ONLY
from tests.support.repositories import SourceRepository, git
from tests.support.service import clean_environment, passable_directory

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
DEMO = (sys.executable, "-m", "orchestrator.demo")


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a demo runs: all temporary files of it lie in `temporary`."""

    runtime: str
    temporary: Path

    def launch(self, command: Sequence[str | Path], directory: Path) -> subprocess.Popen[str]:
        """Start a demo in a process group of its own."""
        return subprocess.Popen(
            [*command, "--runtime", self.runtime],
            cwd=directory,
            env=clean_environment({"TMPDIR": str(self.temporary)}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(
        self, *arguments: str, command: Sequence[str | Path] = DEMO, directory: Path
    ) -> tuple[int, str, str]:
        """Run a demo to its end; its exit code, output and errors."""
        with self.launch([*command, *arguments], directory) as process:
            out, err = process.communicate(timeout=SECONDS)
        return process.returncode, out, err

    def leftovers(self) -> list[str]:
        """Files, processes and containers that a demo has left."""
        mark = str(self.temporary).encode()
        left = [str(path) for path in self.temporary.iterdir()]
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue  # it has ended meanwhile
            if mark in said:
                left.append(f"process {entry.name}")
        return left + self._containers()

    def _containers(self) -> list[str]:
        if self.runtime != "docker":
            return []
        client = docker.from_env()
        try:
            found = client.containers.list(all=True, filters={"name": ".demo-"})
            volumes = client.volumes.list(filters={"name": ".demo-"})
            return [str(each.id) for each in (*found, *volumes)]
        finally:
            client.close()


@pytest.fixture
def stage(runtime: str) -> Iterator[Stage]:
    """A stage on which every demo must leave nothing."""
    # A short path, so that the sockets have room below it.
    temporary = passable_directory("b-")
    stage = Stage(runtime, temporary)
    yield stage
    left = stage.leftovers()
    shutil.rmtree(temporary)
    assert left == []


@DOCKER_ONLY
def test_prints_one_json_object(stage: Stage, sample: SourceRepository) -> None:
    code, out, err = stage.run("--repo", f"file://{sample.path}", "--json", directory=ROOT)

    assert code == 0, err
    shown = json.loads(out)
    task = shown["task"]
    assert task["status"] == "succeeded"
    assert task["workspace"]["runtime"] == stage.runtime
    assert task["changed_files"] == ["slugify.py", "test_slugify.py"]
    assert [each["name"] for each in shown["containers"]] == [task["workspace"]["container"]]
    assert shown["containers"][0]["state"] == "running"


@SANDBOX_ONLY
def test_prints_plain_lines_where_there_is_no_terminal(
    stage: Stage, sample: SourceRepository
) -> None:
    code, out, err = stage.run("--repo", "../sample", directory=sample.path)

    assert code == 0, err
    assert "\x1b" not in out
    assert err == ""
    steps = ["runtime", "container", "prepared", "step 1", "write_file",
             "Answer", "note", "scripted model", "Patch", "+def slugify(text: str) -> str:",
             "Receipt", "prompt tokens", "GET /containers"]  # fmt: skip
    places = [out.index(step) for step in steps]
    assert places == sorted(places)
    assert "\n+def slugify(text: str) -> str:\n" in out  # the patch can be cut out as it stands


@SANDBOX_ONLY
def test_says_why_a_repository_cannot_be_used(stage: Stage) -> None:
    code, out, err = stage.run("--repo", "no/such/place", directory=ROOT)

    assert code == 1
    assert err == f"demo: There is no git repository at {ROOT}/no/such/place.\n"
    assert "Traceback" not in out


@pytest.mark.parametrize(
    ("runtime", "number"),
    [
        pytest.param("docker", signal.SIGINT, marks=pytest.mark.docker),
        pytest.param("sandbox", signal.SIGTERM, marks=pytest.mark.sandbox),
    ],
    indirect=["runtime"],
)
def test_a_signal_in_the_middle_ends_it_cleanly(
    stage: Stage, sample: SourceRepository, number: signal.Signals
) -> None:
    with stage.launch([*DEMO, "--repo", str(sample.path)], ROOT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "container" in line:
                break
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=SECONDS)

    assert process.returncode == 130
    assert err == "demo: Stopped before the task was done.\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose scripts find an environment that is up to date."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "scripts", checkout / "scripts")
    shutil.copytree(ROOT / "requirements", checkout / "requirements")
    shutil.copy(ROOT / "pyproject.toml", checkout)
    (checkout / "README.md").write_text("# Sample\n")
    git(tmp_path, "init", "--quiet", "--initial-branch=main", str(checkout))
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "--message=first")
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    stamp = 'echo "$("$(find_python)" -c "import sys; print(sys.version)") '
    stamp += '$(cat requirements/run.txt pyproject.toml | sha256sum) $PWD" >.venv/stamp-run.txt'
    subprocess.run(
        ["bash", "-c", f"source scripts/environment.sh; {stamp}"], cwd=checkout, check=True
    )
    return checkout


@SANDBOX_ONLY
def test_the_script_takes_a_clone_of_its_own_checkout(stage: Stage, checkout: Path) -> None:
    code, out, err = stage.run(
        *("--query", "List the files in this repository", "--json"),
        command=[checkout / "scripts" / "demo"],
        directory=checkout.parent,
    )

    assert code == 0, err
    assert "[FILE] pyproject.toml" in json.loads(out)["task"]["answer"]


@SANDBOX_ONLY
def test_the_script_takes_a_path_from_where_the_user_stands(
    stage: Stage, checkout: Path, sample: SourceRepository
) -> None:
    code, out, err = stage.run(
        *("--query", "List the files in this repository", "--repo=../sample"),
        command=[checkout / "scripts" / "demo"],
        directory=sample.path,
    )
    assert code == 0, err
    assert "README.md" in out
