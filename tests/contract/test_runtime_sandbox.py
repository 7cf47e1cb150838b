"""What only the sandbox runtime does."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.runtimes import (
    LIMITS,
    SANDBOX_UID,
    STAND_IN,
    Bench,
    inside,
    new_spec,
    problem_with,
    require,
    until,
)

from orchestrator.domain.container import ContainerState, Reuse
from orchestrator.errors import RuntimeUnavailable
from orchestrator.runtimes.processes import process_of
from orchestrator.runtimes.sandbox import SandboxRuntime
from orchestrator.runtimes.sandbox_record import SandboxRecord

pytestmark = pytest.mark.sandbox

START_AND_DIE = """
import asyncio, os, pathlib, signal, sys
from orchestrator.domain.container import ContainerSpec, Limits
from orchestrator.runtimes.sandbox import SandboxRuntime
data_dir, deployment, name, stand_in = sys.argv[1:]
async def main():
    runtime = SandboxRuntime(
        pathlib.Path(data_dir), deployment=deployment, agent_command=("python3", "-c", stand_in)
    )
    await runtime.ensure(ContainerSpec(name, name[5:], Limits(2**29, 2.0, 128)))
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
BOMB = """
import os, signal, time
children = []
try:
    while len(children) < 200:
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        children.append(pid)
except BlockingIOError:
    print(len(children) < 128)
for pid in children:
    os.kill(pid, signal.SIGKILL)
"""
AS_ANOTHER_USER = """
import asyncio, pathlib, sys
bomb, data_dir, *sources = sys.argv[1:]
sys.path[:0] = sources
from tests.support.runtimes import STAND_IN, inside, new_spec
from orchestrator.runtimes.sandbox import SandboxRuntime
async def main():
    runtime = SandboxRuntime(pathlib.Path(data_dir), agent_command=STAND_IN)
    spec = new_spec()
    container = await runtime.ensure(spec)
    print((await inside(container, "import os; print(os.getuid())")).out, end="")
    print("pids" in (await runtime.info()).enforced)
    print((await inside(container, bomb)).out, end="")
    await runtime.remove(spec.name)
asyncio.run(main())
"""


@pytest.fixture
async def sandbox_bench() -> AsyncIterator[Bench]:
    require(await problem_with("sandbox"))
    bench = Bench("sandbox")
    yield bench
    await bench.clean()


def record_file(bench: Bench, name: str) -> Path:
    return bench.data_dir / "sandboxes" / f"{name}.{bench.deployment}" / "state.json"


async def test_a_sandbox_outlives_a_killed_orchestrator(sandbox_bench: Bench) -> None:
    spec = new_spec()
    dead = subprocess.run(
        [
            sys.executable,
            "-c",
            START_AND_DIE,
            str(sandbox_bench.data_dir),
            sandbox_bench.deployment,
            spec.name,
            STAND_IN[-1],
        ],
        timeout=60,
        check=False,
    )
    assert dead.returncode == -signal.SIGKILL
    runtime = sandbox_bench.make()
    found = await runtime.poll(spec.name)
    assert found is not None
    assert found.state is ContainerState.RUNNING
    assert (await inside(found, "print('alive')")).out == "alive\n"
    assert (await runtime.ensure(spec)).how is Reuse.REUSE


