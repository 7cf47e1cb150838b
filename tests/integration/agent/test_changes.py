"""The patch of a task: what it carries, what it leaves out, and what it never runs."""

import asyncio
import os
import socket
from pathlib import Path

import pytest
from tests.support.desk import Bench, Desk, names, run
from tests.support.repositories import BINARY, SourceRepository, empty_repository, git

from agent.changes import ChangeReader
from agent.errors import UnknownTask


async def test_nothing_was_changed(desk: Desk) -> None:
    bench = await desk.start()
    changes = await bench.changes()
    assert (changes.diff, changes.changed_files, changes.left_out) == ("", (), ())


async def test_an_unknown_task_has_no_changes(desk: Desk) -> None:
    with pytest.raises(UnknownTask):
        await desk.reader.changes("nobody")


async def test_a_rename_is_shown_as_one(desk: Desk) -> None:
    bench = await desk.start({"old.txt": "line\n" * 50})
    (bench.root / "old.txt").rename(bench.root / "new name.txt")
    changes = await bench.verified()
    assert names(changes) == ["new name.txt", "old.txt"]
    assert "rename from old.txt" in changes.diff


async def test_empty_directories_are_not_seen(desk: Desk) -> None:
    bench = await desk.start()
    (bench.root / "empty" / "deep").mkdir(parents=True)
    assert await bench.changes() == await bench.verified()
    assert (await bench.changes()).diff == ""


async def test_names_that_are_not_utf_8_are_shown_readably(desk: Desk) -> None:
    bench = await desk.start()
    Path(os.fsdecode(os.fsencode(bench.root) + b"/caf\xe9")).write_text("x\n")
    assert (await bench.verified()).changed_files == ("caf\\xe9",)


async def test_a_link_whose_target_is_no_text_is_left_out(desk: Desk) -> None:
    bench = await desk.start({"turned": "file\n", "kept": "x\n"})
    for name in ("new", "turned"):
        (bench.root / name).unlink(missing_ok=True)
        (bench.root / name).symlink_to("\udcff")
    (bench.root / "kept").write_text("y\n")
    changes = await bench.changes()
    assert set(changes.left_out) == {"new", "turned"}
    assert changes.changed_files == ("kept",)
    bench.applied(changes)


async def test_files_that_are_not_utf_8_come_as_binary_and_others_as_text(desk: Desk) -> None:
    bench = await desk.start({"latin": b"caf\xe9\n", "plain": "a\n", "bin": BINARY})
    (bench.root / "latin").write_bytes(b"caf\xe9s\n")
    (bench.root / "plain").write_text("b\n")
    (bench.root / "late null").write_bytes(b"x\n" * 9_000 + b"\0")
    changes = await bench.verified()
    assert "-a\n+b\n" in changes.diff
    assert changes.diff.count("GIT binary patch") == 2


async def test_reading_leaves_the_repository_as_it_is(desk: Desk) -> None:
    bench = await desk.start({"a": "1\n", "b": "2\n"})
    (bench.root / "a").write_text("changed\n")
    (bench.root / "new").write_text("new\n")
    bench.worktree.git("add", "a")
    before = state(bench)
    await bench.verified()
    assert state(bench) == before


def state(bench: Bench) -> tuple[bytes, str, str, str, list[str]]:
    """All that reading could disturb."""
    private = Path(bench.worktree.git("rev-parse", "--absolute-git-dir"))
    stores = (bench.clone / "objects", private / "objects")
    objects = sorted(str(path) for store in stores for path in store.rglob("*"))
    return (
        (private / "index").read_bytes(),
        bench.worktree.git("status", "--porcelain"),
        bench.worktree.git("for-each-ref"),
        (private / "HEAD").read_text(),
        objects,
    )


