"""Secrets of the operator's that the gateway may add to requests."""

from typing import Protocol

from orchestrator.domain.injection import Secret


class Secrets(Protocol):
    """Finds secrets by their names."""

    async def get(self, name: str) -> Secret | None:
        """A secret as it is now; None if there is none of this name.

        Raises:
            ConfigurationError: It is there and cannot be used.
        """
        ...
