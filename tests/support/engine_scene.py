"""A proxy before the real engine, a container of its deployment, and a stranger's beside it."""

import json
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import docker
from tests.support.engine_calls import NAME, creation
from tests.support.engine_proxy import Proxy, running_proxy
from tests.support.runtimes import IMAGE

ANSWER_SECONDS = 60.0
VERSION = "/v1.41"


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, as it came."""

    status: int
    text: str

    @property
    def message(self) -> str:
        """What the engine's clients show."""
        return str(json.loads(self.text)["message"])


def tell(path: Path, request: bytes) -> Said:
    """Send bytes to a unix socket and read one answer."""
    with closing(socket.socket(socket.AF_UNIX)) as line:
        line.settimeout(ANSWER_SECONDS)
        line.connect(str(path))
        with suppress(ConnectionError):  # who refuses what is too large does not read all of it
            line.sendall(request)
        response = HTTPResponse(line)
        response.begin()
        return Said(response.status, response.read().decode())


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is; the containers exist and do not run."""

    engine: docker.DockerClient
    proxy: Proxy
    data_dir: Path
    deployment: str
    image: str
    stranger: str

    @property
    def ours(self) -> str:
        """The name of our container."""
        return f"{NAME}.{self.deployment}"

    @property
    def sockets(self) -> Path:
        """The directory of the workers' sockets."""
        return self.data_dir / "run"

    def creation(self) -> dict[str, Any]:
        """The body with which the orchestrator makes our container."""
        return creation(sockets=self.sockets, image=self.image, deployment=self.deployment)

    def create(self, body: object) -> Said:
        """Ask for our container."""
        return self.ask("POST", "/containers/create", {"name": self.ours}, body)

    def ask(
        self, method: str, path: str, query: dict[str, str] | None = None, body: object = None
    ) -> Said:
        """Make a call through the proxy."""
        target = VERSION + path + (f"?{urlencode(query)}" if query else "")
        text = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {target} HTTP/1.1\r\nHost: docker\r\nContent-Length: {len(text)}\r\n\r\n"
        return tell(self.proxy.socket, head.encode() + text)

    def has(self, container: str) -> bool:
        """True if the engine has a container of this name."""
        found = self.engine.containers.list(all=True, filters={"name": f"^/{container}$"})
        return bool(found)


@contextmanager
def scene() -> Iterator[Scene]:
    """A scene; at the end nothing is left of it."""
    engine = docker.from_env()
    deployment = f"p-{uuid.uuid4().hex[:8]}"
    data_dir = Path(tempfile.mkdtemp(prefix="berth-"))
    stranger = f"repo-{uuid.uuid4().hex[:16]}.{deployment}"
    image = str(engine.images.get(IMAGE).id)
    try:
        engine.containers.create(IMAGE, name=stranger, labels={"berth.deployment": "other"})
        with running_proxy(data_dir, deployment) as proxy:
            made = Scene(engine, proxy, data_dir, deployment, image, stranger)
            _furnish(made)
            yield made
    finally:
        for container in engine.containers.list(all=True, filters={"name": deployment}):
            container.remove(force=True)
        for volume in engine.volumes.list(filters={"name": deployment}):
            volume.remove()
        engine.close()
        shutil.rmtree(data_dir)


def _furnish(made: Scene) -> None:
    (made.sockets / made.ours).mkdir(parents=True)
    (made.sockets / "hosts").write_text("127.0.0.1 localhost\n")
    said = made.create(made.creation())
    assert said.status == 201, said
