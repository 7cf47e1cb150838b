import asyncio
import json
import os
import shutil
import socket
import stat
import threading
from base64 import b64decode
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from mcp_servers import files, tree

Connect = Callable[[], AbstractAsyncContextManager[Any]]

READERS = ["read_text_file", "read_media_file", "get_file_info"]
LISTERS = ["list_directory", "list_directory_with_sizes", "directory_tree"]
ESCAPES = ["../secret", "/etc/passwd", "link", "dir-link/secret", "sub/../../secret", "chain"]


@pytest.fixture
def trap(root: Path, tmp_path: Path) -> Path:
    """A root full of ways out, and a secret outside it."""
    (tmp_path / "secret").write_text("outside")
    (root / "sub").mkdir()
    (root / "link").symlink_to("../secret")
    (root / "dir-link").symlink_to(tmp_path)
    (root / "chain").symlink_to("dir-link/secret")
    (root / "dangling").symlink_to(tmp_path / "new")
    (root / "inside").symlink_to("sub/file")
    (root / "sub/file").write_text("content\n")
    (root / ".git").write_text("gitdir: /somewhere\n")
    return root


def contents(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): str(path.readlink())
        if path.is_symlink()
        else path.read_text()
        for path in sorted(directory.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize("path", ESCAPES)
async def test_nothing_outside_can_be_read(trap: Path, tools: Connect, path: str) -> None:
    async with tools() as client:
        for name in READERS:
            assert "outside the workspace" in await client.refusal(name, path=path)
        for name in LISTERS:
            assert "outside the workspace" in await client.refusal(name, path=f"{path}/..")
        assert "outside" in await client.refusal("search_files", path="dir-link", pattern="*")
        text = await client.text("read_multiple_files", paths=[path, "sub/file"])
        assert "outside the workspace" in text
        assert text.endswith("sub/file:\ncontent\n")


@pytest.mark.parametrize("path", [*ESCAPES, "dangling", "dir-link/new", "../new"])
async def test_nothing_outside_can_be_written(
    trap: Path, tools: Connect, tmp_path: Path, path: str
) -> None:
    before = contents(tmp_path)
    async with tools() as client:
        assert "outside" in await client.refusal("write_file", path=path, content="x")
        edit = [{"oldText": "outside", "newText": "x"}]
        assert "outside" in await client.refusal("edit_file", path=path, edits=edit)
        assert "outside" in await client.refusal("create_directory", path=f"{path}/d")
        if "/" in path:
            move = {"source": "sub/file", "destination": path}
            assert "outside" in await client.refusal("move_file", **move)
            back = {"source": path, "destination": "sub/taken"}
            assert "outside" in await client.refusal("move_file", **back)
        text = f"*** Begin Patch\n*** Add File: {path}\n+x\n*** End Patch"
        assert "outside" in await client.refusal("apply_patch", input=text)
    assert contents(tmp_path) == before


async def test_moving_a_link_moves_the_link_itself(
    trap: Path, tools: Connect, tmp_path: Path
) -> None:
    async with tools() as client:
        await client.text("move_file", source="link", destination="sub/moved")
    assert (trap / "sub/moved").readlink() == Path("../secret")
    assert (tmp_path / "secret").read_text() == "outside"


@pytest.mark.parametrize("path", [".git", ".git/x", "sub/.git/config", "sub/.git"])
async def test_git_data_is_read_only(trap: Path, tools: Connect, path: str) -> None:
    async with tools() as client:
        assert await client.text("read_text_file", path=".git") == "gitdir: /somewhere\n"
        refusals = [
            await client.refusal("write_file", path=path, content="x"),
            await client.refusal("create_directory", path=path),
            await client.refusal("move_file", source="sub/file", destination=path),
            await client.refusal("move_file", source=".git", destination="stolen"),
            await client.refusal(
                "apply_patch", input="*** Begin Patch\n*** Delete File: .git\n*** End Patch"
            ),
        ]
        assert all("git's own files" in refusal for refusal in refusals)
    assert (trap / ".git").read_text() == "gitdir: /somewhere\n"
    assert not (trap / "sub/.git").exists()


async def test_special_files_are_refused_without_hanging(root: Path, tools: Connect) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
    (root / "dir").mkdir()
    names = ["fifo", "socket", "dir"]
    if os.getuid() == 0:
        try:
            os.mknod(root / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))
            names.append("device")
        except PermissionError:  # Not allowed in this container; the others remain.
            pass
    async with asyncio.timeout(60), tools() as client:
        for name in names:
            for tool in ("read_text_file", "read_media_file"):
                assert "not a" in await client.refusal(tool, path=name)
            assert "not a" in await client.refusal("read_text_file", path=name, head=1)
            assert "not a" in await client.refusal("write_file", path=name, content="x")


async def test_links_inside_are_followed_for_reading_and_writing(
    trap: Path, tools: Connect
) -> None:
    async with tools() as client:
        assert await client.text("read_text_file", path="inside") == "content\n"
        assert await client.text("read_text_file", path=str(trap / "inside")) == "content\n"
        await client.text("write_file", path="inside", content="new")
    assert (trap / "inside").is_symlink()
    assert (trap / "sub/file").read_text() == "new"


