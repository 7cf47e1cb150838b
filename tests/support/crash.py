"""One case of the crash sweep: a task, a kill at one moment, and what must be true afterwards."""

import asyncio
import json
import os
import signal
import stat
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
from tests.support.crash_play import LINES, Moment, Step, When, steps, turns
from tests.support.gated_model import Conversation, GatedModel
from tests.support.runtimes import until
from tests.support.service import Service
from tests.support.sleepers import is_sleeping, new_sleep, waking
from tests.support.tasks import begun, events_of
from tests.support.victims import Victim, Victims

from orchestrator.runtimes.processes import Process

HELD_SECONDS = 30.0
END_SECONDS = 120.0
JOURNAL_SECONDS = 1.5
ATTEMPTS = 10
PAUSE_SECONDS = 0.01
SENDING_SECONDS = 0.1
Entry = tuple[int, bytes | str]
"""A file's mode, and its content or where it points."""


class Missed(Exception):
    """The moment was over before it was seized; the case is tried again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a task came to."""

    answer: str
    diff: str
    tree: dict[str, Entry]


@dataclass(slots=True)
class _Run:
    """A task under way."""

    task_id: str
    conversation: Conversation
    victims: Victims
    seconds: int
    moment: Moment | None

    @property
    def pauses(self) -> bool:
        """Whether a command of it sleeps in its middle."""
        return self.moment is not None and self.moment.is_in_command


