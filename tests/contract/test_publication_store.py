"""What every `PublicationStore` does."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from orchestrator.domain.budget import Budget
from orchestrator.domain.publication import (
    Base,
    Publication,
    PublicationState,
    PublishedRepository,
    PublishMode,
    PublishOrder,
)
from orchestrator.domain.task import NewTask
from orchestrator.domain.workspace import scratch_workspace
from orchestrator.ports import PublicationStore
from orchestrator.storage.postgres import Database, PostgresTaskStore
from orchestrator.storage.postgres.publications import PostgresPublications

ORDER = PublishOrder(PublishMode.PULL_REQUEST, "berth/t1", "Title", "Body\nü", draft=True)
OTHER = PublishOrder(PublishMode.BRANCH, "other", "Another", "", draft=False)
PLANNED = Publication("t1", ORDER, "Berth <b@h>")
MADE = (
    PublishedRepository("a", "1" * 40, Base("main", moved=True, conflicts=("x", "dir/ü"))),
    PublishedRepository("b", "2" * 40, None, "https://forge.test/b/1"),
)


@pytest.fixture(params=["postgres"])
async def store(
    request: pytest.FixtureRequest, postgres_url: str
) -> AsyncIterator[PublicationStore]:
    database = await Database.open(postgres_url)
    task = NewTask("t1", "?", scratch_workspace("t1"), (), (), Budget(1, 1, 1.0))
    await PostgresTaskStore(database).add(task, "sandbox")
    yield PostgresPublications(database)
    await database.close()


async def test_the_first_intention_counts(store: PublicationStore) -> None:
    assert await store.begin(PLANNED) == PLANNED
    assert await store.begin(replace(PLANNED, order=OTHER, author="Else <e@h>")) == PLANNED


async def test_of_several_at_once_one_counts(store: PublicationStore) -> None:
    orders = [replace(ORDER, branch=f"b{number}") for number in range(8)]
    found = await asyncio.gather(*(store.begin(replace(PLANNED, order=o)) for o in orders))
    assert len({each.order.branch for each in found}) == 1


async def test_what_was_made_is_kept(store: PublicationStore) -> None:
    await store.begin(PLANNED)
    pushed = replace(PLANNED, state=PublicationState.PUSHED, repositories=MADE)
    assert await store.keep(pushed) == pushed
    assert await store.begin(PLANNED) == pushed


async def test_a_withdrawn_one_makes_room(store: PublicationStore) -> None:
    await store.begin(PLANNED)
    await store.keep(replace(PLANNED, state=PublicationState.WITHDRAWN))
    other = replace(PLANNED, order=OTHER, author="Else <e@h>")
    assert await store.begin(other) == other


async def test_a_published_one_is_final(store: PublicationStore) -> None:
    await store.begin(PLANNED)
    done = replace(PLANNED, state=PublicationState.PUBLISHED, repositories=MADE)
    await store.keep(done)
    assert await store.keep(replace(PLANNED, state=PublicationState.WITHDRAWN)) == done
    assert await store.begin(replace(PLANNED, order=OTHER)) == done


async def test_text_that_no_database_holds(store: PublicationStore) -> None:
    odd = replace(PLANNED, order=replace(ORDER, title="a\0b", body="\ud800"))
    kept = (await store.begin(odd)).order
    assert "\0" not in kept.title
    assert kept.body.isprintable()
