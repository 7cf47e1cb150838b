"""The names a bundle begins with."""

from orchestrator.gateway.bundle import header
from orchestrator.gateway.refs import Ref

A, B = "a" * 40, "b" * 40


def test_names_are_sorted_and_a_start_commit_among_them_needs_no_other() -> None:
    refs = {"refs/tags/v1": Ref(B, A), "refs/heads/main": Ref(A, A)}
    expected = f"# v2 git bundle\n{A} refs/heads/main\n{B} refs/tags/v1\n\n"
    assert header(refs, A) == expected.encode()


def test_a_start_commit_of_its_own_gets_a_name() -> None:
    expected = f"# v2 git bundle\n{A} refs/berth/pinned/{A}\n{B} refs/heads/main\n\n"
    assert header({"refs/heads/main": Ref(B, B)}, A) == expected.encode()


def test_names_that_are_not_utf8_survive() -> None:
    name = b"refs/heads/\xff".decode(errors="surrogateescape")
    assert b"refs/heads/\xff\n" in header({name: Ref(A, A)}, A)
