"""Which branches are in the way, and what a rejected push tells."""

import pytest

from orchestrator.gateway.branches import base_branch
from orchestrator.gateway.push import rejection, stands_in_the_way
from orchestrator.gateway.refs import Advertisement

OURS, THEIRS = "a" * 40, "b" * 40
REFS = {
    "refs/heads/main": THEIRS,
    "refs/heads/ours": OURS,
    "refs/heads/dir/one": THEIRS,
    "refs/tags/v1": THEIRS,
}
ADVERTISED = Advertisement(REFS, "refs/heads/main", THEIRS)


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("main", True),
        ("main/x", True),
        ("dir", True),
        ("dir/one", True),
        ("dir/two", False),
        ("ours", False),
        ("dirty", False),
        ("v1", False),
    ],
)
def test_what_stands_in_the_way(ref: str, expected: bool) -> None:
    assert stands_in_the_way(ADVERTISED, f"refs/heads/{ref}", OURS) is expected


def test_the_default_branch_is_never_ours() -> None:
    advertised = Advertisement({"refs/heads/main": OURS}, "refs/heads/main", OURS)
    assert stands_in_the_way(advertised, "refs/heads/main", OURS)


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("main", "refs/heads/main"),
        ("refs/heads/ours", "refs/heads/ours"),
        ("dir/one", "refs/heads/dir/one"),
        ("v1", "refs/heads/main"),
        (OURS, "refs/heads/main"),
    ],
)
def test_the_base(ref: str, expected: str) -> None:
    assert base_branch(ADVERTISED, ref) == expected


def test_a_detached_head_is_no_base() -> None:
    assert base_branch(Advertisement(REFS, None, THEIRS), "v1") is None


@pytest.mark.parametrize(
    ("porcelain", "reason"),
    [
        ("To https://h/a\n=\tx:refs/heads/b\t[up to date]\nDone\n", None),
        ("To https://h/a\n*\tx:refs/heads/b\t[new branch]\nDone\n", None),
        ("To https://h/a\n!\tx:refs/heads/b\t[rejected] (stale info)\nDone\n",
         "[rejected] (stale info)"),
        ("!\tx:refs/heads/b\t[remote rejected] (hook\x1b declined)\n",
         "[remote rejected] (hook declined)"),
        ("", None),
    ],
)  # fmt: skip
def test_rejections(porcelain: str, reason: str | None) -> None:
    assert rejection(porcelain) == reason
