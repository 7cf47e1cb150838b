"""What a deployment offers a task: how much it may use, and which models may work on it."""

from dataclasses import dataclass

from orchestrator.domain.budget import Budget
from orchestrator.domain.request import BudgetRequest
from orchestrator.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Offer:
    """What requests may ask for.

    Args:
        largest_budget: The most of each, and what a request gets that asks for nothing.
        model: The model that works where none is asked for, by its name at the endpoint.
        further_models: Others there that may be asked for.
    """

    largest_budget: Budget
    model: str
    further_models: tuple[str, ...] = ()

    def budget(self, asked: BudgetRequest) -> Budget:
        """The budget a task gets.

        Raises:
            InvalidRequest: More is asked for than the deployment allows, or nothing at all.
        """
        largest = self.largest_budget
        for name in ("max_steps", "max_tokens", "max_seconds"):
            wanted, limit = getattr(asked, name), getattr(largest, name)
            # So written that NaN is refused too.
            if wanted is not None and not 0 < wanted <= limit:
                raise InvalidRequest(
                    f"budget.{name} is {wanted}: ask for more than 0 and, on this deployment, at "
                    f"most {limit:,.10g}.",
                    field=f"budget.{name}",
                )
        return Budget(
            asked.max_steps if asked.max_steps is not None else largest.max_steps,
            asked.max_tokens if asked.max_tokens is not None else largest.max_tokens,
            asked.max_seconds if asked.max_seconds is not None else largest.max_seconds,
        )

    def model_named(self, asked: str | None, earlier: str = "") -> str:
        """The model a task gets.

        Args:
            asked: What the request names.
            earlier: Of the task that it builds on; it goes on as long as it is offered.

        Raises:
            InvalidRequest: It is none that this deployment offers.
        """
        offered = (self.model, *self.further_models)
        if asked is None:
            return earlier if earlier in offered else self.model
        if asked not in offered:
            raise InvalidRequest(
                f"This deployment offers no model {asked[:80]!r}: ask for "
                f"{' or '.join(offered)}, or leave model out.",
                field="model",
            )
        return asked
