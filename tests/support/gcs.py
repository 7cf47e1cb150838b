"""Starts the stand-in for Google Cloud Storage as a process, and steers its faults."""

import contextlib
import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

BUCKET = "berth-test"
STOP_SECONDS = 10.0
SCRIPT = Path(__file__).with_name("fake_gcs.py")


@dataclass(frozen=True, slots=True)
class GcsServer:
    """A running stand-in; STORAGE_EMULATOR_HOST must be its `url`."""

    url: str
    process: subprocess.Popen[bytes]

    def fail(self, *faults: dict[str, Any], largest_page: int = 1_000) -> None:
        """Replace all faults by these (see `fake_gcs.Fault`) and forget past requests."""
        body = json.dumps({"faults": faults, "largest_page": largest_page}).encode()
        request = urllib.request.Request(self.url + "/faults", body, method="POST")
        with urllib.request.urlopen(request, timeout=STOP_SECONDS):
            pass

    def requests(self) -> list[str]:
        """What was asked since the last `fail`, as "METHOD address"."""
        with urllib.request.urlopen(self.url + "/requests", timeout=STOP_SECONDS) as answer:
            return [str(line) for line in json.load(answer)]

    def objects(self) -> Iterator[tuple[str, bytes, bytes]]:
        """Each object's name, what the API says about it, and its content."""
        listing = f"{self.url}/storage/v1/b/{BUCKET}/o"
        token = ""
        while True:
            with urllib.request.urlopen(f"{listing}?pageToken={token}") as answer:
                page = json.load(answer)
            for each in page.get("items", ()):
                name = quote(each["name"], safe="")
                address = f"{self.url}/download/storage/v1/b/{BUCKET}/o/{name}?alt=media"
                with urllib.request.urlopen(address) as answer:
                    yield each["name"], json.dumps(each).encode(), answer.read()
            token = page.get("nextPageToken", "")
            if not token:
                return


@contextmanager
def gcs_server() -> Iterator[GcsServer]:
    """Serve an empty bucket `BUCKET` on a free port of the loopback interface."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        port = listener.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(listener.fileno()), BUCKET],
            pass_fds=[listener.fileno()],
        )
    try:
        yield GcsServer(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        process.kill()
        process.wait(STOP_SECONDS)
