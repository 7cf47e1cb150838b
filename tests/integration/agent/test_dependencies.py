"""Finding out what a repository depends on, and installing it with the real package managers."""

import asyncio
import os
import shutil
import stat
from pathlib import Path

import pytest
from tests.support.desk import Bench, Desk
from tests.support.repositories import empty_repository

from agent import dependencies
from agent.dependencies import INSTALLERS, Installer, detect, install

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
NO_NETWORK = {
    "PIP_NO_INDEX": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "npm_config_offline": "true",
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NO_NETWORK.items():
        monkeypatch.setenv(name, value)


async def installed(desk: Desk, files: dict[str, str]) -> tuple[Bench, tuple[str, ...]]:
    source = empty_repository(desk.directory / "sample")
    commit = source.commit("start", files)
    await desk.give(source)
    told = await desk.prepare("t", {"sample": commit}, install=True)
    return Bench(desk, source, "t"), told


@pytest.mark.parametrize("installer", [each for group in INSTALLERS for each in group])
def test_each_file_is_recognised(tmp_path: Path, installer: Installer) -> None:
    (tmp_path / installer.file).touch()
    assert detect(tmp_path) == [installer]


def test_the_first_of_a_language_wins_and_languages_add_up(tmp_path: Path) -> None:
    for name in ("uv.lock", "requirements.txt", "pyproject.toml", "package.json", "go.mod"):
        (tmp_path / name).touch()
    (tmp_path / "Cargo.toml").mkdir()
    assert [each.file for each in detect(tmp_path)] == ["uv.lock", "package.json", "go.mod"]


async def test_nothing_to_install(desk: Desk) -> None:
    _, told = await installed(desk, {"a": "1\n"})
    assert told == ()


async def test_it_is_only_told_unless_asked(desk: Desk) -> None:
    source = empty_repository(desk.directory / "sample")
    commit = source.commit("start", {"requirements.txt": ""})
    await desk.give(source)
    told = await desk.prepare("t", {"sample": commit})
    assert told == ("requirements.txt found: dependencies come by pip.",)
    assert not (desk.layout.task("t") / ".venv").exists()


async def test_pip_makes_an_environment_that_stays_out_of_the_patch(desk: Desk) -> None:
    bench, told = await installed(desk, {"requirements.txt": "# none\n"})
    assert told == ("requirements.txt: dependencies installed by pip.",)
    assert os.access(bench.root / ".venv" / "bin" / "python", os.X_OK)
    assert (await bench.changes()).changed_files == ()
    assert bench.worktree.git("status", "--porcelain") == ""
    # The same request again installs nothing again.
    marker = bench.root / ".venv" / "bin" / "pip"
    marker.unlink()
    again = await desk.prepare("t", {"sample": bench.commit}, install=True)
    assert again == told
    assert not marker.exists()
    (bench.root / "new").write_text("x\n")
    assert (await bench.changes()).changed_files == ("new",)


async def test_what_pip_cannot_find_is_told_and_the_task_goes_on(desk: Desk) -> None:
    bench, told = await installed(desk, {"requirements.txt": "no-such-package-here==1\n"})
    (sentence,) = told
    assert sentence.startswith("requirements.txt: pip failed with exit code 1: ")
    assert "no-such-package-here" in sentence
    assert len(sentence) < 600
    assert (await bench.changes()).changed_files == ()


@needs_npm
async def test_npm_and_what_else_it_writes(desk: Desk) -> None:
    bench, told = await installed(desk, {"package.json": '{"name": "x", "version": "1.0.0"}\n'})
    assert told == ("package.json: dependencies installed by npm.",)
    # It is npm's own lock file, not the task's work.
    assert (bench.root / "package-lock.json").exists()
    assert (await bench.changes()).changed_files == ()
    (bench.root / "package.json").write_text('{"name": "y", "version": "1.0.0"}\n')
    assert (await bench.changes()).changed_files == ("package.json",)


async def test_several_repositories_are_told_apart(desk: Desk, tmp_path: Path) -> None:
    start = {}
    for name, file in (("left", "Cargo.toml"), ("right", "go.mod")):
        source = empty_repository(tmp_path / name)
        start[name] = source.commit("start", {file: "x\n"})
        await desk.give(source, name)
    told = await desk.prepare("t", start)
    assert told == (
        "left/Cargo.toml found: dependencies come by cargo.",
        "right/go.mod found: dependencies come by go.",
    )


async def test_a_program_that_is_missing(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "git").symlink_to(str(shutil.which("git")))
    monkeypatch.setenv("PATH", str(programs))
    bench, told = await installed(desk, {"pom.xml": "", "package.json": "{}", "uv.lock": ""})
    assert told == (
        "uv.lock found, but uv is not installed here.",
        "package.json found, but npm is not installed here.",
        "pom.xml found, but mvn is not installed here.",
    )
    assert (await bench.changes()).changed_files == ()


def script(directory: Path, text: str) -> Installer:
    program = directory / "manager"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return Installer("x.lock", "manager", str(program), (str(program),))


async def test_an_installer_that_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dependencies, "INSTALL_TIMEOUT_SECONDS", 0.3)
    told = await install(script(tmp_path, "sleep 600 & wait"), tmp_path, tmp_path / "caches", {})
    assert told == "x.lock: manager was ended after 0 s."


async def test_one_that_leaves_something_running(tmp_path: Path) -> None:
    async with asyncio.timeout(60):
        told = await install(
            script(tmp_path, "sleep 600 & echo $! > pid"), tmp_path, tmp_path / "caches", {}
        )
    assert told == "x.lock: dependencies installed by manager."
    pid = (tmp_path / "pid").read_text().strip()
    async with asyncio.timeout(60):
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text():
            await asyncio.sleep(0.01)


async def test_what_an_installer_gets_to_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BERTH_WORKER_SOCKET", "PYTHONPATH"):
        monkeypatch.setenv(name, "/ours")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:3128")
    await install(script(tmp_path, "env > seen"), tmp_path, tmp_path / "caches", {})
    seen = (tmp_path / "seen").read_text().splitlines()
    assert f"HOME={tmp_path / 'caches'}" in seen
    assert "HTTPS_PROXY=http://127.0.0.1:3128" in seen
    assert not [line for line in seen if "/ours" in line]


async def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    installer = script(tmp_path, "")
    Path(installer.program).write_bytes(b"\x7fELF no program")
    told = await install(installer, tmp_path, tmp_path / "caches", {})
    assert told.startswith("x.lock: manager could not be started: ")
