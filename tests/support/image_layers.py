"""All that an image consists of: its configuration and every file of every layer."""

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO

from tests.support.canaries import Output

SMALL = 2**20


def image_contents(image: str) -> Iterator[Output]:
    """The files of all layers, also of those that a later one covers, and what else is saved."""
    with subprocess.Popen(("docker", "save", image), stdout=subprocess.PIPE) as saving:
        assert saving.stdout is not None
        with tarfile.open(fileobj=saving.stdout, mode="r|") as saved:
            for part in saved:
                content = saved.extractfile(part)
                if content is not None:
                    yield from _part(part, content)
        # What pads the archive is left to be read, or it would end badly.
        saving.stdout.read()
    assert saving.returncode == 0


def _part(part: tarfile.TarInfo, content: IO[bytes]) -> Iterator[Output]:
    if part.size >= SMALL:
        yield from _layer(content)
        return
    whole = content.read()
    try:
        yield from _layer(io.BytesIO(whole))
    except tarfile.ReadError:
        yield Output(part.name, whole, is_packed=False)


def _layer(content: IO[bytes]) -> Iterator[Output]:
    with tarfile.open(fileobj=content, mode="r|*") as layer:
        for member in layer:
            file = layer.extractfile(member) if member.isreg() else None
            said = member.linkname.encode() if file is None else file.read()
            yield Output(str(PurePosixPath(member.name)), said, is_packed=False)