@dataclass(slots=True)
class Lane:
    """Runs cases one after another on one service and one repository.

    Args:
        service: Started, with `model` as its endpoint.
        model: Plays the model.
        repository: What the tasks work on.
    """

    service: Service
    model: GatedModel
    repository: Path
    _expected: Outcome | None = field(default=None)
    _container: str = ""

    async def undisturbed(self) -> Outcome:
        """What the task comes to if nothing is killed."""
        if self._expected is None:
            run = await self._begin(None)
            task = await self._end(run)
            self._container = task["workspace"]["container"]
            run.victims.container = self._container
            self._expected = await self._judge(run, task)
        return self._expected

    async def check(self, moment: Moment, victim: Victim) -> None:
        """Kill a process at a moment of a fresh task; the task must end as if nothing was."""
        expected = await self.undisturbed()
        for attempt in range(ATTEMPTS):
            run = await self._begin(moment)
            try:
                await self._reach(run, moment)
            except Missed:
                run.victims.let_all_go()
                run.conversation.release_all()
                await self._end(run)
                assert attempt < ATTEMPTS - 1, f"{moment} was missed {ATTEMPTS} times"
                continue
            except BaseException:
                run.victims.let_all_go()
                raise
            await run.victims.kill(victim)
            run.conversation.release_all()
            found = await self._judge(run, await self._end(run))
            assert found.tree == expected.tree, _difference(expected.tree, found.tree)
            assert found.diff == expected.diff
            assert found.answer == expected.answer
            return

    async def _begin(self, moment: Moment | None) -> _Run:
        token, seconds = uuid4().hex, new_sleep()
        pausing = moment is not None and moment.is_in_command
        pause_in = moment.step.number if moment is not None and pausing else 0
        conversation = self.model.add(token, turns(pause_in, seconds))
        if moment is not None and not pausing and moment.when is not When.ACCEPTED:
            conversation.hold(moment.step.turn)
        async with self.service.client() as http:
            task_id = await begun(http, f"Sweep {token}", repo_url=str(self.repository))
        return _Run(task_id, conversation, Victims(self.service, self._container), seconds, moment)

    async def _reach(self, run: _Run, moment: Moment) -> None:
        """Bring the task to the moment, with everything held that would go past it."""
        step, turn = moment.step, moment.step.turn
        if moment.when is When.ACCEPTED:
            return
        if moment.is_in_command:
            await until(lambda: is_sleeping(run.seconds), HELD_SECONDS)
            return
        await run.conversation.until_asked(turn)
        if moment.when is When.ANSWERED:
            await run.victims.hold_still(run.victims.orchestrator())
            run.conversation.release(turn)
            await run.conversation.until_given(turn)
        elif moment.when is When.SENT:
            await self._send(run, step)
        elif moment.when is When.MIDDLE:
            await self._catch(run, step)
        elif moment.when is When.EFFECT:
            await self._effect(run, step)
        elif moment.when is When.ENDING:
            await run.victims.hold_still(await run.victims.worker())
            run.conversation.release(turn)
            await self._recorded(run, step.number)

    async def _send(self, run: _Run, step: Step) -> Process:
        """The step before is recorded, the worker stands still; returns the worker."""
        victims = run.victims
        worker = await victims.worker()
        if step.call:
            await self._effect(run, steps()[step.number - 2])
            await _until_rests(worker)  # the result is on its way
            await victims.hold_still(worker)
            victims.let_go(victims.orchestrator())
        else:
            await victims.hold_still(worker)
            run.conversation.release(step.turn)
        try:
            await self._recorded(run, step.number - 1)
        except TimeoutError:  # the worker stood still before it had sent the result
            raise Missed from None
        assert not _journal(worker, run.task_id, step).exists()
        return worker

    async def _effect(self, run: _Run, step: Step) -> None:
        """The worker has the call's result in its journal, and the orchestrator stands still."""
        worker = await self._send(run, step)
        journal = _journal(worker, run.task_id, step)
        orchestrator = run.victims.orchestrator()
        for attempt in range(ATTEMPTS):
            # With the worker still, the orchestrator gets no further than to send the call.
            await asyncio.sleep(SENDING_SECONDS * (attempt + 1))
            await run.victims.hold_still(orchestrator)
            run.victims.let_go(worker)
            with suppress(TimeoutError):
                await until(lambda: _has_result(journal), JOURNAL_SECONDS)
                return
            # It was stopped before it had sent the call.
            await run.victims.hold_still(worker)
            run.victims.let_go(orchestrator)
        raise Missed

    async def _catch(self, run: _Run, step: Step) -> None:
        """Stop the worker while a call is in its journal that has no result yet."""
        worker = await run.victims.worker()
        journal = _journal(worker, run.task_id, step)
        run.conversation.release(step.turn)
        await asyncio.to_thread(_spin_until, journal, worker)
        await run.victims.hold_still(worker)
        if await _has_result(journal):
            raise Missed

    async def _recorded(self, run: _Run, step: int) -> None:
        """Wait until a step's event is recorded; asked of Postgres, for the API may stand still."""
        sql = "SELECT 1 FROM events WHERE task_id = $1 AND step = $2"
        connection = await _connect(self.service)
        try:
            async with asyncio.timeout(HELD_SECONDS):
                while await connection.fetchval(sql, run.task_id, step) is None:
                    await asyncio.sleep(PAUSE_SECONDS)
        finally:
            await connection.close()

    async def _end(self, run: _Run) -> dict[str, Any]:
        """The task once it has ended; what sleeps in it is woken again and again."""
        try:
            async with (
                asyncio.timeout(END_SECONDS),
                waking(run.seconds),
                self.service.client() as http,
            ):
                while True:
                    task = await _asked(http, run.task_id)
                    if task is not None and task["status"] != "running":
                        return task
                    await asyncio.sleep(5 * PAUSE_SECONDS)
        except TimeoutError:
            raise AssertionError(f"task {run.task_id} is stuck") from None

    async def _judge(self, run: _Run, task: dict[str, Any]) -> Outcome:
        """Everything that must hold of any run, and what it came to."""
        assert task["status"] == "succeeded", task
        async with self.service.client() as http:
            events = await events_of(http, run.task_id)
        numbers = [int(each.id) for each in events]
        assert numbers == list(range(1, len(numbers) + 1)), numbers
        done = [(each.name, each.data["step"]) for each in events if each.data["step"]]
        assert done == [*_expected_events(), ("finished", len(steps()))], done
        self._check_asked(run)
        worker = await run.victims.worker()
        tree = await asyncio.to_thread(_read_tree, _inside(worker, "tasks", run.task_id))
        assert tree["log.txt"][1] == "".join(f"{line}\n" for line in LINES).encode(), tree
        assert task["answer"].startswith("8 results: "), task["answer"]
        await until(lambda: _is_idle(worker))
        return Outcome(task["answer"], task["diff"], tree)

    def _check_asked(self, run: _Run) -> None:
        """A turn is asked for once; the one that was under way at the kill, at most twice."""
        turn_count = len(turns()) + 1
        for turn in range(turn_count):
            count = run.conversation.asked.count(turn)
            moment = run.moment
            is_open = (
                moment is not None
                and moment.step.turn == turn
                and moment.when in {When.ASKED, When.ANSWERED}
            )
            # A kill right after the acceptance falls anywhere near the beginning.
            is_open |= moment is not None and moment.when is When.ACCEPTED
            assert 1 <= count <= (2 if is_open else 1), (turn, run.conversation.asked)


