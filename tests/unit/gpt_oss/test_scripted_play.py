from pathlib import Path

import pytest

from gpt_oss.scripted.play import SHIPPED, Play, PlayError, load_plays, play_from_yaml

HEAD = "name: p\nwhen: {always: true}\nturns:\n"


def play(turns: str) -> Play:
    return play_from_yaml(HEAD + turns)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (HEAD + "  - {say: a}\n  - {sayy: b}", "turn 1: sayy: unknown key"),
        (HEAD + "  - {say: a, expect: {last: x}}", "turn 0: expect.last: unknown key"),
        (HEAD + "  - {calls: [{tool: a, args: {}}]}", "turn 0: calls.0.args: unknown key"),
        (HEAD + "  - {choose: [{say: a, wen: b}]}", "turn 0: choose.0.wen: unknown key"),
        (HEAD + "  - {say: a}\nextra: 1", "p.yaml: extra: unknown key"),
        (HEAD + "  - {}", "turn 0: give exactly one of .*: none"),
        (HEAD + "  - {say: a, empty: true}", "exactly one of .*: say or calls and empty"),
        (HEAD + "  - {say: a, choose: [{say: b}]}", "put into the alternatives of choose: say"),
        (HEAD + "  - {choose: [{when_tool_matches: a}]}", "choose.0: give exactly one of"),
        (HEAD + "  - {say: '{{ tol[0] }}'}", "turn 0: say: unknown source"),
        (HEAD + "  - {calls: [{tool: a, arguments: {x: [{y: '{{'}]}}]}", "arguments: .*closed"),
        (HEAD + "  - {say: a, expect: {last_matches: '('}}", "last_matches: bad regular"),
        (HEAD + "  - {say: a, capture: [{pattern: a}]}", "capture.0: .*no named group"),
        (HEAD + "  - {say: a, repeat: forever}\n  - {say: b}", "later turns are never played"),
        (HEAD + "  - {say: a, repeat: -1}", "turn 0: repeat"),
        (HEAD + "  - {say: 3}", "turn 0: say: .*string"),
        (HEAD + "  - {raw: x, body: y}", "body and headers need a status"),
        (HEAD + "  - {calls: [{tool: a, arguments: {}, raw_arguments: ''}]}", "not both"),
        ("name: p\nwhen: {}\nturns: [{say: a}]", "when: say which queries fit"),
        ("name: P p\nwhen: {always: true}\nturns: [{say: a}]", "p.yaml: name"),
        ("name: p\nwhen: {always: true}\nturns: []", "p.yaml: turns"),
        ("name: [", "p.yaml: not YAML"),
        ("", "p.yaml: .*"),
    ],
)
def test_a_wrong_play_is_refused_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(PlayError, match=complaint) as caught:
        play_from_yaml(text, origin="p.yaml")
    assert str(caught.value).startswith("p.yaml: ")


@pytest.mark.parametrize(
    ("when", "query", "fits"),
    [
        ("{matches: [files]}", "List the FILES", True),
        ("{matches: ['^files']}", "List\nfiles", True),
        ("{matches: [a, b]}", "only b", True),
        ("{matches: [a]}", "only b", False),
        ("{words: [List, files]}", "Files: list them", True),
        ("{words: [file]}", "files", False),
        ("{words: [list], matches: ['\\?']}", "list", False),
        ("{always: true}", "", True),
    ],
)
def test_when(when: str, query: str, fits: bool) -> None:
    script = play_from_yaml(f"name: p\nwhen: {when}\nturns: [{{say: a}}]")
    assert script.when.fits(query) is fits


def test_turns_by_position_with_repeats() -> None:
    script = play("  - {say: a}\n  - {say: b, repeat: 2}\n  - {say: c}")
    assert [script.turn_at(position) for position in range(6)] == [0, 1, 1, 1, 2, None]
    assert [script.first_position(index) for index in range(3)] == [0, 1, 4]
    forever = play("  - {say: a}\n  - {say: b, repeat: forever}")
    assert [forever.turn_at(position) for position in (0, 1, 999)] == [0, 1, 1]


def test_directories_come_in_the_order_given_and_files_by_name(tmp_path: Path) -> None:
    for folder, name in (("x", "b"), ("x", "a"), ("w", "c")):
        path = tmp_path / folder / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"name: {name}\nwhen: {{always: true}}\nturns: [{{say: hi}}]")
    single = tmp_path / "w" / "c.yaml"
    assert [each.name for each in load_plays([tmp_path / "x", single])] == ["a", "b", "c"]


def test_a_name_taken_twice_and_a_missing_path_are_refused(tmp_path: Path) -> None:
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text("name: same\nwhen: {always: true}\nturns: [{say: hi}]")
    with pytest.raises(PlayError, match=r"two\.yaml: the name 'same' is taken by .*one\.yaml"):
        load_plays([tmp_path])
    with pytest.raises(PlayError, match="no such file or directory"):
        load_plays([tmp_path / "missing"])


def test_each_shipped_example_starts_its_own_play() -> None:
    plays = load_plays([SHIPPED])
    examples = [(play.name, example) for play in plays for example in play.examples]
    assert len(examples) >= 3
    for name, example in examples:
        assert next(play.name for play in plays if play.when.fits(example)) == name
    assert plays[-1].name == "fallback"


@pytest.mark.parametrize(
    "query",
    [
        "List the files and delete them",
        "Write a function fibonacci(n) and a test for it",
        "Explain the structure of slugify.py",
        "Fix the bug",
    ],
)
def test_a_query_that_no_script_can_do_falls_to_the_fallback(query: str) -> None:
    plays = load_plays([SHIPPED])
    assert next(play.name for play in plays if play.when.fits(query)) == "fallback"
