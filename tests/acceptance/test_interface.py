"""The interface describes itself, and answers without delay."""

import time
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator
from tests.acceptance.conftest import SANDBOX_ONLY

pytestmark = SANDBOX_ONLY
PROBLEM = "application/problem+json"


async def description(http: httpx2.AsyncClient) -> dict[str, Any]:
    response = await http.get("/openapi.json")
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def operations(api: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in api["paths"].items()
        for method, operation in methods.items()
    }


def references(part: object) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*(references(each) for each in part.values()))
    if isinstance(part, list):
        return set().union(*(references(each) for each in part))
    return set()


async def test_every_route_is_described(http: httpx2.AsyncClient) -> None:
    api = await description(http)

    assert api["openapi"].startswith("3.1")
    assert set(operations(api)) == {
        *("POST /orchestrate", "GET /tasks", "GET /tasks/{task_id}"),
        *("GET /tasks/{task_id}/events", "POST /tasks/{task_id}/cancel"),
        *("POST /tasks/{task_id}/messages", "POST /tasks/{task_id}/fork"),
        "GET /tasks/{task_id}/diff",
        "POST /tasks/{task_id}/publish",
        *("GET /containers", "GET /containers/{name}/logs", "POST /containers/{name}/stop"),
        *("DELETE /containers/{name}", "GET /workspaces", "GET /health"),
        *("GET /workspaces/{workspace_id}/settings", "PUT /workspaces/{workspace_id}/settings"),
        *("PUT /files/{name}", "GET /files", "DELETE /files/{name}"),
    }
    for name, operation in operations(api).items():
        assert operation["summary"], name
        assert operation["description"], name
        assert set(operation["responses"]["4XX"]["content"]) == {PROBLEM}, name
        assert set(operation["responses"]["5XX"]["content"]) == {PROBLEM}, name
    identifiers = [operation["operationId"] for operation in operations(api).values()]
    assert len(set(identifiers)) == len(identifiers)


async def test_every_reference_leads_somewhere(http: httpx2.AsyncClient) -> None:
    api = await description(http)

    for reference in references(api):
        part: Any = api
        for step in reference.removeprefix("#/").split("/"):
            part = part[step]
        Draft202012Validator.check_schema(part)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("OrchestrateBody", {"query": "x", "files": [5]}),
        ("MessageBody", {"text": 5}),
        ("ForkBody", {"step": -1}),
        ("PublishBody", {"mode": "force"}),
        ("WorkspaceSettingsBody", {"container": {"disk": 5}}),
    ],
)
async def test_the_examples_are_valid_requests(
    http: httpx2.AsyncClient, name: str, bad: dict[str, object]
) -> None:
    api = await description(http)
    schema = api["components"]["schemas"][name]

    assert schema["examples"]
    validator = Draft202012Validator({**api, "$ref": f"#/components/schemas/{name}"})
    for example in schema["examples"]:
        validator.validate(example)
    assert not validator.is_valid(bad)


async def test_the_documentation_answers(http: httpx2.AsyncClient) -> None:
    response = await http.get("/docs")

    assert response.status_code == 200
    assert "/openapi.json" in response.text


async def test_answers_do_not_wait_for_the_clients_acknowledgement(
    http: httpx2.AsyncClient,
) -> None:
    await http.get("/health")
    began = time.perf_counter()
    for _ in range(25):
        await http.get("/health")

    # With Nagle's delay each would take 40 ms.
    assert time.perf_counter() - began < 0.6
