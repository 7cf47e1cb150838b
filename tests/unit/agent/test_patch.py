"""Reading and mending what git prints as a patch."""

from agent.patch import Entry, RawPatch, largest, mend, parse, shown, with_rename_prefix

NULL = "0" * 40
ONE, TWO = "1" * 40, "2" * 40


def entry(*paths: bytes, state: str = "M", old: str = ONE, new: str = TWO) -> Entry:
    return Entry("100644", "100644", old, new, state, paths)


def section(name: str, body: str) -> bytes:
    return f"diff --git a/{name} b/{name}\n{body}".encode()


def test_entries_and_text_are_parted() -> None:
    raw = f":100644 100644 {ONE} {TWO} M\0a\0:100644 100644 {ONE} {ONE} R100\0b\0c\nd\0".encode()
    patch = parse(raw + b"\0" + section("a", "x\n"))
    assert [each.paths for each in patch.entries] == [(b"a",), (b"b", b"c\nd")]
    assert patch.text == section("a", "x\n")
    assert parse(raw).entries == patch.entries
    assert parse(b"") == RawPatch((), b"")


def test_an_entry_names_its_blobs_and_how_it_was() -> None:
    assert entry(b"a", old=NULL).blobs == (TWO,)
    assert entry(b"a").blobs == (ONE, TWO)
    assert entry(b"a b").before == f"100644 {ONE}\ta b".encode()


def test_lines_that_look_like_a_beginning_are_none() -> None:
    first = section("a", "@@ -1 +1 @@\n-diff --git a/x b/x\n+diff --git a/y b/y\n diff --git a b\n")
    second = section("b", "new file mode 100644\n")
    patch = RawPatch((entry(b"a"), entry(b"b")), first + second)
    assert patch.sections() == [first, second]


def test_a_changed_type_takes_two_sections() -> None:
    gone, made = section("a", "deleted file mode 100644\n"), section("a", "new file mode 120000\n")
    other = section("b", "x\n")
    patch = RawPatch((entry(b"a", state="T"), entry(b"b")), gone + made + other)
    assert patch.sections() == [gone + made, other]


def test_what_is_no_text_becomes_binary_or_goes() -> None:
    entries = (entry(b"a"), entry(b"b"), entry(b"link"))
    plain = RawPatch(
        entries,
        section("a", "+x\n") + section("b", "+") + b"\xff\n" + section("link", "+") + b"\xfe",
    )
    binary = RawPatch(
        entries, section("a", "BIN a\n") + section("b", "BIN b\n") + section("link", "+") + b"\xfe"
    )
    mended, taken_out = mend(plain, binary)
    assert mended.text == section("a", "+x\n") + section("b", "BIN b\n")
    assert mended.entries == entries[:2]
    assert taken_out == entries[2:]


def test_other_renames_among_binary_files_win() -> None:
    plain = RawPatch((entry(b"a", b"b", state="R090"),), section("b", "+\n") + b"\xff")
    binary = RawPatch((entry(b"a"), entry(b"b")), section("a", "x\n") + section("b", "y\n"))
    assert mend(plain, binary) == (binary, ())


def test_a_null_is_no_text() -> None:
    assert not RawPatch((entry(b"a"),), section("a", "+\0\n")).is_text
    assert RawPatch((entry(b"a"),), section("a", "+é\n")).is_text


def test_renames_get_the_prefix_in_their_header_only() -> None:
    head = 'diff --git a/r/old b/r/new\nsimilarity index 90%\nrename from old\nrename to "n\\tw"\n'
    body = "@@ -1,2 +1,2 @@\n-rename from old\n+rename to old\n"
    mended = with_rename_prefix((head + body).encode(), "r/").decode()
    assert "\nrename from r/old\n" in mended
    assert '\nrename to "r/n\\tw"\n' in mended
    assert mended.endswith(body)


def test_the_largest_go_until_the_rest_fits() -> None:
    sizes = [(size, entry(str(size).encode())) for size in (10, 500, 30, 200)]
    assert [each.paths[0] for each in largest(sizes, 250)] == [b"500"]
    assert [each.paths[0] for each in largest(sizes, 40)] == [b"500", b"200"]
    assert largest(sizes, 1_000) == []


def test_paths_are_shown_readably() -> None:
    assert shown("é".encode()) == "é"
    assert shown(b"\xff") == "\\xff"
