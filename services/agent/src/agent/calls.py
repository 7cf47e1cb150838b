"""Tool calls that have a key: each takes effect once, whoever dies meanwhile.

Such a call outlives the connection it came by. It ends by itself, by `interrupt`, or with the
worker; only in the last case the journal has no result, and whoever repeats the call starts it
anew on the tree as it was before.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from agent.checkpoints import Checkpoints
from agent.errors import Conflict
from agent.journal import Call, Entry, Journal
from agent.lacking import Lacking
from agent.layout import Layout
from agent.leftovers import end_leftovers
from agent.pending import PendingCheckpoints

log = logging.getLogger(__name__)

Result = dict[str, Any]
"""An MCP `CallToolResult` as JSON."""
Work = Callable[[], Awaitable[Result]]

INTERRUPTED_MARK = "berth/interrupted"
"""In a result's `_meta`: the call was broken off before, and done again from its beginning."""
INTERRUPTED_TEXT = "The call was interrupted before its end. What it had done by then is kept."
LACKING_TEXT = (
    "[The call was interrupted and made again. No checkpoint could keep what it had removed of "
    "these before, so they are gone or as they were earlier: {paths}]"
)
SHOWN_PATHS = 20
END_SECONDS = 4.0
"""How long tools may take to end what they started when the worker ends."""


@dataclass(slots=True)
class _Running:
    """A call in this process: `answer` is all of it, `work` only the tool's part."""

    call: Call
    answer: "asyncio.Task[Result]" = field(init=False)
    work: "asyncio.Task[Result] | None" = None
    interrupted: bool = False

    def interrupt(self) -> None:
        """Break the tool off, now or before it begins."""
        # Once is enough: a second cancellation would break off the clearing away.
        if not self.interrupted and self.work is not None:
            self.work.cancel()
        self.interrupted = True


class Calls:
    """Runs calls by their keys.

    Args:
        layout: Where things lie.
        checkpoints: Keeps and puts back the trees.
        instance: Names this worker process.
    """

    def __init__(self, layout: Layout, checkpoints: Checkpoints, instance: str) -> None:
        self._layout = layout
        self._checkpoints = checkpoints
        self._instance = instance
        self._journal = Journal(layout)
        self._pending = PendingCheckpoints(layout, self._journal, checkpoints)
        self._running: dict[tuple[str, str], _Running] = {}
        self._closing = False

    async def run(self, call: Call, work: Work) -> Result:
        """The result of a call.

        A call that has ended is answered from the journal, one that runs is waited for. One that
        a dead worker has begun is done again, on the tree as it was before; its result is marked.
        If the caller is cancelled, the call goes on.

        Raises:
            Conflict: The key stands for another call.
            GitFailed: The tree could not be kept or put back.
            StorageFailed: What is needed to put the tree back is damaged.
        """
        at = (call.task, call.key)
        running = self._running.get(at)
        if running is None:
            running = _Running(call)
            self._running[at] = running
            running.answer = asyncio.create_task(self._answer(running, work))
            running.answer.add_done_callback(lambda _: self._running.pop(at))
        elif running.call.digest != call.digest:
            raise _another_call(call, running.call.tool)
        return await asyncio.shield(running.answer)

    async def interrupt(self, task_id: str) -> int:
        """Break off a task's calls and wait until they have ended; returns how many ran.

        They end with an error as their result, and what they did is kept.
        """
        found = [each for each in self._running.values() if each.call.task == task_id]
        for each in found:
            each.interrupt()
        if found:
            await asyncio.wait([each.answer for each in found])
        return len(found)

    async def settled(self, task_id: str) -> str:
        """Wait until every ended call has its checkpoint; returns the key of the newest.

        Raises:
            WorkerError: The task has no tree, or its checkpoints are damaged.
        """
        return await self._pending.settled(task_id)

    async def close(self) -> None:
        """Break off all calls without a result, so that they are done again by the next worker."""
        self._closing = True
        for each in self._running.values():
            each.interrupt()
        if self._running:
            await asyncio.wait(
                [each.answer for each in self._running.values()], timeout=END_SECONDS
            )
        await self._pending.close(END_SECONDS)

    async def _answer(self, running: _Running, work: Work) -> Result:
        call = running.call
        entry = await asyncio.to_thread(self._journal.read, call)
        if entry is not None and entry.digest and entry.digest != call.digest:
            raise _another_call(call, entry.tool)
        if entry is not None and entry.result is not None:
            return entry.result
        if not call.mutating:
            return await self._read(running, work)
        again = None
        if entry is not None:
            log.warning("task %s: call %s was broken off and is done again", call.task, call.key)
            await end_leftovers(self._layout.task(call.task))
            again = await self._checkpoints.restore(call.task, call.key)
        return await self._change(running, work, again)

    async def _read(self, running: _Running, work: Work) -> Result:
        """Without a trace before its end: what only reads can be done again at any time."""
        result = await self._worked(running, work)
        entry = Entry(self._instance, running.call.tool, running.call.digest, None, result)
        await asyncio.to_thread(self._journal.write, running.call, entry, durable=False)
        return result

    async def _change(self, running: _Running, work: Work, again: Lacking | None) -> Result:
        """The result of a call that may change something.

        Args:
            running: The call.
            work: The tool's part.
            again: What could not be put back of the tree before it, if it was broken off.
        """
        call = running.call
        before = await self._pending.settled(call.task)
        entry = Entry(self._instance, call.tool, call.digest, before)
        await asyncio.to_thread(self._journal.write, call, entry)
        result = await self._worked(running, work)
        if again is not None:
            result = _done_again(result, again)
        await asyncio.to_thread(self._journal.write, call, entry.finished(result))
        self._pending.start(call)
        return result

    async def _worked(self, running: _Running, work: Work) -> Result:
        """The tool's result, or that it was interrupted.

        Raises:
            CancelledError: The worker ends: what became of the call is left open.
        """
        if not running.interrupted:
            running.work = asyncio.ensure_future(_awaited(work))
            await asyncio.wait([running.work])
            if not running.work.cancelled():
                return running.work.result()
        if self._closing:
            raise asyncio.CancelledError
        return {"content": [{"type": "text", "text": INTERRUPTED_TEXT}], "isError": True}


def _done_again(result: Result, lacking: Lacking) -> Result:
    marked = {**result, "_meta": {**(result.get("_meta") or {}), INTERRUPTED_MARK: True}}
    if not lacking:
        return marked
    paths = [*lacking.older, *lacking.missing]
    more = f" and {len(paths) - SHOWN_PATHS} more" if len(paths) > SHOWN_PATHS else ""
    told = LACKING_TEXT.format(paths=", ".join(paths[:SHOWN_PATHS]) + more)
    content = [*(result.get("content") or ()), {"type": "text", "text": told}]
    return {**marked, "content": content}


async def _awaited(work: Work) -> Result:
    return await work()


def _another_call(call: Call, tool: str) -> Conflict:
    return Conflict(
        f"key {call.key} stands for another call, of {tool}: a new call needs a new key"
    )
