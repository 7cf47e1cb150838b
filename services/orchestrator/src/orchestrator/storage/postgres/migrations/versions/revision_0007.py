"""Models of tasks."""

from orchestrator.storage.postgres.migrations.sql import run_sql_beside

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the column of the model."""
    run_sql_beside(__file__, "0007_models.sql")
