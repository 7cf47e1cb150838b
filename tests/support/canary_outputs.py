"""Everything that comes out of a service, gathered for a search."""

import asyncio
import json
import os
import re
import stat
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import asyncpg
import httpx2
from tests.support.canaries import Output

from orchestrator.runtimes.processes import Process, process_of

STREAM_SECONDS = 20.0
MOST_MEMORY = 512 * 2**20
CHUNK = 16 * 2**20


def text_output(place: str, text: str) -> Output:
    """A text that came out."""
    return Output(place, text.encode(errors="surrogatepass"))


def files_below(directory: Path, place: str = "") -> Iterator[Output]:
    """All files below a directory, with their names and where links point; links are not followed.

    Args:
        directory: The directory.
        place: What stands for it in the places.
    """
    for folder, directories, names in os.walk(directory):
        for name in (*directories, *names):
            path = Path(folder, name)
            where = f"{place or directory}/{path.relative_to(directory)}"
            with suppress(FileNotFoundError, ProcessLookupError):
                yield Output(f"the name of {where}", os.fsencode(name))
                mode = path.lstat().st_mode
                if stat.S_ISLNK(mode):
                    yield Output(f"the link {where}", os.fsencode(path.readlink()))
                elif stat.S_ISREG(mode):
                    yield Output(where, path.read_bytes())


async def rows(url: str) -> AsyncIterator[Output]:
    """Every value of every table of a database, and what its sessions say of themselves."""
    connection = await asyncpg.connect(url)
    try:
        columns = await connection.fetch(
            "SELECT format('%I.%I', c.table_schema, c.table_name) AS table, c.column_name AS name"
            " FROM information_schema.columns c JOIN information_schema.tables t"
            " USING (table_schema, table_name) WHERE t.table_type = 'BASE TABLE'"
            " AND c.table_schema NOT IN ('pg_catalog', 'information_schema')"
        )
        assert any(each["table"].startswith("dbos.") for each in columns), columns
        for table, name in columns:
            values = await connection.fetch(f'SELECT "{name}"::text FROM {table}')
            said = "\n".join(value for (value,) in values if value is not None)
            yield text_output(f"postgres {table}.{name}", said)
        sessions = await connection.fetch("SELECT s::text FROM pg_stat_activity AS s")
        yield text_output("postgres sessions", "\n".join(row for (row,) in sessions))
    finally:
        await connection.close()


async def answers(
    http: httpx2.AsyncClient, values: Mapping[str, Sequence[str]], only: str = ""
) -> AsyncIterator[Output]:
    """What every path that can be read answers.

    Args:
        http: A client of the service.
        values: For each parameter in a path or required in a query, what to fill in.
        only: The one path to read; empty for all.
    """
    schema = (await http.get("/openapi.json")).json()
    paths = [(path, verbs["get"]) for path, verbs in schema["paths"].items() if "get" in verbs]
    assert len(paths) >= 8, paths
    for path, verb in paths:
        if only not in {"", path}:
            continue
        required = [
            each["name"]
            for each in verb.get("parameters", ())
            if each.get("required") and each["in"] == "query"
        ]
        for filled in _filled(path, values):
            query = {name: values[name][0] for name in required}
            async with http.stream("GET", filled, params=query) as response:
                async with asyncio.timeout(STREAM_SECONDS):
                    body = await response.aread()
                head = json.dumps(list(response.headers.items()))
                assert response.status_code == 200, (filled, body[:500])
                yield Output(f"GET {path}", head.encode() + body)
    yield text_output("GET /openapi.json", json.dumps(schema))


def _filled(path: str, values: Mapping[str, Sequence[str]]) -> list[str]:
    """The paths that come of one with parameters; a new parameter must be given a meaning."""
    found = re.search(r"\{(\w+)(?::\w+)?\}", path)
    if found is None:
        return [path]
    return [
        each
        for value in values[found[1]]
        for each in _filled(path.replace(found[0], value), values)
    ]


def memory_of(process: Process, place: str) -> Iterator[Output]:
    """What a process may write to in its memory."""
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    spans = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) rw", maps, re.MULTILINE)
    read = 0
    with Path(f"/proc/{process.pid}/mem").open("rb", buffering=0) as memory:
        for first, last in spans:
            start, end = int(first, 16), int(last, 16)
            read += end - start
            assert read < MOST_MEMORY, f"{process.pid} is too large to be searched"
            for at in range(start, end, CHUNK):
                with suppress(OSError):  # a page that is no more
                    memory.seek(at)
                    content = memory.read(min(CHUNK + 256, end - at))
                    where = f"{place}, memory of {name_of(process.pid)}"
                    yield Output(where, content, is_packed=False)


def name_of(pid: int) -> str:
    """What a process is called."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "ended"


def family_of(first: Process) -> list[Process]:
    """A process and all that descend from it."""
    return [first, *(each for child in first.children() for each in family_of(child))]


def inside(pid: int, places: Sequence[str], place: str) -> Iterator[Output]:
    """Files as a process in a container sees them, its own mounts included."""
    for each in places:
        root = Path(f"/proc/{pid}/root{each}")
        if root.is_dir():
            yield from files_below(root, f"{place}, {each}")


def docker_says(*command: str) -> Output:
    """What the engine tells."""
    done = subprocess.run(("docker", *command), capture_output=True, check=True, timeout=120)
    return Output(f"docker {command[0]}", done.stdout + done.stderr)


def running(pid: int) -> Process:
    """A process that runs."""
    found = process_of(pid)
    assert found is not None
    return found
