"""What the demo shows: rich on a terminal, plain lines elsewhere, JSON when asked."""

import json
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table

RESULT_SHOWN = 240
PLAIN_WIDTH = 120


class Screen(Protocol):
    """Where the demo's progress and result are shown."""

    def health(self, health: dict[str, Any]) -> None:
        """What the service runs on."""

    def asked(self, repository: str, query: str) -> None:
        """The task that is given."""

    def event(self, name: str, data: dict[str, Any]) -> None:
        """Something happened in the task."""

    def result(self, task: dict[str, Any], containers: Sequence[dict[str, Any]]) -> None:
        """The task's result and the answer of `GET /containers`."""

    def fail(self, sentence: str) -> None:
        """The demo could not be run."""


def make_screen(*, as_json: bool) -> Screen:
    """The screen for this terminal, pipe or program."""
    if as_json:
        return JsonScreen()
    if sys.stdout.isatty():
        return ConsoleScreen(Console(highlight=False))
    return ConsoleScreen(Console(highlight=False, no_color=True, width=PLAIN_WIDTH))


class JsonScreen:
    """Prints one JSON object: the task and the containers, or the failure."""

    def health(self, health: dict[str, Any]) -> None:
        """Nothing: programs ask `/health` themselves."""

    def asked(self, repository: str, query: str) -> None:
        """Nothing: the result names the query."""

    def event(self, name: str, data: dict[str, Any]) -> None:
        """Nothing: the result comes at the end."""

    def result(self, task: dict[str, Any], containers: Sequence[dict[str, Any]]) -> None:
        """Print the object."""
        print(json.dumps({"task": task, "containers": containers}, indent=2))

    def fail(self, sentence: str) -> None:
        """Print the failure."""
        print(json.dumps({"error": sentence}, indent=2))


class ConsoleScreen:
    """Shows each step as it happens."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def health(self, health: dict[str, Any]) -> None:
        """Runtime and model in two lines."""
        runtime, model = health["runtime"], health["model"]
        self._line("runtime", f"{runtime['name']} ({runtime['reason']})")
        for missing in runtime["not_enforced"]:
            self._line("", f"not enforced here: {missing}")
        kind = "scripted: answers come from a script" if model["scripted"] else model["name"]
        self._line("model", f"{kind}, at {model['url']}")

    def asked(self, repository: str, query: str) -> None:
        """Repository and query."""
        self._line("repo", repository)
        self._line("query", query)

    def event(self, name: str, data: dict[str, Any]) -> None:
        """One line for an event, and a second one for a tool's result."""
        if name == "container":
            self._line("container", f"{data['name']} on {data['runtime']} ({data['how']})")
        elif name == "prepared":
            self._line("prepared", " ".join(data["dependencies"]) or "the worktree stands")
        elif name == "model":
            calls = ", ".join(call["name"] for call in data["calls"])
            said = f"calls {calls}" if calls else "answers"
            self._line(f"step {data['step']}", f"model {said} ({data['seconds']:.2f} s)")
        elif name == "tool":
            mark = "failed" if data["is_error"] else "done"
            self._line(
                f"step {data['step']}",
                f"{data['name']} {_short(data['arguments'])} {mark} ({data['seconds']:.2f} s)",
            )
            self._line("", _short(data["result"]))

    def result(self, task: dict[str, Any], containers: Sequence[dict[str, Any]]) -> None:
        """Answer, patch, receipt, containers."""
        self._section("Answer", task["answer"] or _failure(task))
        for notice in task["notices"]:
            self._line("note", notice)
        if task["diff"]:
            self._section("Patch", task["diff"], "diff")
        for table in (_receipt(task), _containers(containers)):
            if not self._console.is_terminal:
                table.box = None
            self._console.print(table)

    def fail(self, sentence: str) -> None:
        """The failure, on standard error."""
        print(f"demo: {sentence}", file=sys.stderr)

    def _section(self, title: str, text: str, language: str = "text") -> None:
        if self._console.is_terminal:
            shown = Syntax(_visible(text), language, theme="ansi_dark", word_wrap=True)
            self._console.print(Panel(shown, title=title))
        else:  # as it stands, so that other programs can use it
            print(f"\n{title}:\n{text.rstrip()}\n", file=self._console.file)

    def _line(self, label: str, text: str) -> None:
        shown = escape(_visible(text))
        self._console.print(f"[bold]{escape(label):>10}[/bold]  {shown}", soft_wrap=True)


def _visible(text: str) -> str:
    """The text without control characters: a repository's must not reach the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


def _short(text: str) -> str:
    joined = " ".join(text.split())
    return joined if len(joined) <= RESULT_SHOWN else joined[:RESULT_SHOWN] + " …"


def _failure(task: dict[str, Any]) -> str:
    error = task["error"]
    return f"No answer: {error['detail']}" if error else "No answer."


def _receipt(task: dict[str, Any]) -> Table:
    table = Table(title="Receipt", show_header=False)
    rows = {"task": task["task_id"], "status": task["status"], "stop reason": task["stop_reason"]}
    rows |= {"steps": task["steps"], "changed files": ", ".join(task["changed_files"]) or "none"}
    rows |= {name.replace("_", " "): value for name, value in task["receipt"].items()}
    for name, value in rows.items():
        table.add_row(name, escape(_visible(str(value))))
    return table


def _containers(containers: Sequence[dict[str, Any]]) -> Table:
    columns = ("name", "runtime", "state", "workspace_id", "created_at")
    table = Table(*columns, title="GET /containers")
    for container in containers:
        table.add_row(*(str(container[column]) for column in columns))
    return table
