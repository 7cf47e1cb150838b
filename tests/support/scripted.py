"""The scripted model with plays of a test, as a process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ScriptedModel:
    """A running scripted model."""

    url: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End it; nothing answers at its address from then on."""
        self.process.terminate()
        self.process.wait(STOP_SECONDS)


@contextmanager
def scripted_model(plays: Path) -> Iterator[ScriptedModel]:
    """Serve the plays of a directory, and the shipped ones, on a free port."""
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt_oss.scripted", "--plays", str(plays), "--ready-fd",
         str(write_end)],
        pass_fds=[write_end],
    )  # fmt: skip
    os.close(write_end)
    model = None
    try:
        with os.fdopen(read_end) as ready:
            model = ScriptedModel(json.loads(ready.read())["url"], process)
        yield model
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
