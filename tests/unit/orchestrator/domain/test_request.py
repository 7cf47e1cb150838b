"""Requests: file names, and names that would fall on one another."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.request import (
    MAX_NAME_BYTES,
    MAX_PART_BYTES,
    InlineFile,
    checked_file_name,
    require_distinct,
)
from orchestrator.errors import FileConflict, InvalidRequest

NAMES = st.text(alphabet="ab./ ~é\\:*-\n\x00\u202e\ud800", max_size=12)
PARTS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3)
PATHS = st.lists(PARTS.map("/".join), max_size=6)


@given(NAMES)
def test_an_accepted_name_stays_inside_and_is_its_own_clean_form(name: str) -> None:
    try:
        clean = checked_file_name(name)
    except InvalidRequest:
        return
    parts = PurePosixPath(clean).parts
    assert parts
    assert not set(parts) & {"..", ".", ".git", "/"}
    assert clean.isprintable()
    assert clean == "/".join(parts) == checked_file_name(clean)


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("a.txt", "a.txt"),
        ("a/b.txt", "a/b.txt"),
        ("./a//b/./c", "a/b/c"),
        ("a/", "a"),
        ("...", "..."),
        (".gitignore", ".gitignore"),
        ("ünï 数.txt", "ünï 数.txt"),
        ("x" * MAX_PART_BYTES, "x" * MAX_PART_BYTES),
    ],
)
def test_names_that_are_taken(name: str, clean: str) -> None:
    assert checked_file_name(name) == clean


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "/",
        "/etc/passwd",
        "//a",
        "..",
        "a/../b",
        "../a",
        ".git/config",
        "a/.git/hooks/x",
        "a\x00b",
        "a\nb",
        "a\u202eb",
        "\ud800",
        "x" * (MAX_PART_BYTES + 1),
        "é" * (MAX_PART_BYTES // 2 + 1),
        "a/" * MAX_NAME_BYTES,
    ],
)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        checked_file_name(name)
    assert len(refused.value.detail) < 300


@given(PATHS)
def test_names_are_distinct_exactly_if_none_is_or_contains_another(names: list[str]) -> None:
    clash = any(
        one == two or two.startswith(f"{one}/")
        for i, one in enumerate(names)
        for j, two in enumerate(names)
        if i != j
    )
    if not clash:
        require_distinct(names)
        return
    with pytest.raises(FileConflict) as refused:
        require_distinct(names)
    assert refused.value.facts["file"] in names


def test_a_file_with_a_long_common_prefix_is_no_conflict() -> None:
    require_distinct(["a", "a.txt", "ab/c", "ab.d"])


def test_a_files_content_is_not_shown() -> None:
    assert "secret" not in repr(InlineFile("a", b"secret"))
