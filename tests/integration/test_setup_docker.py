"""scripts/setup-docker on machines where it has nothing to do or nothing it can do."""

import asyncio
import os
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "setup-docker"
CANNOT = 3


async def run_script(directory: Path, *arguments: str, docker_host: str) -> tuple[int, str]:
    """Run the script in another directory; return its exit status and all it said."""
    process = await asyncio.create_subprocess_exec(
        SCRIPT,
        *arguments,
        cwd=directory,
        env={**os.environ, "DOCKER_HOST": docker_host},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), timeout=30)
    assert process.returncode is not None
    return process.returncode, output.decode()


async def serve(socket: Path, status: str) -> asyncio.Server:
    """Answer each request on a unix socket as an engine with that status would."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.0 {status}\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(answer, socket)


async def test_running_engine_is_left_alone(tmp_path: Path) -> None:
    socket = tmp_path / "docker.sock"
    async with await serve(socket, "200 OK"):
        status, output = await run_script(tmp_path, docker_host=f"unix://{socket}")
    assert status == 0
    assert output == f"setup-docker: A Docker engine answers at unix://{socket}.\n"


async def test_engine_that_is_unwell_does_not_count(tmp_path: Path) -> None:
    socket = tmp_path / "docker.sock"
    async with await serve(socket, "500 Internal Server Error"):
        status, output = await run_script(tmp_path, docker_host=f"unix://{socket}")
    assert status == CANNOT
    assert "no engine answers there" in output


async def test_named_engine_that_is_absent_is_not_replaced(tmp_path: Path) -> None:
    docker_host = f"unix://{tmp_path}/absent.sock"
    status, output = await run_script(tmp_path, docker_host=docker_host)
    assert status == CANNOT
    assert f"DOCKER_HOST is {docker_host} and no engine answers there." in output
    assert "unset DOCKER_HOST" in output
    assert "The sandbox runtime (bubblewrap) needs no Docker engine." in output


async def test_help_and_wrong_usage(tmp_path: Path) -> None:
    docker_host = f"unix://{tmp_path}/absent.sock"
    status, output = await run_script(tmp_path, "--help", docker_host=docker_host)
    assert status == 0
    assert output.startswith("Usage: scripts/setup-docker\n")
    status, output = await run_script(tmp_path, "--nonsense", docker_host=docker_host)
    assert status == 2
    assert "Usage: scripts/setup-docker\n" in output
