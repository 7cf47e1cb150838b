"""Publications in Postgres."""

from collections.abc import Mapping
from typing import Any

import asyncpg
from pydantic import JsonValue

from orchestrator.domain.publication import (
    Base,
    Publication,
    PublicationState,
    PublishedRepository,
    PublishMode,
    PublishOrder,
)
from orchestrator.storage.postgres.pool import Database
from orchestrator.storage.postgres.queries import load_queries
from orchestrator.storage.postgres.text import storable_text


class PostgresPublications:
    """`ports.PublicationStore` on a migrated database.

    Every method may raise `DatabaseUnavailable` when Postgres does not answer, or not in time.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = load_queries()

    async def begin(self, publication: Publication) -> Publication:
        """See `ports.PublicationStore`."""
        order = publication.order
        await self._database.rows(
            self._queries.begin_publication,
            publication.task_id,
            order.mode.value,
            storable_text(order.branch),
            storable_text(order.title),
            storable_text(order.body),
            order.draft,
            storable_text(publication.author),
            publication.state.value,
            _repositories(publication),
        )
        return await self._get(publication.task_id)

    async def keep(self, publication: Publication) -> Publication:
        """See `ports.PublicationStore`."""
        await self._database.rows(
            self._queries.keep_publication,
            publication.task_id,
            publication.state.value,
            _repositories(publication),
        )
        return await self._get(publication.task_id)

    async def _get(self, task_id: str) -> Publication:
        row = await self._database.row(self._queries.get_publication, task_id)
        if row is None:
            raise RuntimeError("a publication was recorded and is gone")
        return _publication(row)


def _repositories(publication: Publication) -> list[JsonValue]:
    return [_repository_value(each) for each in publication.repositories]


def _repository_value(repository: PublishedRepository) -> dict[str, JsonValue]:
    base = repository.base
    told: JsonValue = None
    if base is not None:
        conflicts: list[JsonValue] = [storable_text(path) for path in base.conflicts]
        told = {"branch": storable_text(base.branch), "moved": base.moved, "conflicts": conflicts}
    return {
        "name": repository.name,
        "commit": repository.commit,
        "base": told,
        "pull_request_url": repository.pull_request_url,
    }


def _publication(row: asyncpg.Record) -> Publication:
    return Publication(
        task_id=row["task_id"],
        order=PublishOrder(
            PublishMode(row["mode"]), row["branch"], row["title"], row["body"], row["draft"]
        ),
        author=row["author"],
        state=PublicationState(row["state"]),
        repositories=tuple(_repository(each) for each in row["repositories"]),
        updated_at=row["updated_at"],
    )


def _repository(value: Mapping[str, Any]) -> PublishedRepository:
    base = value["base"]
    return PublishedRepository(
        name=value["name"],
        commit=value["commit"],
        base=base and Base(base["branch"], base["moved"], tuple(base["conflicts"])),
        pull_request_url=value["pull_request_url"],
    )
