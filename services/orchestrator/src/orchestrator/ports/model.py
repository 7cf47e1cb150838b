"""The chat model."""

from collections.abc import Sequence
from typing import Protocol

from orchestrator.domain.conversation import Message, ModelTurn, ToolSpec


class Model(Protocol):
    """A chat model with tools."""

    async def complete(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], timeout_seconds: float
    ) -> ModelTurn:
        """Ask for the next turn.

        Raises:
            ModelFailure: Unavailable, refused, too slow, or not a chat completion.
        """
        ...
