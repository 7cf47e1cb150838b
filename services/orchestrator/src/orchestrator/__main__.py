"""Run the service: `python -m orchestrator`."""

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from orchestrator.errors import BerthError, ConfigurationError
from orchestrator.logs import configure_logging
from orchestrator.serve import serve, stopped_by_signals
from orchestrator.settings import RuntimeChoice, Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; returns the exit code."""
    given = _parser().parse_args(arguments)
    try:
        settings = _settings(given)
        configure_logging(settings.log_level)
        asyncio.run(_serve(settings))
    except BerthError as error:
        print(f"berth: {error.detail}", file=sys.stderr)
        return 1
    return 0


async def _serve(settings: Settings) -> None:
    with stopped_by_signals() as stop:
        await serve(settings, stop, _announce)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="up", description="Run Berth in the foreground. Settings: see .env.example."
    )
    parser.add_argument(
        "--port", type=int, help="port of the API on loopback, 0 for any free one (default: 8080)"
    )
    parser.add_argument("--data", type=Path, help="where all state is kept (BERTH_DATA_DIR)")
    parser.add_argument(
        "--runtime", choices=[each.value for each in RuntimeChoice], help="where containers run"
    )
    parser.add_argument(
        "--allow-path",
        type=Path,
        action="append",
        default=[],
        help="a directory that local repositories may be taken from; may be given several times",
    )
    return parser


def _settings(given: argparse.Namespace) -> Settings:
    """Settings from the environment, with the command line's on top."""
    changes = {"port": given.port, "data_dir": given.data, "runtime": given.runtime}
    settings = _validated({name: each for name, each in changes.items() if each is not None})
    paths = (*settings.allow_paths, *given.allow_path)
    return settings.model_copy(
        update={
            # What outlives a change of directory must not depend on where we were started.
            "data_dir": settings.data_dir.absolute(),
            "allow_paths": tuple(path.absolute() for path in paths),
        }
    )


def _validated(changes: Mapping[str, object]) -> Settings:
    try:
        return Settings.model_validate(changes)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(
            f"The setting {name} cannot be used: {first['msg']}. The settings and their defaults "
            "are in .env.example."
        ) from None


def _announce(url: str) -> None:
    print(f"Berth listens on {url} (API docs: {url}/docs). Ctrl-C stops it.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