async def test_swapping_links_never_lead_outside(
    root: Path, tools: Connect, tmp_path: Path
) -> None:
    """A directory is exchanged for a link to the outside, over and over, while tools use it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret")
    (root / "real").mkdir()
    (root / "real/file").write_text("mine")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            try:
                (root / "real").rename(root / "dir")
                (root / "dir").rename(root / "real")
                (root / "dir").symlink_to(outside)
                (root / "dir").unlink()
            except OSError:  # A write has made the directory, which was missing just then.
                shutil.rmtree(root / "dir", ignore_errors=True)
                (root / "real").mkdir(exist_ok=True)
                (root / "real/file").write_text("mine")

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        async with tools() as client:
            for _ in range(150):
                result = await client.call("read_text_file", path="dir/file")
                seen.add(result.content[0].text.removeprefix("Error executing tool "))
                await client.call("write_file", path="dir/file", content="mine")
                await client.call("write_file", path="dir/other", content="mine")
    finally:
        stop.set()
        swapper.join()
    assert "secret" not in seen
    assert contents(outside) == {"file": "secret"}


async def test_reads_whole_heads_and_tails(root: Path, tools: Connect) -> None:
    (root / "f").write_text("".join(f"{n}\n" for n in range(1, 30001)))
    (root / "open").write_text("a\nb\nc")
    (root / "empty").write_text("")
    async with tools() as client:
        assert (await client.text("read_text_file", path="f")).count("\n") == 30000
        assert await client.text("read_text_file", path="f", head=2) == "1\n2\n"
        assert await client.text("read_text_file", path="f", tail=2) == "29999\n30000\n"
        assert (await client.text("read_text_file", path="f", tail=20000)).startswith("10001\n")
        assert await client.text("read_text_file", path="open", tail=2) == "b\nc"
        assert await client.text("read_text_file", path="open", tail=9) == "a\nb\nc"
        assert await client.text("read_text_file", path="empty", tail=9) == ""
        assert "not both" in await client.refusal("read_text_file", path="f", head=1, tail=1)
        assert "head" in await client.refusal("read_text_file", path="f", head=0)


async def test_limits_are_named(root: Path, tools: Connect) -> None:
    with (root / "big").open("wb") as file:
        file.write(b"x" * (files.READ_LIMIT + 1) + b"\nend\n")
    async with tools() as client:
        assert f"limit of {files.READ_LIMIT} bytes" in await client.refusal(
            "read_text_file", path="big"
        )
        assert "first 1 lines are more than" in await client.refusal(
            "read_text_file", path="big", head=1
        )
        assert "last 2 lines are more than" in await client.refusal(
            "read_text_file", path="big", tail=2
        )
        assert await client.text("read_text_file", path="big", tail=1) == "end\n"


async def test_binary_and_undecodable_files(root: Path, tools: Connect) -> None:
    (root / "bin").write_bytes(b"\0\1")
    (root / "latin").write_bytes(b"caf\xe9\n")
    edit = [{"oldText": "caf", "newText": "x"}]
    async with tools() as client:
        assert "binary" in await client.refusal("read_text_file", path="bin")
        assert await client.text("read_text_file", path="latin") == "caf\ufffd\n"
        assert "not valid UTF-8" in await client.refusal("edit_file", path="latin", edits=edit)
    assert (root / "latin").read_bytes() == b"caf\xe9\n"


async def test_media_files_keep_their_bytes_and_type(root: Path, tools: Connect) -> None:
    for name in ("a.png", "b.wav", "c.bin"):
        (root / name).write_bytes(b"\0\xff")
    async with tools() as client:
        (image,) = (await client.call("read_media_file", path="a.png")).content
        (audio,) = (await client.call("read_media_file", path="b.wav")).content
        (other,) = (await client.call("read_media_file", path="c.bin")).content
    assert (image.type, image.mime_type, b64decode(image.data)) == ("image", "image/png", b"\0\xff")
    assert (audio.type, b64decode(audio.data)) == ("audio", b"\0\xff")
    assert (other.type, b64decode(other.resource.blob)) == ("resource", b"\0\xff")


async def test_writes_replace_in_one_step_and_keep_the_mode(root: Path, tools: Connect) -> None:
    async with tools() as client:
        text = await client.text("write_file", path="a/b/script", content="é\n")
        assert text == "Created a/b/script (3 bytes)"
        script = root / "a/b/script"
        script.chmod(0o750)
        inode = script.stat().st_ino
        assert "Replaced" in await client.text("write_file", path="a/b/script", content="new")
    assert script.read_text() == "new"
    assert stat.S_IMODE(script.stat().st_mode) == 0o750
    assert script.stat().st_ino != inode
    assert [path.name for path in script.parent.iterdir()] == ["script"]


async def test_edits_return_a_diff_and_fail_whole(root: Path, tools: Connect) -> None:
    (root / "f").write_text("a\nb\n")
    async with tools() as client:
        edit = {"path": "f", "edits": [{"oldText": "b", "newText": "c"}]}
        diff = "--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
        assert await client.text("edit_file", **edit, dryRun=True) == diff
        assert (root / "f").read_text() == "a\nb\n"
        assert await client.text("edit_file", **edit) == diff
        bad = [{"oldText": "a", "newText": "x"}, {"oldText": "zz", "newText": "y"}]
        refusal = await client.refusal("edit_file", path="f", edits=bad)
        assert refusal == "f: edit 2: oldText does not occur in the file; nothing was changed"
        as_json = json.dumps([{"oldText": "c", "newText": "d"}])
        await client.text("edit_file", path="f", edits=as_json)
    assert (root / "f").read_text() == "a\nd\n"


async def test_listings(root: Path, tools: Connect) -> None:
    (root / "dir").mkdir()
    (root / "big").write_text("x" * 2048)
    (root / "small").write_text("x")
    (root / "to").symlink_to("big")
    os.close(os.open(os.fsencode(root) + b"/caf\xe9", os.O_CREAT | os.O_WRONLY))
    async with tools() as client:
        assert await client.text("list_directory", path="dir") == "(empty)"
        assert await client.text("list_directory") == (
            "[FILE] big\n[FILE] caf\ufffd\n[DIR] dir\n[FILE] small\n[LINK] to"
        )
        assert await client.text("list_directory_with_sizes", path=".", sortBy="size") == (
            "[FILE] big  2.00 KiB\n[FILE] small  1 B\n[FILE] caf\ufffd  0 B\n[DIR] dir\n"
            "[LINK] to\n\nTotal: 3 files, 1 directories, 2.00 KiB"
        )
        assert await client.text("list_allowed_directories") == f"Allowed directories:\n{root}"
        info = await client.text("get_file_info", path="big")
        assert "size: 2048\n" in info
        assert "isFile: true\n" in info
        assert "no such" in await client.refusal("get_file_info", path="missing")
        assert "not a directory" in await client.refusal("list_directory", path="big")


async def test_tree_is_compact_json(root: Path, tools: Connect) -> None:
    for name in (".git/x", ".berth/y", "src/a.py", "node_modules/z", "src/skip/me"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    (root / "loop").symlink_to(".")
    async with tools() as client:
        assert await client.text(
            "directory_tree", excludePatterns=["node_modules", "src/skip"]
        ) == (
            '[{"name":"loop","type":"symlink"},{"name":"src","type":"directory",'
            '"children":[{"name":"a.py","type":"file"}]}]'
        )


async def test_large_trees_are_cut_breadth_first(
    root: Path, tools: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "ENTRY_LIMIT", 10)
    for name in "abc":
        (root / name).mkdir()
        for number in range(5):
            (root / name / str(number)).write_text("")
    async with tools() as client:
        listing, note = (await client.call("directory_tree")).content
        assert [len(item["children"]) for item in json.loads(listing.text)] == [5, 2, 0]
        assert "left out below: b (3), c (5)" in note.text
        found = await client.text("search_files", pattern="*")
        assert found.endswith("[stopped after 10 matches; narrow the path or the pattern]")
        (root / "many").mkdir()
        for number in range(12):
            (root / "many" / f"{number:02}").write_text("")
        assert (await client.text("list_directory", path="many")).endswith(
            "[FILE] 09\n[2 more entries left out]"
        )


async def test_search(root: Path, tools: Connect) -> None:
    for name in ("src/a.py", "src/x/b.py", "c.py", ".git/d.py", "src/e.txt", "vendor/f.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    async with tools() as client:
        assert await client.text("search_files", path=".", pattern="*.py") == (
            "c.py\nsrc/a.py\nsrc/x/b.py\nvendor/f.py"
        )
        assert await client.text("search_files", path="src", pattern="**/*.py") == (
            "src/a.py\nsrc/x/b.py"
        )
        assert "vendor" not in await client.text(
            "search_files", path=".", pattern="**/*.py", excludePatterns=["vendor"]
        )
        assert await client.text("search_files", path=".", pattern="none") == "No matches found"


async def test_move_and_create(root: Path, tools: Connect) -> None:
    (root / "a").write_text("a")
    (root / "b").write_text("b")
    async with tools() as client:
        await client.text("create_directory", path="x/y")
        assert "exists already" in await client.text("create_directory", path="x/y")
        assert "already exists" in await client.refusal("create_directory", path="a")
        assert "already exists" in await client.refusal("move_file", source="a", destination="b")
        assert "no such" in await client.refusal("move_file", source="none", destination="c")
        assert "cannot be moved" in await client.refusal("move_file", source=".", destination="c")
        await client.text("move_file", source="a", destination="new/dir/a")
        await client.text("move_file", source="x", destination="z")
    assert contents(root) == {"b": "b", "new/dir/a": "a"}
    assert (root / "z/y").is_dir()


async def test_a_missing_root_is_an_error_without_its_path(root: Path, tools: Connect) -> None:
    async with tools() as client:
        root.rmdir()
        assert await client.refusal("read_text_file", path="a") == "a: no such file or directory"
        assert "no such" in await client.refusal("bash", command="true")
