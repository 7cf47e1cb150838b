"""What users say to tasks, and tasks that build on others."""

from orchestrator.storage.postgres.migrations.sql import run_sql_beside

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make room for messages and lineage."""
    run_sql_beside(__file__, "0004_messages.sql")
