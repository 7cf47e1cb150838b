"""The shipped plays on real directories: real files, real git, real commands."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt_oss.scripted.conversation import ChatRequest
from gpt_oss.scripted.director import Speech, direct
from gpt_oss.scripted.play import SHIPPED, load_plays

LIST = "List the files in this repository"
SUMMARISE = "Summarise the structure of this repository"
WRITE = "Write a function slugify(text) and a test for it"

Arguments = dict[str, Any]


def bash(root: Path, arguments: Arguments) -> str:
    done = subprocess.run(
        ["bash", "-c", arguments["command"]], cwd=root, capture_output=True, text=True, check=False
    )
    return f"exit code: {done.returncode}\nstdout:\n{done.stdout}\nstderr:\n{done.stderr}"


def list_directory(root: Path, arguments: Arguments) -> str:
    entries = sorted((root / arguments["path"]).iterdir())
    kinds = ("LINK" if e.is_symlink() else "DIR" if e.is_dir() else "FILE" for e in entries)
    return "\n".join(f"[{kind}] {e.name}" for kind, e in zip(kinds, entries, strict=True))


def read_text_file(root: Path, arguments: Arguments) -> str:
    lines = (root / arguments["path"]).read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(lines[: arguments["head"]])


def write_file(root: Path, arguments: Arguments) -> str:
    (root / arguments["path"]).write_text(arguments["content"], encoding="utf-8")
    return f"Wrote {arguments['path']}"


TOOLS: dict[str, Callable[[Path, Arguments], str]] = {
    "bash": bash,
    "list_directory": list_directory,
    "read_text_file": read_text_file,
    "write_file": write_file,
}


def play(query: str, root: Path, **replaced: Callable[[Path, Arguments], str]) -> str:
    """Play a query to its answer with real tools, some of them replaced."""
    tools = TOOLS | replaced
    plays = load_plays([SHIPPED])
    messages: list[dict[str, Any]] = [{"role": "user", "content": query}]
    offered = [{"function": {"name": name}} for name in tools]
    for _ in range(10):
        request = ChatRequest.model_validate({"messages": messages, "tools": offered})
        speech = direct(plays, request).outcome
        assert isinstance(speech, Speech)
        if not speech.calls:
            return speech.text or ""
        made = [
            {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
            for call in speech.calls
        ]
        messages.append({"role": "assistant", "content": speech.text, "tool_calls": made})
        for call in speech.calls:
            output = tools[call.name](root, json.loads(call.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": output})
    raise AssertionError("the play does not end")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    for name in ("README.md", "Makefile", "src/a.py", "src/b.py", "src/deep/c.py", "docs/ü.rst"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n\nText.\n", encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run(["git", "add", "."], cwd=root, check=True)
    (root / "untracked.txt").write_text("x")
    (root / ".git" / "info" / "exclude").write_text("*.log\n")
    (root / "ignored.log").write_text("x")
    return root


def test_list_names_what_is_there(repository: Path) -> None:
    (repository / "shortcut").symlink_to("README.md")
    answer = play(LIST, repository)
    assert "has 7 entries: 4 file(s), 2 director(ies), 1 other(s)" in answer
    assert "```\n[FILE] Makefile\n[FILE] README.md\n[DIR] docs\n[FILE] ignored.log\n" in answer
    assert "\n[LINK] shortcut\n[DIR] src\n[FILE] untracked.txt\n```" in answer
    assert ".git" not in answer


def test_list_of_an_empty_directory(tmp_path: Path) -> None:
    assert "names no files" in play(LIST, tmp_path)


def test_list_that_fails_says_so(tmp_path: Path) -> None:
    answer = play(LIST, tmp_path, list_directory=lambda *_: "Error: permission denied")
    assert "names no files" in answer
    assert "Error: permission denied" in answer


def test_summary_counts_files_that_git_does_not_ignore(repository: Path) -> None:
    answer = play(SUMMARISE, repository)
    assert answer.startswith("7 file(s); the top level has 2 director(ies).")
    lines = [line.strip() for line in answer.split("\n")]
    assert [line for line in lines if line.endswith(("/", "(top level)"))] == [
        "3 src/",
        "3 (top level)",
        "1 docs/",
    ]
    assert {"3 .py", "1 .md", "1 .rst", "1 (none)"} <= set(lines)
    assert "README.md begins:\n\n```\n# README.md\n\nText.\n```" in answer


def test_summary_without_a_readme(repository: Path) -> None:
    subprocess.run(["git", "rm", "-q", "--cached", "README.md"], cwd=repository, check=True)
    (repository / "README.md").unlink()
    answer = play(SUMMARISE, repository)
    assert answer.startswith("6 file(s)")
    assert "no README" in answer
    assert "3 src/" in answer


def test_summary_of_a_directory_that_is_no_repository(tmp_path: Path) -> None:
    assert "There are no files here" in play(SUMMARISE, tmp_path)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.tar.gz").write_text("")
    (tmp_path / "one" / ".hidden").write_text("")
    answer = play(SUMMARISE, tmp_path)
    assert answer.startswith("2 file(s)")
    assert "2 one/" in answer
    assert "1 .gz" in answer
    assert "1 (none)" in answer


def test_summary_whose_command_fails_says_so(repository: Path) -> None:
    failed = "exit code: 127\nstdout:\n\nstderr:\nbash: not found\n"
    answer = play(SUMMARISE, repository, bash=lambda *_: failed)
    assert "could not be counted" in answer
    assert "exit code: 127" in answer


def test_the_summary_command_is_plain_shell(repository: Path) -> None:
    def sh(root: Path, arguments: Arguments) -> str:
        command = ["sh", "-eu", "-c", arguments["command"]]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return f"exit code: 0\nstdout:\n{done.stdout}\nstderr:\n"

    assert play(SUMMARISE, repository, bash=sh).startswith("7 file(s)")


def test_written_function_passes_its_written_test(repository: Path) -> None:
    answer = play(WRITE, repository)
    assert "The tests passed: exit code 0" in answer
    assert "Ran 5 tests in" in answer
    assert "\nOK\n" in answer
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=repository, capture_output=True, text=True, check=True
    )
    assert sorted(line[3:] for line in status.stdout.splitlines() if line.startswith("??")) == [
        "slugify.py",
        "test_slugify.py",
        "untracked.txt",
    ]


def test_a_failing_test_is_reported_as_such(repository: Path) -> None:
    def write_wrong(root: Path, arguments: Arguments) -> str:
        content = arguments["content"].replace('"-".join', '"_".join')
        return write_file(root, arguments | {"content": content})

    answer = play(WRITE, repository, write_file=write_wrong)
    assert "passed" not in answer
    assert "did not pass" in answer
    assert "exit code: 1" in answer or "FAILED (failures=" in answer


def test_tools_that_refuse_are_reported_as_such(repository: Path) -> None:
    answer = play(WRITE, repository, write_file=lambda *_: "Error: the disk is full")
    assert "did not pass" in answer
    assert answer.count("Error: the disk is full") == 2


def test_written_files_are_well_formatted(repository: Path) -> None:
    play(WRITE, repository)
    files = ["slugify.py", "test_slugify.py"]
    command = [sys.executable, "-m", "ruff", "format", "--check", "--isolated", *files]
    subprocess.run(command, cwd=repository, check=True)
