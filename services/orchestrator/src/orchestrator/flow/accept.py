"""Record and queue a task, once for each request, however often that is sent."""

import hashlib
import secrets
from dataclasses import asdict, dataclass

from pydantic import JsonValue

from orchestrator.domain.events import EventKind, NewEvent
from orchestrator.domain.lineage import Lineage
from orchestrator.domain.request import ForkRequest, TaskRequest, key_reused
from orchestrator.domain.task import NewTask, StartPoint, Task
from orchestrator.domain.workspace import Workspace
from orchestrator.errors import TaskNotFound
from orchestrator.flow.inputs import Inputs
from orchestrator.ports import Engine, EventLog, TaskStore

ID_BYTES = 8


@dataclass(frozen=True, slots=True)
class Admission:
    """The id a request's task gets; `known` is that task if the request came before."""

    task_id: str
    digest: str = ""
    known: Task | None = None


class Accept:
    """The last part of taking a task, after which no crash can lose it any more."""

    def __init__(
        self,
        *,
        inputs: Inputs,
        tasks: TaskStore,
        events: EventLog,
        engine: Engine,
        runtime: str,
    ) -> None:
        self._inputs = inputs
        self._tasks = tasks
        self._events = events
        self._engine = engine
        self._runtime = runtime

    async def admit(self, scope: str, key: str, request: TaskRequest | ForkRequest) -> Admission:
        """The id for a request's task. The same key in the same scope gives the same one.

        Args:
            scope: What the request is for; keys of different scopes have nothing to do with each
                other.
            key: The caller's key; empty if there is none.
            request: The whole request.

        Raises:
            KeyReused: The key came before, with another request.
        """
        if not key:
            return Admission(secrets.token_hex(ID_BYTES))
        task_id = _digest(f"{scope}\0{key}")[: 2 * ID_BYTES]
        digest = _digest(repr(asdict(request)))
        try:
            known = await self._tasks.get(task_id)
        except TaskNotFound:
            return Admission(task_id, digest)
        if known.request_digest != digest:
            raise key_reused()
        return Admission(task_id, digest, known)

    async def __call__(self, task: NewTask) -> Task:
        """Record and queue a new task.

        Raises:
            TaskContinued: It is to continue a task that another continues.
        """
        await self._inputs.keep(task.id, task.files)
        return await self.queued(await self._tasks.add(task, self._runtime))

    async def queued(self, task: Task) -> Task:
        """See that a recorded task is queued; twice is once."""
        await self._events.append(task.id, NewEvent(EventKind.ACCEPTED, 0, _accepted(task), "once"))
        await self._engine.submit(task.id, task.workspace.id)
        return task


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _accepted(task: Task) -> dict[str, JsonValue]:
    data: dict[str, JsonValue] = {
        "workspace": task.workspace.id,
        "repositories": [_started_from(task.workspace, point) for point in task.start],
        "files": list(task.files),
    }
    return data if task.lineage is None else {**data, **_from(task.lineage)}


def _from(lineage: Lineage) -> dict[str, JsonValue]:
    origin: dict[str, JsonValue] = {"task_id": lineage.parent, "step": lineage.step}
    return {lineage.relation.value: origin}


def _started_from(workspace: Workspace, point: StartPoint) -> dict[str, JsonValue]:
    url = next(str(each.url) for each in workspace.repositories if each.name == point.name)
    return {"url": url, "name": point.name, "commit": point.commit, "ref": point.ref}