class TestIgnoring:
    async def test_ignored_files_stay_out(self, desk: Desk) -> None:
        bench = await desk.start({".gitignore": "*.log\nbuild/\n", "a": "x\n"})
        (bench.root / "x.log").write_text("log")
        (bench.root / "build").mkdir()
        (bench.root / "build" / "out").write_text("out")
        assert (await bench.verified()).changed_files == ()

    async def test_a_file_ignored_after_it_was_read_stays_out_too(self, desk: Desk) -> None:
        bench = await desk.start()
        (bench.root / "x.log").write_text("log")
        assert (await bench.verified()).changed_files == ("x.log",)
        (bench.root / ".gitignore").write_text("*.log\n")
        assert (await bench.verified()).changed_files == (".gitignore",)

    async def test_a_tracked_file_is_carried_although_ignored(self, desk: Desk) -> None:
        bench = await desk.start({"a.log": "x\n"})
        (bench.root / ".gitignore").write_text("*.log\n")
        (bench.root / "a.log").write_text("y\n")
        assert names(await bench.verified()) == [".gitignore", "a.log"]

    async def test_placed_files_stay_out_whatever_is_done_with_them(self, desk: Desk) -> None:
        placed = {
            "plain.txt": b"1",
            "sp ace.txt": b"2",
            "trailing ": b"3",
            "*.py": b"4",
            "[a-z]?.txt": b"5",
            "back\\slash": b"6",
            "!bang": b"7",
            "#hash": b"8",
            "deep/er/é.txt": b"9",
        }
        # A repository that ignores all but what it names lets our files in again.
        source = empty_repository(desk.directory / "sample")
        source.commit("start", {".gitignore": "/*\n!files\n!*.txt\n!.berth\n", "files/own": "x\n"})
        await desk.give(source)
        await desk.prepare("t", {"sample": source.head}, placed)
        bench = Bench(desk, source, "t")
        (bench.root / ".berth" / "outputs").mkdir(parents=True)
        (bench.root / ".berth" / "outputs" / "long.txt").write_text("long")
        (bench.root / "files" / "plain.txt").write_text("edited")
        assert (await bench.changes()).diff == ""
        bench.worktree.git("add", "--force", "--all")
        bench.worktree.git("commit", "--quiet", "-m", "all of it")
        assert (await bench.changes()).diff == ""
        (bench.root / "files" / "a.txt").write_text("the glob is no glob here")
        (bench.root / "files" / "x.py").write_text("nor here")
        changes = await bench.changes()
        assert names(changes) == ["files/a.txt", "files/x.py"]

    async def test_our_own_directory_stays_out_even_of_a_repository_that_has_it(
        self, desk: Desk
    ) -> None:
        bench = await desk.start({".berth/theirs": "x\n", "a": "x\n"})
        (bench.root / ".berth" / "theirs").write_text("y\n")
        (bench.root / ".berth" / "new").write_text("y\n")
        changes = await bench.changes()
        assert (changes.diff, changes.left_out) == ("", (".berth/theirs",))


