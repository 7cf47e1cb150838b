"""What every `TaskStore` does."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.domain.budget import Budget, StopReason
from orchestrator.domain.lineage import Lineage, Relation
from orchestrator.domain.repository import parse_repository_url
from orchestrator.domain.task import (
    Ending,
    InputFile,
    NewTask,
    Patch,
    Receipt,
    StartPoint,
    TaskError,
    TaskFilter,
    TaskStatus,
)
from orchestrator.domain.workspace import Workspace, scratch_workspace, workspace_of
from orchestrator.errors import KeyReused, TaskContinued, TaskNotFound
from orchestrator.ports import TaskStore
from orchestrator.storage.postgres import Database, PostgresTaskStore

COMMIT = "0123456789" * 4


@pytest.fixture(params=["postgres"])
async def store(request: pytest.FixtureRequest, postgres_url: str) -> AsyncIterator[TaskStore]:
    database = await Database.open(postgres_url)
    yield PostgresTaskStore(database)
    await database.close()


def workspace(*urls: str) -> Workspace:
    return workspace_of([parse_repository_url(url) for url in urls])


def new_task(task_id: str = "t1", **changes: object) -> NewTask:
    values: dict[str, object] = {
        "id": task_id,
        "query": "List the files.",
        "workspace": workspace("https://example.org/a/b", "file:///srv/git/b"),
        "start": (StartPoint("b", COMMIT, "main"), StartPoint("b-2", COMMIT, "HEAD")),
        "files": (InputFile("notes.txt", b"text"),),
        "budget": Budget(5, 3_000_000_000, 1.5),
    }
    return NewTask(**(values | changes))  # type: ignore[arg-type]  # field values by name


ENDING = Ending(
    status=TaskStatus.SUCCEEDED,
    stop_reason=StopReason.ANSWERED,
    answer="Two files.",
    patch=Patch("diff --git a/x b/x\n", ("x", "dir/ü"), ("nested",)),
    steps=4,
    receipt=Receipt(10, 20, 0.5, 0.25, 1.0),
    notices=("nested is left out",),
)
FAILURE = Ending(
    status=TaskStatus.FAILED,
    stop_reason=StopReason.MAX_STEPS,
    answer="",
    patch=Patch(),
    steps=5,
    receipt=Receipt(),
    error=TaskError("budget_exhausted", "The task reached its limit."),
)


async def test_an_added_task_runs_and_is_found_again(store: TaskStore) -> None:
    task = new_task()
    added = await store.add(task, "sandbox")
    assert added.status is TaskStatus.RUNNING
    assert (added.id, added.query, added.runtime) == ("t1", "List the files.", "sandbox")
    assert added.workspace == task.workspace
    assert added.start == task.start
    assert added.budget == task.budget
    assert added.ending is None
    assert added.finished_at is None
    assert abs(added.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert await store.get("t1") == added


async def test_adding_a_task_again_changes_nothing(store: TaskStore) -> None:
    await store.add(new_task(), "sandbox")
    finished = await store.finish("t1", ENDING)
    assert await store.add(new_task(query="Another."), "docker") == finished


@pytest.mark.parametrize("ending", [ENDING, FAILURE])
async def test_an_ending_is_kept_whole(store: TaskStore, ending: Ending) -> None:
    added = await store.add(new_task(), "sandbox")
    finished = await store.finish("t1", ending)
    assert finished.ending == ending
    assert finished.status is ending.status
    assert finished.finished_at is not None
    assert finished.finished_at >= added.created_at
    assert await store.get("t1") == finished


async def test_the_first_ending_counts(store: TaskStore) -> None:
    await store.add(new_task(), "sandbox")
    first = await store.finish("t1", ENDING)
    assert await store.finish("t1", FAILURE) == first


async def test_one_of_several_endings_at_once_counts(store: TaskStore) -> None:
    await store.add(new_task(), "sandbox")
    results = await asyncio.gather(
        *(store.finish("t1", ending) for ending in (ENDING, FAILURE) * 5)
    )
    assert len({result.status for result in results}) == 1
    assert results[0].ending in (ENDING, FAILURE)


@pytest.mark.parametrize("task_id", ["nothing", "", "a\x00b", "\ud800", "x" * 10_000])
async def test_an_unknown_task_is_not_found(store: TaskStore, task_id: str) -> None:
    with pytest.raises(TaskNotFound):
        await store.get(task_id)
    with pytest.raises(TaskNotFound):
        await store.finish(task_id, ENDING)


async def test_unstorable_characters_are_replaced(store: TaskStore) -> None:
    await store.add(new_task(query="a\x00b\ud83d"), "sandbox")
    dirty = Ending(
        status=TaskStatus.FAILED,
        stop_reason=StopReason.ERROR,
        answer="\x00answer\udfff",
        patch=Patch("+\x00", ("caf\udce9",), ("\x00",)),
        steps=0,
        receipt=Receipt(),
        error=TaskError("x", "bad\x00"),
        notices=("\x00",),
    )
    task = await store.finish("t1", dirty)
    assert task.query == "a\ufffdb\ufffd"
    assert task.ending is not None
    assert task.ending.answer == "\ufffdanswer\ufffd"
    assert task.ending.patch == Patch("+\ufffd", ("caf\ufffd",), ("\ufffd",))
    assert task.ending.error == TaskError("x", "bad\ufffd")
    assert task.ending.notices == ("\ufffd",)


async def test_a_large_ending_is_kept(store: TaskStore) -> None:
    await store.add(new_task(query="q" * 100_000), "sandbox")
    patch = Patch("+line é\n" * 1_000_000, tuple(f"f{i}" for i in range(5_000)))
    ending = Ending(TaskStatus.SUCCEEDED, StopReason.ANSWERED, "a", patch, 1, Receipt())
    assert (await store.finish("t1", ending)).ending == ending


async def test_unfinished_tasks_are_found_the_oldest_first(store: TaskStore) -> None:
    for number in range(3):
        await store.add(new_task(f"t{number}"), "sandbox")
    assert [task.id for task in await store.unfinished()] == ["t0", "t1", "t2"]
    # A task whose record lacks its last event has something left to be done.
    await store.finish("t0", ENDING)
    assert [task.id for task in await store.unfinished()] == ["t0", "t1", "t2"]


async def test_a_task_is_kept_with_all_it_needs_to_be_run_again(store: TaskStore) -> None:
    files = (InputFile("a b.txt", b"x"), InputFile("c/d", b""))
    task = replace(new_task("t1"), files=files, install_dependencies=True)
    kept = await store.add(task, "sandbox")
    assert kept.files == ("a b.txt", "c/d")
    assert kept.install_dependencies
    assert not kept.cancel_requested


async def test_a_cancellation_is_kept_until_the_task_ends(store: TaskStore) -> None:
    await store.add(new_task("t1"), "sandbox")
    assert (await store.request_cancel("t1")).cancel_requested
    assert (await store.request_cancel("t1")).status is TaskStatus.RUNNING
    with pytest.raises(TaskNotFound):
        await store.request_cancel("nobody")


async def test_an_ended_task_cannot_be_cancelled(store: TaskStore) -> None:
    await store.add(new_task("t1"), "sandbox")
    ended = await store.finish("t1", ENDING)
    assert await store.request_cancel("t1") == ended


async def test_tasks_are_listed_by_pages_the_newest_first(store: TaskStore) -> None:
    other = workspace("https://example.org/c/d")
    for number in range(5):
        await store.add(new_task(f"t{number}"), "sandbox")
    await store.add(new_task("x", workspace=other), "sandbox")
    await store.finish("t1", ENDING)

    async def ids(**wanted: Any) -> list[str]:
        return [task.id for task in await store.list(TaskFilter(**wanted))]

    assert await ids() == ["x", "t4", "t3", "t2", "t1", "t0"]
    assert await ids(limit=2) == ["x", "t4"]
    assert await ids(limit=2, before="t4") == ["t3", "t2"]
    assert await ids(before="t0") == []
    assert await ids(before="nobody") == []
    assert await ids(workspace_id=other.id) == ["x"]
    assert await ids(status=TaskStatus.RUNNING, limit=2, before="t3") == ["t2", "t0"]


async def test_workspaces_are_listed_latest_used_first(store: TaskStore) -> None:
    first, second = workspace("https://example.org/a/b"), workspace("https://example.org/c/d")
    await store.add(new_task("t1", workspace=first), "sandbox")
    await store.add(new_task("t2", workspace=second), "sandbox")
    assert [r.workspace for r in await store.workspaces()] == [second, first]
    await store.add(new_task("t3", workspace=first), "sandbox")
    records = await store.workspaces()
    assert [(r.workspace, r.task_count) for r in records] == [(first, 2), (second, 1)]
    assert records[0].created_at < records[1].created_at < records[0].last_used_at


@pytest.mark.parametrize(
    "kept",
    [
        scratch_workspace("t1"),
        workspace("https://example.org:8443/a/b.git"),
        workspace("http://[::1]:3000/a/b", "https://example.org/a/b", "https://example.org/x/B"),
        workspace("https://example.org/50%2525/b"),
    ],
    ids=lambda kept: kept.key,
)
async def test_every_form_of_workspace_comes_back_equal(store: TaskStore, kept: Workspace) -> None:
    task = await store.add(new_task(workspace=kept, start=()), "sandbox")
    assert task.workspace == kept
    assert [record.workspace for record in await store.workspaces()] == [kept]


async def test_a_worker_key_is_made_once(store: TaskStore) -> None:
    one, other = workspace("https://example.org/a/b"), workspace("https://example.org/c/d")
    keys = await asyncio.gather(*(store.worker_key(one) for _ in range(20)))
    assert len(set(keys)) == 1
    assert len(keys[0]) >= 43
    assert await store.worker_key(other) != keys[0]
    await store.add(new_task(workspace=one), "sandbox")
    assert await store.worker_key(one) == keys[0]


async def test_a_worker_key_makes_its_workspace_known(store: TaskStore) -> None:
    used = scratch_workspace("t9")
    await store.worker_key(used)
    records = await store.workspaces()
    assert [(record.workspace, record.task_count) for record in records] == [(used, 0)]


class TestMessages:
    async def test_they_are_numbered(self, store: TaskStore) -> None:
        await store.add(new_task(), "sandbox")
        said = [await store.say("t1", text) for text in ("a", "b", "a")]
        assert [each and each.number for each in said] == [1, 2, 3]
        assert [each.text for each in await store.messages("t1", 1)] == ["b", "a"]
        assert await store.messages("t1", 3) == []

    async def test_with_a_key_once(self, store: TaskStore) -> None:
        await store.add(new_task(), "sandbox")
        said = await asyncio.gather(*(store.say("t1", "a", "key") for _ in range(8)))
        assert {each and each.number for each in said} == {1}
        with pytest.raises(KeyReused):
            await store.say("t1", "b", "key")
        await store.finish("t1", ENDING)
        assert await store.say("t1", "a", "key") == said[0]

    async def test_to_one_that_has_ended(self, store: TaskStore) -> None:
        await store.add(new_task(), "sandbox")
        await store.finish("t1", ENDING)
        assert await store.say("t1", "late") is None
        with pytest.raises(TaskNotFound):
            await store.say("none", "x")

    async def test_a_task_does_not_end_before_it_has_heard(self, store: TaskStore) -> None:
        await store.add(new_task(), "sandbox")
        await store.say("t1", "a")
        assert (await store.finish("t1", ENDING, heard=0)).ending is None
        assert (await store.finish("t1", ENDING, heard=1)).ending == ENDING

    async def test_one_that_failed_ends_all_the_same(self, store: TaskStore) -> None:
        await store.add(new_task(), "sandbox")
        await store.say("t1", "a")
        assert (await store.finish("t1", FAILURE)).ending == FAILURE

    async def test_heard_or_refused_and_nothing_between(self, store: TaskStore) -> None:
        """Whoever comes first: no message is taken by a task that has ended without it."""
        for number in range(20):
            task_id = f"t{number}"
            await store.add(new_task(task_id), "sandbox")
            ended, said = await asyncio.gather(
                store.finish(task_id, ENDING, heard=0), store.say(task_id, "x")
            )
            assert (ended.ending is None) == (said is not None)

    async def test_the_last_step(self, store: TaskStore) -> None:
        await store.add(new_task(), "sandbox")
        assert await store.last_step("t1") == 0


class TestLineage:
    async def test_it_is_kept(self, store: TaskStore) -> None:
        await store.add(new_task(), "sandbox")
        fork = Lineage("t1", Relation.FORKS, 3)
        task = new_task("t2", lineage=fork, request_digest="d", query="")
        added = await store.add(task, "sandbox")
        assert (added.lineage, added.request_digest, added.query) == (fork, "d", "")
        assert (await store.get("t1")).continued_by is None

    async def test_a_task_is_continued_once(self, store: TaskStore) -> None:
        await store.add(new_task(), "sandbox")
        lineage = Lineage("t1", Relation.CONTINUES)
        results = await asyncio.gather(
            *(store.add(new_task(f"c{n}", lineage=lineage), "sandbox") for n in range(5)),
            return_exceptions=True,
        )
        [winner] = [each for each in results if not isinstance(each, BaseException)]
        assert sum(isinstance(each, TaskContinued) for each in results) == 4
        assert (await store.get("t1")).continued_by == winner.id
        assert await store.add(new_task(winner.id, lineage=lineage), "sandbox") == winner
        listed = await store.list(TaskFilter())
        assert [(each.id, each.continued_by) for each in listed] == [
            (winner.id, None),
            ("t1", winner.id),
        ]
