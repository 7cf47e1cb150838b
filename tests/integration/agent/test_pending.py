"""Checkpoints that are made after the answer: the next call waits, the next worker makes up."""

import asyncio
import json
from pathlib import Path

import pytest

from agent.calls import Calls, Result
from agent.checkpoint_record import History
from agent.checkpoints import Checkpoints
from agent.errors import StorageFailed
from agent.journal import Call
from agent.layout import Layout
from agent.tree_reader import MAX_FILE_BYTES
from agent.trees import Trees

TASK = "t"


class Held(Checkpoints):
    """Real checkpoints, made when they are let."""

    def __init__(self, layout: Layout, trees: Trees) -> None:
        super().__init__(layout, trees)
        self.let = asyncio.Event()
        self.asked: list[str] = []

    async def add(self, task_id: str, key: str) -> None:
        self.asked.append(key)
        await self.let.wait()
        await super().add(task_id, key)


class House:
    """A worker's calls on a real scratch tree, in this process."""

    def __init__(self, layout: Layout, instance: str) -> None:
        self.layout = layout
        self.checkpoints = Held(layout, Trees(layout))
        self.calls = Calls(layout, self.checkpoints, instance)

    @property
    def log(self) -> Path:
        return self.layout.task(TASK) / "log"

    async def append(self, key: str, *, text: str = "a") -> Result:
        async def work() -> Result:
            with self.log.open("a") as log:
                log.write(text)
            return {"content": []}

        return await self.calls.run(self._call(key, "append"), work)

    async def broken_off(self, key: str) -> None:
        """A call that has had half of its effect when its worker dies."""
        begun = asyncio.Event()

        async def work() -> Result:
            self.log.write_text("half")
            begun.set()
            await asyncio.Event().wait()
            return {}

        calling = asyncio.create_task(self.calls.run(self._call(key, "append"), work))
        await asyncio.wait_for(begun.wait(), 20)
        calling.cancel()

    async def read(self, key: str) -> Result:
        async def work() -> Result:
            return {"content": []}

        return await self.calls.run(self._call(key, "read", mutating=False), work)

    def newest(self) -> str:
        history = History.load(self.layout.record(TASK))
        assert history is not None
        return history.last.key

    def _call(self, key: str, tool: str, *, mutating: bool = True) -> Call:
        return Call.of(TASK, key, tool, {}, mutating=mutating)


@pytest.fixture
async def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    async with Trees(layout).prepared(TASK, [], []):
        pass
    return layout


async def test_the_answer_comes_before_the_checkpoint(layout: Layout) -> None:
    house = House(layout, "one")
    await house.append("1")
    assert house.log.read_text() == "a"
    assert house.newest() == ""
    house.checkpoints.let.set()
    assert await house.calls.settled(TASK) == "1"
    assert house.newest() == "1"


async def test_the_next_change_waits_for_it_and_a_reader_does_not(layout: Layout) -> None:
    house = House(layout, "one")
    await house.append("1")
    await house.read("2")
    second = asyncio.create_task(house.append("3", text="b"))
    await asyncio.wait([second], timeout=0.2)
    assert not second.done()
    assert house.log.read_text() == "a"
    house.checkpoints.let.set()
    await second
    assert house.log.read_text() == "ab"


@pytest.mark.parametrize("before", [False, True])
async def test_the_next_worker_makes_the_one_that_is_missing(layout: Layout, before: bool) -> None:
    first = House(layout, "one")
    if before:
        first.checkpoints.let.set()
        await first.append("1", text="x")
        await first.calls.settled(TASK)
        first.checkpoints.let.clear()
    await first.append("2", text="y")
    await first.read("3")
    kept = first.log.read_text()

    second = House(layout, "two")
    second.checkpoints.let.set()
    await second.append("2", text="y")
    assert second.log.read_text() == kept, "an ended call is answered and not done again"
    await second.broken_off("4")
    assert second.checkpoints.asked == ["2"]
    assert second.newest() == "2"

    third = House(layout, "three")
    third.checkpoints.let.set()
    await third.append("4", text="z")
    assert third.log.read_text() == f"{kept}z"


async def test_what_a_broken_off_call_destroyed_for_good_is_told(layout: Layout) -> None:
    first = House(layout, "one")
    first.checkpoints.let.set()
    large = layout.task(TASK) / "large"
    with large.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    await first.append("1")
    await first.calls.settled(TASK)

    await first.broken_off("2")
    second = House(layout, "two")
    second.checkpoints.let.set()
    assert (await second.append("2"))["content"] == []

    await second.broken_off("3")
    large.unlink()
    third = House(layout, "three")
    third.checkpoints.let.set()
    (told,) = (await third.append("3"))["content"]
    assert "large" in told["text"]
    assert third.log.read_text() == "aaa"


async def test_without_a_way_back_nothing_is_begun(layout: Layout) -> None:
    house = House(layout, "one")
    house.checkpoints.let.set()
    await house.append("1")
    await house.calls.settled(TASK)
    (layout.record(TASK) / "checkpoints.json").write_text(json.dumps({"last": None}))
    with pytest.raises(StorageFailed, match="damaged"):
        await house.append("2")
    assert house.log.read_text() == "a"
