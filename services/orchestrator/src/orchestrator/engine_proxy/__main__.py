"""Run the proxy: `python -m orchestrator.engine_proxy`."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from orchestrator.engine_proxy.connection import Doorman
from orchestrator.engine_proxy.engine import Engine
from orchestrator.engine_proxy.listener import Place, listening
from orchestrator.engine_proxy.terms import Terms
from orchestrator.errors import BerthError, ConfigurationError
from orchestrator.logs import configure_logging
from orchestrator.runtimes.deployment import DEFAULT_DEPLOYMENT, Deployment
from orchestrator.runtimes.socket_directory import BELOW_DATA, is_short_enough
from orchestrator.serve import stopped_by_signals
from orchestrator.settings import Transport

log = structlog.get_logger(__name__)

NO_SYMLINKS = 0x2000  # ST_NOSYMFOLLOW, which the module os does not name


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    place: Place
    engine: Path
    terms: Terms


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; returns the exit code."""
    try:
        options = read_options(arguments)
        configure_logging("info")
        asyncio.run(_serve(options))
    except BerthError as error:
        print(f"engine_proxy: {error.detail}", file=sys.stderr)
        return 1
    return 0


def read_options(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line.

    Raises:
        ConfigurationError: The sockets of this data directory would lie elsewhere.
    """
    given = _parser().parse_args(arguments)
    data_dir = given.data.absolute()
    sockets = data_dir / BELOW_DATA
    if not is_short_enough(sockets):
        raise ConfigurationError(
            f"The path {data_dir} is too long for sockets below it. Move the data directory."
        )
    terms = Terms(
        deployment=Deployment(given.deployment),
        images=tuple(given.image),
        sockets=sockets,
        transport=Transport(given.transport),
        engine_runtimes=frozenset(given.engine_runtime),
    )
    return Options(Place(given.listen.absolute(), given.mode, given.owner), given.engine, terms)


async def _serve(options: Options) -> None:
    doorman = Doorman(Engine(options.engine), options.terms)
    with stopped_by_signals() as stop, listening(options.place) as listener:
        server = await asyncio.start_unix_server(doorman.serve, sock=listener)
        if options.terms.transport is Transport.SOCKET and follows_links(options.terms.sockets):
            log.warning("engine_proxy_follows_links", path=str(options.terms.sockets))
        print(f"The engine's proxy listens on {options.place.path}.", flush=True)
        try:
            await stop.wait()
        finally:
            server.close()


def follows_links(path: Path) -> bool:
    """True unless the file system at this path is mounted so that no symbolic link is followed."""
    while not path.exists():
        path = path.parent
    return not os.statvfs(path).f_flag & NO_SYMLINKS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="engine_proxy",
        description="Stand between the orchestrator and a Docker engine, and let through only the "
        "calls that the orchestrator needs.",
    )
    add = parser.add_argument
    add("--listen", type=Path, required=True, help="the unix socket for the orchestrator")
    add("--mode", type=_mode, default=0o600, help="its permissions (default: 600)")
    add("--owner", type=_owner, help="its user and group, as UID:GID (default: our own)")
    add(
        "--engine",
        type=Path,
        default=Path("/var/run/docker.sock"),
        help="the engine's unix socket (default: /var/run/docker.sock)",
    )
    add("--data", type=Path, required=True, help="the orchestrator's data directory")
    add(
        "--image",
        action="append",
        required=True,
        help="an image that containers may be made from; may be given several times",
    )
    add("--deployment", default=DEFAULT_DEPLOYMENT, help="the orchestrator's BERTH_DEPLOYMENT")
    add(
        "--transport",
        choices=[each.value for each in Transport],
        default=Transport.SOCKET.value,
        help="the orchestrator's BERTH_TRANSPORT (default: socket)",
    )
    add(
        "--engine-runtime",
        action="append",
        default=[],
        help="a runtime of the engine, of which containers must then use one; may be given several "
        "times (default: the engine's own default only)",
    )
    return parser


def _mode(text: str) -> int:
    return _number(lambda: int(text, 8), f"{text} is not a mode such as 660")


def _owner(text: str) -> tuple[int, int]:
    user, _, group = text.partition(":")
    complaint = f"{text} is not of the form UID:GID"
    return _number(lambda: int(user), complaint), _number(lambda: int(group), complaint)


def _number(read: Callable[[], int], complaint: str) -> int:
    try:
        return read()
    except ValueError:
        raise argparse.ArgumentTypeError(complaint) from None


if __name__ == "__main__":
    sys.exit(main())
