"""What is kept on disk about a sandbox, so that any later orchestrator finds it again."""

from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.runtimes.processes import Process


class SandboxRecord(BaseModel):
    """One sandbox: what it was made from and, once it was started, its first process.

    `pid` and `started` name the process that is number 1 inside; with it everything inside ends.
    """

    model_config = ConfigDict(frozen=True)

    workspace_id: str
    fingerprint: str
    created_at: datetime
    labels: dict[str, str]
    pid: int
    started: int

    @property
    def process(self) -> Process:
        """The first process of the sandbox."""
        return Process(self.pid, self.started)

    def write(self, file: Path) -> None:
        """Replace the record on disk in one step."""
        fresh = file.with_name(f".{file.name}")
        fresh.write_text(self.model_dump_json(), encoding="utf-8")
        fresh.replace(file)

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """The record in this file; None if it is unreadable as one.

        Raises:
            FileNotFoundError: There is no such file.
        """
        try:
            return cls.model_validate_json(file.read_bytes())
        except ValidationError:
            return None