async def test_a_sandbox_that_cannot_be_recorded_ends_by_itself(
    sandbox_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def fail(self: SandboxRecord, file: Path) -> None:
        started.append(self.pid)
        raise KeyboardInterrupt(str(file))

    monkeypatch.setattr(SandboxRecord, "write", fail)
    runtime, spec = sandbox_bench.make(), new_spec()
    with pytest.raises(KeyboardInterrupt):
        await runtime.ensure(spec)

    async def is_gone() -> bool:
        process = process_of(started[0])
        return process is None or not process.is_alive()

    await until(is_gone)
    assert await runtime.list() == []
    await runtime.remove(spec.name)
    assert not sandbox_bench.has_leftovers(spec.name)


async def test_a_cancelled_start_leaves_nothing(sandbox_bench: Bench) -> None:
    command = ("python3", "-c", "import time; time.sleep(600)")
    runtime, spec = sandbox_bench.make(agent_command=command), new_spec()
    starting = asyncio.create_task(runtime.ensure(spec))

    async def is_recorded() -> bool:
        return await runtime.poll(spec.name) is not None

    await until(is_recorded)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert await runtime.poll(spec.name) is None
    assert not sandbox_bench.has_leftovers(spec.name)


async def test_an_unreadable_record_is_replaced_and_the_work_kept(sandbox_bench: Bench) -> None:
    runtime, spec = sandbox_bench.make(), new_spec()
    container = await runtime.ensure(spec)
    await inside(container, "open('kept', 'w').write('work')")
    await runtime.stop(spec.name)
    record_file(sandbox_bench, spec.name).write_text("{", encoding="utf-8")
    found = await runtime.poll(spec.name)
    assert found is not None
    assert found.state is ContainerState.BROKEN
    again = await runtime.ensure(spec)
    assert again.how is Reuse.RECREATE
    assert (await inside(again, "print(open('kept').read())")).out == "work\n"


async def test_a_process_that_took_over_the_number_is_left_alone(sandbox_bench: Bench) -> None:
    runtime, spec = sandbox_bench.make(), new_spec()
    await runtime.ensure(spec)
    await runtime.stop(spec.name)
    bystander = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        file = record_file(sandbox_bench, spec.name)
        record = SandboxRecord.read(file)
        assert record is not None
        record.model_copy(update={"pid": bystander.pid}).write(file)
        found = await runtime.poll(spec.name)
        assert found is not None
        assert found.state is ContainerState.STOPPED
        await runtime.remove(spec.name)
        assert bystander.returncode is None
    finally:
        bystander.kill()
        await bystander.wait()


async def test_a_chatty_worker_does_not_fill_the_disk(sandbox_bench: Bench) -> None:
    flood = "import os\nfor _ in range(8000): os.write(1, b'x' * 4095 + b'\\n')\n"
    command = (*STAND_IN[:-1], flood + STAND_IN[-1])
    runtime, spec = sandbox_bench.make(agent_command=command), new_spec()
    await runtime.ensure(spec)

    async def has_listened() -> bool:
        return "stand-in is listening" in await runtime.logs(spec.name, 5)

    await until(has_listened)
    logs = record_file(sandbox_bench, spec.name).parent.glob("worker.log*")
    assert sum(log.stat().st_size for log in logs) < 7 * 2**20


async def test_the_kernel_refuses_what_the_filter_names(sandbox_bench: Bench) -> None:
    runtime = sandbox_bench.make()
    require(None if "seccomp" in (await runtime.info()).enforced else "no filter for this machine")
    container = await runtime.ensure(new_spec())
    said = await inside(
        container,
        "import ctypes, errno, subprocess\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def refused(number, *arguments):\n"
        "    libc.syscall(number, *arguments)\n"
        "    return errno.errorcode[ctypes.get_errno()]\n"
        "print(refused(425, 1, 0), refused(435, 0, 0), refused(430, 0, 0))\n"
        "print(subprocess.run(['sh', '-c', 'echo fine'], capture_output=True).stdout)",
    )
    assert said.out.splitlines() == ["EPERM ENOSYS EPERM", "b'fine\\n'"]


async def test_processes_of_the_machine_are_out_of_reach(sandbox_bench: Bench) -> None:
    container = await sandbox_bench.make().ensure(new_spec())
    said = await inside(container, f"import os; os.kill({os.getpid()}, 0)")
    assert "ProcessLookupError" in said.err


async def test_a_deep_data_directory_works(sandbox_bench: Bench) -> None:
    deep = sandbox_bench.data_dir.joinpath(*["directory-with-a-long-name"] * 5)
    runtime = SandboxRuntime(deep, deployment=sandbox_bench.deployment, agent_command=STAND_IN)
    spec = new_spec()
    container = await runtime.ensure(spec)
    socket = Path(str(container.endpoint.uds))
    try:
        assert not socket.is_relative_to(deep)
        assert (await inside(container, "print('reached')")).out == "reached\n"
    finally:
        await runtime.remove(spec.name)
        shutil.rmtree(socket.parent.parent)


async def test_ordinary_users_get_sandboxes_too(
    passable_directory: Path, pytestconfig: pytest.Config
) -> None:
    require(await problem_with("sandbox"))
    python = Path("/usr/bin") / f"python{sys.version_info.major}.{sys.version_info.minor}"
    if os.geteuid() != 0 or not python.exists():
        pytest.skip("needs root, and a system Python of this version for another user")
    root = pytestconfig.rootpath
    sources = ["services/orchestrator/src", "services/agent/src", "mcp/src", "."]
    passable_directory.chmod(0o777)
    done = subprocess.run(
        [
            "setpriv",
            *("--reuid", "4321", "--regid", "4321", "--clear-groups"),
            *(str(python), "-c", AS_ANOTHER_USER, BOMB, str(passable_directory / "data")),
            *(str(root / source) for source in sources),
            sysconfig.get_paths()["purelib"],
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
        env={"PATH": os.defpath},
    )
    assert done.stdout.splitlines() == ["4321", "True", "True"], done.stderr


async def test_a_machine_without_bubblewrap_is_told_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.runtimes.bubblewrap.SEARCH_PATH", str(tmp_path))
    runtime = SandboxRuntime(tmp_path, uid=SANDBOX_UID)
    with pytest.raises(RuntimeUnavailable, match="package bubblewrap"):
        await runtime.ensure(new_spec(LIMITS))
    assert await runtime.list() == []
