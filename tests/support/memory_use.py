"""How much memory a process takes to store and fetch a file of 64 MiB."""

import asyncio
import sys
from pathlib import Path

SIZE = 64 * 1024 * 1024

GROWTH = f"""
import asyncio, resource, sys
from pathlib import Path

source, target = Path(sys.argv[1]) / "source", Path(sys.argv[1]) / "target"

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def measure(store):
    async def go():
        small = Path(sys.argv[1]) / "small"
        small.write_bytes(b"x" * {9 * 1024 * 1024})
        await store.put_file("small", small)
        await store.get_file("small", small)
        before = peak()
        await store.put_file("big", source)
        await store.get_file("big", target)
        print(peak() - before)
    asyncio.run(go())

"""
"""Beginning of a script; it ends with `measure(STORE)` and takes a directory as its argument."""


async def peak_growth(script: str, directory: Path, environment: dict[str, str]) -> int:
    """Bytes that the script's memory grew by at most, beyond what a small file takes."""
    source, target = directory / "source", directory / "target"
    with source.open("wb") as file:
        for number in range(SIZE // 1024 // 1024):
            file.write(bytes([number]) * 1024 * 1024)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, str(directory)),
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert target.read_bytes() == source.read_bytes()
    return int(output)
