"""The README's own command lines work as they are printed."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.acceptance.conftest import SANDBOX_ONLY
from tests.support.service import Service

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"<!-- test(?P<kind>: events)? -->\s*```bash\n(?P<command>.*?)```", re.DOTALL)
README_URL = "http://127.0.0.1:8080"
SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Command:
    """A command line of the README that is marked as tested."""

    text: str
    streams: bool


def commands() -> list[Command]:
    readme = (ROOT / "README.md").read_text()
    return [
        Command(match["command"], streams=match["kind"] is not None)
        for match in BLOCK.finditer(readme)
    ]


@pytest.fixture
def service(runtime: str) -> Iterator[Service]:
    """A service as the README starts it, with the scripted model."""
    service = Service(runtime, [ROOT])
    yield service.start()
    service.remove()


def run(command: Command, service: Service) -> str:
    """What the command prints; it must succeed."""
    assert README_URL in command.text
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command.text.replace(README_URL, service.url)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command.text}\n{done.stderr}"
    return done.stdout


def test_the_readme_has_commands_to_test() -> None:
    found = commands()

    assert len(found) >= 3
    assert any("/orchestrate" in command.text and not command.streams for command in found)
    assert any(command.streams for command in found)
    assert any("/containers" in command.text for command in found)


@SANDBOX_ONLY
def test_the_commands_of_the_readme_work(service: Service) -> None:
    for command in commands():
        printed = run(command, service)
        if command.streams:
            last = printed.strip().split("\n\n")[-1]
            assert last.startswith("event: result\n")
            answer = json.loads(last.partition("data: ")[2])
        else:
            answer = json.loads(printed)
        if "/orchestrate" in command.text:
            assert answer["status"] == "succeeded", answer
            assert "not a language model" not in answer["answer"]
            assert any("scripted model" in notice for notice in answer["notices"])
