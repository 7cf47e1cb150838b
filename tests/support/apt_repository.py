"""A repository of apt's on a loopback address, with one small package that needs another."""

import hashlib
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.package_index import HOST

PACKAGE = "berth-sample"
NEEDED = "berth-sample-words"
SAID = "came by apt"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def apt_repository(directory: Path) -> Iterator[str]:
    """Serve a repository made in a directory for as long as the context lasts; yields host:port."""
    served = directory / "served"
    served.mkdir()
    entries = [
        _package(served, NEEDED, "", {f"usr/share/{NEEDED}/words": f"{SAID}\n"}),
        _package(
            served,
            PACKAGE,
            f"Depends: {NEEDED}\n",
            {f"usr/bin/{PACKAGE}": f'#!/bin/sh\ncat "$(dirname "$0")/../share/{NEEDED}/words"\n'},
        ),
    ]
    (served / "Packages").write_text("\n".join(entries))
    server = ThreadingHTTPServer((HOST, 0), partial(_Quiet, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"{HOST}:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _package(served: Path, name: str, needs: str, files: Mapping[str, str]) -> str:
    """Build a package; returns its entry in the list of packages."""
    tree = served.parent / name
    control = (
        f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: Tests <tests@localhost>\n"
        f"{needs}Description: a sample\n"
    )
    for path, text in {"DEBIAN/control": control, **files}.items():
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    archive = served / f"{name}_1.0_all.deb"
    command = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(archive)]
    subprocess.run(command, check=True, capture_output=True)
    content = archive.read_bytes()
    return (
        f"{control}Filename: ./{archive.name}\nSize: {len(content)}\n"
        f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
    )
