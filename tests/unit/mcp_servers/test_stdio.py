import subprocess
import sys
from pathlib import Path

CRASHING = """
import sys
from mcp.server import MCPServer
from mcp_servers.stdio import serve

async def crash() -> str:
    "Fail in a way that nobody foresaw."
    raise RuntimeError("inner detail")

serve("crashing", lambda server: server.add_tool(crash), sys.argv[1:])
"""

CLIENT = """
import asyncio, sys
from mcp import Client, StdioServerParameters

async def main():
    parameters = StdioServerParameters(command=sys.executable, args=["-c", *sys.argv[1:]])
    async with Client(parameters) as client:
        result = await client.call_tool("crash", {})
        print(result.is_error, result.content[0].text)

asyncio.run(main())
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], check=False, capture_output=True, text=True, timeout=30
    )


def test_a_crash_is_logged_plainly_and_not_shown_to_the_client(tmp_path: Path) -> None:
    result = run("-c", CLIENT, CRASHING, "--root", str(tmp_path))
    assert result.stdout == "True Error executing tool crash\n"
    assert "RuntimeError: inner detail" in result.stderr
    assert not any(0x2500 <= ord(character) <= 0x257F for character in result.stderr)


def test_a_root_is_required_and_must_be_a_directory(tmp_path: Path) -> None:
    assert "--root" in run("-m", "mcp_servers.shell").stderr
    result = run("-m", "mcp_servers.shell", "--root", str(tmp_path / "none"))
    assert result.returncode == 2
    assert "not a directory" in result.stderr
