"""Run the demo: `python -m orchestrator.demo`."""

import argparse
import asyncio
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from orchestrator.demo.play import Demo, run_demo
from orchestrator.demo.screen import Screen, make_screen
from orchestrator.errors import BerthError
from orchestrator.logs import configure_logging
from orchestrator.settings import RuntimeChoice

INTERRUPTED = 130
SSH_ADDRESS = re.compile(r"[^/]+@[^/]+:")
DEFAULT_QUERY = "Write a function slugify(text) and a test for it."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns 0 if its task succeeded."""
    given = _parser().parse_args(arguments)
    configure_logging("error")
    screen = make_screen(as_json=given.json)
    # Its own directory: the demo leaves nothing behind and disturbs no running service.
    with tempfile.TemporaryDirectory(prefix="berth-demo-") as directory:
        data_dir = Path(directory)
        # Passable, because the database and the sandboxes of root run under other users.
        data_dir.chmod(0o711)
        demo = Demo(_repository(given.repo), given.query, given.runtime, data_dir)
        return _run(demo, screen)


def _run(demo: Demo, screen: Screen) -> int:
    try:
        succeeded = asyncio.run(run_demo(demo, screen))
    except BerthError as error:
        screen.fail(error.detail)
        return 1
    if succeeded is None:
        screen.fail("Stopped before the task was done.")
        return INTERRUPTED
    return 0 if succeeded else 1


def _repository(given: str) -> str:
    """An address as it stands, a local path made absolute."""
    path = given.removeprefix("file://")
    is_address = "://" in path or SSH_ADDRESS.match(path)
    return path if is_address else str(Path(path).resolve())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo", description="Run one real task with Berth.")
    parser.add_argument("--repo", required=True, help="a repository's URL or local path")
    parser.add_argument("--query", default=DEFAULT_QUERY, help="what to ask or to do")
    parser.add_argument(
        "--runtime",
        type=RuntimeChoice,
        choices=list(RuntimeChoice),
        default=RuntimeChoice.AUTO,
        help="where the container runs",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
