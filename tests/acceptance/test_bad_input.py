"""Bad input is refused with a stable code and a sentence, and leaves nothing behind."""

import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.acceptance.conftest import GIT_HOST, SANDBOX_ONLY
from tests.support.git_server import GitServer, serve_git
from tests.support.repositories import bare_copy, empty_repository, new_repository
from tests.support.service import Service
from tests.support.tasks import containers

PROBLEM = "application/problem+json"
JSON = {"Content-Type": "application/json"}
SECRET = "hunter2"
MIB = 2**20

# What needs no special runtime is tried on one; `{sources}` stands for the allowed directory.
pytestmark = SANDBOX_ONLY


@dataclass(frozen=True, slots=True)
class Bad:
    """A request and what must be answered: status, code, and words of the detail."""

    id: str
    body: dict[str, Any]
    code: str
    words: tuple[str, ...]
    status: int = 422
    never: tuple[str, ...] = field(default=(SECRET,))


def bad(id_: str, body: dict[str, Any], code: str, *words: str, status: int = 422) -> Any:
    return pytest.param(Bad(id_, body, code, words, status), id=id_)


def url(id_: str, address: str, code: str = "repository_url_refused", *words: str) -> Any:
    return bad(id_, {"query": "x", "repo_url": address}, code, *words)


def given(id_: str, *files: object, code: str = "invalid_request", words: tuple[str, ...]) -> Any:
    body = {"query": "x", "repo_url": "{sources}/good", "files": list(files)}
    return bad(id_, body, code, *words)


def limits(id_: str, budget: object, *words: str) -> Any:
    return bad(id_, {"query": "x", "budget": budget}, "invalid_request", *words)


NEW = {"query": "x", "repo_url": "{sources}/new"}
GOOD = {"query": "x", "repo_url": "{sources}/good"}

