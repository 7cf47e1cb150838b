"""What a task tells those who follow it, while it runs."""

from dataclasses import dataclass

from orchestrator.domain.events import Event, NewEvent
from orchestrator.domain.live_text import LiveText, TextDelta
from orchestrator.ports import EventLog, LiveTextChannel


@dataclass(frozen=True, slots=True)
class Narration:
    """One task's events, which are kept, and its model's words, which are only heard.

    `generation` is that of the lease under which the task runs.
    """

    task_id: str
    generation: int | None
    events: EventLog
    live_text: LiveTextChannel

    def say(self, step: int, delta: TextDelta) -> None:
        """Pass on what the model is saying in a step."""
        self.live_text.publish(LiveText(self.task_id, step, delta))

    async def record(self, event: NewEvent) -> Event:
        """Record an event, after the words that led to it have left."""
        await self.live_text.flush(self.task_id)
        return await self.events.append(self.task_id, event, self.generation)
