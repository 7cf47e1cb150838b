import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_servers.edits import Edit, EditError, apply_edits, unified_diff


def test_replaces_an_exact_passage() -> None:
    assert apply_edits("a = 1\nb = 2\n", [Edit("b = 2", "b = 3")]) == "a = 1\nb = 3\n"


def test_applies_edits_in_order() -> None:
    assert apply_edits("one", [Edit("one", "two"), Edit("two", "three")]) == "three"


def test_names_the_edit_that_matches_nothing() -> None:
    with pytest.raises(EditError, match="edit 2: oldText does not occur"):
        apply_edits("one\n", [Edit("one", "two"), Edit("absent", "x")])


def test_says_how_often_an_ambiguous_passage_occurs() -> None:
    with pytest.raises(EditError, match="edit 1: oldText occurs 3 times"):
        apply_edits("x\nx\nx\n", [Edit("x", "y")])
    with pytest.raises(EditError, match="occurs 2 times"):
        apply_edits("  a\n  b\nq\n\ta\n\tb\n", [Edit("a\nb", "c")])


def test_says_where_a_near_match_starts() -> None:
    with pytest.raises(EditError, match="first line is line 2"):
        apply_edits("one\ntwo\nthree\n", [Edit("two\nfour", "x")])


def test_matches_lines_whatever_their_indentation() -> None:
    text = "class A:\n    def f(self):\n        return 1\n"
    edit = Edit("def f(self):\n    return 1", "def f(self):\n    if self:\n        return 2")
    assert (
        apply_edits(text, [edit])
        == "class A:\n    def f(self):\n        if self:\n            return 2\n"
    )


def test_keeps_windows_line_ends() -> None:
    assert apply_edits("a\r\nb\r\n", [Edit("a\nb", "a\nc")]) == "a\r\nc\r\n"


def test_leaves_mixed_line_ends_alone() -> None:
    assert apply_edits("a\r\nb\nc\n", [Edit("c", "d")]) == "a\r\nb\nd\n"


@pytest.mark.parametrize("old", ["", "\n\n\n", "   "])
def test_refuses_blank_passages(old: str) -> None:
    with pytest.raises(EditError):
        apply_edits("text", [Edit(old, "x")])


@given(st.text(), st.text(min_size=1), st.text(), st.text())
def test_a_unique_passage_is_replaced_and_nothing_else(
    before: str, old: str, after: str, new: str
) -> None:
    text = before + old + after
    if "\r" in text + new or text.count(old) != 1:
        return
    assert apply_edits(text, [Edit(old, new)]) == before + new + after


def test_diff_marks_a_missing_final_newline() -> None:
    diff = unified_diff("a\n", "b", "f.txt")
    assert diff == ("--- a/f.txt\n+++ b/f.txt\n@@ -1 +1 @@\n-a\n+b\n\\ No newline at end of file\n")
