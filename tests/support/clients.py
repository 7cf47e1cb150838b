"""A machine whose package managers are played by what they print."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.domain.egress import HostRule
from orchestrator.gateway.packages.machine import Machine


def clients(
    answers: Mapping[str, str],
    home: Path = Path("/nonexistent"),
    environment: Mapping[str, str] | None = None,
    documents: Mapping[str, str] | None = None,
) -> Machine:
    """A machine.

    Args:
        answers: What clients say to commands that hold a word; others are missing.
        home: Where their configuration lies.
        environment: Variables beside HOME and a PATH on which nothing is.
        documents: What the network has, by address.
    """

    async def run(command: Sequence[str]) -> str | None:
        line = " ".join(command)
        return next((answer for word, answer in answers.items() if word in line), None)

    async def fetch(url: str) -> str | None:
        return (documents or {}).get(url)

    own = {"HOME": str(home), "PATH": "/nonexistent"}
    return Machine(run, fetch, {**own, **(environment or {})})


def web(host: str, port: int = 443) -> HostRule:
    """The rule that allows an address of the web."""
    return HostRule(host, frozenset({port}))
