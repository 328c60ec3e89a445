"""The benchmark of the inventory works: a smoke run measures every figure, of the node and of the stack beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.test_bench_smoke import printed_by

INVENTORY_FIGURES = (
    "inventory commands ÷ do-nothing inventory commands",
    "inventory commands ÷ FastAPI's inventory commands",
    "GET /inventario?limit=20 ÷ do-nothing GET /inventario?limit=20",
    "GET /inventario?limit=20 ÷ FastAPI's GET /inventario?limit=20",
    "GET /inventario/{id} ÷ do-nothing GET /inventario/{id}",
    "GET /inventario/{id} ÷ FastAPI's GET /inventario/{id}",
    "inventory: projection lag at 50 commands/s, p99",
    "inventory: GET …?after at 50 commands/s, p99",
    "inventory: events of a rebuild, per second",
)


@pytest.mark.timeout(120)
async def test_the_inventory_s_figures_are_measured_and_every_command_is_projected(tmp_path: Path) -> None:
    """The same for the inventory. Each command is stored once, and the projection is what follows from them."""
    printed = await printed_by(tmp_path / "bench", ["inventory"], 100)

    assert [name for name in INVENTORY_FIGURES if name not in printed] == []
