"""What every `LiveTextChannel` does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import asyncpg
import pytest

from orchestrator.domain.live_text import LiveText, TextDelta
from orchestrator.errors import DatabaseUnavailable
from orchestrator.ports import LiveTextChannel, LiveTextReader
from orchestrator.storage.postgres import Database, PostgresEventLog, PostgresLiveText

SECONDS = 60.0
MAX_HELD = 80_000


@dataclass(frozen=True, slots=True)
class Channels:
    """The channels of two orchestrators, and how to break the one's connections."""

    here: LiveTextChannel
    there: LiveTextChannel
    database: Database


@pytest.fixture(params=["postgres"])
async def channels(request: pytest.FixtureRequest, postgres_url: str) -> AsyncIterator[Channels]:
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(2):
            database = await Database.open(postgres_url)
            stack.push_async_callback(database.close)
            events = PostgresEventLog(database)
            stack.push_async_callback(events.close)
            channel = PostgresLiveText(database, events.notifications)
            stack.push_async_callback(channel.close)
            made.append((channel, database))
        yield Channels(made[0][0], made[1][0], made[0][1])


def piece(text: str, offset: int = 0, *, task_id: str = "t1", attempt: str = "a") -> LiveText:
    return LiveText(task_id, 3, TextDelta(attempt, offset, text))


async def take(reader: LiveTextReader) -> list[LiveText]:
    async with asyncio.timeout(SECONDS):
        await reader.wait()
    return list(reader.take())


async def take_text(reader: LiveTextReader, chars: int) -> str:
    """So many characters, which must follow each other without a gap."""
    text = ""
    while len(text) < chars:
        for each in await take(reader):
            assert each.delta.offset == len(text)
            text += each.delta.text
    return text


async def test_a_piece_is_heard_as_it_was_said_everywhere(channels: Channels) -> None:
    said = piece('Grüße, "世界" 🌍\x00\n', 17)
    async with channels.here.follow("t1") as one, channels.there.follow("t1") as other:
        channels.here.publish(said)
        assert await take(one) == await take(other) == [said]
        assert one.take() == []


async def test_pieces_come_in_order_without_a_gap(channels: Channels) -> None:
    words = [f"word{number} " for number in range(2_000)]
    async with channels.there.follow("t1") as reader:
        taking = asyncio.create_task(take_text(reader, len("".join(words))))
        offset = 0
        for number, word in enumerate(words):
            channels.here.publish(piece(word, offset))
            offset += len(word)
            if number % 100 == 0:
                await asyncio.sleep(0.005)
        assert await taking == "".join(words)


async def test_a_large_piece_arrives_whole(channels: Channels) -> None:
    text = "x\x01🌍" * 7_000
    async with channels.there.follow("t1") as reader:
        channels.here.publish(piece(text))
        assert await take_text(reader, len(text)) == text


async def test_only_the_followed_task_is_heard(channels: Channels) -> None:
    async with channels.there.follow("t1") as reader:
        for task_id in ("t2", "t1", "t"):
            channels.here.publish(piece(task_id, task_id=task_id))
        await channels.here.flush("t2")
        assert [each.delta.text for each in await take(reader)] == ["t1"]


async def test_what_was_flushed_comes_before_what_is_done_then(channels: Channels) -> None:
    async with channels.there.follow("t1") as reader:
        for number in range(50):
            channels.here.publish(piece("x", number))
            await channels.here.flush("t1")
            await channels.database.rows("SELECT pg_notify('berth_events', 't1:1')")
        assert await take_text(reader, 50) == "x" * 50


async def test_what_was_said_before_is_not_heard(channels: Channels) -> None:
    channels.here.publish(piece("early"))
    await channels.here.flush("t1")
    async with channels.here.follow("t1") as reader:
        channels.here.publish(piece("late", 5))
        assert [each.delta.text for each in await take(reader)] == ["late"]


async def test_another_attempt_begins_anew(channels: Channels) -> None:
    async with channels.there.follow("t1") as reader:
        said = [
            piece("one"),
            piece("two", 3),
            piece("one", attempt="b"),
            piece("!", 3, attempt="b"),
        ]
        for each in said:
            channels.here.publish(each)
        assert await take(reader) == [piece("onetwo"), piece("one!", attempt="b")]


async def test_a_reader_that_takes_nothing_loses_text_and_holds_up_nobody(
    channels: Channels,
) -> None:
    async with channels.there.follow("t1") as slow, channels.there.follow("t1") as quick:
        for number in range(100):
            text = f"{number:04}" * 1_000
            channels.here.publish(piece(text, number * len(text)))
            assert await take_text_at(quick, number * len(text), len(text)) == text
        held = slow.take()
        assert 0 < sum(len(each.delta.text) for each in held) < MAX_HELD
        channels.here.publish(piece("end", 400_000))
        (last,) = await take(slow)
        assert last.delta.offset == 400_000  # its reader sees that something is missing


async def take_text_at(reader: LiveTextReader, offset: int, chars: int) -> str:
    text = ""
    while len(text) < chars:
        for each in await take(reader):
            assert each.delta.offset == offset + len(text)
            text += each.delta.text
    return text


async def test_publishing_more_than_can_be_sent_is_dropped(channels: Channels) -> None:
    async with channels.there.follow("t1") as reader:
        for number in range(2_000):
            channels.here.publish(piece("x" * 1_000, number * 1_000))
        await channels.here.flush("t1")
        assert sum(len(each.delta.text) for each in await take(reader)) < 2_000_000


async def test_text_is_dropped_while_postgres_is_away(
    channels: Channels, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_sql: str, *_arguments: object) -> list[asyncpg.Record]:
        raise DatabaseUnavailable("away")

    async with channels.there.follow("t1") as reader:
        with monkeypatch.context() as patch:
            patch.setattr(channels.database, "rows", away)
            channels.here.publish(piece("lost"))
            await channels.here.flush("t1")
        channels.here.publish(piece("heard", 4))
        assert [each.delta.text for each in await take(reader)] == ["heard"]


async def test_flushing_waits_for_a_moment_at_most(
    channels: Channels, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hanging(_sql: str, *_arguments: object) -> list[asyncpg.Record]:
        await asyncio.sleep(3_600)
        return []

    monkeypatch.setattr(channels.database, "rows", hanging)
    channels.here.publish(piece("lost"))
    async with asyncio.timeout(SECONDS):
        await channels.here.flush("t1")


async def test_readers_hear_again_after_the_connection_broke(channels: Channels) -> None:
    async with channels.there.follow("t1") as reader:
        await channels.database.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        async with asyncio.timeout(SECONDS):
            for number in range(1_000):
                channels.here.publish(piece("x", number))
                await channels.here.flush("t1")
                if reader.take():
                    return
                await asyncio.sleep(0.02)
    pytest.fail("nothing was heard again")


async def test_a_foreign_notification_disturbs_nobody(channels: Channels) -> None:
    async with channels.there.follow("t1") as reader:
        for payload in ("", "no json", "5", "[1,2]", '{"a":1}', '["t1",3,"a",0,5]'):
            await channels.database.rows("SELECT pg_notify('berth_text', $1)", payload)
        channels.here.publish(piece("heard"))
        assert await take(reader) == [piece("heard")]