class TestGitOfTheTask:
    async def test_commits_branches_and_stashes_do_not_matter(self, desk: Desk) -> None:
        bench = await desk.start({"a": "1\n", "b": "2\n", "c": "3\n"})
        tree = bench.worktree
        tree.commit("own", {"a": "one\n", "new": "x\n"})
        assert names(await bench.verified()) == ["a", "new"]
        tree.git("switch", "--quiet", "--create", "side", bench.commit)
        assert names(await bench.verified()) == []
        tree.write("b", "two\n")
        tree.git("stash")
        assert names(await bench.verified()) == []
        tree.git("stash", "pop")
        tree.git("reset", "--quiet", "--soft", "HEAD")
        tree.git("rm", "--quiet", "--cached", "c")
        assert names(await bench.verified()) == ["b"]
        tree.git("update-index", "--assume-unchanged", "b")
        tree.write("b", "three\n")
        tree.git("sparse-checkout", "set", "--no-cone", "/b")
        assert set(names(await bench.verified())) >= {"a", "b"}

    async def test_intent_to_add_and_replaced_objects_do_not_matter(self, desk: Desk) -> None:
        bench = await desk.start({"a": "1\n"})
        tree = bench.worktree
        tree.write("new", "x\n")
        tree.git("add", "--intent-to-add", "new")
        other = tree.git("hash-object", "-w", "--stdin", stdin=b"other\n")
        tree.git("replace", tree.git("rev-parse", "HEAD:a"), other)
        assert names(await bench.verified()) == ["new"]

    async def test_a_conflicted_merge(self, desk: Desk) -> None:
        bench = await desk.start({"a": "1\n"})
        tree = bench.worktree
        tree.git("switch", "--quiet", "--create", "left")
        tree.commit("left", {"a": "left\n"})
        tree.git("switch", "--quiet", "--create", "right", bench.commit)
        tree.commit("right", {"a": "right\n"})
        with pytest.raises(AssertionError, match="git"):
            tree.git("merge", "left")
        changes = await bench.verified()
        assert "<<<<<<< HEAD" in changes.diff

    @pytest.mark.parametrize("damage", ["lock", "garbage", "empty", "missing"])
    async def test_a_damaged_index(self, desk: Desk, damage: str) -> None:
        bench = await desk.start({"a": "1\n", "b": "2\n"})
        private = Path(bench.worktree.git("rev-parse", "--absolute-git-dir"))
        if damage == "lock":
            (private / "index.lock").touch()
        elif damage == "missing":
            (private / "index").unlink()
        else:
            (private / "index").write_bytes(b"garbage" if damage == "garbage" else b"")
        (bench.root / "a").write_text("x\n")
        assert names(await bench.verified()) == ["a"]

    async def test_without_its_git_directory(self, desk: Desk) -> None:
        bench = await desk.start({"a": "1\n"})
        run("rm", "-rf", str(bench.root / ".git"))
        (bench.root / "a").write_text("x\n")
        assert names(await bench.verified()) == ["a"]

    async def test_with_a_repository_of_its_own_in_its_place(self, desk: Desk) -> None:
        bench = await desk.start({"a": "1\n"})
        run("rm", "-rf", str(bench.root / ".git"))
        git(bench.root, "init", "--quiet")
        (bench.root / ".git" / "info" / "exclude").write_text("*\n")
        (bench.root / "new").write_text("x\n")
        assert names(await bench.verified()) == ["new"]
        bench.worktree.git("config", "core.worktree", "/")
        assert names(await bench.changes()) == ["new"]

    async def test_with_a_link_in_its_place(self, desk: Desk) -> None:
        bench = await desk.start({"a": "1\n"})
        run("rm", "-rf", str(bench.root / ".git"))
        (bench.root / ".git").symlink_to(bench.source.path / ".git")
        (bench.root / "new").write_text("x\n")
        assert names(await bench.verified()) == ["new"]

    async def test_a_deleted_tree_is_a_tree_without_files(self, desk: Desk) -> None:
        bench = await desk.start({"a": "1\n", "d/b": "2\n"})
        run("rm", "-rf", str(bench.root))
        assert names(await bench.verified()) == ["a", "d/b"]

    async def test_a_link_in_the_place_of_the_tree_is_not_followed(self, desk: Desk) -> None:
        bench = await desk.start({"a": "1\n"})
        run("rm", "-rf", str(bench.root))
        bench.root.symlink_to("/etc")
        assert names(await bench.changes()) == ["a"]


