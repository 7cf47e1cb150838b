"""Names of branches and tags, by git's own rules (`git check-ref-format`)."""

import re

from orchestrator.errors import InvalidRequest

MAX_REF_LENGTH = 250

_INVALID = re.compile(
    r"[\x00-\x20\x7f~^:?*\[\\]"  # characters with a meaning of their own
    r"|\.\.|@\{|//|^@$|^-|^/|/$|\.$"
    r"|(^|/)\.|\.lock(/|$)"
)


def is_ref_name(name: str) -> bool:
    """True if git takes this as the name of a reference."""
    fits = 0 < len(name) <= MAX_REF_LENGTH and name.isprintable()
    return fits and _INVALID.search(name) is None


def checked_branch(name: str) -> str:
    """The name, if a branch may have it.

    Raises:
        InvalidRequest: It breaks git's rules, or reads as something other than a branch.
    """
    if not is_ref_name(name) or name == "HEAD" or name.startswith("refs/"):
        raise InvalidRequest(
            "branch is not a valid name of a branch: give one such as fix/typo.", field="branch"
        )
    return name
