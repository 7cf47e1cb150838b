"""The Docker runtime behind the engine's proxy: nothing it asks for is refused.

The whole contract suite runs so with `-m long`; here are the calls that it consists of.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import docker
import pytest
from tests.support.engine_proxy import ProxiedBench, running_proxy
from tests.support.runtimes import IMAGE, inside, new_spec, problem_with, require

from orchestrator.domain.container import ContainerSpec, ContainerState, Reuse
from orchestrator.domain.workspace import POOL_PREFIX
from orchestrator.errors import ContainerStartFailed, RuntimeFailure, RuntimeUnavailable
from orchestrator.runtimes.docker import DockerRuntime
from orchestrator.settings import Transport

pytestmark = pytest.mark.docker


@pytest.fixture
async def proxied() -> AsyncIterator[ProxiedBench]:
    require(await problem_with("docker"))
    bench = ProxiedBench()
    yield bench
    await bench.clean()


async def test_a_containers_life(proxied: ProxiedBench) -> None:
    runtime, spec = proxied.make(), new_spec()
    await runtime.remove(spec.name)
    container = await runtime.ensure(spec)
    assert container.how is Reuse.CREATE
    await inside(container, "open('/workspace/work', 'w').write('kept')")
    assert (await runtime.ensure(spec)).how is Reuse.REUSE
    await runtime.pause(spec.name)
    assert [each.state for each in await runtime.list()] == [ContainerState.PAUSED]
    assert (await runtime.ensure(spec)).how is Reuse.RESUME
    await runtime.stop(spec.name)
    again = await runtime.ensure(spec)
    assert again.how is Reuse.START
    assert (await inside(again, "print(open('/workspace/work').read())")).out == "kept\n"
    assert isinstance(await runtime.logs(spec.name, 5), str)
    assert await runtime.disk_use(spec.name)
    assert await runtime.tidy([spec.name]) == []
    assert (await runtime.info()).name == "docker"
    await runtime.remove(spec.name)
    assert not proxied.has_leftovers(spec.name)
    assert proxied.proxy(proxied.deployment).refusals() == []


async def test_a_container_from_the_pool(proxied: ProxiedBench) -> None:
    runtime, spec = proxied.make(), new_spec()
    pooled = ContainerSpec(f"{POOL_PREFIX}{'0' * 16}", "", spec.limits)
    await runtime.ensure(pooled)
    assert await runtime.bind(pooled.name, spec)
    assert (await runtime.ensure(spec)).how is Reuse.REUSE
    await runtime.remove(spec.name)
    assert proxied.rests() == []
    assert proxied.proxy(proxied.deployment).refusals() == []


async def test_a_container_with_a_network(proxied: ProxiedBench) -> None:
    runtime, spec = proxied.make(transport=Transport.TCP), new_spec()
    container = await runtime.ensure(spec)
    assert (await inside(container, "print(2 + 2)")).out == "4\n"
    assert proxied.proxy(proxied.deployment, Transport.TCP).refusals() == []


async def test_a_container_that_is_not_ours_is_left_alone(proxied: ProxiedBench) -> None:
    runtime, spec = proxied.make(), new_spec()
    engine = docker.from_env()
    foreign = engine.containers.create(IMAGE, name=f"{spec.name}.{proxied.deployment}")
    try:
        with pytest.raises(ContainerStartFailed, match="BERTH_DEPLOYMENT"):
            await runtime.ensure(spec)
        await runtime.remove(spec.name)
        foreign.reload()
        assert foreign.status == "created"
    finally:
        foreign.remove(force=True)
        engine.close()


async def test_a_refusal_reaches_who_asked(
    passable_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(await problem_with("docker"))
    with running_proxy(passable_directory, "theirs") as proxy:
        monkeypatch.setenv("DOCKER_HOST", proxy.address)
        for image, deployment, reason in (
            ("other:1", "theirs", "The image 'other:1' is not one of the deployment's"),
            (IMAGE, "ours", "is not the name of a container of theirs"),
        ):
            runtime = DockerRuntime(passable_directory, image=image, deployment=deployment)
            with pytest.raises(RuntimeFailure, match=reason):
                await runtime.ensure(new_spec())
            await runtime.close()


async def test_without_an_engine_everything_says_so(
    passable_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = passable_directory / "none.sock"
    with running_proxy(passable_directory, "default", engine=engine) as proxy:
        monkeypatch.setenv("DOCKER_HOST", proxy.address)
        runtime, spec = DockerRuntime(passable_directory, image=IMAGE), new_spec()
        for attempt in (runtime.ensure(spec), runtime.poll(spec.name), runtime.list()):
            with pytest.raises(RuntimeUnavailable, match="does not answer"):
                await attempt
        await runtime.close()
        assert set(proxy.refusals()) == {
            "The Docker engine does not answer its proxy (No such file or directory)."
        }
