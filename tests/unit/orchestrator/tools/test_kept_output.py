"""Long results: cut for the model, kept whole in the task's tree."""

from pathlib import Path

import pytest
from tests.support.loop import PreparedTools, always

from orchestrator.domain.conversation import ToolResult
from orchestrator.errors import WorkerUnreachable
from orchestrator.tools.kept_output import KeptOutput


class Keeper:
    """The one verb of a worker that is needed here, on a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def keep_output(self, task_id: str, name: str, text: str) -> str:
        path = self.root / task_id / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return f"kept/{name}"


class LostKeeper:
    """A worker that is gone."""

    async def keep_output(self, task_id: str, name: str, text: str) -> str:
        raise WorkerUnreachable("gone")


TOOLS = {"short": always("x" * 100), "long": always("head" + "x" * 5_000 + "tail")}


@pytest.fixture
def kept(tmp_path: Path) -> KeptOutput:
    return KeptOutput(PreparedTools(TOOLS), Keeper(tmp_path), "t1", 100)


async def test_what_is_not_longer_than_the_limit_is_left_alone(
    kept: KeptOutput, tmp_path: Path
) -> None:
    assert await kept.call("short", {}) == ToolResult("x" * 100)
    assert list(tmp_path.iterdir()) == []


async def test_a_long_result_is_cut_and_says_where_the_whole_is(
    kept: KeptOutput, tmp_path: Path
) -> None:
    result = await kept.call("long", {}, key="1")
    assert len(result.text) < 250
    assert result.text.startswith("head")
    assert result.text.endswith("tail")
    assert "the whole is in kept/0001-long.txt" in result.text
    assert (tmp_path / "t1" / "0001-long.txt").read_text() == "head" + "x" * 5_000 + "tail"


async def test_each_kept_result_has_its_own_file(kept: KeptOutput, tmp_path: Path) -> None:
    for number in range(1, 4):
        await kept.call("long", {}, key=str(number))
    names = sorted(path.name for path in (tmp_path / "t1").iterdir())
    assert names == ["0001-long.txt", "0002-long.txt", "0003-long.txt"]


async def test_a_cut_failure_is_still_a_failure(tmp_path: Path) -> None:
    async def fail(_: dict[str, object]) -> ToolResult:
        return ToolResult("no " * 1_000, is_error=True)

    kept = KeptOutput(PreparedTools({"bash": fail}), Keeper(tmp_path), "t1", 100)
    assert (await kept.call("bash", {})).is_error


async def test_the_tools_and_their_arguments_are_passed_through(tmp_path: Path) -> None:
    inner = PreparedTools(TOOLS)
    kept = KeptOutput(inner, Keeper(tmp_path), "t1", 100)
    assert await kept.tools() == await inner.tools()
    await kept.call("short", {"path": "a"})
    assert inner.calls == [("short", {"path": "a"})]


async def test_a_worker_that_is_gone_is_not_hidden() -> None:
    kept = KeptOutput(PreparedTools(TOOLS), LostKeeper(), "t1", 100)
    with pytest.raises(WorkerUnreachable):
        await kept.call("long", {})
