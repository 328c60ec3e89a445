"""The benchmark of WhatsApp sends works: a smoke run measures every figure, of the node and of the stack beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.test_bench_smoke import printed_by

SEND_FIGURES = (
    "accept of POST /messages ÷ do-nothing POST /messages",
    "sends: 2 workers ÷ Celery, 8 instances",
    "sends: 1 node ÷ Celery, 8 instances",
)


@pytest.mark.timeout(120)
async def test_the_sends_figures_are_measured_and_every_task_is_done(tmp_path: Path) -> None:
    """The same for WhatsApp sends, of the node and of the stack beside it."""
    printed = await printed_by(tmp_path / "bench", ["sends"], 100)

    assert [name for name in SEND_FIGURES if name not in printed] == []
