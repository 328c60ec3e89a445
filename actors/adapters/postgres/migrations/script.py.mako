"""${message}."""

from __future__ import annotations

from alembic import op

from actors.adapters.postgres.sql import statements

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Run the statements of the file beside the others."""
    for statement in statements("schema_${up_revision}"):
        op.execute(statement)
