"""What the worker remembers of a task, and the names it takes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BadRequest, StorageFailed
from agent.layout import Layout, checked_name
from agent.records import (
    EMPTY_TREE,
    Part,
    PlacedFile,
    Start,
    TaskRecord,
    checked_path,
    new_record,
)

COMMIT = "a" * 40


def test_one_repository_is_the_root() -> None:
    record = new_record([Start("x", COMMIT)], [])
    assert record.parts == (Part("x", ".", COMMIT),)
    assert record.parts[0].prefix == ""


def test_several_lie_side_by_side() -> None:
    record = new_record([Start("x", COMMIT), Start("y", COMMIT)], [])
    assert [part.directory for part in record.parts] == ["x", "y"]
    assert [part.prefix for part in record.parts] == ["x/", "y/"]


def test_none_is_a_scratch_task() -> None:
    (part,) = new_record([], []).parts
    assert (part.directory, part.start) == (".", EMPTY_TREE)


def test_a_name_twice() -> None:
    with pytest.raises(BadRequest, match="same name"):
        new_record([Start("x", COMMIT), Start("x", "b" * 40)], [])


def test_the_request_is_told_by_its_contents() -> None:
    base = new_record([Start("x", COMMIT)], [PlacedFile("a", b"1")])
    same = new_record([Start("x", COMMIT)], [PlacedFile("a", b"1")])
    assert base.request == same.request
    for start, files in (
        ([Start("x", "b" * 40)], [PlacedFile("a", b"1")]),
        ([Start("y", COMMIT)], [PlacedFile("a", b"1")]),
        ([Start("x", COMMIT)], [PlacedFile("a", b"2")]),
        ([Start("x", COMMIT)], [PlacedFile("b", b"1")]),
        ([Start("x", COMMIT)], []),
    ):
        assert new_record(start, files).request != base.request


def test_what_stays_out_of_a_patch() -> None:
    files = [PlacedFile("a", b""), PlacedFile("d/b", b"")]
    record = new_record([Start("files", COMMIT), Start("y", COMMIT)], files)
    inside, beside = record.parts
    assert record.hidden(inside) == ("a", "d/b")
    assert record.hidden(beside) == ()
    alone = new_record([Start("x", COMMIT)], files)
    assert alone.hidden(alone.parts[0]) == (".berth", "files/a", "files/d/b")


text = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.lists(text, max_size=4), st.none() | st.lists(text, max_size=3))
def test_a_record_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str], told: list[str] | None
) -> None:
    directory = tmp_path_factory.mktemp("record")
    part = Part("x", ".", COMMIT, ("sub\udcff", *paths), tuple(paths))
    dependencies = None if told is None else tuple(told)
    record = TaskRecord("digest", (part,), tuple(paths), dependencies)
    record.save(directory)
    assert TaskRecord.load(directory) == record
    assert [path.name for path in directory.iterdir()] == ["task.json"]


def test_no_record(tmp_path: Path) -> None:
    assert TaskRecord.load(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"request": "x", "parts": [1]}'])
def test_a_damaged_record(tmp_path: Path, content: str) -> None:
    (tmp_path / "task.json").write_text(content)
    with pytest.raises(StorageFailed, match="is damaged"):
        TaskRecord.load(tmp_path)


@given(st.text(max_size=40))
def test_a_checked_path_stays_below(name: str) -> None:
    try:
        path = checked_path(name)
    except BadRequest:
        return
    root = Path("/root-of-the-tree/files")
    assert (root / path).is_relative_to(root)
    assert (root / path) != root
    assert ".." not in Path(path).parts
    assert "\0" not in path
    assert path.encode()


@given(st.text(max_size=20))
def test_a_checked_name_is_one_component(name: str) -> None:
    try:
        checked_name(name)
    except BadRequest:
        return
    assert Layout(Path("/w")).task(name).parent == Path("/w/tasks")
    assert Layout(Path("/w")).clone(name).parent == Path("/w/repositories")
    assert not name.startswith((".", "-"))


@pytest.mark.parametrize("name", ["a", "0", "_x", "task-1.2_3", "x" * 128])
def test_names_that_are_fine(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["a..b", "x.", "x" * 129, "a\n", "a.lock", "a.git", "é"])
def test_names_that_are_not(name: str) -> None:
    with pytest.raises(BadRequest):
        checked_name(name)
