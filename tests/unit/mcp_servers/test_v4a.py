import difflib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_servers.hunks import apply_hunks
from mcp_servers.v4a import AddFile, DeleteFile, Hunk, Line, PatchError, UpdateFile, parse

SOURCE = """\
class A:
    def f(self):
        return 1

class B:
    def f(self):
        return 1
"""


def patch(*lines: str) -> str:
    return "\n".join(["*** Begin Patch", *lines, "*** End Patch"])


def updated(text: str, *lines: str) -> str:
    (action,) = parse(patch("*** Update File: f", *lines))
    assert isinstance(action, UpdateFile)
    return apply_hunks(text, action)


def test_parses_every_kind_of_section() -> None:
    actions = parse(
        patch(
            "*** Add File: new.txt",
            "+one",
            "+",
            "*** Delete File: old.txt",
            "",
            "*** Update File: a.py",
            "*** Move to: b.py",
            "@@ class A:",
            "@@ def f():",
            " keep",
            "-out",
            "+in",
            "*** End of File",
            "",
        )
    )
    assert actions == [
        AddFile("new.txt", "one\n\n"),
        DeleteFile("old.txt"),
        UpdateFile(
            "a.py",
            (
                Hunk(
                    ("class A:", "def f():"),
                    (Line(" ", "keep"), Line("-", "out"), Line("+", "in")),
                    at_end=True,
                ),
            ),
            "b.py",
        ),
    ]


def test_accepts_windows_line_ends_and_space_around() -> None:
    text = "\n" + patch("*** Delete File: x").replace("\n", "\r\n") + "\r\n"
    assert parse(text) == [DeleteFile("x")]


def test_empty_lines_in_a_hunk_are_context_and_between_hunks_are_not() -> None:
    text = patch("*** Update File: f", " a", "", "", "-b", "", "@@ c", "+d", "")
    (action,) = parse(text)
    assert isinstance(action, UpdateFile)
    assert [hunk.lines for hunk in action.hunks] == [
        (Line(" ", "a"), Line(" ", ""), Line(" ", ""), Line("-", "b")),
        (Line("+", "d"),),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: a patch starts with"),
        ("*** Begin Patch\n*** Delete File: x", "line 2: a patch ends with"),
        (patch(), "changes no file"),
        (patch("what"), "line 2: expected"),
        (patch("*** Add File: "), "names no file"),
        (patch("*** Add File: x", "no plus"), "line 3: each line of a new file"),
        (patch("*** Update File: x"), "has no hunks"),
        (patch("*** Update File: x", "@@ y"), "a hunk without lines"),
        (patch("*** Update File: x", "@@", "oops"), "line 4: each line of a hunk"),
    ],
)
def test_says_which_line_is_malformed(text: str, message: str) -> None:
    with pytest.raises(PatchError, match=message):
        parse(text)


def test_anchors_choose_among_equal_places() -> None:
    result = updated(
        SOURCE, "@@ class B:", "@@     def f(self):", "-        return 1", "+        return 2"
    )
    assert result == SOURCE[: SOURCE.rindex("1")] + "2\n"


def test_later_hunks_apply_below_earlier_ones() -> None:
    change = ("-        return 1", "+        return 2")
    assert updated(SOURCE, "@@", *change, "@@", *change) == SOURCE.replace("1", "2")


def test_end_of_file_ties_a_hunk_to_the_end() -> None:
    assert updated("x\ny\nx\n", "-x", "+z", "*** End of File") == "x\ny\nz\n"
    with pytest.raises(PatchError, match="at the end of the file"):
        updated("x\ny\n", "-x", "*** End of File")


def test_additions_without_context_go_to_the_end_or_below_the_anchor() -> None:
    assert updated("a\nb\n", "+c") == "a\nb\nc\n"
    assert updated("", "+c") == "c\n"
    assert updated("a\nb\n", "@@ a", "+c") == "a\nc\nb\n"


