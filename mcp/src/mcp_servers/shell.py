"""The tool that runs shell commands."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, Field

from mcp_servers import processes
from mcp_servers.capture import Capture, LogFile
from mcp_servers.paths import place
from mcp_servers.root import current_root, task_variables
from mcp_servers.stdio import serve

MAX_TIMEOUT = 3600.0
"""Most seconds that one command may run."""

ENVIRONMENT = frozenset(
    {
        # the basics
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR", "TZ"),
        *("LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_MESSAGES", "LC_COLLATE", "LC_TIME"),
        # the way out, and the certificates that it is trusted with
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *("NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO"),
        # where package managers look and keep their caches
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
        *("PIP_CACHE_DIR", "PIP_INDEX_URL", "UV_CACHE_DIR", "UV_INDEX_URL", "UV_DEFAULT_INDEX"),
        *("UV_PYTHON", "UV_PYTHON_PREFERENCE", "VIRTUAL_ENV", "NPM_CONFIG_CACHE"),
        *("NPM_CONFIG_REGISTRY", "npm_config_cache", "npm_config_registry", "CARGO_HOME"),
        *("RUSTUP_HOME", "GOPATH", "GOCACHE", "GOMODCACHE", "GOPROXY", "JAVA_HOME"),
        # who commits
        *("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"),
    }
)
"""The variables of this process that commands get. All others, secrets among them, stay here."""

_PROGRESS_INTERVAL = 0.2


class BashResult(BaseModel):
    """What a command did. Long output is cut as in the text of the reply."""

    exit_code: int
    stdout: str
    stderr: str
    timed_out: bool
    seconds: float


async def bash(
    command: Annotated[str, Field(min_length=1, description="The command line, run by bash -c.")],
    context: Context,
    time_limit: Annotated[
        float,
        Field(
            validation_alias="timeout",
            gt=0,
            le=MAX_TIMEOUT,
            description="Seconds before the command is killed.",
        ),
    ] = 120,
    workdir: Annotated[
        str, Field(description="Directory to run in, relative to the workspace root.")
    ] = ".",
) -> Annotated[CallToolResult, BashResult]:
    """Run a shell command in the workspace and return its exit code, stdout and stderr.

    Each call is a new shell without input: no directory, variable or background process carries
    over. Output over 64 KiB a stream is cut in the middle and kept whole in a file that the reply
    names.
    """
    root = current_root()
    with place(root, workdir) as spot:
        if not spot.is_directory():
            raise ToolError(f"{workdir}: no such directory")
        directory = root / spot.relative
    ours = {"TERM": "dumb"} | processes.clean_environment(ENVIRONMENT)
    environment = ours | dict(task_variables.get())
    shell = processes.find_program("bash", environment) or "/bin/sh"
    logs = LogFile(root, "stdout"), LogFile(root, "stderr")
    stdout, stderr = Capture(logs[0]), Capture(logs[1])
    try:
        async with _progress(context, stdout, stderr):
            outcome = await processes.run(
                [shell, "-c", command],
                directory=directory,
                environment=environment,
                time_limit=time_limit,
                stdout=stdout,
                stderr=stderr,
            )
    finally:
        for log in logs:
            log.close()
    result = BashResult(
        exit_code=outcome.exit_code,
        stdout=stdout.text(),
        stderr=stderr.text(),
        timed_out=outcome.timed_out,
        seconds=outcome.seconds,
    )
    return CallToolResult(
        content=[TextContent(text=as_text(result, time_limit))],
        structured_content=result.model_dump(),
    )


def as_text(result: BashResult, time_limit: float) -> str:
    """Return a result as a model reads it: the exit code, then the streams that are not empty.

    Args:
        result: What the command did.
        time_limit: Seconds it was given, named if they ran out.
    """
    parts = [f"exit code: {result.exit_code}"]
    errors = result.stderr
    if result.timed_out:
        gap = "\n" if errors and not errors.endswith("\n") else ""
        errors += f"{gap}[timed out after {time_limit:g} s: ended with the processes it started]"
    for title, text in (("stdout", result.stdout), ("stderr", errors)):
        if text:
            parts.append(f"{title}:\n{text.removesuffix(chr(10))}")
    return "\n".join(parts)


def register(server: MCPServer) -> None:
    """Add the shell tool to a server."""
    server.add_tool(
        bash,
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True
        ),
    )


def main() -> None:
    """Serve the shell tool over stdio."""
    serve("shell", register)


@asynccontextmanager
async def _progress(context: Context, stdout: Capture, stderr: Capture) -> AsyncIterator[None]:
    """Report the newest output to the client while the block runs."""
    reporter = asyncio.create_task(_report(context, stdout, stderr))
    try:
        yield
    finally:
        reporter.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([reporter])
    if not reporter.cancelled():
        reporter.result()


async def _report(context: Context, stdout: Capture, stderr: Capture) -> None:
    seen = {stdout: 0, stderr: 0}
    while True:
        await asyncio.sleep(_PROGRESS_INTERVAL)
        grown = [capture for capture, total in seen.items() if capture.total > total]
        seen = {capture: capture.total for capture in seen}
        message = next(filter(None, (capture.newest_line() for capture in grown)), "")
        if message:
            await context.report_progress(stdout.total + stderr.total, message=message)


if __name__ == "__main__":
    main()