REQUESTS = [
    # the query
    bad("no query", {}, "invalid_request", "query", "required"),
    bad("empty query", {"query": ""}, "invalid_request", "query", "at least 1"),
    bad("blank query", {"query": " \n\t"}, "invalid_request", "query is empty"),
    bad("query null", {"query": None}, "invalid_request", "query", "string"),
    bad("query list", {"query": ["x"]}, "invalid_request", "query", "string"),
    bad("query number", {"query": 5}, "invalid_request", "query", "string"),
    bad("10 MB query", {"query": "x" * (10 * MIB)}, "request_too_large", "10,485,760", "files",
        status=413),
    bad("lone surrogate", {"query": "\ud800"}, "invalid_request", "query"),
    # fields and types
    bad("unknown field", {**GOOD, "qeury": SECRET}, "invalid_request", "qeury", "no such field"),
    bad("unknown field of 1 MB", {**GOOD, "k" * MIB: 1}, "invalid_request", "no such field"),
    bad("unknown field, odd name", {**GOOD, "\ud800\n": 1}, "invalid_request"),
    bad("number for url", {**GOOD, "repo_url": 5}, "invalid_request", "repo_url", "string"),
    bad("text for urls", {"query": "x", "repo_urls": "https://x.y/z"}, "invalid_request",
        "repo_urls", "list"),
    bad("no urls", {"query": "x", "repo_urls": []}, "invalid_request", "repo_urls", "at least 1"),
    bad("17 urls", {"query": "x", "repo_urls": ["https://x.y/z"] * 17}, "invalid_request",
        "repo_urls", "at most 16"),
    bad("url and urls", {**GOOD, "repo_urls": ["https://x.y/z"]}, "invalid_request", "not both"),
    bad("install a word", {**GOOD, "install_dependencies": "yes"}, "invalid_request",
        "install_dependencies", "boolean"),
    bad("files a word", {**GOOD, "files": "a.txt"}, "invalid_request", "files", "list"),
    # the address
    url("empty url", "", "invalid_request", "repo_url", "at least 1"),
    url("blank url", " "),
    url("long url", "https://example.org/" + "x" * 3_000, "invalid_request", "2000"),
    url("newline", "https://example.org/a\nb", "repository_url_refused", "line break"),
    url("newline at the end", "https://example.org/a\n", "repository_url_refused", "line break"),
    url("null byte", "https://example.org/a\0b"),
    url("null byte in a path", "{sources}/good\0x"),
    url("ext transport", f"ext::sh -c 'echo {SECRET}'"),
    url("ext transport, tight", "ext::sh%20-c%20id", "repository_url_refused", "https://"),
    url("option", "--upload-pack=touch /tmp/owned", "repository_url_refused"),
    url("option after a host", "https://example.org/--upload-pack=id", "repository_url_refused",
        "'-'"),
    url("option as a host", "https://-oProxyCommand=id/x"),
    url("relative path", "good", "repository_url_refused", "https://"),
    url("path upwards", "{sources}/../etc", "repository_url_refused", ".."),
    url("path upwards, encoded", "file://{sources}/%2e%2e/etc"),
    url("path outside", "/etc", "repository_url_refused", "--allow-path"),
    url("file: outside", "file:///etc", "repository_url_refused", "--allow-path"),
    url("file: on a host", "file://example.org/x"),
    url("link that leads outside", "{sources}/outward", "repository_url_refused"),
    url("borrowed objects outside", "{sources}/borrower", "repository_url_refused", "another"),
    url("ssh", "ssh://git@github.com/a/b", "repository_url_refused", "https://"),
    url("scp form", "git@github.com:a/b.git", "repository_url_refused", "https://"),
    url("git scheme", "git://github.com/a/b", "repository_url_refused", "https://"),
    url("ftp", "ftp://example.org/a/b"),
    url("javascript", "javascript:alert(1)"),
    url("password", f"https://me:{SECRET}@example.org/a", "repository_url_refused", "password"),
    url("token", f"https://{SECRET}@example.org/a", "repository_url_refused", "secret"),
    url("query string", f"https://example.org/a?token={SECRET}"),
    url("fragment", f"https://example.org/a#{SECRET}"),
    url("no path", "https://example.org", "repository_url_refused", "path"),
    url("port 0", "https://example.org:0/a", "repository_url_refused", "port"),
    url("port 70000", "https://example.org:70000/a"),
    *(
        url(f"host {host}", f"https://{host}/a/b")
        for host in (
            "localhost", "127.0.0.1", "127.1", "0.0.0.0", "0", "2130706433", "0x7f000001",
            "0177.0.0.1", "127.0.0.1.", "10.0.0.1", "172.16.5.4", "192.168.1.1", "100.64.0.1",
            "169.254.169.254", "[::1]", "[::]", "[fe80::1]", "[fd00::1]", "[::ffff:127.0.0.1]",
            "[64:ff9b::7f00:1]", "[fe80::1%25eth0]", "224.0.0.1", "255.255.255.255",
            "①②⑦.0.0.1", "exa mple.org", "localhost%00.example.org",
        )
    ),
    url("plain http", "http://1.1.1.1/a/b", "repository_url_refused", "https://"),
    url("no such host", "https://no-such-host.invalid/a", "repository_unreachable", "resolve"),
    # the repository
    url("no repository there", "{sources}", "repository_unreachable", "no git repository"),
    url("no such path", "{sources}/none", "repository_unreachable", "no git repository"),
    url("a file", "{sources}/file.txt", "repository_unreachable"),
    url("empty repository", "{sources}/empty", "repository_empty", "commit"),
    url("shallow clone", "{sources}/shallow", "repository_error", "unshallow"),
    url("too large", "{sources}/large", "repository_too_large", "2"),
    bad("one of several", {"query": "x", "repo_urls": ["{sources}/none", "{sources}/empty"]},
        "repository_unreachable"),
    # the ref
    *(
        bad(f"ref {ref!r}", {**GOOD, "ref": ref}, "unknown_ref", "ref")
        for ref in ("-x", "--upload-pack=id", " ", "a b", "a..b", "HEAD~1", "@{1}", "a\nb",
                    "refs/../x", "main:README.md", "a\0b", "*")
    ),
    bad("ref, lone surrogate", {**GOOD, "ref": "\ud800"}, "invalid_request", "ref"),
    bad("unknown branch", {**NEW, "ref": "no-such"}, "unknown_ref", "no-such"),
    bad("unknown branch again", {**NEW, "ref": "no-such"}, "unknown_ref", "no-such"),
    bad("unknown commit", {**GOOD, "ref": "0" * 40}, "unknown_ref", "0000"),
    bad("empty ref", {**GOOD, "ref": ""}, "invalid_request", "ref", "at least 1"),
    bad("long ref", {**GOOD, "ref": "x" * 300}, "invalid_request", "ref", "at most 255"),
    bad("ref alone", {"query": "x", "ref": "main"}, "invalid_request", "repo_url"),
    # files
    *(
        given(f"file {name[:20]!r}", {"name": name, "content": SECRET}, words=("file name",))
        for name in ("../x", "a/../../x", "/etc/passwd", ".git/config", "a/.git/x", ".", "a\nb",
                     "a\0b")
    ),
    given("file, lone surrogate", {"name": "\ud800", "content": ""}, words=("files.0.name",)),
    given("file named by a path outside", "../good/README.md", words=("file name",)),
    given("file without a name", {"content": SECRET}, words=("files.0.name", "required")),
    given("file with an empty name", {"name": "", "content": ""}, words=("files.0.name",)),
    given("file with a long name", {"name": "x" * 600, "content": ""}, words=("files.0.name",)),
    given("long component", {"name": "x" * 300, "content": ""}, words=("name",)),
    given("file without content", {"name": "a"}, words=("files.0.content", "required")),
    given("file is a number", 5, words=("files.0",)),
    given("file is null", None, words=("files.0",)),
    given("bad base64", {"name": "a", "content": f"{SECRET}!", "encoding": "base64"},
          words=("base64",)),
    given("bad encoding", {"name": "a", "content": "", "encoding": "rot13"}, words=("encoding",)),
    given("unknown field of a file", {"name": "a", "content": "", "mode": 1}, words=("mode",)),
    given("65 files", *({"name": f"{n}", "content": ""} for n in range(65)), words=("at most 64",)),
    given("same name twice", *[{"name": "a.txt", "content": ""}] * 2, code="file_conflict",
          words=("a.txt",)),
    given("same name, other spelling", {"name": "a/b", "content": ""},
          {"name": "a//./b", "content": ""}, code="file_conflict", words=("a/b",)),
    given("file below a file", {"name": "a", "content": ""}, {"name": "a/b", "content": ""},
          code="file_conflict", words=("a",)),
    given("unknown file", "no/such.txt", code="unknown_file", words=("no/such.txt", "PUT")),
    given("a directory of the repository", "docs", code="unknown_file", words=("docs",)),
    given("a link of the repository", "link", code="unknown_file", words=("link",)),
    # the budget
    limits("no steps", {"max_steps": 0}, "max_steps", "greater"),
    limits("negative steps", {"max_steps": -1}, "max_steps", "greater"),
    limits("half a step", {"max_steps": 0.5}, "max_steps", "integer"),
    limits("steps as text", {"max_steps": "5"}, "max_steps", "integer"),
    limits("too many steps", {"max_steps": 41}, "max_steps", "at most 40"),
    limits("no tokens", {"max_tokens": 0}, "max_tokens", "greater"),
    limits("huge tokens", {"max_tokens": 10**30}, "max_tokens", "at most"),
    limits("no seconds", {"max_seconds": 0}, "max_seconds", "greater"),
    limits("negative seconds", {"max_seconds": -0.1}, "max_seconds", "greater"),
    limits("too many seconds", {"max_seconds": 1e300}, "max_seconds", "at most"),
    limits("not a number", {"max_seconds": float("nan")}, "max_seconds"),
    limits("infinite", {"max_seconds": float("inf")}, "max_seconds"),
    limits("unknown limit", {"max_money": 5}, "max_money", "no such field"),
    limits("budget a number", 5, "budget"),
]  # fmt: skip