class TestHostileConfiguration:
    async def test_nothing_that_is_configured_runs(self, desk: Desk) -> None:
        proof = desk.directory / "proof"
        command = f"touch {proof}; cat"
        bench = await desk.start(
            {
                ".gitattributes": "* filter=evil diff=evil merge=evil\n*.x -diff export-ignore\n",
                "a": "1\n",
                "b.x": "1\n",
            }
        )
        hook = desk.directory / "hook"
        hook.write_text(f"#!/bin/sh\n{command}\n")
        hook.chmod(0o755)
        hooks = desk.directory / "hooks"
        hooks.mkdir()
        for name in ("post-checkout", "post-index-change", "reference-transaction", "pre-commit"):
            (hooks / name).symlink_to(hook)
            for directory in (bench.clone, bench.root / ".git"):
                (directory / "hooks").mkdir(exist_ok=True)
                (directory / "hooks" / name).symlink_to(hook)
        included = desk.directory / "included"
        included.write_text(f"[core]\n\tfsmonitor = {hook}\n")
        settings = {
            "core.fsmonitor": str(hook),
            "core.hooksPath": str(hooks),
            "core.sshCommand": command,
            "core.gitProxy": str(hook),
            "core.pager": command,
            "core.attributesFile": str(bench.root / ".gitattributes"),
            "core.alternateRefsCommand": command,
            "filter.evil.clean": command,
            "filter.evil.smudge": command,
            "filter.evil.process": command,
            "filter.evil.required": "true",
            "diff.evil.textconv": command,
            "diff.evil.command": command,
            "diff.external": str(hook),
            "merge.evil.driver": command,
            "include.path": str(included),
            "remote.origin.uploadpack": command,
            "remote.origin.promisor": "true",
            "protocol.ext.allow": "always",
            "credential.helper": f"!{command}",
            "gpg.program": str(hook),
            "commit.gpgSign": "true",
        }
        for config in (bench.clone / "config", bench.root / ".git" / "config"):
            for key, value in settings.items():
                git(desk.directory, "config", "--file", str(config), key, value)
        (bench.root / "a").write_text("2\n")
        (bench.root / "b.x").write_text("2\n")
        proof.unlink(missing_ok=True)

        changes = await bench.changes()
        bench.source.commit("next", {"a": "3\n"})
        await desk.give(bench.source, bench.source.path.name)
        await desk.prepare("other", {bench.source.path.name: bench.source.head})

        assert not proof.exists()
        assert names(changes) == ["a", "b.x"]
        assert "-1\n+2\n" in changes.diff
        assert (desk.layout.task("other") / "a").read_text() == "3\n"

    async def test_a_clone_with_broken_configuration_still_serves(self, desk: Desk) -> None:
        bench = await desk.start({"a": "1\n"})
        (bench.clone / "config").write_text("[broken\n")
        (bench.root / "a").write_text("2\n")
        assert names(await bench.changes()) == ["a"]
        await desk.prepare("other", {bench.source.path.name: bench.commit})
        assert (desk.layout.task("other") / "a").read_text() == "1\n"


class TestAttributes:
    async def test_line_ends_as_the_repository_wants_them(self, desk: Desk) -> None:
        bench = await desk.start(
            {".gitattributes": "*.bat text eol=crlf\n*.txt text\n", "a.bat": "one\r\ntwo\r\n"}
        )
        assert (bench.root / "a.bat").read_bytes() == b"one\r\ntwo\r\n"
        assert bench.worktree.git("status", "--porcelain") == ""
        (bench.root / "a.bat").write_bytes(b"one\r\n2\r\n")
        (bench.root / "b.txt").write_bytes(b"crlf\r\n")
        changes = await bench.verified()
        assert "-two\n+2\n" in changes.diff
        assert "\r" not in changes.diff

    async def test_ident_and_encoding(self, desk: Desk) -> None:
        bench = await desk.start(
            {
                ".gitattributes": "*.id ident\n*.u16 text working-tree-encoding=UTF-16\n",
                "a.id": "$Id$\n",
                "a.u16": "é\n".encode("utf-16"),
            }
        )
        assert (bench.root / "a.id").read_text() != "$Id$\n"
        assert (bench.root / "a.u16").read_bytes().decode("utf-16") == "é\n"
        (bench.root / "a.id").write_text("$Id$\nmore\n")
        (bench.root / "a.u16").write_bytes("è\n".encode("utf-16"))
        changes = await bench.verified()
        assert "-é\n+è\n" in changes.diff

    async def test_a_file_that_its_encoding_does_not_fit_is_left_out(self, desk: Desk) -> None:
        bench = await desk.start({"a": "1\n"})
        (bench.root / ".gitattributes").write_text("*.u16 text working-tree-encoding=UTF-16\n")
        for number in range(5):
            (bench.root / f"{number}.u16").write_bytes(b"x")
        (bench.root / "9.u16").write_bytes("fits\n".encode("utf-16"))
        (bench.root / "a").write_text("2\n")
        changes = await bench.changes()
        assert names(changes) == [".gitattributes", "9.u16", "a"]
        assert list(changes.left_out) == [f"{number}.u16" for number in range(5)]

    async def test_very_many_refused_files_take_bounded_time(self, desk: Desk) -> None:
        bench = await desk.start({"a": "1\n"})
        (bench.root / ".gitattributes").write_text("*.u16 text working-tree-encoding=UTF-16\n")
        for number in range(400):
            (bench.root / f"{number}.u16").write_bytes(b"x")
        async with asyncio.timeout(60):
            changes = await bench.changes()
        assert len(changes.left_out) == 400
        assert changes.changed_files == (".gitattributes",)


