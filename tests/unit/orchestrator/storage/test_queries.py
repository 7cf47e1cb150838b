import pytest

from orchestrator.storage.postgres.queries import load_queries, parse_queries


def test_every_statement_is_loaded_without_prose() -> None:
    queries = load_queries()
    assert queries.get_task.startswith("SELECT t.*")
    assert "--" not in queries.unfinished_tasks
    assert not queries.add_task.endswith(";")


def test_sections_are_split_at_their_names() -> None:
    text = "-- a file\n\n-- name: one\n-- says one\nSELECT 1;\n\n-- name: two\nSELECT 2\nFROM t;\n"
    assert parse_queries(text) == {"one": "SELECT 1", "two": "SELECT 2\nFROM t"}


def test_a_name_may_occur_once() -> None:
    with pytest.raises(TypeError, match="one twice"):
        parse_queries("-- name: one\nSELECT 1;\n-- name: one\nSELECT 2;\n")