@pytest.fixture(scope="session")
def repositories(sources: Path, service: Service) -> Path:
    """Repositories that are wrong in some way, and one that is right and was used before.

    The mirror of a repository that can be read is a cache and stays, whatever else is wrong.
    """
    good = new_repository(sources / "good", {"README.md": "x\n", "docs/a.md": "x\n"})
    (good.path / "link").symlink_to("README.md")
    good.commit("link")
    new_repository(sources / "new")
    empty_repository(sources / "empty")
    new_repository(sources / "large", {"blob": os.urandom(4 * MIB)})
    (sources / "file.txt").write_text("x")
    (sources / "outward").symlink_to("/etc")
    borrower = new_repository(sources / "borrower")
    (borrower.path / ".git/objects/info/alternates").write_text("/var/lib/other/objects\n")
    shallow = new_repository(sources / "shallow")
    shallow.commit("second")
    (shallow.path / ".git" / "shallow").write_text(f"{shallow.head}\n")
    used = {"query": "Run: true", "repo_url": str(good.path)}
    response = httpx2.post(f"{service.url}/orchestrate", json=used, timeout=60)
    assert response.json()["status"] == "succeeded"
    return sources


@dataclass(frozen=True, slots=True)
class State:
    """What a refused request must leave as it was."""

    containers: tuple[str, ...]
    files: frozenset[str]
    tasks: tuple[tuple[str, int], ...]
    workspaces: int


