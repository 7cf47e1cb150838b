"""Run the demo: `python -m orchestrator.demo`."""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from orchestrator.demo.play import Demo, run_demo
from orchestrator.demo.screen import Screen, make_screen
from orchestrator.errors import BerthError
from orchestrator.logs import configure_logging
from orchestrator.settings import RuntimeChoice

DEFAULT_QUERY = "Write a function slugify(text) and a test for it."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns 0 if its task succeeded."""
    given = _parser().parse_args(arguments)
    configure_logging("error")
    screen = make_screen(as_json=given.json)
    # Its own directory: the demo leaves nothing behind and disturbs no running service.
    with tempfile.TemporaryDirectory(prefix="berth-demo-") as directory:
        demo = Demo(given.repo, given.query, given.runtime, Path(directory) / "data")
        Path(directory).chmod(0o711)  # for the database and the sandboxes of root, see `main`
        return _run(demo, screen)


def _run(demo: Demo, screen: Screen) -> int:
    try:
        succeeded = asyncio.run(run_demo(demo, screen))
    except BerthError as error:
        screen.fail(error.detail)
        return 1
    except KeyboardInterrupt:
        screen.fail("Stopped.")
        return 130
    return 0 if succeeded else 1


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
