"""Several orchestrators on one database."""

from orchestrator.storage.postgres.migrations.sql import run_sql_beside

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables of executors and leases."""
    run_sql_beside(__file__, "0003_fleet.sql")
