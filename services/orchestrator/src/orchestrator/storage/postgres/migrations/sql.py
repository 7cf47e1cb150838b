"""Lets a revision run the SQL file beside it."""

from pathlib import Path

from alembic import op


def run_sql_beside(revision_file: str, name: str) -> None:
    """Run all statements of the file `name` in the directory of `revision_file`."""
    text = Path(revision_file).with_name(name).read_text(encoding="utf-8")
    # Without parameters the driver takes several statements at once and leaves `%` alone.
    op.get_bind().exec_driver_sql(text, execution_options={"no_parameters": True})
