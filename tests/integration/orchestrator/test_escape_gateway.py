"""Attempts to get out of a container by its gateway, on every runtime, with real workers."""

from contextlib import AsyncExitStack

from tests.support.egress import Names, gateway
from tests.support.escape import TASK, Cell, bystander, cell
from tests.support.runtimes import Bench

from orchestrator.domain.events import NewEvent
from orchestrator.gateway.egress import EgressGateway

PRELUDE = """
import base64
from urllib.parse import urlsplit
proxy = urlsplit(os.environ.get("HTTPS_PROXY", "http://a:b@127.0.0.1:9"))
def ask(target, method="CONNECT", user=proxy.username, password=proxy.password):
    given = base64.b64encode(f"{user}:{password}".encode()).decode()
    with socket.create_connection((proxy.hostname, proxy.port), 10) as line:
        line.sendall(f"{method} {target} HTTP/1.1\\r\\nHost: {target}\\r\\n"
                     f"Proxy-Authorization: Basic {given}\\r\\n\\r\\n".encode())
        return line.recv(4096).split(b" ")[1].decode()
"""
OWN_DOOR = "/run/berth/egress.sock"


async def admit(stack: AsyncExitStack, way: EgressGateway, inmate: Cell) -> list[NewEvent]:
    """Let the container's task out; what it is told about it."""
    events: list[NewEvent] = []

    async def report(event: NewEvent) -> None:
        events.append(event)

    admission = await stack.enter_async_context(way.admit(TASK, inmate.container, report))
    assert admission.egress_pass is not None
    await inmate.worker.let_out(TASK, admission.egress_pass)
    return events


async def asked(inmate: Cell, *targets: str) -> list[str]:
    """The status of the answer for each target."""
    told = await inmate.attempt(f"{PRELUDE}\nfor each in {targets!r}: print(ask(each))")
    return told.split("\n")


async def test_only_what_is_allowed_is_reached_and_only_where_it_was_checked(
    bench: Bench,
) -> None:
    async with (
        cell(bench) as inmate,
        bystander(bench.data_dir / "h") as host,
        AsyncExitStack() as stack,
    ):
        at = host.port
        names = Names(
            {
                # What is allowed to be here is not therefore allowed to be metadata next time.
                "own.test": [["127.0.0.1"], ["169.254.169.254"]],
                "rebound.test": [["127.0.0.1"]],
                "mapped.test": [["::ffff:127.0.0.1"]],
                "half.test": [["8.8.8.8", "10.0.0.1"]],
            }
        )
        rules = [f"{name}:{at}" for name in names.answers]
        way = gateway(*rules, resolver=names, allow_hosts=["own.test"])
        events = await admit(stack, way, inmate)

        assert await asked(inmate, f"own.test:{at}") == ["200"]
        assert host.visits == 1
        refused = [
            *(f"{name}:{at}" for name in names.answers),
            "own.test:22",
            "elsewhere.test:443",
            f"own.test.:{at}",
            f"sub.own.test:{at}",
        ]
        assert await asked(inmate, *refused) == ["403"] * len(refused)
        addresses = ["127.0.0.1", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "localhost"]
        assert await asked(inmate, *(f"{each}:{at}" for each in addresses)) == ["403"] * 5
        odd = ["2130706433", "0x7f.1", "127.1", "own.test@127.0.0.1", "0177.0.0.1", ""]
        assert set(await asked(inmate, *(f"{each}:{at}" for each in odd))) <= {"400", "403"}
        plain = f"http://rebound.test:{at}/"
        program = f"print(ask({plain!r}, 'GET'), ask('/run/docker.sock', 'GET'))"
        assert await inmate.attempt(f"{PRELUDE}\n{program}") == "403 400"
        assert host.visits == 1
        assert {event.data["what"] for event in events} >= {"reached", "refused"}

        names.answers["own.test"] = [["127.0.0.1"]]
        assert await asked(inmate, f"own.test:{at}") == ["200"]
        await stack.aclose()  # no task is at work any more
        assert await asked(inmate, f"own.test:{at}") == ["502"]
        assert host.visits == 2


async def test_another_workspace_cannot_be_posed_as(bench: Bench) -> None:
    async with (
        cell(bench) as inmate,
        cell(bench, inmate.runtime) as neighbour,
        bystander(bench.data_dir / "h") as host,
        AsyncExitStack() as stack,
    ):
        at = f"own.test:{host.port}"
        names = Names({"own.test": [["127.0.0.1"]]})
        open_way = gateway(at, resolver=names, allow_hosts=["own.test"])
        await admit(stack, open_way, neighbour)
        shut = gateway(resolver=names)
        await admit(stack, shut, inmate)
        told = await neighbour.attempt(f"{PRELUDE}\nprint(proxy.password, ask({at!r}))")
        password, status = told.split()
        assert status == "200"
        program = f"print(ask({at!r}), ask({at!r}, password={password!r}))"
        assert await inmate.attempt(f"{PRELUDE}\n{program}") == "403 407"
        assert host.visits == 1


async def test_what_is_put_in_the_way_of_the_door_is_not_followed(bench: Bench) -> None:
    """The orchestrator puts its socket and certificates where the container can write."""
    async with cell(bench) as inmate:
        theirs = bench.data_dir / "theirs"
        theirs.write_text("as it was")
        await inmate.call("bash", command=f"ln -s {theirs} {OWN_DOOR}")
        async with AsyncExitStack() as stack:
            await admit(stack, gateway(), inmate)
            assert await asked(inmate, "own.test:80") == ["403"]
        assert theirs.read_text() == "as it was"
