"""What it means when git fails, read from what it says in the C locale."""

import re
from dataclasses import dataclass

from orchestrator.domain.repository import RepositoryUrl
from orchestrator.errors import (
    BerthError,
    RepositoryCorrupt,
    RepositoryError,
    RepositoryNeedsCredentials,
    RepositoryRefusesCredentials,
    RepositoryTooLarge,
    RepositoryUnreachable,
    StorageFailure,
    UnknownRef,
)
from orchestrator.gateway.git_process import Ended, GitOutcome

EXCERPT_LENGTH = 200


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    error: type[BerthError]
    sentence: str


def _rule(pattern: str, error: type[BerthError], sentence: str) -> _Rule:
    return _Rule(re.compile(pattern, re.IGNORECASE), error, sentence)


_DENIED = _rule(
    r"could not read (username|password)|authentication failed|returned error: 40[13]"
    r"|permission denied \((publickey|password|keyboard)",
    RepositoryNeedsCredentials,
    "{host} asks for credentials for {url}, and Berth has none: check that the address is right, "
    "and name credentials for it in the file that BERTH_GIT_CREDENTIALS names.",
)
_REFUSED = _rule(
    _DENIED.pattern.pattern,
    RepositoryRefusesCredentials,
    "{host} refuses Berth's credentials for {url}: renew them (wrong, revoked or expired), or "
    "give them the right to this repository.",
)
_REDIRECT = _rule(
    r"returned error: 30\d",
    RepositoryUnreachable,
    "{host} redirects to another address, which is not followed: give the final address.",
)
_MISSING = _rule(
    r"returned error: (404|410)|repository .* not found|does not appear to be a git repository",
    RepositoryUnreachable,
    "There is no repository at {url}: check the address.",
)

# The first rule that matches counts, so what is more certain stands higher.
_RULES = (
    _rule(
        r"no space left on device|disk quota exceeded",
        StorageFailure,
        "The disk that holds Berth's data is full: free some space.",
    ),
    _DENIED,
    _REDIRECT,
    _MISSING,
    _rule(
        r"returned error: 429",
        RepositoryUnreachable,
        "{host} refuses more requests for now: try again later.",
    ),
    _rule(
        r"returned error: \d+",
        RepositoryUnreachable,
        "{host} answered with an error: try again later. git says: {excerpt}",
    ),
    _rule(
        r"could not resolve host",
        RepositoryUnreachable,
        "The name {host} does not resolve to an address: check its spelling.",
    ),
    _rule(
        r"host key verification failed",
        RepositoryUnreachable,
        "{host} does not show the key that known_hosts has for it: check who answers there, and "
        "the file that the credentials name as known_hosts.",
    ),
    _rule(
        r"operation too slow|timed out|timeout was reached",
        RepositoryUnreachable,
        "{host} took too long to answer: try again later.",
    ),
    _rule(
        r"failed to connect|couldn't connect|connection (refused|reset)|no route to host"
        r"|network is unreachable",
        RepositoryUnreachable,
        "{host} does not accept a connection on this port: check the address.",
    ),
    _rule(
        r"certificate|ssl|tls",
        RepositoryUnreachable,
        "No secure connection to {host} could be made. git says: {excerpt}",
    ),
    _rule(
        r"shallow roots are not allowed|from a shallow repository",
        RepositoryError,
        "The repository at {url} is a shallow clone, which lacks history: use a full one.",
    ),
    _rule(
        r"not our ref|couldn't find remote ref|unadvertised object",
        UnknownRef,
        "The repository at {url} does not hand out the commit asked for.",
    ),
    _rule(
        r"permission denied|dubious ownership",
        RepositoryUnreachable,
        "{url} cannot be read by the user that Berth runs as.",
    ),
    _rule(
        r"fsck error|error: object [0-9a-f]{40}:|bad object|did not send all necessary objects"
        r"|unresolved deltas|inflate returned|pack has bad|sha1 collision|object corrupt",
        RepositoryCorrupt,
        "The repository holds objects that are broken or crafted to do harm; `git fsck` names "
        "them. git says: {excerpt}",
    ),
    _rule(
        r"early eof|hung up|transfer closed|unexpected disconnect|recv failure|partial file",
        RepositoryUnreachable,
        "{host} ended the connection too early: try again later.",
    ),
    _rule(
        r"is this a git repository|protocol error|bad line length|invalid|unexpected"
        r"|unable to parse",
        RepositoryUnreachable,
        "{url} did not answer like a git repository: check the address.",
    ),
)
_OTHERWISE = _rule(
    "", RepositoryUnreachable, "The repository at {url} could not be read. git says: {excerpt}"
)

# Addresses and the server's own words may hold anything, these patterns among them.
_NOT_GITS = re.compile(r"'[^'\n]*'|^remote: .*$", re.MULTILINE)
_TELLING = re.compile(r"^(fatal|error): ", re.MULTILINE)
_ABSOLUTE_PATH = re.compile(r"(?<![\w:/.])/[^\s'\":]+")
_USERINFO = re.compile(r"//[^/@\s]+@")


def failure(outcome: GitOutcome, url: RepositoryUrl, *, known: bool = False) -> BerthError:
    """The error that a failed git command on this repository amounts to.

    Args:
        outcome: How git ended.
        url: The repository.
        known: Whether git had credentials for it.
    """
    host = url.host or "The repository"
    if outcome.ended is Ended.TIMED_OUT:
        return RepositoryUnreachable(f"{host} took too long to answer: try again later.")
    if outcome.ended is Ended.TOO_MUCH_OUTPUT:
        return RepositoryTooLarge("The repository lists more references than Berth takes.")
    said = _NOT_GITS.sub("", outcome.stderr)
    if outcome.ended is Ended.TOO_MUCH_MEMORY:
        return RepositoryTooLarge("The repository takes more memory to read than Berth allows.")
    rule = next((rule for rule in _RULES if rule.pattern.search(said)), _OTHERWISE)
    if rule is _DENIED and known:
        rule = _REFUSED
    detail = rule.sentence.format(host=host, url=url, excerpt=excerpt(outcome.stderr))
    return rule.error(detail, host=url.host or None)


def is_redirect(outcome: GitOutcome) -> bool:
    """True if the server pointed elsewhere."""
    return _matches(_REDIRECT, outcome)


def is_missing(outcome: GitOutcome) -> bool:
    """True if the server knows no repository there."""
    return _matches(_MISSING, outcome)


def is_shallow(outcome: GitOutcome) -> bool:
    """True if git left references out because the remote lacks their history."""
    return "because shallow roots are not allowed" in outcome.stderr


def excerpt(stderr: str) -> str:
    """git's own last complaint, short, without paths of this machine or credentials."""
    lines = [line for line in stderr.splitlines() if _TELLING.match(line)]
    line = lines[-1] if lines else "nothing"
    line = _USERINFO.sub("//", _ABSOLUTE_PATH.sub("…", line))
    return "".join(char for char in line if char.isprintable())[:EXCERPT_LENGTH]


def _matches(rule: _Rule, outcome: GitOutcome) -> bool:
    return rule.pattern.search(_NOT_GITS.sub("", outcome.stderr)) is not None