def test_blanks_are_tolerated_and_kept_lines_stay_as_they_are() -> None:
    assert updated("\tkeep  \n\tout\n", " keep", "-out", "+in") == "\tkeep  \nin\n"


def test_an_exact_match_wins_over_an_earlier_tolerant_one() -> None:
    assert updated("  x\nx\n", "-x", "+y") == "  x\ny\n"


def test_keeps_a_missing_final_newline() -> None:
    assert updated("a\nb", "-b", "+c") == "a\nc"


def test_a_mismatch_names_the_closest_place() -> None:
    with pytest.raises(PatchError) as caught:
        updated("one\ntwo\nthree\n", " one", "-two!", "+2")
    message = str(caught.value)
    assert "f: hunk 1: these lines do not occur from line 1 on:\none\ntwo!" in message
    assert "closest place is line 1; there, line 2 is 'two', but the patch has 'two!'" in message


def test_a_mismatch_says_that_hunks_are_out_of_order() -> None:
    with pytest.raises(PatchError, match=r"They are at line 1\. Put hunks in the order"):
        updated("a\nb\n", "-b", "+B", "@@", "-a", "+A")
    with pytest.raises(PatchError, match="it is at line 1, before"):
        updated("a\nb\n", "-b", "+B", "@@ a", "+A")


def test_a_missing_anchor_is_named() -> None:
    with pytest.raises(PatchError, match="no line 'class Z:' from line 1 on"):
        updated(SOURCE, "@@ class Z:", "-x")


def test_context_longer_than_the_file_is_a_mismatch() -> None:
    with pytest.raises(PatchError, match="file ends before"):
        updated("a\n", " a", " ", " b", "+c")


def hunks_between(old: list[str], new: list[str], context: int) -> list[tuple[int, list[str]]]:
    """Return hunks as (start in old, lines), from a diff with that many lines of context."""
    hunks = []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for group in matcher.get_grouped_opcodes(context):
        lines: list[str] = []
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                lines += [f" {line}" for line in old[i1:i2]]
            else:
                lines += [f"-{line}" for line in old[i1:i2]]
                lines += [f"+{line}" for line in new[j1:j2]]
        hunks.append((group[0][1], lines))
    return hunks


def first_places_are_right(old: list[str], hunks: list[tuple[int, list[str]]]) -> bool:
    """Say whether searching each hunk's old lines in order finds them where they belong."""
    cursor = 0
    for start, lines in hunks:
        wanted = [line[1:] for line in lines if line[0] != "+"]
        places = range(cursor, len(old) - len(wanted) + 1)
        if not wanted or next(p for p in places if old[p : p + len(wanted)] == wanted) != start:
            return False
        cursor = start + len(wanted)
    return True


def build_patch(old: str, new: str) -> str:
    before, after = old.split("\n"), new.split("\n")
    for context in (1, 2, 3, len(before) + 1):
        hunks = hunks_between(before, after, context)
        if first_places_are_right(before, hunks):
            return patch("*** Update File: f", *(x for _, lines in hunks for x in ["@@", *lines]))
    raise AssertionError("the whole file as context must be unique")


texts = st.one_of(
    st.lists(st.sampled_from(["a", "b", " a", "", "@@ x", "*** End Patch", "+", "-"]), max_size=25),
    st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), max_size=8)),
).map("\n".join)


@settings(max_examples=400, deadline=None)
@given(texts, texts)
def test_a_patch_of_the_difference_makes_one_text_the_other(old: str, new: str) -> None:
    if old == new:
        return
    (action,) = parse(build_patch(old, new))
    assert isinstance(action, UpdateFile)
    assert apply_hunks(old, action) == new


@settings(max_examples=200, deadline=None)
@given(st.text(), st.lists(st.text(max_size=10), max_size=10))
def test_any_input_is_applied_or_refused(noise: str, lines: list[str]) -> None:
    for text in (noise, patch(*lines), patch("*** Update File: f", *lines)):
        with suppress(PatchError):
            for action in parse(text):
                if isinstance(action, UpdateFile):
                    apply_hunks("some\ntext\n", action)
