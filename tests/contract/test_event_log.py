"""What every `EventLog` does."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from pydantic import JsonValue

from orchestrator.domain.budget import Budget
from orchestrator.domain.events import Event, EventKind, NewEvent
from orchestrator.domain.task import NewTask
from orchestrator.domain.workspace import scratch_workspace
from orchestrator.errors import StorageFailure, TaskNotFound
from orchestrator.ports import EventLog, TaskStore
from orchestrator.storage.postgres import Database, PostgresEventLog, PostgresTaskStore

SECONDS = 60.0
FINISHED = NewEvent(EventKind.FINISHED, 3, {"status": "succeeded"})


@dataclass(frozen=True, slots=True)
class Stores:
    """A log, and the store that its tasks are in."""

    events: EventLog
    tasks: TaskStore


@pytest.fixture(params=["postgres"])
async def stores(request: pytest.FixtureRequest, postgres_url: str) -> AsyncIterator[Stores]:
    database = await Database.open(postgres_url)
    events = PostgresEventLog(database)
    stores = Stores(events, PostgresTaskStore(database))
    for task_id in ("t1", "t2"):
        await add_task(stores, task_id)
    yield stores
    await events.close()
    await database.close()


async def add_task(stores: Stores, task_id: str) -> None:
    budget = Budget(1, 1, 1.0)
    workspace = scratch_workspace(task_id)
    await stores.tasks.add(NewTask(task_id, "?", workspace, (), (), budget), "sandbox")


def notice(number: int) -> NewEvent:
    return NewEvent(EventKind.NOTICE, 0, {"n": number})


async def take_all(events: AsyncIterator[Event]) -> list[Event]:
    async with asyncio.timeout(SECONDS):
        return [event async for event in events]


async def test_events_are_numbered_from_one_within_each_task(stores: Stores) -> None:
    numbers = [
        (await stores.events.append(task_id, notice(0))).number
        for task_id in ("t1", "t1", "t2", "t1", "t2")
    ]
    assert numbers == [1, 2, 1, 3, 2]


async def test_what_is_appended_is_what_followers_get(stores: Stores) -> None:
    data: dict[str, JsonValue] = {"text": "é\n", "list": [1, 2.5, None, True, {"a": []}], "": {}}
    appended = await stores.events.append("t1", NewEvent(EventKind.TOOL, 7, data))
    assert (appended.task_id, appended.kind, appended.step) == ("t1", EventKind.TOOL, 7)
    assert appended.data == data
    end = await stores.events.append("t1", FINISHED)
    assert await take_all(stores.events.follow("t1")) == [appended, end]


async def test_what_is_recorded_so_far_can_be_read_without_waiting(stores: Stores) -> None:
    appended = [await stores.events.append("t1", notice(number)) for number in range(250)]
    await stores.events.append("t2", notice(0))
    assert await take_all(stores.events.recorded("t1")) == appended
    end = await stores.events.append("t1", FINISHED)
    assert await take_all(stores.events.recorded("t1")) == [*appended, end]


async def test_concurrent_appends_leave_no_gap(stores: Stores) -> None:
    follower = asyncio.create_task(take_all(stores.events.follow("t1")))
    appended = await asyncio.gather(
        *(stores.events.append("t1", notice(number)) for number in range(200))
    )
    await stores.events.append("t1", FINISHED)
    assert sorted(event.number for event in appended) == list(range(1, 201))
    events = await follower
    assert [event.number for event in events] == list(range(1, 202))
    assert {event.data["n"] for event in events[:-1]} == set(range(200))
    assert [event.at for event in events] == sorted(event.at for event in events)


async def test_a_follower_gets_events_as_they_come(stores: Stores) -> None:
    following = stores.events.follow("t1")
    async with asyncio.timeout(SECONDS):
        for number in range(1, 6):
            waiting = asyncio.ensure_future(anext(following))
            await asyncio.sleep(0)
            await stores.events.append("t1", notice(number))
            assert (await waiting).number == number
        await stores.events.append("t1", FINISHED)
        assert (await anext(following)).kind is EventKind.FINISHED
        with pytest.raises(StopAsyncIteration):
            await anext(following)


async def test_a_follower_resumes_after_a_number(stores: Stores) -> None:
    for number in range(250):
        await stores.events.append("t1", notice(number))
    await stores.events.append("t1", FINISHED)
    for after in (0, 1, 99, 100, 101, 249, 250):
        events = await take_all(stores.events.follow("t1", after))
        assert [event.number for event in events] == list(range(after + 1, 252))


@pytest.mark.parametrize("after", [1, 2, 99])
async def test_a_follower_at_or_past_the_end_ends_at_once(stores: Stores, after: int) -> None:
    await stores.events.append("t1", FINISHED)
    assert await take_all(stores.events.follow("t1", after)) == []


async def test_followers_do_not_wait_for_a_slow_one(stores: Stores) -> None:
    slow = stores.events.follow("t1")
    await stores.events.append("t1", notice(0))
    await anext(slow)
    quick = [asyncio.create_task(take_all(stores.events.follow("t1"))) for _ in range(20)]
    for number in range(300):
        await stores.events.append("t1", notice(number))
    await stores.events.append("t1", FINISHED)
    for follower in quick:
        assert len(await follower) == 302
    assert [event.number for event in await take_all(slow)] == list(range(2, 303))


async def test_leaving_early_disturbs_nobody(stores: Stores) -> None:
    staying = asyncio.create_task(take_all(stores.events.follow("t1")))
    leaving = asyncio.create_task(take_all(stores.events.follow("t1")))
    await stores.events.append("t1", notice(0))
    leaving.cancel()
    await asyncio.wait([leaving])
    await stores.events.append("t1", FINISHED)
    assert len(await staying) == 2


async def test_a_follower_hears_of_its_own_task_only(stores: Stores) -> None:
    follower = asyncio.create_task(take_all(stores.events.follow("t2")))
    await stores.events.append("t1", FINISHED)
    await stores.events.append("t2", notice(0))
    await stores.events.append("t2", FINISHED)
    assert {event.task_id for event in await follower} == {"t2"}


async def test_nothing_follows_the_end(stores: Stores) -> None:
    await stores.events.append("t1", FINISHED)
    for event in (notice(0), FINISHED):
        with pytest.raises(StorageFailure):
            await stores.events.append("t1", event)
    assert len(await take_all(stores.events.follow("t1"))) == 1


@pytest.mark.parametrize("task_id", ["nothing", "a\x00b", "\udfff"])
async def test_an_unknown_task_is_not_found(stores: Stores, task_id: str) -> None:
    with pytest.raises(TaskNotFound):
        await stores.events.append(task_id, notice(0))
    with pytest.raises(TaskNotFound):
        await anext(stores.events.follow(task_id))


async def test_unstorable_values_are_replaced(stores: Stores) -> None:
    event = NewEvent(
        EventKind.TOOL, 1, {"a\x00": ["\ud800x", {"n": float("nan")}], "i": float("inf")}
    )
    appended = await stores.events.append("t1", event)
    assert appended.data == {"a\ufffd": ["\ufffdx", {"n": None}], "i": None}


async def test_an_event_recorded_again_stays_as_it_was(stores: Stores) -> None:
    first = await stores.events.append("t1", _tool("first", "once"))
    again = await stores.events.append("t1", _tool("second", "once"))
    assert again == first
    for key in ("another", "", ""):
        last = await stores.events.append("t1", _tool("third", key))
    assert last.number == first.number + 3


async def test_the_end_recorded_again_stays_as_it_was(stores: Stores) -> None:
    end = NewEvent(EventKind.FINISHED, 2, {"status": "succeeded"}, "once")
    first = await stores.events.append("t1", end)
    assert await stores.events.append("t1", end) == first


def _tool(result: str, key: str) -> NewEvent:
    return NewEvent(EventKind.TOOL, 2, {"result": result}, key)
