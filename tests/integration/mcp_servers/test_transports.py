"""Every server over real transports, and each request in its own root."""

import asyncio
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent

SERVERS = {
    "shell": {"bash"},
    "patch": {"apply_patch"},
    "filesystem": {
        "read_text_file",
        "read_media_file",
        "read_multiple_files",
        "write_file",
        "edit_file",
        "create_directory",
        "list_directory",
        "list_directory_with_sizes",
        "directory_tree",
        "move_file",
        "search_files",
        "get_file_info",
        "list_allowed_directories",
    },
    "git_tools": {
        "git_status",
        "git_diff_unstaged",
        "git_diff_staged",
        "git_diff",
        "git_commit",
        "git_add",
        "git_reset",
        "git_log",
        "git_create_branch",
        "git_checkout",
        "git_show",
        "git_branch",
    },
}
PARAMETERS = {
    "bash": {"command", "timeout", "workdir"},
    "apply_patch": {"input"},
    "read_text_file": {"path", "head", "tail"},
    "edit_file": {"path", "edits", "dryRun"},
    "list_directory_with_sizes": {"path", "sortBy"},
    "directory_tree": {"path", "excludePatterns"},
    "search_files": {"path", "pattern", "excludePatterns"},
    "git_log": {"repo_path", "max_count", "start_timestamp", "end_timestamp"},
    "git_branch": {"repo_path", "branch_type", "contains", "not_contains"},
}
FIRST_CALL: dict[str, tuple[str, dict[str, Any], str]] = {
    "shell": ("bash", {"command": "echo hi"}, r"^exit code: 0\nstdout:\nhi$"),
    "patch": (
        "apply_patch",
        {"input": "*** Begin Patch\n*** Add File: a\n+b\n*** End Patch"},
        r"^Applied the patch:\nA a$",
    ),
    "filesystem": ("write_file", {"path": "d/a", "content": "b"}, r"^Created d/a \(1 bytes\)$"),
    "git_tools": ("git_status", {}, "not a git repository"),
}


@pytest.mark.parametrize("module", SERVERS)
async def test_serves_its_tools_over_stdio(
    module: str,
    root: Path,
    tmp_path: Path,
    stdio: Callable[..., AbstractAsyncContextManager[Any]],
) -> None:
    log = tmp_path / "log"
    async with stdio(module, root, log) as tools:
        listed = (await tools.client.list_tools()).tools
        assert {tool.name for tool in listed} == SERVERS[module]
        for tool in listed:
            assert tool.description
            assert tool.annotations is not None
            assert tool.annotations.read_only_hint is not None
            properties = tool.input_schema.get("properties", {})
            assert set(properties) == PARAMETERS.get(tool.name, set(properties))
            assert all(field.get("description") for field in properties.values()), tool.name
        name, arguments, expected = FIRST_CALL[module]
        result = await tools.call(name, **arguments)
        assert re.search(expected, result.content[0].text)
        await tools.refusal(name, **{key: [1] for key in arguments} or {"repo_path": [1]})
    assert log.read_text() == ""


@pytest.mark.parametrize("mode", ["2026-07-28", "auto", "legacy"])
async def test_each_request_sees_its_own_root(
    mode: Any, tmp_path: Path, http: Callable[[], AbstractAsyncContextManager[str]]
) -> None:
    roots = [tmp_path / f"task-{number}" for number in range(3)]
    async with http() as url:

        async def write(root: Path) -> None:
            root.mkdir()
            headers = {"x-test-root": str(root)}
            async with (
                httpx2.AsyncClient(headers=headers) as transport,
                Client(streamable_http_client(url, http_client=transport), mode=mode) as client,
            ):
                for number in range(5):
                    arguments = {"path": f"{number}", "content": root.name}
                    await client.call_tool("write_file", arguments)
                    shown = await client.call_tool("bash", {"command": "pwd"})
                    assert shown.structured_content["stdout"] == f"{root}\n"

        await asyncio.gather(*map(write, roots))
    for root in roots:
        assert {path.name: path.read_text() for path in root.iterdir()} == {
            str(number): root.name for number in range(5)
        }


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_request_without_root_is_refused(
    mode: Any, http: Callable[[], AbstractAsyncContextManager[str]]
) -> None:
    async with http() as url, Client(url, mode=mode) as client:
        for name, arguments in (("bash", {"command": "true"}), ("list_directory", {})):
            result = await client.call_tool(name, arguments)
            assert result.is_error
            assert isinstance(result.content[0], TextContent)
            assert "no workspace is attached" in result.content[0].text
