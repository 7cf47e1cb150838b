"""A file that appears under its name only when all of it has arrived."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def arriving(path: Path) -> Iterator[BinaryIO]:
    """A file to write to beside `path`; it takes that name if the context ends without an error.

    If the process is killed meanwhile a hidden `.part` file stays in the directory.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
