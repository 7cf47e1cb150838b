"""A private git server with a forge beside it, and tasks that have ended with a change."""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.forges import FORGES, FakeForge, serve_app
from tests.support.git_server import GitServer, serve_git
from tests.support.repositories import SourceRepository, bare_copy, git, new_repository

from orchestrator.clock import SystemClock
from orchestrator.domain.budget import Budget, StopReason
from orchestrator.domain.repository import parse_repository_url
from orchestrator.domain.task import Ending, NewTask, Patch, Receipt, StartPoint, Task, TaskStatus
from orchestrator.domain.workspace import workspace_of
from orchestrator.flow.publish import Publish
from orchestrator.gateway.branches import GitBranches
from orchestrator.gateway.credentials import Credentials
from orchestrator.gateway.credentials_file import read_credentials
from orchestrator.gateway.forges.choice import HttpForges
from orchestrator.gateway.forges.http import ForgeHttp
from orchestrator.gateway.github_app import InstallationTokens
from orchestrator.gateway.mirrors import GitRepositories
from orchestrator.storage.postgres import Database, PostgresTaskStore
from orchestrator.storage.postgres.publications import PostgresPublications

TOKEN = "canary-git-and-forge-token"
AUTHOR = "Berth <berth@localhost>"
NAMES = ("private", "second")


@dataclass
class House:
    """A server with two private repositories, `acme/private` and `acme/second`, and its forge."""

    server: GitServer
    forge: FakeForge
    kind: str
    api_url: str
    root: Path
    token: str = TOKEN

    def url(self, name: str = "private") -> str:
        """A repository's address."""
        return self.server.url(f"acme/{name}")

    def source(self, name: str = "private") -> SourceRepository:
        """The worktree of somebody who works on it."""
        return SourceRepository(self.root / f"source-{name}")

    def ref(self, branch: str, name: str = "private") -> str | None:
        """Where a branch is on the server."""
        bare = self.root / "served" / "acme" / f"{name}.git"
        found = git(bare, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")
        return found or None

    def content(self, branch: str, path: str, name: str = "private") -> str:
        """A file on the server."""
        return git(self.root / "served" / "acme" / f"{name}.git", "show", f"{branch}:{path}")

    def credentials(self, **changes: str) -> Path:
        """A credentials file for the server and the forge's API."""
        lines = {"token": self.token, "forge": self.kind, "api_url": self.api_url, **changes}
        if self.kind == "github":
            lines.setdefault("username", "x-access-token")
        told = "".join(f'{name} = "{value}"\n' for name, value in lines.items())
        path = self.root / "credentials.toml"
        path.write_text(f'[[credential]]\nurl = "{self.server.url("acme")}"\n{told}')
        path.chmod(0o600)
        return path


@asynccontextmanager
async def running_house(
    root: Path, kind: str, host: str = "127.0.0.1", token: str = TOKEN
) -> AsyncIterator[House]:
    """Start the server and the forge, which let in who has the token."""
    served = root / "served" / "acme"
    served.mkdir(parents=True)
    for name in NAMES:
        source = new_repository(
            root / f"source-{name}", {"README.md": f"# {name}\n", "a.txt": "a\n"}
        )
        bare = bare_copy(source, served / f"{name}.git")
        source.git("remote", "add", "origin", str(bare))
    forge = FORGES[kind](token, repositories=frozenset(f"acme/{name}" for name in NAMES))
    paths = {"github": "/api/v3", "gitlab": "/api/v4", "gitea": "/api/v1"}
    users = {"github": "x-access-token", "gitlab": "oauth2", "gitea": "berth"}
    async with serve_git(root / "served", host) as server, serve_app(forge.app, host) as url:
        server.credentials = (users[kind], token)
        yield House(server, forge, kind, url + paths[kind], root, token)


@dataclass
class Publisher:
    """What publishes, with the stores it works on."""

    publish: Publish
    tasks: PostgresTaskStore
    repositories: GitRepositories
    http: ForgeHttp

    async def ended(
        self,
        task_id: str,
        urls: Sequence[str],
        diff: str,
        *,
        ref: str | None = None,
        left_out: Sequence[str] = (),
        dry_run: bool = False,
    ) -> Task:
        """A task that has ended with this diff."""
        workspace = workspace_of([parse_repository_url(url) for url in urls])
        start = [
            await self.repositories.start_point(each.url, each.name, ref)
            if each.url.scheme != "file"
            else StartPoint(each.name, "0" * 40, "main")
            for each in workspace.repositories
        ]
        task = NewTask(
            task_id, "Add a file.\nPlease.", workspace, tuple(start), (), Budget(1, 1, 1.0),
            dry_run=dry_run,
        )  # fmt: skip
        await self.tasks.add(task, "sandbox")
        patch = Patch(diff, ("new.txt",), tuple(left_out))
        ending = Ending(
            TaskStatus.SUCCEEDED, StopReason.ANSWERED, "It is added.", patch, 1, Receipt()
        )
        return await self.tasks.finish(task_id, ending)


@asynccontextmanager
async def running_publisher(
    data_dir: Path,
    postgres_url: str,
    credentials: Path | None,
    allow_hosts: Sequence[str] = ("127.0.0.1",),
    environment: Mapping[str, str] = os.environ,
) -> AsyncIterator[Publisher]:
    """Put the parts together as `main` does."""
    http = ForgeHttp()
    entries = () if credentials is None else read_credentials(credentials, environment)
    known = Credentials(entries, environment, InstallationTokens(http, SystemClock().now))
    repositories = GitRepositories(
        data_dir,
        allow_paths=[],
        allow_hosts=allow_hosts,
        max_repository_bytes=100_000_000,
        timeout_seconds=30.0,
        max_file_bytes=1_000_000,
        environment=environment,
        credentials=known,
    )
    database = await Database.open(postgres_url)
    tasks = PostgresTaskStore(database)
    publish = Publish(
        tasks=tasks,
        publications=PostgresPublications(database),
        branches=GitBranches(repositories, data_dir, 30.0),
        forges=HttpForges(http, known),
        author=AUTHOR,
    )
    try:
        yield Publisher(publish, tasks, repositories, http)
    finally:
        await database.close()
        await http.close()


def added(path: str, text: str = "new\n", prefix: str = "") -> str:
    """A patch that adds a file of one line."""
    return (
        f"diff --git a/{prefix}{path} b/{prefix}{path}\nnew file mode 100644\n"
        f"index 0000000..3e75765\n--- /dev/null\n+++ b/{prefix}{path}\n@@ -0,0 +1 @@\n+{text}"
    )


def changed(path: str, old: str, new: str) -> str:
    """A patch that changes a file of one line."""
    return (
        f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-{old}\n+{new}\n"
    )
