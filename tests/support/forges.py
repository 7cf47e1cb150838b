"""Stand-ins for the pull request APIs of GitHub, GitLab and Gitea.

They are no copies of these services: each knows the few routes that Berth uses, checks the token,
the fields and the uniqueness of a pull request as the API's documentation says, and keeps what it
was told. What the real services do beyond that, no test here shows.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

Json = dict[str, Any]
Answer = Callable[[Request], Awaitable[Response]]


@dataclass
class FakeForge:
    """What all three share.

    Args:
        token: The one that is let in.
        refuses: Do not take pull requests, as a forge whose rules one breaks.
        fails: Answer this many requests to open a pull request with status 500.
        loses: Open this many pull requests and answer with status 502 all the same.
        echoes: Send the token back in the reason of every refusal.
        redirect: Send everybody there.
    """

    token: str
    refuses: bool = False
    fails: int = 0
    loses: int = 0
    echoes: bool = False
    redirect: str | None = None
    repositories: frozenset[str] = frozenset({"acme/private"})
    pulls: list[Json] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def authorization(self) -> str:
        """The header that lets a request in."""
        return f"Bearer {self.token}"

    def guarded(self, answer: Answer) -> Answer:
        async def guard(request: Request) -> Response:
            self.requests.append(f"{request.method} {request.url.path}")
            if self.redirect is not None:
                return RedirectResponse(self.redirect, 307)
            refusal = self.refusal(request)
            if refusal is not None:
                message, status = refusal
                echo = f" ({request.headers.get('authorization')})" if self.echoes else ""
                return JSONResponse({"message": message + echo}, status)
            response = await answer(request)
            if request.method == "POST" and self.loses:
                self.loses -= 1
                return JSONResponse({"message": "bad gateway"}, 502)
            return response

        return guard

    def refusal(self, request: Request) -> tuple[str, int] | None:
        """Why a request is not carried out, with a status."""
        if request.headers.get("authorization") != self.authorization():
            return "Bad credentials", 401
        if self.named(request) not in self.repositories:
            return "Not Found", 404
        if request.method == "POST" and self.refuses:
            return "Drafts are not supported", 422
        if request.method == "POST" and self.fails:
            self.fails -= 1
            return "broken", 500
        return None

    def named(self, request: Request) -> str:
        """The repository a request is about."""
        return f"{request.path_params['owner']}/{request.path_params['name']}"

    def kept(self, repository: str, head: str, base: str) -> list[Json]:
        """The pull requests of a repository between two branches."""
        wanted = (repository, head, base)
        return [pull for pull in self.pulls if (pull["of"], pull["head"], pull["base"]) == wanted]

    def add(self, repository: str, **values: object) -> Json:
        """Keep a new pull request."""
        pull: Json = {"of": repository, "number": len(self.pulls) + 1, **values}
        self.pulls.append(pull)
        return pull

    def numbered(self, request: Request) -> Json:
        """The pull request a request names."""
        return self.pulls[int(request.path_params["number"]) - 1]

    def url(self, pull: Json) -> str:
        """Its page."""
        return f"https://forge.test/{pull['of']}/pull/{pull['number']}"

    @property
    def app(self) -> Starlette:
        """The API."""
        return Starlette(
            routes=[
                Route(path, self.guarded(answer), methods=[method])
                for method, path, answer in self.routes()
            ]
        )

    def routes(self) -> list[tuple[str, str, Answer]]:
        """Method, path and answer."""
        raise NotImplementedError


class FakeGithub(FakeForge):
    """Pull requests of GitHub's REST API."""

    def routes(self) -> list[tuple[str, str, Answer]]:
        pulls = "/api/v3/repos/{owner}/{name}/pulls"
        return [
            ("GET", pulls, self.find),
            ("POST", pulls, self.open),
            ("PATCH", f"{pulls}/{{number}}", self.change),
        ]

    def shown(self, pull: Json) -> Json:
        return {"number": pull["number"], "html_url": self.url(pull), "title": pull["title"]}

    async def find(self, request: Request) -> Response:
        owner, _, head = request.query_params["head"].partition(":")
        assert owner == request.path_params["owner"]
        found = self.kept(self.named(request), head, request.query_params["base"])
        return JSONResponse([self.shown(pull) for pull in found])

    async def open(self, request: Request) -> Response:
        asked = await request.json()
        repository = self.named(request)
        if self.kept(repository, asked["head"], asked["base"]):
            errors = [{"message": "A pull request already exists"}]
            return JSONResponse({"message": "Validation Failed", "errors": errors}, 422)
        return JSONResponse(self.shown(self.add(repository, **asked)), 201)

    async def change(self, request: Request) -> Response:
        pull = self.numbered(request)
        pull.update(await request.json())
        return JSONResponse(self.shown(pull))


