"""The chat model."""

from collections.abc import Callable, Sequence
from typing import Protocol

from orchestrator.domain.conversation import Message, ModelTurn, ToolSpec
from orchestrator.domain.live_text import TextDelta

OnText = Callable[[TextDelta], None]
"""Gets the pieces of a turn's text as they come; it must neither wait nor raise."""


class Model(Protocol):
    """Chat models with tools, at one endpoint."""

    async def complete(
        self,
        model: str,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec],
        timeout_seconds: float,
        on_text: OnText | None = None,
    ) -> ModelTurn:
        """Ask a model, by its name there, for the next turn.

        A turn that broke off may be asked for again: `on_text` then gets it from its beginning,
        as another attempt. The pieces of the last attempt make up the returned turn's text.

        Raises:
            ModelFailure: Unavailable, refused, too slow, or not a chat completion.
        """
        ...
