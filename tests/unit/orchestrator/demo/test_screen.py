"""What the demo shows on a terminal and elsewhere."""

import io
import json
from typing import Any

import pytest
from rich.console import Console

from orchestrator.demo.screen import ConsoleScreen, JsonScreen, _visible

EVIL = "\x1b]0;owned\x07\x1b[2Jtext"
TASK: dict[str, Any] = {
    "task_id": "1",
    "status": "succeeded",
    "stop_reason": "answered",
    "answer": f"[bold]not markup[/bold] {EVIL}",
    "notices": [EVIL],
    "diff": f"diff --git a/x b/x\n+{EVIL}\n",
    "steps": 1,
    "changed_files": [f"[red]{EVIL}"],
    "receipt": {"prompt_tokens": 1},
    "error": None,
}


def shown(*, terminal: bool) -> str:
    file = io.StringIO()
    screen = ConsoleScreen(Console(file=file, force_terminal=terminal, width=200))
    screen.event("tool", {"step": 1, "name": "bash", "arguments": EVIL, "is_error": False,
                          "seconds": 0.1, "result": EVIL})  # fmt: skip
    screen.result(TASK, [])
    return file.getvalue()


def test_a_repository_cannot_send_commands_to_the_terminal() -> None:
    text = shown(terminal=True)

    assert "\x1b]0;" not in text
    assert "\x1b[2J" not in text
    assert "\x07" not in text
    assert "[bold]not markup[/bold]" in text


def test_elsewhere_there_is_no_colour_and_no_frame() -> None:
    text = shown(terminal=False)

    assert "╭" not in text
    assert "│" not in text


def test_line_breaks_and_tabs_stay() -> None:
    assert _visible("a\n\tb\r\x00") == "a\n\tb\ufffd\ufffd"


def test_json_is_one_object_also_for_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    screen = JsonScreen()
    screen.event("tool", {})
    screen.result(TASK, [{"name": "repo-1"}])
    assert json.loads(capsys.readouterr().out) == {"task": TASK, "containers": [{"name": "repo-1"}]}

    screen.fail("No.")
    assert json.loads(capsys.readouterr().out) == {"error": "No."}
