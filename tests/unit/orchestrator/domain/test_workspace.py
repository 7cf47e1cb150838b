"""Workspaces: identity and the names of their repositories."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.repository import RepositoryUrl, parse_repository_url
from orchestrator.domain.workspace import scratch_workspace, workspace_of

URLS = st.builds(
    RepositoryUrl,
    st.just("https"),
    st.sampled_from(["one.example", "two.example", "three.example"]),
    st.just(443),
    st.sampled_from(["/a", "/A", "/a-2", "/a-2-2", "/x/a", "/b.", "/b"]),
)


def test_spelling_does_not_make_another_workspace() -> None:
    one = workspace_of([parse_repository_url("https://GitHub.com/a/b.git")])
    two = workspace_of([parse_repository_url("https://github.com/a/b/")])
    assert one == two
    assert one.container_name == f"repo-{one.id}"
    assert len(one.id) == 16


def test_repeats_do_not_count_and_order_does() -> None:
    a, b = (parse_repository_url(f"https://host/{name}") for name in "ab")
    assert workspace_of([a, b, a]) == workspace_of([a, b])
    assert workspace_of([a, b]).id != workspace_of([b, a]).id


def test_a_workspace_of_no_repository_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        workspace_of([])


def test_each_task_has_its_own_scratch_workspace() -> None:
    one, two = scratch_workspace("t1"), scratch_workspace("t2")
    assert one.is_scratch
    assert one.id != two.id
    assert not workspace_of([parse_repository_url("/t1")]).is_scratch


@given(st.lists(URLS, min_size=1, max_size=12))
def test_names_differ_even_where_case_does_not_count(urls: list[RepositoryUrl]) -> None:
    repositories = workspace_of(urls).repositories
    assert [item.url for item in repositories] == list(dict.fromkeys(urls))
    names = [item.name.lower() for item in repositories]
    assert len(set(names)) == len(names)
    assert repositories[0].name == urls[0].name


@given(st.lists(URLS, min_size=1, max_size=5), st.lists(URLS, min_size=1, max_size=5))
def test_ids_are_equal_only_for_equal_lists(
    one: list[RepositoryUrl], two: list[RepositoryUrl]
) -> None:
    same = list(dict.fromkeys(one)) == list(dict.fromkeys(two))
    assert (workspace_of(one).id == workspace_of(two).id) is same
