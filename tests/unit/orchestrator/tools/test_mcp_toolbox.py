"""What a tool call asks of an MCP server, and what becomes of answers that are none."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from orchestrator.domain.conversation import ToolResult
from orchestrator.errors import WorkerUnreachable
from orchestrator.tools.mcp_toolbox import KEY, mcp_toolbox

Respond = Callable[[dict[str, Any]], object]


async def called(respond: Respond) -> ToolResult:
    """The result of a call that a server answers with what `respond` makes of the request."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked = json.loads(request.content)
        answered = {"jsonrpc": "2.0", "id": asked["id"], "result": respond(asked)}
        return httpx2.Response(200, json=answered)

    async with (
        httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http,
        mcp_toolbox("http://worker/mcp", http) as toolbox,
    ):
        return await toolbox.call("bash", {"command": "true"}, key="7")


async def test_a_call_is_a_single_request() -> None:
    asked: list[dict[str, Any]] = []

    def respond(request: dict[str, Any]) -> object:
        asked.append(request)
        content = [{"type": "text", "text": "done"}]
        return {"resultType": "complete", "content": content, "isError": False}

    assert await called(respond) == ToolResult("done")
    assert [each["method"] for each in asked] == ["tools/call"]
    assert asked[0]["params"]["name"] == "bash"
    assert asked[0]["params"]["_meta"][KEY] == "7"


@pytest.mark.parametrize("result", [{}, {"content": "text"}, {"content": [{"type": "none"}]}])
async def test_an_answer_of_another_form(result: object) -> None:
    with pytest.raises(WorkerUnreachable, match="another form"):
        await called(lambda _: result)
