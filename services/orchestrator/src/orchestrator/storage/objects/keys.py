"""Which keys object storage takes; the same on every implementation."""

from orchestrator.errors import InvalidRequest

MAX_KEY_BYTES = 1_024
MAX_PART_BYTES = 240  # a file system's 255, less room for what an implementation adds


def check_key(key: str) -> None:
    """Refuse a key that some storage could not hold, or that could name something else.

    Raises:
        InvalidRequest: The sentence says what is wrong with it.
    """
    problem = key_problem(key)
    if problem:
        raise InvalidRequest(f"The name {key[:100]!a} cannot be stored: {problem}")


def key_problem(key: str) -> str | None:
    """What is wrong with a key, as the end of a sentence, or None."""
    if not key.isprintable() or any(part != part.strip() for part in key.split("/")):
        # Also lone surrogates: what cannot be printed cannot be encoded either.
        return "use visible characters only, without spaces at the ends of its parts."
    if len(key.encode()) > MAX_KEY_BYTES:
        return f"it is longer than {MAX_KEY_BYTES} bytes in UTF-8."
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "between slashes it must have a name that is neither '.' nor '..'."
    if any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        return f"a part between slashes is longer than {MAX_PART_BYTES} bytes in UTF-8."
    return None


def can_start_key(prefix: str) -> bool:
    """False if no key can start with this."""
    parents, slash, last = prefix.rpartition("/")
    if slash and key_problem(parents):
        return False
    if not last.isprintable() or last != last.lstrip():
        return False
    return len(prefix.encode()) <= MAX_KEY_BYTES and len(last.encode()) <= MAX_PART_BYTES
