"""What only the Docker runtime does."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container as EngineContainer
from tests.support.runtimes import IMAGE, STAND_IN, Bench, inside, new_spec, problem_with, require

from orchestrator.domain.container import Reuse
from orchestrator.errors import ContainerStartFailed, RuntimeUnavailable
from orchestrator.runtimes.docker import DockerRuntime
from orchestrator.runtimes.docker_engine import docker_problem
from orchestrator.settings import Transport

pytestmark = pytest.mark.docker


@pytest.fixture
async def docker_bench() -> AsyncIterator[Bench]:
    require(await problem_with("docker"))
    bench = Bench("docker")
    yield bench
    await bench.clean()


@pytest.fixture
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


def engine_container(engine: docker.DockerClient, bench: Bench, name: str) -> EngineContainer:
    return engine.containers.get(f"{name}.{bench.deployment}")


async def test_tcp_reaches_the_worker_and_nothing_reaches_out(docker_bench: Bench) -> None:
    runtime, spec = docker_bench.make(transport=Transport.TCP), new_spec()
    container = await runtime.ensure(spec)
    assert container.endpoint.uds is None
    assert container.endpoint.url.startswith("http://127.0.0.1:")
    assert (await inside(container, "print(2 + 2)")).out == "4\n"
    assert await runtime.list() == [await runtime.poll(spec.name)] == [await runtime.ensure(spec)]
    said = await inside(
        container,
        "import socket\n"
        "try: socket.create_connection(('192.0.2.1', 80), 1); print('connected')\n"
        "except OSError: print('refused')",
    )
    assert said.out == "refused\n"
    await runtime.stop(spec.name)
    assert (await runtime.ensure(spec)).how is Reuse.START
    assert any("network" in limit for limit in (await runtime.info()).not_enforced)


async def test_containers_with_tcp_do_not_reach_each_other(
    docker_bench: Bench, engine: docker.DockerClient
) -> None:
    runtime, one, other = docker_bench.make(transport=Transport.TCP), new_spec(), new_spec()
    container = await runtime.ensure(one)
    await runtime.ensure(other)
    networks = engine_container(engine, docker_bench, other.name).attrs["NetworkSettings"]
    (network,) = networks["Networks"].values()
    said = await inside(
        container,
        f"import socket\ntry: socket.create_connection(({network['IPAddress']!r}, 8000), 1)\n"
        "except OSError: print('refused')",
    )
    assert said.out == "refused\n"


async def test_another_transport_makes_a_new_container(docker_bench: Bench) -> None:
    spec = new_spec()
    await docker_bench.make().ensure(spec)
    again = await docker_bench.make(transport=Transport.TCP).ensure(spec)
    assert again.how is Reuse.RECREATE
    assert (await inside(again, "print('reached')")).out == "reached\n"


async def test_a_container_that_is_not_ours_is_left_alone(
    docker_bench: Bench, engine: docker.DockerClient
) -> None:
    runtime, spec = docker_bench.make(), new_spec()
    foreign = engine.containers.create(IMAGE, name=f"{spec.name}.{docker_bench.deployment}")
    try:
        with pytest.raises(ContainerStartFailed, match="BERTH_DEPLOYMENT"):
            await runtime.ensure(spec)
        await runtime.stop(spec.name)
        await runtime.remove(spec.name)
        assert await runtime.poll(spec.name) is None
        foreign.reload()
        assert foreign.status == "created"
    finally:
        foreign.remove(force=True)


async def test_two_orchestrators_at_once_make_one_container(docker_bench: Bench) -> None:
    one, other, spec = docker_bench.make(), docker_bench.make(), new_spec()
    both = await asyncio.gather(one.ensure(spec), other.ensure(spec))
    assert both[0].created_at == both[1].created_at
    assert (await inside(both[1], "print('alive')")).out == "alive\n"


async def test_labels_tell_what_a_container_is(
    docker_bench: Bench, engine: docker.DockerClient
) -> None:
    spec = new_spec()
    container = await docker_bench.make().ensure(spec)
    labels = engine_container(engine, docker_bench, spec.name).labels
    assert labels["berth.deployment"] == docker_bench.deployment
    assert labels["berth.workspace"] == spec.workspace_id
    assert labels["berth.fingerprint"] == container.fingerprint
    assert labels["berth.test"] == "yes"
    assert "berth.version" in labels


async def test_a_missing_image_is_named_with_a_remedy(docker_bench: Bench) -> None:
    image = "berth-agent:no-such-version"
    problem = await docker_problem(image)
    assert problem is not None
    assert image in problem
    assert "scripts/images" in problem
    runtime = DockerRuntime(docker_bench.data_dir, image=image)
    with pytest.raises(RuntimeUnavailable, match="scripts/images"):
        await runtime.ensure(new_spec())
    await runtime.close()


async def test_a_runtime_that_the_engine_lacks_is_named_with_a_remedy() -> None:
    require(await problem_with("docker"))
    assert await docker_problem(IMAGE, "runc") is None
    problem = await docker_problem(IMAGE, "no-such-runtime")
    assert problem is not None
    assert "has no runtime no-such-runtime" in problem
    assert "runc" in problem
    assert "BERTH_DOCKER_RUNTIME" in problem


async def test_without_an_engine_everything_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    problem = await docker_problem(IMAGE)
    assert problem is not None
    assert "does not answer" in problem
    assert "setup-docker" in problem
    runtime, spec = DockerRuntime(tmp_path, image=IMAGE), new_spec()
    for attempt in (
        runtime.ensure(spec),
        runtime.poll(spec.name),
        runtime.stop(spec.name),
        runtime.remove(spec.name),
        runtime.list(),
        runtime.logs(spec.name, 1),
        runtime.info(),
    ):
        with pytest.raises(RuntimeUnavailable, match="does not answer"):
            await attempt
    await runtime.close()


async def test_an_engine_that_hangs_is_given_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def swallow(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    socket = tmp_path / "hangs.sock"
    server = await asyncio.start_unix_server(swallow, str(socket))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    async with server, asyncio.timeout(60):
        problem = await docker_problem(IMAGE)
    assert problem is not None
    assert "does not answer" in problem


async def test_another_orchestrator_makes_the_container_its_own_and_keeps_the_work(
    docker_bench: Bench, passable_directory: Path, engine: docker.DockerClient
) -> None:
    spec, theirs = new_spec(), docker_bench.make()
    ours = DockerRuntime(
        passable_directory,
        image=IMAGE,
        deployment=docker_bench.deployment,
        start_timeout_seconds=20.0,
        agent_command=STAND_IN,
    )
    try:
        before = await theirs.ensure(spec)
        await inside(before, "open('/workspace/work', 'w').write('kept')")
        container = await ours.ensure(spec)
        assert container.how is Reuse.RECREATE
        assert (await inside(container, "print(open('/workspace/work').read())")).out == "kept\n"
        assert (await ours.ensure(spec)).how is Reuse.REUSE
        assert [each.name for each in await theirs.list()] == [spec.name]
        back = await theirs.ensure(spec)
        assert (await inside(back, "print(open('/workspace/work').read())")).out == "kept\n"
    finally:
        await ours.remove(spec.name)
        await ours.close()
