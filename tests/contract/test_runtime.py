"""What every runtime does, shown on the real ones."""

import asyncio
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from tests.support.runtimes import (
    LIMITS,
    MIB,
    STAND_IN,
    Bench,
    inside,
    new_spec,
    require,
    until,
)

from orchestrator.domain.container import ContainerState, Limits, Reuse
from orchestrator.errors import ContainerNotFound, ContainerStartFailed
from orchestrator.ports import Runtime

WRITE = "open('/workspace/kept', 'w').write('work')"
READ = "print(open('/workspace/kept').read(), end='')"


def stand_in_after(program: str) -> tuple[str, ...]:
    """The command of a stand-in that runs something before it listens."""
    return (*STAND_IN[:-1], program + STAND_IN[-1])


async def require_limit(runtime: Runtime, limit: str) -> None:
    enforced = (await runtime.info()).enforced
    require(None if limit in enforced else f"this machine does not enforce the limit {limit}")


async def is_in_state(runtime: Runtime, name: str, state: ContainerState) -> bool:
    found = await runtime.poll(name)
    return found is not None and found.state is state


async def test_ensure_makes_a_container_whose_real_worker_answers(bench: Bench) -> None:
    runtime, spec = bench.make(agent_command=None), new_spec()
    container = await runtime.ensure(spec)
    assert (container.name, container.workspace_id) == (spec.name, spec.workspace_id)
    assert (container.how, container.state) == (Reuse.CREATE, ContainerState.RUNNING)
    assert container.runtime == bench.kind
    transport = httpx2.AsyncHTTPTransport(uds=str(container.endpoint.uds))
    async with httpx2.AsyncClient(transport=transport, base_url="http://worker") as client:
        answer = await client.get("/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"


async def test_ensure_reuses_a_running_container(bench: Bench) -> None:
    runtime, spec = bench.make(), new_spec()
    first = await runtime.ensure(spec)
    again = await runtime.ensure(spec)
    assert again == replace(first, how=Reuse.REUSE)
    assert await runtime.poll(spec.name) == again
    assert await runtime.list() == [again]


async def test_two_calls_at_once_make_one_container(bench: Bench) -> None:
    runtime, spec = bench.make(), new_spec()
    both = await asyncio.gather(runtime.ensure(spec), runtime.ensure(spec))
    assert sorted(container.how for container in both) == [Reuse.CREATE, Reuse.REUSE]
    assert both[0].created_at == both[1].created_at
    assert len(await runtime.list()) == 1


async def test_six_containers_start_in_parallel(bench: Bench) -> None:
    runtime, specs = bench.make(), [new_spec() for _ in range(6)]
    containers = await asyncio.gather(*(runtime.ensure(spec) for spec in specs))
    assert [container.name for container in containers] == [spec.name for spec in specs]
    said = await asyncio.gather(*(inside(container, "print(6 * 7)") for container in containers))
    assert {one.out for one in said} == {"42\n"}


async def test_stop_keeps_the_work_and_ensure_brings_it_back(bench: Bench) -> None:
    runtime, spec = bench.make(), new_spec()
    first = await runtime.ensure(spec)
    assert (await inside(first, WRITE)).code == 0
    await runtime.stop(spec.name)
    stopped = await runtime.poll(spec.name)
    assert stopped is not None
    assert stopped.state is ContainerState.STOPPED
    again = await runtime.ensure(spec)
    assert (again.how, again.created_at) == (Reuse.START, first.created_at)
    assert (await inside(again, READ)).out == "work"


async def test_a_reboot_that_empties_the_place_of_sockets_costs_nothing(bench: Bench) -> None:
    runtime, spec = bench.make(), new_spec()
    container = await runtime.ensure(spec)
    await inside(container, "open('/workspace/kept', 'w').write('work')")
    await runtime.stop(spec.name)
    assert container.endpoint.uds is not None
    shutil.rmtree(container.endpoint.uds.parent.parent)
    again = await runtime.ensure(spec)
    assert again.how is Reuse.START
    assert (await inside(again, "print(open('/workspace/kept').read())")).out == "work\n"


async def test_stop_ends_a_worker_that_ignores_it(bench: Bench) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    runtime, spec = bench.make(agent_command=stand_in_after(deaf)), new_spec()
    await runtime.ensure(spec)
    await runtime.stop(spec.name)
    assert await is_in_state(runtime, spec.name, ContainerState.STOPPED)


async def test_stop_and_remove_of_nothing_succeed(bench: Bench) -> None:
    runtime, spec = bench.make(), new_spec()
    await runtime.stop(spec.name)
    await runtime.remove(spec.name)
    assert await runtime.poll(spec.name) is None


async def test_remove_leaves_nothing(bench: Bench) -> None:
    runtime, spec = bench.make(), new_spec()
    container = await runtime.ensure(spec)
    stubborn = "import os; os.makedirs('/workspace/a/b'); open('/workspace/a/b/c', 'w').close(); "
    await inside(container, stubborn + "os.chmod('/workspace/a/b', 0); os.chmod('/workspace/a', 0)")
    assert bench.has_leftovers(spec.name)
    await runtime.remove(spec.name)
    await runtime.remove(spec.name)
    assert await runtime.poll(spec.name) is None
    assert await runtime.list() == []
    assert not bench.has_leftovers(spec.name)
    assert (await inside(await runtime.ensure(spec), "import os; print(os.listdir('.'))")).out == (
        "[]\n"
    )


async def test_a_killed_worker_is_noticed_and_replaced(bench: Bench) -> None:
    runtime, spec = bench.make(), new_spec()
    await inside(await runtime.ensure(spec), WRITE)
    (await bench.worker(spec.name)).send(signal.SIGKILL)
    await until(lambda: is_in_state(runtime, spec.name, ContainerState.STOPPED))
    again = await runtime.ensure(spec)
    assert again.how is Reuse.START
    assert (await inside(again, READ)).out == "work"


async def test_a_worker_that_hangs_is_replaced(bench: Bench) -> None:
    runtime, spec = bench.make(start_timeout_seconds=3), new_spec()
    await inside(await runtime.ensure(spec), WRITE)
    (await bench.worker(spec.name)).send(signal.SIGSTOP)
    again = await runtime.ensure(spec)
    assert again.how is Reuse.RECREATE
    assert (await inside(again, READ)).out == "work"


async def test_other_limits_make_a_new_container_with_the_same_work(bench: Bench) -> None:
    runtime, spec = bench.make(), new_spec()
    first = await runtime.ensure(spec)
    await inside(first, WRITE)
    limits = replace(LIMITS, memory_bytes=768 * MIB)
    again = await runtime.ensure(replace(spec, limits=limits))
    assert again.how is Reuse.RECREATE
    assert again.fingerprint != first.fingerprint
    assert (await inside(again, READ)).out == "work"


async def test_a_later_orchestrator_finds_and_stops_containers(bench: Bench) -> None:
    spec = new_spec()
    before = bench.make()
    first = await before.ensure(spec)
    await before.close()
    later = bench.make()
    assert await later.list() == [replace(first, how=Reuse.REUSE)]
    assert (await later.ensure(spec)).how is Reuse.REUSE
    await later.stop(spec.name)
    assert await is_in_state(later, spec.name, ContainerState.STOPPED)


async def test_deployments_do_not_see_each_other(bench: Bench) -> None:
    ours, theirs = bench.make(), bench.make(deployment=f"{bench.deployment}-2")
    spec = new_spec()
    mine = await ours.ensure(spec)
    assert await theirs.poll(spec.name) is None
    assert await theirs.list() == []
    await theirs.remove(spec.name)
    other = await theirs.ensure(spec)
    assert other.endpoint != mine.endpoint
    await theirs.stop(spec.name)
    assert await is_in_state(ours, spec.name, ContainerState.RUNNING)
    assert [container.name for container in await ours.list()] == [spec.name]


async def test_list_is_sorted_and_has_stopped_containers(bench: Bench) -> None:
    runtime = bench.make()
    specs = [new_spec() for _ in range(3)]
    await asyncio.gather(*(runtime.ensure(spec) for spec in specs))
    await runtime.stop(specs[0].name)
    listed = await runtime.list()
    assert [container.name for container in listed] == sorted(spec.name for spec in specs)
    assert {
        container.name for container in listed if container.state is ContainerState.STOPPED
    } == {specs[0].name}


async def test_logs_are_the_last_lines(bench: Bench) -> None:
    chatty = "for number in range(5000): print('line', number)\n"
    runtime, spec = bench.make(agent_command=stand_in_after(chatty)), new_spec()
    await runtime.ensure(spec)
    expected = "line 4998\nline 4999\nstand-in is listening\n"

    async def is_written() -> bool:
        return await runtime.logs(spec.name, 3) == expected

    await until(is_written)
    with pytest.raises(ContainerNotFound):
        await runtime.logs("repo-0000000000000000", 3)


async def test_a_worker_that_cannot_start_leaves_nothing(bench: Bench) -> None:
    command = ("python3", "-c", "raise SystemExit('no configuration found')")
    runtime, spec = bench.make(agent_command=command), new_spec()
    with pytest.raises(ContainerStartFailed, match=r"no configuration found$") as failed:
        await runtime.ensure(spec)
    assert spec.name in failed.value.detail
    assert await runtime.poll(spec.name) is None
    assert not bench.has_leftovers(spec.name)


async def test_a_program_that_does_not_exist_leaves_nothing(bench: Bench) -> None:
    runtime, spec = bench.make(agent_command=("/no/such/program",)), new_spec()
    with pytest.raises(ContainerStartFailed, match="/no/such/program"):
        await runtime.ensure(spec)
    assert not bench.has_leftovers(spec.name)


async def test_a_worker_that_never_answers_is_given_up_in_time(bench: Bench) -> None:
    command = ("python3", "-uc", "import time; print('still thinking'); time.sleep(600)")
    runtime = bench.make(agent_command=command, start_timeout_seconds=1.5)
    with pytest.raises(ContainerStartFailed, match=r"(?s)within 1\.5 s.*still thinking$"):
        await asyncio.wait_for(runtime.ensure(new_spec()), 15)
    assert await runtime.list() == []


async def test_a_failed_start_keeps_earlier_work(bench: Bench) -> None:
    good, spec = bench.make(), new_spec()
    await inside(await good.ensure(spec), WRITE)
    await good.stop(spec.name)
    bad = bench.make(agent_command=("python3", "-c", "raise SystemExit(3)"))
    other_limits = replace(LIMITS, pids=LIMITS.pids + 1)
    with pytest.raises(ContainerStartFailed):
        await bad.ensure(replace(spec, limits=other_limits))
    assert await bad.poll(spec.name) is None
    again = await good.ensure(spec)
    assert again.how is Reuse.CREATE
    assert (await inside(again, READ)).out == "work"


async def test_there_is_no_network_but_loopback(bench: Bench) -> None:
    container = await bench.make().ensure(new_spec())
    said = await inside(
        container,
        "import socket; print(sorted(n for _, n in socket.if_nameindex()), "
        "socket.gethostbyname('localhost'))\n"
        "server = socket.create_server(('localhost', 0))\n"
        "socket.create_connection(server.getsockname(), 2)\n"
        "try: socket.create_connection(('169.254.169.254', 80), 2)\n"
        "except OSError as error: print('metadata:', error.strerror)",
    )
    assert said.out == "['lo'] 127.0.0.1\nmetadata: Network is unreachable\n", said


async def test_the_user_is_nobody_inside_and_outside(bench: Bench) -> None:
    spec = new_spec()
    container = await bench.make().ensure(spec)
    said = await inside(
        container,
        "import os; print(os.getuid(), os.getgroups())\n"
        "print([l.split()[1] for l in open('/proc/self/status') "
        "if l.startswith(('CapEff', 'CapBnd', 'NoNewPrivs'))])",
    )
    uid, groups = said.out.splitlines()[0].split(" ", 1)
    assert int(uid) != 0
    assert groups in (f"[{uid}]", "[]")
    assert said.out.splitlines()[1] == "['0000000000000000', '0000000000000000', '1']"
    worker = await bench.worker(spec.name)
    assert Path(f"/proc/{worker.pid}").stat().st_uid != 0


async def test_nothing_of_the_machine_is_visible(bench: Bench) -> None:
    runtime = bench.make()
    other, spec = new_spec(), new_spec()
    await inside(await runtime.ensure(other), "open('/workspace/secret', 'w').write('x')")
    marker = bench.data_dir / "marker"
    marker.write_text("of the machine")
    os.environ["BERTH_TEST_SECRET"] = "do-not-tell"
    try:
        container = await runtime.ensure(spec)
    finally:
        del os.environ["BERTH_TEST_SECRET"]
    said = await inside(
        container,
        "import os, pathlib\n"
        f"print(os.path.exists({str(marker)!r}), os.path.exists({str(bench.data_dir)!r}))\n"
        "def names(p):\n"
        "    try: return os.listdir(p)\n"
        "    except OSError: return []\n"
        "print(names('/root'), names('/home'), names('/home/berth'))\n"
        "print(os.listdir('/workspace'), os.listdir('/run/berth'))\n"
        "print('do-not-tell' in str(os.environ), len([p for p in os.listdir('/proc') "
        "if p.isdigit()]) < 6)\n"
        "print(os.path.exists('/etc/shadow') and os.access('/etc/shadow', os.R_OK))",
    )
    assert said.out.splitlines() == [
        "False False",
        "[] ['berth'] []",
        "[] ['worker.sock']",
        "False True",
        "False",
    ], said


async def test_only_the_workspace_and_temporary_places_are_writable(bench: Bench) -> None:
    container = await bench.make().ensure(new_spec())
    places = ["/", "/usr", "/etc", "/opt", "/var", "/workspace", "/tmp", "/home/berth", "/dev/shm"]
    said = await inside(
        container,
        "import tempfile\n"
        f"for place in {places!r}:\n"
        "    try: tempfile.TemporaryFile(dir=place).close()\n"
        "    except OSError: continue\n"
        "    print(place)",
    )
    assert said.out.split() == ["/workspace", "/tmp", "/home/berth", "/dev/shm"]


async def test_privileged_calls_are_refused(bench: Bench) -> None:
    container = await bench.make().ensure(new_spec())
    said = await inside(
        container,
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x20000\n"
        "print(libc.unshare(CLONE_NEWUSER), libc.unshare(CLONE_NEWNS))\n"
        "print(libc.mount(b'x', b'/tmp', b'tmpfs', 0, None), libc.sethostname(b'x', 1))",
    )
    assert said.out.split() == ["-1"] * 4


async def test_a_child_that_eats_memory_dies_and_the_worker_lives(bench: Bench) -> None:
    spec = new_spec(Limits(memory_bytes=128 * MIB, cpus=2.0, pids=64))
    runtime = bench.make()
    await require_limit(runtime, "memory")
    container = await runtime.ensure(spec)
    said = await inside(container, "x = bytearray(400 << 20); print('allowed')")
    assert said.code == -signal.SIGKILL
    assert said.out == ""
    assert (await inside(container, "print('alive')")).out == "alive\n"
    assert (await runtime.ensure(spec)).how is Reuse.REUSE


async def test_a_fork_bomb_stops_at_the_limit(bench: Bench) -> None:
    spec = new_spec(Limits(memory_bytes=256 * MIB, cpus=2.0, pids=40))
    runtime = bench.make()
    await require_limit(runtime, "pids")
    container = await runtime.ensure(spec)
    said = await inside(
        container,
        "import os, signal, time\nchildren = []\n"
        "try:\n"
        "    while len(children) < 200:\n"
        "        pid = os.fork()\n"
        "        if pid == 0: time.sleep(60); os._exit(0)\n"
        "        children.append(pid)\n"
        "except BlockingIOError: print(len(children) < 40)\n"
        "for pid in children: os.kill(pid, signal.SIGKILL)",
    )
    assert said.out == "True\n"
    assert (await inside(container, "print('alive')")).out == "alive\n"


async def test_the_processor_limit_holds(bench: Bench) -> None:
    spec = new_spec(Limits(memory_bytes=256 * MIB, cpus=0.25, pids=64))
    runtime = bench.make()
    await require_limit(runtime, "cpu")
    container = await runtime.ensure(spec)
    said = await inside(
        container,
        "import time\nstart, used = time.monotonic(), time.process_time()\n"
        "while time.monotonic() - start < 1.5: pass\n"
        "print((time.process_time() - used) / 1.5)",
    )
    assert float(said.out) < 0.4


async def test_info_names_every_limit_once(bench: Bench) -> None:
    info = await bench.make().info()
    assert info.name == bench.kind
    enforced, missing = (
        [each.partition(" (")[0] for each in limits]
        for limits in (info.enforced, info.not_enforced)
    )
    assert {"memory", "pids", "cpu", "disk", "seccomp", "network"} <= {*enforced, *missing}
    assert len({*enforced, *missing}) == len(enforced) + len(missing)
