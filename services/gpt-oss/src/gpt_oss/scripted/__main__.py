"""The command `python -m gpt_oss.scripted`: serves the shipped plays and those of the user."""

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gpt_oss.scripted.listener import Address, Location, ParentGone, bind, end_with_parent, serve
from gpt_oss.scripted.play import SHIPPED, PlayError, load_plays
from gpt_oss.scripted.server import create_app

_HIGHEST_PORT = 65535


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until it is told to stop; return the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="scripted model: %(message)s")
    try:
        if options.exit_with_parent is not None:
            end_with_parent(options.exit_with_parent)
        plays = load_plays([*options.plays, SHIPPED])
        listener = bind(Address(options.host, options.port, options.uds))
        serve(create_app(plays), listener, partial(_announce, options.ready_fd))
    except (PlayError, ParentGone, OSError) as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _announce(ready_fd: int | None, where: Location) -> None:
    if ready_fd is None:
        _say(f"listening on {next(iter(where.values()))}")
        return
    with os.fdopen(ready_fd, "w", encoding="utf-8") as ready:
        ready.write(json.dumps(where) + "\n")


def _say(text: str) -> None:
    print(f"scripted model: {text}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gpt_oss.scripted",
        description="An OpenAI-compatible model that plays YAML scripts.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=_port, default=0, help="port, 0 for any free one")
    parser.add_argument("--uds", type=Path, help="listen on this unix socket instead")
    parser.add_argument(
        "--plays",
        type=Path,
        action="extend",
        nargs="+",
        default=[],
        metavar="DIR",
        help="more plays, tried before the shipped ones",
    )
    parser.add_argument(
        "--ready-fd",
        type=int,
        metavar="N",
        help="write one JSON line with the url (or uds) to this file descriptor when listening",
    )
    parser.add_argument(
        "--exit-with-parent",
        type=int,
        nargs="?",
        const=os.getppid(),
        metavar="PID",
        help="stop when the parent process ends; with its id, also if it has ended already",
    )
    return parser


def _port(text: str) -> int:
    # The resolver would take a larger number modulo 65536.
    port = int(text)
    if not 0 <= port <= _HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"not a port: {text}")
    return port


if __name__ == "__main__":
    sys.exit(main())
