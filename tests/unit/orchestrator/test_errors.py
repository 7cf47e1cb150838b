"""Codes and statuses are a contract with clients: a change must be meant."""

import re

import pytest

from orchestrator import errors
from orchestrator.errors import BerthError

GOLDEN = {
    "internal_error": 500,
    "invalid_request": 422,
    "request_too_large": 413,
    "unknown_file": 422,
    "file_conflict": 422,
    "unknown_step": 422,
    "task_running": 409,
    "task_continued": 409,
    "key_reused": 409,
    "setting_refused": 422,
    "publish_error": 422,
    "task_not_ended": 409,
    "task_is_dry_run": 409,
    "nothing_to_publish": 409,
    "publish_conflict": 409,
    "branch_taken": 409,
    "push_refused": 422,
    "forge_unknown": 422,
    "forge_refused": 422,
    "forge_failure": 502,
    "repository_error": 422,
    "repository_url_refused": 422,
    "repository_unreachable": 422,
    "repository_needs_credentials": 422,
    "repository_refuses_credentials": 422,
    "repository_empty": 422,
    "repository_too_large": 422,
    "repository_corrupt": 422,
    "unknown_ref": 422,
    "not_found": 404,
    "task_not_found": 404,
    "workspace_not_found": 404,
    "container_not_found": 404,
    "file_not_found": 404,
    "runtime_failure": 503,
    "runtime_unavailable": 503,
    "container_start_failed": 503,
    "worker_unreachable": 503,
    "worker_hangs": 503,
    "tree_gone": 410,
    "worker_refused": 503,
    "bundle_refused": 503,
    "disk_exhausted": 507,
    "work_lost": 503,
    "model_failure": 502,
    "model_unavailable": 502,
    "model_refused": 502,
    "model_timeout": 502,
    "model_response_invalid": 502,
    "task_stopped": 500,
    "budget_exhausted": 500,
    "model_misbehaved": 500,
    "model_repeated_itself": 500,
    "storage_failure": 503,
    "database_unavailable": 503,
    "object_not_found": 503,
    "object_conflict": 409,
    "stale_lease": 409,
    "executor_buried": 503,
    "executor_replaced": 409,
    "bundle_incomplete": 409,
    "manifest_unreadable": 500,
    "checkpoints_unusable": 503,
    "egress_error": 502,
    "egress_refused": 403,
    "egress_unreachable": 502,
    "egress_exhausted": 429,
    "egress_unattributed": 407,
    "egress_request_invalid": 400,
    "engine_error": 502,
    "engine_call_refused": 403,
    "engine_call_invalid": 400,
    "engine_object_unknown": 404,
    "engine_unreachable": 503,
    "service_stopping": 503,
    "container_busy": 409,
    "configuration_error": 500,
}


def tree(error: type[BerthError] = BerthError) -> list[type[BerthError]]:
    """An error class and all below it, in the order of their definition."""
    below = (each for kind in error.__subclasses__() for each in tree(kind))
    return [error, *(each for each in below if each.__module__ == errors.__name__)]


def test_codes_and_statuses_are_what_clients_know() -> None:
    assert {error.code: error.status for error in tree()} == GOLDEN


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [error.code for error in tree()]

    assert len(set(codes)) == len(codes)
    for error in tree()[1:]:
        assert "code" in vars(error), error


@pytest.mark.parametrize("error", tree(), ids=lambda error: error.__name__)
def test_the_drawing_shows_every_error(error: type[BerthError]) -> None:
    drawing = (errors.__doc__ or "").partition("`code`")[0]

    assert re.search(rf"\b{error.__name__}\b", drawing)
    assert error.__doc__


def test_the_drawing_shows_nothing_else() -> None:
    drawing = (errors.__doc__ or "").partition("`code`")[0]
    names = set(re.findall(r"\b[A-Z][a-z]+[A-Z]\w+\b", drawing))

    assert names == {error.__name__ for error in tree()}
