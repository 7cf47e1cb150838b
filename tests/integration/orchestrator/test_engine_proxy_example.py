"""The example in docs/operations.md, with the code of this checkout in the image."""

import os
import re
import shlex
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest
from docker import APIClient
from docker.errors import ImageNotFound
from tests.support.engine_scene import tell
from tests.support.runtimes import IMAGE, STAND_IN, inside, new_spec, until

import orchestrator
from orchestrator.runtimes.docker import DockerRuntime

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
]
ROOT = Path(__file__).parents[3]
HERE = "/srv/berth"
IN_IMAGE = "/opt/berth/app/orchestrator"
PING = b"GET /version HTTP/1.1\r\nHost: docker\r\n\r\n"


def example() -> list[list[str]]:
    """The commands of the example."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = text.partition("## The Docker engine behind a proxy")[2]
    found = re.search(r"```bash\n(.*?)```", section, re.DOTALL)
    assert found is not None
    lines = found[1].replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line]


@pytest.fixture
def place(passable_directory: Path) -> Iterator[tuple[Path, str]]:
    """Carries the example out in another place; the directory and the proxy's name."""
    client = docker.from_env()
    image = next(part for part in example()[-1] if part.startswith("berth-orchestrator:"))
    try:
        client.images.get(image)
    except ImageNotFound:
        pytest.skip(f"there is no image {image}; build it with ./scripts/images")
    name = f"berth-test-{uuid.uuid4().hex[:8]}"
    other = {
        "berth-engine-proxy": name,
        "65532:65532": "0:0",
        "65532": "0",
        "berth-agent:0.1.0": IMAGE,
    }
    code = ["-v", f"{Path(orchestrator.__path__[0])}:{IN_IMAGE}:ro"]
    try:
        for command in example():
            changed = [
                other.get(part, part).replace(HERE, str(passable_directory)) for part in command
            ]
            if changed[:2] == ["docker", "run"]:
                changed[2:2] = code
            subprocess.run(changed, check=True, capture_output=True)
        yield passable_directory, name
    finally:
        for container in client.containers.list(all=True, filters={"name": name}):
            container.remove(force=True)
        client.close()
        subprocess.run(("umount", str(passable_directory / "data" / "run")), check=False)


async def test_it_works(place: tuple[Path, str]) -> None:
    directory, name = place
    data_dir, socket = directory / "data", directory / "engine" / "engine.sock"

    with closing(docker.from_env()) as client:
        await until(lambda: listens(client, name), 60)
        assert tell(socket, PING).status == 200
        await work(data_dir, socket)
        log = client.containers.get(name).logs().decode()
    assert log.splitlines() == [f"The engine's proxy listens on {socket}."]


async def listens(client: docker.DockerClient, name: str) -> bool:
    return "listens on" in client.containers.get(name).logs().decode()


async def work(data_dir: Path, socket: Path) -> None:
    """Make a container and remove it, as the orchestrator does."""
    runtime, spec = DockerRuntime(data_dir, image=IMAGE, agent_command=STAND_IN), new_spec()
    runtime._engine._client = APIClient(f"unix://{socket}", version="auto", max_pool_size=8)
    try:
        assert (await inside(await runtime.ensure(spec), "print(2 + 2)")).out == "4\n"
    finally:
        await runtime.remove(spec.name)
        await runtime.close()
