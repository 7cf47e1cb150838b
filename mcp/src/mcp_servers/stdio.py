"""Serving one tool server over stdin and stdout."""

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from mcp.server import MCPServer

from mcp_servers.root import task_root


def serve(
    name: str, register: Callable[[MCPServer], None], arguments: Sequence[str] | None = None
) -> None:
    """Serve the tools that `register` adds until stdin closes.

    Args:
        name: The server's name, shown to clients.
        register: Adds the tools.
        arguments: Command line without the program name; the process's own by default.
    """
    parser = argparse.ArgumentParser(prog=name, description=f"MCP server {name} over stdio.")
    parser.add_argument(
        "--root", type=Path, required=True, help="directory that the tools are confined to"
    )
    root = parser.parse_args(arguments).root.resolve()
    if not root.is_dir():
        parser.error(f"--root is not a directory: {root}")
    # Set up first: the SDK would otherwise install a handler that draws boxed tracebacks.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    server = MCPServer(name, log_level="WARNING")
    register(server)
    task_root.set(root)
    server.run("stdio")
