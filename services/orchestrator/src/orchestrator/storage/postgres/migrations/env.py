"""What Alembic runs to reach the database; the connection comes from `upgrade`.

Alembic executes this file, so unlike every other module it does its work at once.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
