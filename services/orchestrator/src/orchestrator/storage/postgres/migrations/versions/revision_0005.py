"""Publications of tasks, and tasks that are never published."""

from orchestrator.storage.postgres.migrations.sql import run_sql_beside

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table of publications and the mark of dry runs."""
    run_sql_beside(__file__, "0005_publications.sql")
