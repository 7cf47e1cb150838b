"""Begin a task from any step of another one."""

from orchestrator.domain.lineage import Lineage, Relation
from orchestrator.domain.offer import Offer
from orchestrator.domain.request import ForkRequest
from orchestrator.domain.task import NewTask, Task
from orchestrator.errors import InvalidRequest, UnknownStep
from orchestrator.flow.accept import Accept
from orchestrator.flow.past_tree import refuse_scratch
from orchestrator.flow.recall import Recall
from orchestrator.ports import TaskStore

SCOPE = "fork"


class Fork:
    """Makes tasks whose tree and conversation are another's as of one of its steps."""

    def __init__(self, *, tasks: TaskStore, recall: Recall, accept: Accept, offer: Offer) -> None:
        self._tasks = tasks
        self._recall = recall
        self._accept = accept
        self._offer = offer

    async def __call__(self, request: ForkRequest) -> Task:
        """Check, record and queue a fork; its parent may run or have ended.

        Raises:
            TaskNotFound: There is no such task.
            UnknownStep: The parent has not completed that step.
            TreeGone: The parent was a scratch task, whose container belongs to it alone.
            KeyReused: The request's key came before, with another request.
            InvalidRequest: The budget is too large, there is no such model, or nothing to do.
        """
        parent = await self._tasks.get(request.parent)
        admission = await self._accept.admit(f"{SCOPE}/{parent.id}", request.key, request)
        if admission.known is not None:
            return await self._accept.queued(admission.known)
        budget = self._offer.budget(request.budget)
        model = self._offer.model_named(request.model, parent.model)
        refuse_scratch(parent)
        await require_step(self._tasks, parent, request.step)
        if not request.query:
            await self._require_open_end(parent, request.step)
        return await self._accept(
            NewTask(
                id=admission.task_id,
                query=request.query,
                workspace=parent.workspace,
                start=parent.start,
                files=(),
                budget=budget,
                lineage=Lineage(parent.id, Relation.FORKS, request.step),
                request_digest=admission.digest,
                model=model,
            )
        )

    async def _require_open_end(self, parent: Task, step: int) -> None:
        found = await self._recall.conversation(parent, step)
        if found.answered or not found.messages:
            raise InvalidRequest(
                f"After step {step} the model has answered: give a query to go on from there.",
                field="query",
            )


async def require_step(tasks: TaskStore, task: Task, step: int) -> None:
    """See that a task has completed a step.

    Raises:
        UnknownStep: It has not.
    """
    last = await tasks.last_step(task.id)
    if step > last:
        raise UnknownStep(
            f"Task {task.id} has completed {last} steps so far: there is no step {step}.",
            task_id=task.id,
            last_step=last,
        )
