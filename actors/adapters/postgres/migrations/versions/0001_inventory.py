"""The inventory's tables: model, projection, events, and where the relay and the projection are."""

from __future__ import annotations

from alembic import op

from actors.adapters.postgres.sql import statements

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    for statement in statements("schema_0001"):
        op.execute(statement)


def downgrade() -> None:
    """Remove the tables with everything in them."""
    for table in ("proyeccion", "relevo", "eventos", "inventario_resumen", "lineas_inventario", "inventario"):
        op.execute(f"DROP TABLE {table}")
