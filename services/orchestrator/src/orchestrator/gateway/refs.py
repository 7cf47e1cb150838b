"""References: which names are valid, what git lists, and which commit a caller means."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.domain.ref_name import is_ref_name
from orchestrator.errors import RepositoryEmpty, RepositoryError, UnknownRef

BRANCHES = "refs/heads/"
TAGS = "refs/tags/"
PINNED = "refs/berth/pinned/"
HEAD = "HEAD"

# One line a reference; NUL cannot be part of a name.
LISTING_FORMAT = "%(objectname)%00%(objecttype)%00%(*objectname)%00%(*objecttype)%00%(refname)"

_SHA1 = re.compile(r"[0-9a-f]{40}")
_ABBREVIATED = re.compile(r"[0-9a-fA-F]{7,40}")
_FALLBACKS = ("main", "master")


@dataclass(frozen=True, slots=True)
class Ref:
    """What a reference points at; `commit` is None where that takes more than one step to find."""

    target: str
    commit: str | None


@dataclass(frozen=True, slots=True)
class Advertisement:
    """What a remote lists: branches and tags by full name, and where its HEAD is."""

    refs: Mapping[str, str]
    head_ref: str | None
    head_commit: str | None


def require_valid_ref(ref: str) -> None:
    """Refuse what can be no name of a reference or commit.

    Raises:
        UnknownRef: It breaks git's own rules.
    """
    if not is_ref_name(ref):
        raise UnknownRef("ref is not a valid name of a branch, tag or commit.")


def is_commit_id(text: str) -> bool:
    """True for a full commit id."""
    return _SHA1.fullmatch(text) is not None


def may_be_commit(ref: str) -> bool:
    """True for a full or abbreviated commit id."""
    return _ABBREVIATED.fullmatch(ref) is not None


def parse_advertisement(listing: bytes) -> Advertisement:
    """Read the output of `git ls-remote --symref`.

    Raises:
        RepositoryError: The repository names its objects by SHA-256.
    """
    refs: dict[str, str] = {}
    head_ref = head_commit = None
    for line in listing.decode(errors="surrogateescape").split("\n"):
        value, _, name = line.partition("\t")
        if name == HEAD and value.startswith("ref: "):
            head_ref = value.removeprefix("ref: ")
        elif name == HEAD:
            head_commit = value
        elif name.startswith((BRANCHES, TAGS)) and not name.endswith("^{}"):
            refs[name] = value
    targets = (*refs.values(), head_commit)
    if any(target is not None and not is_commit_id(target) for target in targets):
        raise RepositoryError("The repository uses SHA-256 object names, which Berth cannot read.")
    return Advertisement(refs, head_ref, head_commit)


def parse_listing(listing: bytes) -> dict[str, Ref]:
    """Read the output of `git for-each-ref` in `LISTING_FORMAT`."""
    refs: dict[str, Ref] = {}
    for line in listing.decode(errors="surrogateescape").split("\n")[:-1]:
        target, kind, inner, inner_kind, name = line.split("\0")
        commit = {"commit": target}.get(kind) or {"commit": inner}.get(inner_kind)
        refs[name] = Ref(target, commit)
    return refs


def full_name(refs: Mapping[str, object], ref: str) -> str | None:
    """The reference a caller means: a branch, else a tag, else a full name."""
    for name in (BRANCHES + ref, TAGS + ref, ref):
        if name in refs:
            return name
    return None


def wanted_ref(advertised: Advertisement, ref: str | None) -> str | None:
    """The full name of the reference to start from; None if it can only be a commit id.

    Args:
        ref: What the caller asked for; None or `HEAD` for the remote's HEAD.

    Raises:
        RepositoryEmpty: The remote has no commit.
        UnknownRef: There is no such reference.
    """
    if not advertised.refs and advertised.head_commit is None:
        raise RepositoryEmpty("The repository has no commit yet: push one first.")
    if ref is None or ref == HEAD:
        return _head(advertised)
    name = full_name(advertised.refs, ref)
    if name is None and not may_be_commit(ref):
        raise unknown_ref(ref)
    return name


def unknown_ref(ref: str) -> UnknownRef:
    """The error for a name that stands for nothing."""
    return UnknownRef(
        f"The repository has no branch, tag or commit {ref!r}: check its spelling.", ref=ref
    )


def _head(advertised: Advertisement) -> str | None:
    if advertised.head_ref in advertised.refs:
        return advertised.head_ref
    if advertised.head_commit is not None:
        return None
    branches = [name for name in advertised.refs if name.startswith(BRANCHES)]
    for fallback in _FALLBACKS:
        if BRANCHES + fallback in branches:
            return BRANCHES + fallback
    if len(branches) == 1:
        return branches[0]
    raise UnknownRef("The repository's HEAD names no branch that exists: give a ref.", ref=HEAD)
