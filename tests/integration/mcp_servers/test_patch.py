import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from mcp.server.mcpserver.exceptions import ToolError

from mcp_servers import files, patch, v4a

Connect = Callable[[], AbstractAsyncContextManager[Any]]


def wrapped(*lines: str) -> str:
    return "\n".join(["*** Begin Patch", *lines, "*** End Patch"])


def contents(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): p.read_text() for p in root.rglob("*") if p.is_file()}


async def test_applies_all_kinds_of_changes(root: Path, tools: Connect) -> None:
    (root / "old").write_text("old\n")
    (root / "edit").write_bytes(b"a\r\nb\r\n")
    (root / "move").write_text("1\n2\n")
    (root / "move").chmod(0o755)
    text = wrapped(
        "*** Add File: dir/new",
        "+hello",
        "*** Delete File: old",
        "*** Update File: edit",
        "@@",
        " a",
        "-b",
        "+c",
        "*** Update File: move",
        "*** Move to: dir/moved",
        "@@ 1",
        "-2",
        "+3",
    )
    async with tools() as client:
        assert await client.text("apply_patch", input=text) == (
            "Applied the patch:\nA dir/new\nD old\nM edit\nD move\nA dir/moved"
        )
    assert (root / "edit").read_bytes() == b"a\r\nc\r\n"
    (root / "edit").unlink()
    assert contents(root) == {"dir/new": "hello\n", "dir/moved": "1\n3\n"}
    assert (root / "dir/moved").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["*** Update File: f", "-absent", "+x"], "f: hunk 1: these lines do not occur"),
        (["*** Add File: f", "+x"], "f: exists already; use '\\*\\*\\* Update File:'"),
        (["*** Delete File: none"], "none: no such file"),
        (["*** Update File: none", "+x"], "none: no such file"),
        (["*** Update File: f", "*** Move to: g", "+x"], "g: exists already"),
        (["*** Delete File: ./new"], "new: no such file"),
        (["*** Add File: ./x/../new", "+y"], "new: named by two sections"),
        (["*** Delete File: dir"], "dir: is a directory"),
        (["*** Delete File: link"], "link: a symbolic link"),
        (["*** Add File: deep/.git/config", "+x"], "git's own files"),
        (["*** Add File: ../out", "+x"], "outside the workspace"),
        (["*** Add File: f/below", "+x"], "f/below: a part of the path is not a directory"),
        (["oops"], "line 4: each line of a new file"),
    ],
)
async def test_a_part_that_fails_changes_nothing(
    root: Path, tools: Connect, lines: list[str], message: str
) -> None:
    (root / "f").write_text("f\n")
    (root / "g").write_text("g\n")
    (root / "dir").mkdir()
    (root / "x").mkdir()
    (root / "link").symlink_to("f")
    before = contents(root)
    async with tools() as client:
        refusal = await client.refusal(
            "apply_patch", input=wrapped("*** Add File: new", "+x", *lines)
        )
    assert re.search(message, refusal), refusal
    assert contents(root) == before


def test_changes_are_taken_back_when_a_later_one_fails(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last rename finds a directory in its way, which appeared after the plan was made."""
    (root / "a").write_text("a\n")
    (root / "b").write_text("b\n")
    (root / "c").write_text("c\n")
    text = wrapped(
        "*** Add File: new",
        "+n",
        "*** Update File: a",
        "-a",
        "+A",
        "*** Delete File: b",
        "*** Update File: c",
        "-c",
        "+C",
    )
    changes = patch.plan(root, v4a.parse(text))
    commit = files.Staged.commit

    def commit_with_obstacle(staged: files.Staged) -> None:
        if staged.target.name == "c":
            (root / "c").unlink()
            (root / "c").mkdir()
        commit(staged)

    monkeypatch.setattr(files.Staged, "commit", commit_with_obstacle)
    with pytest.raises(ToolError, match="c: is a directory"):
        patch.apply(root, changes)
    assert contents(root) == {"a": "a\n", "b": "b\n"}
    assert {path.name for path in root.iterdir()} == {"a", "b", "c"}
