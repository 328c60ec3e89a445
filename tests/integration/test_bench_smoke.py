"""The benchmark itself still runs: every scenario, a second or two each, with nothing lost and nothing twice."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.child import Child
from tests.support.until import until

FIGURES = (
    "accept ÷ baseline",
    "pipeline ÷ baseline",
    "deliveries ÷ bare client",
    "memory of an open buffer",
    "largest loop stall meanwhile",
    "lateness of timeouts, p99",
    "3 nodes, INGEST=direct ÷ 1 node, CPU per message",
    "CPU of an idle node",
)


@pytest.mark.timeout(120)
async def test_every_figure_is_measured_and_every_message_found_again(tmp_path: Path) -> None:
    """A smoke run prints all figures that are asked for and has no trouble to report; their values are not judged."""
    with Child([sys.executable, "-m", "tests.bench", "--smoke"], tmp_path / "bench") as bench:
        await until(lambda: bench.exit_code is not None, 100, every_s=0.1, what="the benchmark ends")

    printed = bench.stdout_path.read_text()
    assert bench.exit_code == 0, bench.output()
    assert [name for name in FIGURES if name not in printed] == []
