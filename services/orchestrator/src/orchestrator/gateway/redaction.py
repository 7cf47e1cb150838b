"""Secrets taken out of what comes back, so that a server that repeats them does not tell them."""

from collections.abc import Iterable

MARK = b"*"
MIN_BYTES = 8
"""What is shorter occurs in other texts as well and is left alone."""


class Redaction:
    """Replaces secrets in a stream by as many asterisks, so that lengths stay right.

    Only the end of what was fed that may be the beginning of a secret is held back.

    Args:
        secrets: What is taken out, exactly as it stands.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # The longest first: another may be a part of it.
        self._secrets = sorted(
            {each.encode() for each in secrets if len(each) >= MIN_BYTES}, key=len, reverse=True
        )
        self._held = b""

    def whole(self, data: bytes) -> bytes:
        """A text of its own, such as a header's value."""
        for secret in self._secrets:
            data = data.replace(secret, MARK * len(secret))
        return data

    def is_told_by(self, name: bytes) -> bool:
        """Whether a header's name, which has no case, holds a secret."""
        return any(secret.lower() in name.lower() for secret in self._secrets)

    def feed(self, data: bytes) -> bytes:
        """The next of the stream, as far as it is known to be no part of a secret."""
        data = self.whole(self._held + data)
        held = max((_begun(data, secret) for secret in self._secrets), default=0)
        end = len(data) - held
        self._held = data[end:]
        return data[:end]

    def rest(self) -> bytes:
        """What was held back, once nothing more comes."""
        held, self._held = self._held, b""
        return held


def _begun(data: bytes, secret: bytes) -> int:
    """How many bytes at the end may begin the secret."""
    longest = min(len(secret) - 1, len(data))
    return next((size for size in range(longest, 0, -1) if data.endswith(secret[:size])), 0)