def _expected_events() -> list[tuple[str, int]]:
    return [("model" if each.call is None else "tool", each.number) for each in steps()]


async def _asked(http: httpx2.AsyncClient, task_id: str) -> dict[str, Any] | None:
    """The task, or None while the database is away, which must be said by a typed error."""
    response = await http.get(f"/tasks/{task_id}")
    body: dict[str, Any] = response.json()
    if response.status_code == 503:
        assert body["code"] == "database_unavailable", body
        return None
    assert response.status_code == 200, body
    return body


async def _connect(service: Service) -> asyncpg.Connection:
    host = str((service.data_dir / "postgres" / "run").resolve())
    return await asyncpg.connect(host=host, user="berth", database="postgres")


def _inside(worker: Process, *parts: str) -> Path:
    """A place in the workspace as this machine sees it."""
    return Path(f"/proc/{worker.pid}/root/workspace", *parts)


def _journal(worker: Process, task_id: str, step: Step) -> Path:
    return _inside(worker, "records", task_id, "journal", f"{step.number}.json")


async def _has_result(journal: Path) -> bool:
    try:
        return json.loads(journal.read_bytes())["result"] is not None
    except FileNotFoundError:
        return False


def _spin_until(path: Path, worker: Process) -> None:
    """Watch for a file without a pause, and stop the worker at once when it is there."""
    deadline = time.monotonic() + HELD_SECONDS
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
    worker.send(signal.SIGSTOP)


def _read_tree(root: Path) -> dict[str, Entry]:
    """Every file but git's own, with its mode."""
    found: dict[str, Entry] = {}
    for directory, names, files in os.walk(root):
        if ".git" in names:
            names.remove(".git")
        for name in files:
            path = Path(directory, name)
            facts = path.lstat()
            content: bytes | str = (
                str(path.readlink()) if stat.S_ISLNK(facts.st_mode) else path.read_bytes()
            )
            found[str(path.relative_to(root))] = (facts.st_mode, content)
    return found


def _difference(expected: dict[str, Entry], found: dict[str, Entry]) -> str:
    names = {*expected, *found}
    pairs = [(name, expected.get(name), found.get(name)) for name in sorted(names)]
    return str([each for each in pairs if each[1] != each[2]])


async def _until_rests(process: Process) -> None:
    """Wait until a process has used no processor time for a while."""
    before, now = -1, _ticks(process)
    while now != before:
        await asyncio.sleep(SENDING_SECONDS)
        before, now = now, _ticks(process)


def _ticks(process: Process) -> int:
    """The processor time of a process so far, in the kernel's ticks (proc(5), utime and stime)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


async def _is_idle(worker: Process) -> bool:
    return not worker.children()
