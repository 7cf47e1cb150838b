"""What git says is turned into typed errors that hold no secret and no path of this machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.repository import parse_repository_url
from orchestrator.errors import (
    BerthError,
    RepositoryCorrupt,
    RepositoryNeedsCredentials,
    RepositoryRefusesCredentials,
    RepositoryTooLarge,
    RepositoryUnreachable,
    StorageFailure,
    UnknownRef,
)
from orchestrator.gateway.failures import excerpt, failure, is_missing, is_redirect
from orchestrator.gateway.git_process import Ended, GitOutcome

URL = parse_repository_url("https://ssl.example/shallow/certificate")
AT = f"unable to access '{URL}/'"


def outcome(stderr: str, ended: Ended = Ended.EXITED) -> GitOutcome:
    return GitOutcome(ended, 128, b"", stderr)


@pytest.mark.parametrize(
    ("stderr", "error", "words"),
    [
        (
            f"fatal: could not read Username for '{URL}': terminal prompts disabled",
            RepositoryNeedsCredentials,
            "ssl.example",
        ),
        (f"fatal: Authentication failed for '{URL}/'", RepositoryNeedsCredentials, "credentials"),
        (f"fatal: {AT}: The requested URL returned error: 403", RepositoryNeedsCredentials, "has"),
        (f"fatal: {AT}: The requested URL returned error: 302", RepositoryUnreachable, "final"),
        (f"fatal: repository '{URL}/' not found", RepositoryUnreachable, "no repository at"),
        ("fatal: '/x' does not appear to be a git repository", RepositoryUnreachable, "no repo"),
        (f"fatal: {AT}: The requested URL returned error: 502", RepositoryUnreachable, "502"),
        (f"fatal: {AT}: Could not resolve host: ssl.example", RepositoryUnreachable, "resolve"),
        (f"fatal: {AT}: Operation too slow. Less than", RepositoryUnreachable, "too long"),
        (f"fatal: {AT}: Failed to connect to x", RepositoryUnreachable, "accept a connection"),
        (
            f"fatal: {AT}: server certificate verification failed. CAfile: none",
            RepositoryUnreachable,
            "secure connection",
        ),
        (
            f"error: object {'a' * 40}: hasDotgit: contains '.git'\nfatal: fsck error in packed"
            " object\nfatal: fetch-pack: invalid index-pack output",
            RepositoryCorrupt,
            "do harm",
        ),
        ("fatal: early EOF\nfatal: fetch-pack: invalid index-pack output", RepositoryUnreachable,
         "ended the connection"),
        ("fatal: write error: No space left on device\nfatal: index-pack failed", StorageFailure,
         "disk"),
        ("fatal: remote error: upload-pack: not our ref 1234", UnknownRef, "hand out"),
        ("fatal: protocol error: bad line length character: <htm", RepositoryUnreachable, "like"),
        ("fatal: something new", RepositoryUnreachable, "something new"),
        ("", RepositoryUnreachable, "could not be read"),
    ],
)  # fmt: skip
def test_meaning(stderr: str, error: type[BerthError], words: str) -> None:
    found = failure(outcome(stderr), URL)
    assert type(found) is error
    assert words in found.detail


@pytest.mark.parametrize(
    "stderr",
    [
        f"fatal: could not read Username for '{URL}': terminal prompts disabled",
        f"fatal: {AT}: The requested URL returned error: 403",
        "git@ssl.example: Permission denied (publickey).\nfatal: Could not read from remote",
    ],
)
def test_credentials_that_were_given_are_refused(stderr: str) -> None:
    found = failure(outcome(stderr), URL, known=True)
    assert type(found) is RepositoryRefusesCredentials
    assert "ssl.example refuses" in found.detail
    assert type(failure(outcome(stderr), URL)) is RepositoryNeedsCredentials


def test_words_of_the_server_decide_nothing() -> None:
    stderr = f"remote: Authentication failed\nfatal: {AT}: The requested URL returned error: 404"
    assert type(failure(outcome(stderr), URL)) is RepositoryUnreachable


@pytest.mark.parametrize(
    ("ended", "error"),
    [
        (Ended.TIMED_OUT, RepositoryUnreachable),
        (Ended.TOO_MUCH_OUTPUT, RepositoryTooLarge),
        (Ended.TOO_MUCH_MEMORY, RepositoryTooLarge),
    ],
)
def test_ends_that_were_ours(ended: Ended, error: type[BerthError]) -> None:
    assert type(failure(outcome("", ended), URL)) is error


def test_local_repositories_have_no_host() -> None:
    found = failure(outcome("fatal: early EOF"), parse_repository_url("/srv/a"))
    assert found.detail.startswith("The repository ended")


def test_redirect_and_missing() -> None:
    assert is_redirect(outcome(f"fatal: {AT}: The requested URL returned error: 301"))
    assert is_missing(outcome(f"fatal: repository '{URL}/' not found"))
    assert not is_missing(outcome("fatal: repository 'https://h/returned error: 404/' is odd"))


def test_an_excerpt_hides_paths_and_credentials() -> None:
    line = "fatal: cannot open /data/berth/mirrors/x.git/HEAD from https://ada:secret@host/a"
    assert excerpt(f"warning: x\n{line}") == "fatal: cannot open … from https://host/a"


@given(st.text())
def test_an_excerpt_is_short_and_printable(text: str) -> None:
    found = excerpt(f"fatal: {text}")
    assert len(found) <= 200
    assert found.isprintable()
