"""What a publication is when parts of it were left open."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.budget import Budget, StopReason
from orchestrator.domain.publication import (
    Base,
    Publication,
    PublishedRepository,
    PublishMode,
    PublishRequest,
    commit_message,
    description,
    order_for,
    require_publishable,
)
from orchestrator.domain.ref_name import is_ref_name
from orchestrator.domain.repository import parse_repository_url
from orchestrator.domain.task import Ending, Patch, Receipt, Task, TaskStatus
from orchestrator.domain.workspace import scratch_workspace, workspace_of
from orchestrator.errors import InvalidRequest, PublishError, TaskNotEnded

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ENDING = Ending(TaskStatus.SUCCEEDED, StopReason.ANSWERED, "Done.\n", Patch("diff"), 1, Receipt())
TASK = Task(
    "t1",
    "  Fix the\n\ttypo  ",
    workspace_of([parse_repository_url("https://h/a/b")]),
    "sandbox",
    (),
    Budget(1, 1, 1.0),
    TaskStatus.SUCCEEDED,
    NOW,
    ending=ENDING,
    finished_at=NOW,
)
BRANCH = PublishRequest(PublishMode.BRANCH)


def test_defaults_come_from_the_task() -> None:
    order = order_for(BRANCH, TASK)
    assert (order.branch, order.title, order.body) == ("berth/t1", "Fix the typo", "Done.")
    assert commit_message(order, "t1") == "Fix the typo\n\nDone.\n\nBerth-Task: t1\n"


@given(st.text(min_size=1))
def test_any_query_makes_a_title_or_is_refused(query: str) -> None:
    try:
        title = order_for(BRANCH, replace(TASK, query=query)).title
    except InvalidRequest:
        assert not any(char.isprintable() and not char.isspace() for char in query)
    else:
        assert 0 < len(title) <= 72
        assert title.isprintable()


@pytest.mark.parametrize("title", ["", " ", "two\nlines", "x" * 201, "\x1b[31m"])
def test_bad_titles(title: str) -> None:
    with pytest.raises(InvalidRequest, match="title"):
        order_for(replace(BRANCH, title=title), TASK)


def test_what_has_no_branch_to_go_to() -> None:
    require_publishable(TASK)
    with pytest.raises(TaskNotEnded):
        require_publishable(replace(TASK, ending=None))
    with pytest.raises(PublishError, match="no repository"):
        require_publishable(replace(TASK, workspace=scratch_workspace("t1")))
    local = workspace_of([parse_repository_url("/srv/a"), parse_repository_url("https://h/a")])
    with pytest.raises(PublishError, match="git apply"):
        require_publishable(replace(TASK, workspace=local))


def test_a_description_names_what_readers_should_know() -> None:
    order = order_for(replace(BRANCH, body="Because."), TASK)
    repositories = (
        PublishedRepository("a", "1" * 40, Base("main", moved=True, conflicts=("x`y",) * 25)),
        PublishedRepository("b", "2" * 40, Base("main"), "https://h/b/1"),
        PublishedRepository("c", "3" * 40, None),
    )
    publication = Publication("t1", order, "Berth <b@h>", repositories=repositories)
    text = description(publication, "a", "4" * 40, ["nested"])
    assert text.startswith("Because.\n\n---\n\nTask `t1`")
    assert "4" * 40 in text
    assert "`main` has moved" in text
    assert "`xy` and 5 more" in text
    assert "`nested`" in text
    assert "- b: https://h/b/1\n- c: berth/t1" in text
    alone = replace(publication, repositories=repositories[1:2])
    quiet = description(alone, "b", "4" * 40, [])
    assert "Belongs" not in quiet
    assert "moved" not in quiet


@pytest.mark.parametrize("name", ["main", "a/b", "berth/t1", "ü", "a-b_c.d"])
def test_names_of_references(name: str) -> None:
    assert is_ref_name(name)