class TestLeftOut:
    async def test_repositories_inside_the_tree(self, desk: Desk) -> None:
        bench = await desk.start({"a": "1\n", "was a file": "x\n", "tracked/b": "1\n"})
        (bench.root / "was a file").unlink()
        for name in ("empty one", "with commit", "was a file", "deep/er"):
            inner = empty_repository(bench.root / name)
            inner.write("inside", "x\n")
            if name == "with commit":
                inner.commit("inner")
        git(bench.root / "tracked", "init", "--quiet")
        (bench.root / "tracked" / "b").write_text("2\n")
        (bench.root / "tracked" / "c").write_text("3\n")
        (bench.root / "a").write_text("2\n")
        changes = await bench.changes()
        assert sorted(changes.left_out) == ["deep/er/", "empty one/", "was a file/", "with commit/"]
        assert names(changes) == ["a", "tracked/b", "tracked/c", "was a file"]
        bench.applied(changes)

    async def test_a_directory_that_became_a_repository_after_it_was_read(self, desk: Desk) -> None:
        bench = await desk.start()
        (bench.root / "lib").mkdir()
        (bench.root / "lib" / "x").write_text("x\n")
        assert (await bench.verified()).changed_files == ("lib/x",)
        git(bench.root / "lib", "init", "--quiet")
        changes = await bench.changes()
        assert (changes.changed_files, changes.left_out) == ((), ("lib/",))

    async def test_submodules(self, desk: Desk) -> None:
        library = empty_repository(desk.directory / "library")
        first = library.commit("first", {"x": "1\n"})
        source = empty_repository(desk.directory / "sample")
        for name in ("idle", "filled", "cloned", "gone", "a file", "a link"):
            source.git("update-index", "--add", "--cacheinfo", f"160000,{first},{name}")
            (source.path / name).mkdir()
        source.write("a", "1\n")
        source.git("add", "a")
        source.git("commit", "--quiet", "-m", "start")
        bench = await desk.start_from(source)
        assert (await bench.changes()).diff == ""
        (bench.root / "filled" / "new").write_text("x\n")
        git(desk.directory, "clone", "--quiet", str(library.path), str(bench.root / "cloned"))
        for name in ("gone", "a file", "a link"):
            (bench.root / name).rmdir()
        (bench.root / "a file").write_text("x\n")
        (bench.root / "a link").symlink_to("a")
        changes = await bench.changes()
        assert sorted(changes.left_out) == ["cloned", "filled"]
        assert names(changes) == ["a file", "a link", "gone"]
        made = bench.applied(changes)
        listed = git(desk.directory / "applied-0", "ls-tree", made)
        assert "gone" not in listed
        assert {line.split()[0] for line in listed.splitlines() if "\ta " in line} == {
            "100644",
            "120000",
        }

    async def test_huge_files(self, desk: Desk) -> None:
        bench = await desk.start({"grown": "x\n"})
        for name in ("huge", "grown"):
            with (bench.root / name).open("wb") as file:
                file.truncate(2**40)
        async with asyncio.timeout(60):
            changes = await bench.changes()
        assert (changes.diff, sorted(changes.left_out)) == ("", ["grown", "huge"])

    async def test_the_largest_files_of_a_patch_that_is_too_long(self, desk: Desk) -> None:
        bench = await desk.start({"a": "x\n" * 5_000, "deleted": BINARY * 100})
        (bench.root / "a").write_text("y\n" * 5_000)
        (bench.root / "deleted").unlink()
        (bench.root / "random").write_bytes(os.urandom(50_000))
        for number in range(20):
            (bench.root / f"{number}.txt").write_text("small\n")
        changes = await ChangeReader(desk.layout, desk.trees, 20_000 + 600 * 20).changes("t")
        assert len(changes.diff) <= 20_000 + 600 * 20
        assert {"random", "a"} <= set(changes.left_out)
        assert {f"{number}.txt" for number in range(20)} <= set(changes.changed_files)
        assert not set(changes.left_out) & set(changes.changed_files)
        bench.applied(changes)

    async def test_what_is_no_regular_file(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench = await desk.start({"pipe": "x\n", "a": "1\n", "dir/b": "1\n"})
        (bench.root / "pipe").unlink()
        os.mkfifo(bench.root / "pipe")
        os.mkfifo(bench.root / "new pipe")
        os.mkfifo(bench.root / "dir" / "pipe")
        with socket.socket(socket.AF_UNIX) as listener:
            monkeypatch.chdir(bench.root)  # the path would be too long for a socket
            listener.bind("socket")
            (bench.root / "a").write_text("2\n")
            async with asyncio.timeout(60):
                changes = await bench.changes()
        assert names(changes) == ["a"]
        assert changes.left_out == ("pipe",)

    async def test_names_that_git_refuses(self, desk: Desk) -> None:
        bench = await desk.start({"a": "1\n"})
        for name in ("git~1", "GIT~1", "d/git~1"):
            file = bench.root / name
            file.parent.mkdir(exist_ok=True)
            file.write_text("x\n")
        (bench.root / "a").write_text("2\n")
        (bench.root / "z").write_text("z\n")
        changes = await bench.changes()
        assert names(changes) == ["a", "z"]
        assert sorted(changes.left_out) == ["GIT~1", "d/git~1", "git~1"]


class TestSeveralRepositories:
    async def test_one_patch_for_the_directory_that_holds_them(self, desk: Desk) -> None:
        parent = empty_repository(desk.directory / "parent")
        start = {}
        for name in ("left", "right"):
            files = {"a": "1\n", "old name": "line\n" * 30, "gone": "x\n"}
            source = empty_repository(desk.directory / name)
            start[name] = source.commit("start", files)
            await desk.give(source, name)
            for path, content in files.items():
                parent.write(f"{name}/{path}", content)
        parent.commit("both")
        await desk.prepare("t", start, {"note.txt": b"given"})
        root = desk.layout.task("t")
        assert (root / "files" / "note.txt").read_bytes() == b"given"
        for name in ("left", "right"):
            (root / name / "a").write_text(f"{name}\n")
            (root / name / "gone").unlink()
            (root / name / 'quo"ted').write_bytes(b"caf\xe9")
            (root / name / "old name").rename(root / name / "new\tname")
        changes = await desk.reader.changes("t")
        assert "left/gone" in changes.changed_files
        assert "right/new\tname" in changes.changed_files
        assert "rename from left/old name" in changes.diff
        git(parent.path, "apply", "--index", "-", stdin=changes.diff.encode())
        for name in ("left", "right"):
            assert (parent.path / name / "a").read_text() == f"{name}\n"
            assert (parent.path / name / "new\tname").read_text() == "line\n" * 30
            assert (parent.path / name / 'quo"ted').read_bytes() == b"caf\xe9"
            assert not (parent.path / name / "gone").exists()

    async def test_left_out_paths_name_the_repository(self, desk: Desk) -> None:
        start = {}
        for name in ("left", "right"):
            source = empty_repository(desk.directory / name)
            start[name] = source.commit("start", {"a": "1\n"})
            await desk.give(source, name)
        await desk.prepare("t", start)
        root = desk.layout.task("t")
        git(root / "left", "init", "--quiet", "inner")
        run("rm", "-rf", str(root / "right"))
        changes = await desk.reader.changes("t")
        assert changes.left_out == ("left/inner/",)
        assert changes.changed_files == ("right/a",)


class TestScratch:
    async def test_all_files_are_new(self, desk: Desk) -> None:
        await desk.prepare("t", {}, {"given.txt": b"x"})
        root = desk.layout.task("t")
        assert (await desk.reader.changes("t")).diff == ""
        (root / "a.py").write_text("print()\n")
        git(root, "init", "--quiet")
        SourceRepository(root).commit("own")
        changes = await desk.reader.changes("t")
        assert changes.changed_files == ("a.py",)
        target = empty_repository(desk.directory / "target")
        target.git("apply", "--index", "-", stdin=changes.diff.encode())
        assert (target.path / "a.py").read_text() == "print()\n"


async def test_many_readings_at_once(desk: Desk) -> None:
    bench = await desk.start({"a": "1\n"})
    (bench.root / "a").write_text("2\n")
    results = await asyncio.gather(*(bench.changes() for _ in range(8)))
    assert {result.changed_files for result in results} == {("a",)}
