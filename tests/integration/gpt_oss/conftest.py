"""The scripted model as a real process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

Running = tuple[dict[str, str], subprocess.Popen[bytes]]


@contextmanager
def _scripted(*arguments: str) -> Iterator[Running]:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end) as ready:
        process = subprocess.Popen(
            [sys.executable, "-m", "gpt_oss.scripted", "--ready-fd", str(write_end), *arguments],
            pass_fds=[write_end],
        )
        os.close(write_end)
        try:
            # Reading to the end proves that the process closes the descriptor.
            yield json.loads(ready.read()), process
        finally:
            process.terminate()
            process.wait(timeout=10)


@pytest.fixture(scope="session")
def scripted() -> Callable[..., AbstractContextManager[Running]]:
    """A context manager that runs the command with some arguments.

    It yields what the command wrote when it listened, and the process.
    """
    return _scripted
