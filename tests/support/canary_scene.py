"""A service among canaries: tasks that use secrets, tasks that look for them, errors on purpose."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import httpx2
from tests.support.canaries import BRAND, Canary, Output
from tests.support.canary_house import PROXIED, Planted
from tests.support.canary_outputs import (
    answers,
    family_of,
    files_below,
    inside,
    memory_of,
    rows,
    running,
    text_output,
)
from tests.support.canary_watch import Watch
from tests.support.gcs import GcsServer
from tests.support.runtimes import Bench, until
from tests.support.service import Service
from tests.support.tasks import Json, all_frames

PROGRAM = Path(__file__).with_name("pry.py")
OUTAGE_SECONDS = 30.0
INSIDE = ("/workspace", "/run", "/tmp", "/home", "/etc", "/dev/shm", "/var", "/usr/etc",
          "/usr/local/etc")  # fmt: skip
"""Where in a container something of ours or of the machine's operator may lie."""


@dataclass
class Scene:
    """A running service, what surrounds it, and what came out so far."""

    service: Service
    planted: Planted
    watch: Watch
    http: httpx2.AsyncClient
    runtime: str
    bucket: GcsServer | None = None
    said: list[Output] = field(default_factory=list)

    async def task(self, query: str, name: str = "private", **body: object) -> Json:
        """Run a task in a repository to its good end, and keep all that is streamed."""
        request = {"query": query, "repo_url": self.planted.house.url(name), **body}
        headers = {"Accept": "text/event-stream"}
        last: Json = {}
        async with self.http.stream(
            "POST", "/orchestrate", json=request, headers=headers
        ) as response:
            assert response.status_code == 200, await response.aread()
            async for frame in all_frames(response):
                last = frame.data
                self.said.append(text_output(f"stream about {name}", json.dumps(last)))
        assert last["status"] == "succeeded", last
        return last

    async def control(self, canary: Canary) -> Json:
        """Run a task that says a canary aloud wherever one can: there the search must find it."""
        told = canary.value
        return await self.task(
            f"Run: echo {told} > new.txt; mkdir -p /tmp/kept; gzip <new.txt >/tmp/kept/new.gz; "
            f"WORD={told} python3 -c 'import time; time.sleep(0.5)' {told}"
        )

    async def provoke(self, url: str, code: str) -> None:
        """Ask for a task that fails before or while it runs."""
        body = {"query": "Run: true", "repo_url": url}
        response = await self.http.post("/orchestrate", json=body)
        self._keep_error(response)
        answer = response.json()
        assert (answer.get("code") or answer["error"]["code"]) == code, answer

    async def provoke_publication(self, task: str) -> None:
        """Ask for a publication that fails."""
        body = {"mode": "pull_request", "branch": "refused"}
        response = await self.http.post(f"/tasks/{task}/publish", json=body)
        self._keep_error(response)
        assert response.json()["code"].startswith("forge_"), response.text

    async def provoke_outage(self) -> None:
        """Have the service lose all its connections to the database in the middle of its work."""
        connection = await asyncpg.connect(self.planted.database_url)
        try:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        finally:
            await connection.close()
        self._keep_error(await self.http.get("/tasks"))
        await until(self._has_database, OUTAGE_SECONDS)

    async def _has_database(self) -> bool:
        return (await self.http.get("/tasks")).is_success

    def _keep_error(self, response: httpx2.Response) -> None:
        head = json.dumps(list(response.headers.items()))
        self.said.append(text_output("errors", head + response.text))

    async def worker_keys(self) -> list[Canary]:
        """The keys that the service made for its workers."""
        connection = await asyncpg.connect(self.planted.database_url)
        try:
            found = await connection.fetch("SELECT key, worker_key FROM workspaces")
        finally:
            await connection.close()
        return [
            Canary(f"worker key of {key.rpartition('/')[2]}", value) for key, value in found
        ]  # fmt: skip

    async def about(self, tasks: Sequence[Json]) -> AsyncIterator[Output]:
        """All that the API says of tasks."""
        values = _names(tasks)
        for path in ("/tasks/{task_id}", "/tasks/{task_id}/events", "/containers/{name}/logs"):
            async for output in answers(self.http, values, path):
                yield output

    async def outputs(self, tasks: Sequence[Json]) -> AsyncIterator[Output]:
        """All that came out, while the service runs."""
        async for output in answers(self.http, _names(tasks)):
            yield output
        async for output in rows(self.planted.database_url):
            yield output
        for task in {each["workspace"]["container"]: each for each in tasks}.values():
            async for output in self.container(task):
                yield output

    async def container(self, task: Json) -> AsyncIterator[Output]:
        """What a task's container holds, in its files and in its memory."""
        workspace = task["workspace"]
        place = f"container of {workspace['repositories'][0]['name']}"
        bench = Bench(self.runtime, self.service.deployment, self.service.data_dir)
        worker = running((await bench.worker(workspace["container"])).pid)
        for output in inside(worker.pid, INSIDE, place):
            yield output
        for process in family_of(worker):
            for output in memory_of(process, place):
                yield output

    def ended(self) -> list[Output]:
        """Stop the service; all that is left of it then."""
        process = self.service.process
        process.terminate()
        assert process.stdout is not None
        printed = process.stdout.read()
        assert self.service.wait() == 0, self.service.log.read_text()
        kept = self.service.data_dir
        return [
            *self.said,
            *self.planted.received(),
            text_output("standard output", printed),
            Output("log", self.service.log.read_bytes()),
            *files_below(kept, "data directory"),
            *files_below(self.planted.house.root / "served", "git server's files"),
            *self.watch.outputs(),
            *([] if self.bucket is None else _stored(self.bucket)),
        ]

    def prying(self, neighbour: Json, own: Json) -> list[dict[str, str]]:
        """The program that looks for secrets, and what it is told to look for."""
        house = self.planted.house
        told = {
            # Whole, it would be found in all that the program leaves.
            "halves": [BRAND[:5], BRAND[5:]],
            "names": [neighbour["task_id"], neighbour["workspace"]["id"], own["task_id"]],
            "git": [house.url(), house.url("second"), house.server.url("filed/x")],
            "sockets": self._sockets(neighbour),
            "paths": self._paths(neighbour),
            "urls": self._urls(),
            "index": self.planted.index.host,
            "requests": self._requests(),
        }
        return [
            {"name": "pry.py", "content": PROGRAM.read_text()},
            {"name": "pry.json", "content": json.dumps(told)},
        ]

    def _sockets(self, neighbour: Json) -> list[str]:
        next_door = f"/run/berth/../{neighbour['workspace']['container']}/worker.sock"
        here = (str(path) for path in self.service.data_dir.glob("run/*/*"))
        return ["/var/run/docker.sock", "/run/docker.sock", next_door, *here]

    def _paths(self, neighbour: Json) -> list[str]:
        data, home = self.service.data_dir, self.planted.home
        return [
            *map(str, (data, data / "objects", data / "mirrors", data / "checkpoints", home)),
            *map(str, (home / "credentials.toml", home / ".netrc", self.service.log)),
            f"/workspace/tasks/{neighbour['task_id']}",
            "/workspace/repositories/second.git/packed-refs",
            *("/proc/1/root/root/.netrc", "/proc/self/root/..", "/root", "/etc/shadow"),
        ]

    def _urls(self) -> list[str]:
        planted, index = self.planted, self.planted.index.host
        return [
            "http://169.254.169.254/latest/meta-data/",
            "http://metadata.google.internal/computeMetadata/v1/",
            *(self.service.url, planted.stranger.url, planted.model.url, planted.house.api_url),
            f"{planted.house.url('second')}/info/refs?service=git-upload-pack",
            f"http://{PROXIED}/",
            f"http://{index}@{PROXIED}/",
            f"http://{index}/simple/../../npm/",
        ]

    def _requests(self) -> list[str]:
        """Heads of requests, with which one may get a proxy to send on too much, or elsewhere."""
        index, stranger = self.planted.index.host, self.planted.stranger.url.partition("//")[2]
        metadata = "169.254.169.254"
        return [
            f"GET http://{index}/simple/ HTTP/1.1\r\nHost: {stranger}",
            f"GET http://{index}/simple/ HTTP/1.1\r\nHost: {index}\r\nHost: {stranger}",
            f"GET http://{stranger}/ HTTP/1.1\r\nHost: {index}",
            f"GET http://{metadata}/ HTTP/1.1\r\nHost: {index}",
            f"GET http://{index}@{metadata}/ HTTP/1.1\r\nHost: {index}",
            f"GET http://{PROXIED}/ HTTP/1.1\r\nHost: {stranger}",
            f"GET / HTTP/1.1\r\nHost: {index}",
            f"TRACE http://{index}/simple/ HTTP/1.1\r\nHost: {index}",
            f"TRACE http://{PROXIED}/ HTTP/1.1\r\nHost: {PROXIED}\r\nMax-Forwards: 0",
            f"OPTIONS http://{index}/ HTTP/1.1\r\nHost: {index}\r\nMax-Forwards: 0",
            f"CONNECT {stranger} HTTP/1.1\r\nHost: {index}",
            f"CONNECT {metadata}:80 HTTP/1.1\r\nHost: {index}",
            f"CONNECT {PROXIED}:443 HTTP/1.1\r\nHost: {PROXIED}",
        ]


def _stored(bucket: GcsServer) -> Iterator[Output]:
    """What the bucket holds, and what it was asked."""
    yield text_output("bucket's log", "\n".join(bucket.requests()))
    for name, facts, content in bucket.objects():
        yield Output(f"the facts of bucket/{name}", facts)
        yield Output(f"bucket/{name}", content)


def _names(tasks: Sequence[Json]) -> dict[str, list[str]]:
    """What the parameters of the API's paths may stand for."""
    workspaces = {task["workspace"]["id"]: task["workspace"] for task in tasks}
    return {
        "task_id": [task["task_id"] for task in tasks],
        "workspace_id": sorted(workspaces),
        "name": sorted(each["container"] for each in workspaces.values()),
    }
