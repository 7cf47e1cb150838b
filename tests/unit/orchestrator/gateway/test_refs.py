"""Names of references, git's listings, and which commit a caller means."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import RepositoryEmpty, RepositoryError, UnknownRef
from orchestrator.gateway.refs import (
    Advertisement,
    Ref,
    full_name,
    may_be_commit,
    parse_advertisement,
    parse_listing,
    require_valid_ref,
    wanted_ref,
)

A, B, C = "a" * 40, "b" * 40, "c" * 40


def is_valid(ref: str) -> bool:
    try:
        require_valid_ref(ref)
    except UnknownRef:
        return False
    return True


@settings(max_examples=60)
@given(st.text(st.sampled_from("ab/.@{}-~^:?*[\\ \x7f\nlock"), max_size=8))
def test_a_valid_name_is_valid_to_git(ref: str) -> None:
    command = ("git", "check-ref-format", f"refs/heads/{ref}")
    by_git = subprocess.run(command, check=False).returncode == 0
    if is_valid(ref):
        assert by_git
        assert not ref.startswith("-")
    elif by_git:
        # Stricter than git only where a name would be read as an option or as HEAD.
        assert ref.startswith("-") or ref == "@"


def test_a_listing_keeps_branches_and_tags() -> None:
    listing = (
        f"ref: refs/heads/main\tHEAD\n{A}\tHEAD\n{A}\trefs/heads/main\n{B}\trefs/pull/1/head\n"
        f"{B}\trefs/tags/v1\n{A}\trefs/tags/v1^{{}}\n"
    )
    found = parse_advertisement(listing.encode())
    assert found == Advertisement({"refs/heads/main": A, "refs/tags/v1": B}, "refs/heads/main", A)


def test_an_empty_listing() -> None:
    assert parse_advertisement(b"") == Advertisement({}, None, None)


def test_other_object_names_are_refused() -> None:
    with pytest.raises(RepositoryError, match="SHA-256"):
        parse_advertisement(b"a" * 64 + b"\trefs/heads/main\n")


@given(
    st.lists(st.sampled_from([A.encode(), B.encode(), b"HEAD", b"\t", b"\n", b"\xff", b"ref: "]))
)
def test_no_listing_breaks_the_reader(pieces: list[bytes]) -> None:
    try:
        found = parse_advertisement(b"".join(pieces))
    except RepositoryError:
        return
    assert all(len(target) == 40 for target in found.refs.values())


def test_the_mirrors_listing_peels_tags_once() -> None:
    listing = (
        f"{A}\0commit\0\0\0refs/heads/main\n{B}\0tag\0{A}\0commit\0refs/tags/v1\n"
        f"{C}\0tag\0{B}\0tag\0refs/tags/again\n{C}\0blob\0\0\0refs/tags/blob\n"
    )
    assert parse_listing(listing.encode()) == {
        "refs/heads/main": Ref(A, A),
        "refs/tags/v1": Ref(B, A),
        "refs/tags/again": Ref(C, None),
        "refs/tags/blob": Ref(C, None),
    }


def test_branch_then_tag_then_full_name() -> None:
    refs = {"refs/heads/x": A, "refs/tags/x": B, "refs/tags/y": B, "refs/heads/refs/tags/y": A}
    assert full_name(refs, "x") == "refs/heads/x"
    assert full_name(refs, "y") == "refs/tags/y"
    assert full_name(refs, "refs/tags/x") == "refs/tags/x"
    assert full_name(refs, "refs/tags/y") == "refs/heads/refs/tags/y"
    assert full_name(refs, "z") is None


@pytest.mark.parametrize(
    ("advertised", "ref", "expected"),
    [
        (Advertisement({"refs/heads/x": A}, "refs/heads/x", A), None, "refs/heads/x"),
        (Advertisement({"refs/heads/x": A}, "refs/heads/x", A), "HEAD", "refs/heads/x"),
        (Advertisement({"refs/heads/x": A}, None, B), None, None),
        (Advertisement({}, None, B), None, None),
        (Advertisement({"refs/heads/x": A}, "refs/heads/gone", None), None, "refs/heads/x"),
        (Advertisement({"refs/heads/x": A}, None, A), "abcdef1", None),
        (Advertisement({"refs/heads/abcdef1": A}, None, A), "abcdef1", "refs/heads/abcdef1"),
    ],
)
def test_wanted(advertised: Advertisement, ref: str | None, expected: str | None) -> None:
    assert wanted_ref(advertised, ref) == expected


def test_wanted_refuses() -> None:
    with pytest.raises(RepositoryEmpty):
        wanted_ref(Advertisement({}, "refs/heads/main", None), None)
    with pytest.raises(UnknownRef, match="give a ref"):
        wanted_ref(Advertisement({"refs/tags/v1": A}, None, None), None)
    with pytest.raises(UnknownRef, match="nothing"):
        wanted_ref(Advertisement({"refs/heads/x": A}, None, A), "nothing")


@pytest.mark.parametrize(
    ("ref", "expected"),
    [("abcdef", False), ("abcdef1", True), (A, True), (A + "a", False), ("abcdefg", False)],
)
def test_what_may_be_a_commit(ref: str, expected: bool) -> None:
    assert may_be_commit(ref) is expected
