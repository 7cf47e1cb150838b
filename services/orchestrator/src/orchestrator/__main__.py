"""Run the service: `python -m orchestrator`."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from orchestrator.errors import BerthError
from orchestrator.logs import configure_logging
from orchestrator.serve import serve
from orchestrator.settings import RuntimeChoice, Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; returns the exit code."""
    settings = _settings(_parser().parse_args(arguments))
    configure_logging(settings.log_level)
    try:
        asyncio.run(serve(settings, on_ready=_announce))
    except BerthError as error:
        print(f"berth: {error.detail}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="up", description="Run Berth in the foreground. Settings: see .env.example."
    )
    parser.add_argument("--port", type=int, help="port of the API on loopback (default: 8080)")
    parser.add_argument("--data", type=Path, help="where all state is kept (default: BERTH_DATA_DIR)")
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
    settings = Settings()
    changes = {
        "port": given.port,
        "data_dir": given.data,
        "runtime": None if given.runtime is None else RuntimeChoice(given.runtime),
        "allow_paths": (*settings.allow_paths, *given.allow_path),
    }
    return settings.model_copy(
        update={name: value for name, value in changes.items() if value is not None}
    )


def _announce(url: str) -> None:
    print(f"Berth listens on {url} (API docs: {url}/docs). Ctrl-C stops it.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
