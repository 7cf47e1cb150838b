"""The scripted model as a process of our own, for machines that have no model endpoint."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress

from orchestrator.errors import ConfigurationError

START_SECONDS = 20.0
# What Python needs, and what tells whose process it is; a script has no use for our secrets.
_VARIABLES = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "VIRTUAL_ENV", "LD_LIBRARY_PATH",
              "BERTH_DEPLOYMENT")  # fmt: skip
_PYTHONS = "PYTHON"
STOP_SECONDS = 5.0


class EmbeddedModel:
    """Starts `python -m gpt_oss.scripted` on a free loopback port and stops it again."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> str:
        """Start it and return its base address.

        Raises:
            ConfigurationError: It is not installed or did not come up.
        """
        read_end, write_end = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gpt_oss.scripted",
                "--port", "0", "--ready-fd", str(write_end), "--exit-with-parent",
                pass_fds=(write_end,),
                env=_environment(os.environ),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C on the terminal is ours to act on
            )  # fmt: skip
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        try:
            async with asyncio.timeout(START_SECONDS):
                line = await _read_line(read_end)
            url: str = json.loads(line)["url"]
        except (TimeoutError, ValueError, KeyError):
            await self.stop()
            raise ConfigurationError(
                "The scripted model did not start. Install Berth with its gpt-oss extra, or set "
                "GPT_OSS_URL to a model endpoint."
            ) from None
        return url

    async def stop(self) -> None:
        """Stop it, if it runs."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in ours.items()
        if name in _VARIABLES or name.startswith(_PYTHONS)
    }


async def _read_line(descriptor: int) -> bytes:
    """The one line the child writes to the pipe; empty if the child ended first."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
    )
    try:
        return await reader.readline()
    finally:
        transport.close()
