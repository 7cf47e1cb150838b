"""Say more to a task: to the running one, or by a task that goes on where an ended one stopped."""

from orchestrator.domain.lineage import Lineage, Relation, continued
from orchestrator.domain.offer import Offer
from orchestrator.domain.request import TaskRequest
from orchestrator.domain.task import NewTask, Task
from orchestrator.domain.workspace import FILES
from orchestrator.errors import FileConflict, InvalidRequest, TaskStillRunning
from orchestrator.flow.accept import Accept, Admission
from orchestrator.flow.attach import Attach
from orchestrator.flow.past_tree import refuse_scratch
from orchestrator.ports import TaskStore

SCOPE = "continue"


class Continue:
    """Makes tasks that go on in the tree and the conversation of tasks that have ended."""

    def __init__(self, *, tasks: TaskStore, attach: Attach, accept: Accept, offer: Offer) -> None:
        self._tasks = tasks
        self._attach = attach
        self._accept = accept
        self._offer = offer

    async def __call__(self, request: TaskRequest, earlier_id: str) -> Task:
        """Check, record and queue a task that continues another.

        Raises:
            TaskNotFound: There is no such task.
            TaskStillRunning: It has not ended: a message reaches it.
            TaskContinued: Another task continues it.
            TreeGone: It was a scratch task, whose container is gone.
            KeyReused: The request's key came before, with another request.
            InvalidRequest: And its kinds, for everything else the caller can mend.
        """
        earlier = await self._tasks.get(earlier_id)
        admission = await self._accept.admit(f"{SCOPE}/{earlier.id}", request.key, request)
        if admission.known is not None:
            return await self._accept.queued(admission.known)
        _refuse_other_place(request)
        _refuse(earlier)
        return await self._accept(await self._task(request, earlier, admission))

    async def _task(self, request: TaskRequest, earlier: Task, admission: Admission) -> NewTask:
        files = await self._attach(request.files, earlier.workspace, earlier.start)
        for file in files:
            if file.name in earlier.files:
                raise FileConflict(
                    f"{FILES}/{file.name} is in the tree since the earlier task: give the file "
                    "another name.",
                    file=file.name,
                )
        return NewTask(
            id=admission.task_id,
            query=request.query,
            workspace=earlier.workspace,
            start=earlier.start,
            files=files,
            budget=self._offer.budget(request.budget),
            lineage=Lineage(earlier.id, Relation.CONTINUES),
            request_digest=admission.digest,
            model=self._offer.model_named(request.model, earlier.model),
        )


class Say:
    """Brings what a user says to the task that will hear it."""

    def __init__(self, tasks: TaskStore, go_on: Continue) -> None:
        self._tasks = tasks
        self._go_on = go_on

    async def __call__(self, task_id: str, text: str, key: str = "") -> Task:
        """Say something to a task; returns the task that will hear it.

        Raises:
            BerthError: As `Continue`, if the task has ended.
        """
        if await self._tasks.say(task_id, text, key) is not None:
            return await self._tasks.get(task_id)
        return await self._go_on(TaskRequest(query=text, key=key), task_id)


def _refuse_other_place(request: TaskRequest) -> None:
    given = {
        "repo_url": bool(request.repo_urls),
        "ref": request.ref is not None,
        "install_dependencies": request.install_dependencies,
    }
    for field, is_given in given.items():
        if is_given:
            raise InvalidRequest(
                f"{field} was given with continue_from: the task goes on in the tree of the "
                "earlier one, as it stands.",
                field=field,
            )


def _refuse(earlier: Task) -> None:
    if earlier.ending is None:
        raise TaskStillRunning(
            f"Task {earlier.id} still runs: send it a message with "
            f"POST /tasks/{earlier.id}/messages, or wait for its end.",
            task_id=earlier.id,
        )
    refuse_scratch(earlier)
    if earlier.continued_by is not None:
        raise continued(earlier.id, earlier.continued_by)