async def state(http: httpx2.AsyncClient, service: Service) -> State:
    return State(
        tuple(await containers(http)),
        frozenset(service.files()),
        tuple(sorted((await service.task_counts()).items())),
        len((await http.get("/workspaces")).json()),
    )


def checked(response: httpx2.Response, status: int, code: str, *words: str) -> dict[str, Any]:
    """The problem in a response that has the form every problem has."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    problem: dict[str, Any] = response.json()
    assert problem["code"] == code, problem
    assert problem["type"] == f"urn:berth:{code}"
    assert problem["status"] == status
    assert problem["detail"].endswith(".") or "git says: " in problem["detail"]
    assert len(response.content) < 4_000
    for word in words:
        assert word in problem["detail"], problem["detail"]
    return problem


@pytest.mark.parametrize("request_", REQUESTS)
async def test_is_refused_and_leaves_nothing(
    http: httpx2.AsyncClient, service: Service, repositories: Path, request_: Bad
) -> None:
    before = await state(http, service)
    text = json.dumps(request_.body).replace("{sources}", str(repositories))
    response = await http.post("/orchestrate", content=text, headers=JSON)

    problem = checked(response, request_.status, request_.code, *request_.words)
    for word in request_.never:
        assert word not in json.dumps(problem)
    assert await state(http, service) == before


@pytest.mark.parametrize(
    ("content", "headers", "status", "words"),
    [
        (b"", JSON, 422, ("body", "JSON")),
        (b'{"query": ', JSON, 422, ("not JSON", "byte 10")),
        (b"{'query': 'x'}", JSON, 422, ("not JSON",)),
        (b'{"query": "x"} trailing', JSON, 422, ("not JSON",)),
        (b"[]", JSON, 422, ("JSON object",)),
        (b'"x"', JSON, 422, ("JSON object",)),
        (b"null", JSON, 422, ("body",)),
        (b'{"query": "\xff"}', JSON, 400, ("UTF-8",)),
        (b"[" * 100_000, JSON, 400, ("JSON", "nesting")),
        (b'{"query": ' + b"9" * 5_000 + b"}", JSON, 400, ("JSON",)),
        (b'{"query": "x"}', {"Content-Type": "text/plain"}, 422, ("Content-Type",)),
        (b'{"query": "x"}', {}, 422, ("Content-Type",)),
        (b"query=x", {"Content-Type": "application/x-www-form-urlencoded"}, 422, ("JSON",)),
    ],
)
async def test_a_body_that_is_no_json_object(
    http: httpx2.AsyncClient,
    service: Service,
    *,
    content: bytes,
    headers: dict[str, str],
    status: int,
    words: tuple[str, ...],
) -> None:
    before = await state(http, service)
    response = await http.post("/orchestrate", content=content, headers=headers)

    checked(response, status, "invalid_request", *words)
    assert await state(http, service) == before


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/orchestrate"), ("PUT", "/files/big")])
async def test_a_body_of_40_mb(
    http: httpx2.AsyncClient, service: Service, method: str, path: str, announced: bool
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * MIB

    before = await state(http, service)
    content = b"x" * (40 * MIB) if announced else chunks()
    response = await http.request(method, path, content=content, headers=JSON)

    checked(response, 413, "request_too_large", "33,554,432")
    assert await state(http, service) == before
    assert (await http.get("/files")).json() == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/tasks/none", 404, "task_not_found"),
        ("GET", "/tasks/%00", 404, "task_not_found"),
        ("GET", "/tasks/" + "x" * 5_000, 404, "task_not_found"),
        ("GET", "/tasks/none/events", 404, "task_not_found"),
        ("GET", "/tasks?before=none", 422, "invalid_request"),
        ("GET", "/tasks?before=%00", 422, "invalid_request"),
        ("GET", "/tasks?before=", 422, "invalid_request"),
        ("GET", "/containers/none/logs", 404, "container_not_found"),
        ("GET", "/containers/repo-0123456789abcdef/logs", 404, "container_not_found"),
        ("GET", "/containers/.etc/logs", 404, "container_not_found"),
        ("GET", "/containers/repo-0123456789abcdef/logs?lines=0", 422, "invalid_request"),
        ("GET", "/containers/repo-0123456789abcdef/logs?lines=x", 422, "invalid_request"),
        ("POST", "/containers/none/stop", 404, "container_not_found"),
        ("POST", "/containers/repo-0123456789abcdef/stop", 404, "container_not_found"),
        ("DELETE", "/containers/none", 404, "container_not_found"),
        ("DELETE", "/containers/.etc", 404, "container_not_found"),
        ("DELETE", "/containers/%2e%2e", 404, "container_not_found"),
        ("DELETE", "/files/none", 404, "file_not_found"),
        ("PUT", "/files/%2e%2e/x", 422, "invalid_request"),
        ("PUT", "/files/a/%2e%2e/%2e%2e/x", 422, "invalid_request"),
        ("PUT", "/files//etc/passwd", 422, "invalid_request"),
        ("PUT", "/files/.git/config", 422, "invalid_request"),
        ("PUT", "/files/a%0Ab", 404, "not_found"),
        ("PUT", "/files/a%00b", 422, "invalid_request"),
        ("PUT", "/files/%FF", 422, "invalid_request"),
        ("PUT", "/files/" + "x" * 300, 422, "invalid_request"),
        ("PUT", "/files/" + "x/" * 400 + "x", 422, "invalid_request"),
        ("PUT", "/files/", 422, "invalid_request"),
        ("GET", "/nothing/here", 404, "not_found"),
        ("GET", "/orchestrate", 405, "method_not_allowed"),
        ("DELETE", "/tasks/none", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
    ],
)
async def test_a_wrong_address(
    http: httpx2.AsyncClient, service: Service, *, method: str, path: str, status: int, code: str
) -> None:
    before = await state(http, service)
    response = await http.request(method, path)

    checked(response, status, code)
    assert await state(http, service) == before


@pytest.fixture(scope="session")
def ended_task(service: Service, repositories: Path) -> str:
    """A task of three steps that nobody continues."""
    body = {"query": "Run: echo x > x", "repo_url": str(repositories / "good")}
    with httpx2.Client(base_url=service.url, timeout=60, trust_env=False, verify=False) as http:
        task_id: str = http.post("/orchestrate", json=body).json()["task_id"]
    return task_id


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "words"),
    [
        ("GET", "none/diff", None, 404, "task_not_found", ("none",)),
        ("GET", "{id}/diff?from=x", None, 422, "invalid_request", ("from", "integer")),
        ("GET", "{id}/diff?to=-1", None, 422, "invalid_request", ("to", "0")),
        ("GET", "{id}/diff?from=2&to=1", None, 422, "invalid_request", ("earlier one",)),
        ("GET", "{id}/diff?to=4", None, 422, "unknown_step", ("3 steps", "no step 4")),
        ("GET", "{id}/diff?from=4", None, 422, "unknown_step", ("no step 4",)),
        ("GET", "{id}/diff?to=99999999999", None, 422, "invalid_request", ("to",)),
        ("POST", "none/messages", {"text": "x"}, 404, "task_not_found", ("none",)),
        ("POST", "%00/messages", {"text": "x"}, 404, "task_not_found", ()),
        ("POST", "{id}/messages", {}, 422, "invalid_request", ("text", "required")),
        ("POST", "{id}/messages", {"text": " "}, 422, "invalid_request", ("text is empty",)),
        ("POST", "{id}/messages", {"text": 5}, 422, "invalid_request", ("text", "string")),
        ("POST", "{id}/messages", {"text": "\ud800"}, 422, "invalid_request", ("text",)),
        ("POST", "{id}/messages", {"text": "x" * 2_000_000}, 413, "request_too_large", ()),
        ("POST", "{id}/messages", {"text": "x", "step": 1}, 422, "invalid_request", ("step",)),
        ("POST", "none/fork", {"step": 0, "query": "x"}, 404, "task_not_found", ()),
        ("POST", "{id}/fork", {}, 422, "invalid_request", ("step", "required")),
        ("POST", "{id}/fork", {"step": -1}, 422, "invalid_request", ("step",)),
        ("POST", "{id}/fork", {"step": True}, 422, "invalid_request", ("step",)),
        ("POST", "{id}/fork", {"step": 2**40}, 422, "invalid_request", ("step",)),
        ("POST", "{id}/fork", {"step": 4}, 422, "unknown_step", ("no step 4",)),
        ("POST", "{id}/fork", {"step": 3}, 422, "invalid_request", ("give a query",)),
        ("POST", "{id}/fork", {"step": 2, "query": " "}, 422, "invalid_request", ("empty",)),
        ("POST", "{id}/fork", {"step": 2, "agent": "m"}, 422, "invalid_request", ("agent",)),
        (
            "POST",
            "{id}/fork",
            {"step": 2, "budget": {"max_steps": 10**6}},
            422,
            "invalid_request",
            ("budget.max_steps",),
        ),
    ],
)
async def test_a_verb_that_is_refused(
    http: httpx2.AsyncClient,
    service: Service,
    ended_task: str,
    *,
    method: str,
    path: str,
    body: dict[str, object] | None,
    status: int,
    code: str,
    words: tuple[str, ...],
) -> None:
    before = await state(http, service)
    content = None if body is None else json.dumps(body)
    address = f"/tasks/{path.replace('{id}', ended_task)}"
    response = await http.request(method, address, content=content, headers=JSON)

    checked(response, status, code, *words)
    assert await state(http, service) == before


@pytest.mark.parametrize(
    ("more", "status", "code", "words"),
    [
        ({"continue_from": "none"}, 404, "task_not_found", ("none",)),
        ({"continue_from": ""}, 422, "invalid_request", ("continue_from",)),
        ({"continue_from": "{id}", "ref": "main"}, 422, "invalid_request", ("ref",)),
        ({"continue_from": "{id}", "repo_url": "/x"}, 422, "invalid_request", ("repo_url",)),
        (
            {"continue_from": "{id}", "install_dependencies": True},
            422,
            "invalid_request",
            ("install_dependencies",),
        ),
        ({"continue_from": "{id}", "files": ["none"]}, 422, "unknown_file", ("none",)),
    ],
)
async def test_a_continuation_that_is_refused(
    http: httpx2.AsyncClient,
    service: Service,
    ended_task: str,
    *,
    more: dict[str, object],
    status: int,
    code: str,
    words: tuple[str, ...],
) -> None:
    before = await state(http, service)
    content = json.dumps({"query": "x", **more}).replace("{id}", ended_task)
    response = await http.post("/orchestrate", content=content, headers=JSON)

    checked(response, status, code, *words)
    assert await state(http, service) == before


@pytest.mark.parametrize("key", ["", "x" * 201])
async def test_a_key_that_is_none(http: httpx2.AsyncClient, ended_task: str, key: str) -> None:
    response = await http.post(
        f"/tasks/{ended_task}/messages", json={"text": "x"}, headers={"Idempotency-Key": key}
    )

    checked(response, 422, "invalid_request", "idempotency-key")


@pytest.mark.parametrize(
    ("misbehaviour", "code", "words"),
    [
        ({"credentials": ("me", SECRET)}, "repository_needs_credentials", ("credentials",)),
        ({"status": 404}, "repository_unreachable", ("no repository",)),
        ({"status": 500}, "repository_unreachable", ("try again",)),
        ({"garbage": b"<html>hello</html>"}, "repository_unreachable", ("git repository",)),
        ({"redirect": "http://169.254.169.254/latest"}, "repository_unreachable", ("redirect",)),
    ],
)
async def test_a_git_server_that_does_not_give_the_repository(
    http: httpx2.AsyncClient,
    service: Service,
    tmp_path: Path,
    *,
    misbehaviour: dict[str, Any],
    code: str,
    words: tuple[str, ...],
) -> None:
    bare_copy(new_repository(tmp_path / "source"), tmp_path / "served" / "it.git")
    async with serve_git(tmp_path / "served", GIT_HOST) as server:
        for name, value in misbehaviour.items():
            setattr(server, name, value)
        await _refused_by(http, service, server, code, words)


async def test_a_git_server_that_is_down(http: httpx2.AsyncClient, service: Service) -> None:
    server = GitServer(Path("/"), GIT_HOST, 9)
    await _refused_by(http, service, server, "repository_unreachable", ("connection",))


async def test_a_git_server_that_is_allowed_is_used(
    http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    bare_copy(new_repository(tmp_path / "source"), tmp_path / "served" / "it.git")
    async with serve_git(tmp_path / "served", GIT_HOST) as server:
        body = {"query": "List the files in this repository", "repo_url": server.url("it.git")}
        response = await http.post("/orchestrate", json=body)

    assert response.json()["status"] == "succeeded"
    assert "README.md" in response.json()["answer"]


async def _refused_by(
    http: httpx2.AsyncClient,
    service: Service,
    server: GitServer,
    code: str,
    words: tuple[str, ...],
) -> None:
    before = await state(http, service)
    body = {"query": "x", "repo_url": server.url("it.git")}
    response = await http.post("/orchestrate", json=body)

    problem = checked(response, 422, code, *words)
    assert SECRET not in json.dumps(problem)
    assert await state(http, service) == before