class FakeGitlab(FakeForge):
    """Merge requests of GitLab's REST API; the project is one part of the path, encoded."""

    def routes(self) -> list[tuple[str, str, Answer]]:
        # Starlette decodes the path first, so that the project's slash is back.
        requests = "/api/v4/projects/{owner}/{name}/merge_requests"
        return [
            ("GET", requests, self.find),
            ("POST", requests, self.open),
            ("PUT", f"{requests}/{{number}}", self.change),
        ]

    def named(self, request: Request) -> str:
        assert b"%2F" in request.scope["raw_path"]
        return super().named(request)

    def shown(self, pull: Json) -> Json:
        return {"iid": pull["number"], "web_url": self.url(pull), "title": pull["title"]}

    async def find(self, request: Request) -> Response:
        query = request.query_params
        found = self.kept(self.named(request), query["source_branch"], query["target_branch"])
        return JSONResponse([self.shown(pull) for pull in found])

    async def open(self, request: Request) -> Response:
        asked = await request.json()
        repository, head, base = (
            self.named(request),
            asked["source_branch"],
            asked["target_branch"],
        )
        if self.kept(repository, head, base):
            return JSONResponse({"message": ["Another open merge request already exists"]}, 409)
        draft = asked["title"].startswith("Draft: ")
        pull = self.add(
            repository,
            head=head,
            base=base,
            title=asked["title"].removeprefix("Draft: "),
            body=asked["description"],
            draft=draft,
        )
        return JSONResponse(self.shown(pull), 201)

    async def change(self, request: Request) -> Response:
        pull = self.numbered(request)
        pull["body"] = (await request.json())["description"]
        return JSONResponse(self.shown(pull))


class FakeGitea(FakeForge):
    """Pull requests of Gitea's REST API."""

    def authorization(self) -> str:
        return f"token {self.token}"

    def routes(self) -> list[tuple[str, str, Answer]]:
        pulls = "/api/v1/repos/{owner}/{name}/pulls"
        return [
            ("GET", pulls, self.find),
            ("POST", pulls, self.open),
            ("PATCH", f"{pulls}/{{number}}", self.change),
        ]

    def shown(self, pull: Json) -> Json:
        return {
            "number": pull["number"],
            "html_url": self.url(pull),
            "head": {"ref": pull["head"]},
            "base": {"ref": pull["base"]},
        }

    async def find(self, request: Request) -> Response:
        assert request.query_params["state"] == "all"
        here = [pull for pull in self.pulls if pull["of"] == self.named(request)]
        return JSONResponse([self.shown(pull) for pull in reversed(here)])

    async def open(self, request: Request) -> Response:
        asked = await request.json()
        repository = self.named(request)
        if self.kept(repository, asked["head"], asked["base"]):
            return JSONResponse({"message": "pull request already exists for these targets"}, 409)
        draft = asked["title"].startswith("WIP: ")
        title = asked.pop("title").removeprefix("WIP: ")
        return JSONResponse(
            self.shown(self.add(repository, **asked, title=title, draft=draft)), 201
        )

    async def change(self, request: Request) -> Response:
        pull = self.numbered(request)
        pull.update(await request.json())
        return JSONResponse(self.shown(pull), 201)


FORGES = {"github": FakeGithub, "gitlab": FakeGitlab, "gitea": FakeGitea}


@contextlib.asynccontextmanager
async def serve_app(app: Starlette, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Serve an application on loopback; its address."""
    listener = socket.create_server((host, 0))
    server = _Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(60):
            while not server.started:
                await asyncio.sleep(0.005)
        yield f"http://{host}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        await serving
        listener.close()


class _Server(uvicorn.Server):
    """Leaves the signal handlers of the test process alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
