"""The benchmark itself still runs: every scenario, a second or two each, with nothing lost and nothing twice."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.bench import __main__ as bench_main
from tests.bench import cache_speed, channel_speed, nchan, webdis
from tests.support.child import Child
from tests.support.until import until

FIGURES = (
    "accept ÷ baseline",
    "pipeline ÷ baseline",
    "deliveries ÷ bare client",
    "publish ÷ do-nothing POST /api/queue/publish",
    "memory of an open buffer",
    "largest loop stall meanwhile",
    "lateness of timeouts, p99",
    "3 nodes, INGEST=direct ÷ 1 node, CPU per message",
    "CPU of an idle node",
)
CACHE_FIGURES = (
    "hot GET ÷ do-nothing GET",
    "PUT ÷ do-nothing POST",
    "near cache's own get: CPU",
    "group-committed set, callers: 256: CPU",
)
CHANNEL_FIGURES = (
    "channels, one a tick: deliveries per CPU-second",
    "channels, 10 a tick: deliveries per CPU-second",
    "channels ÷ bare transports, one a tick",
    "channels: publish → receive, p99",
    "one subscriber stalls: the others' p99 ÷ without",
    "idle WebSocket connection",
    "bare transports, one a tick: deliveries per CPU-second",
    "bare transports, 10 a tick: deliveries per CPU-second",
    "bare transports: publish → receive, p99",
)
NCHAN_FIGURES = (
    "nchan (C, 1 process), one a tick: deliveries per CPU-second",
    "nchan (C, 1 process): publish → receive, p99",
)
WEBDIS_FIGURES = (
    "hot batch get of 100 ÷ webdis MGET of 100",
    "hot GET ÷ webdis GET",
    "PUT ÷ webdis SET",
)


async def printed_by(log: Path, names: Sequence[str], within_s: float) -> str:
    """What a smoke run of these scenarios prints; it had no trouble to report."""
    only = [word for name in names for word in ("--only", name)]
    with Child([sys.executable, "-m", "tests.bench", "--smoke", *only], log) as bench:
        await until(lambda: bench.exit_code is not None, within_s, every_s=0.05, what="the benchmark ends")
    assert bench.exit_code == 0, bench.output()
    return bench.stdout_path.read_text()


@pytest.mark.timeout(120)
async def test_every_figure_is_measured_and_every_message_found_again(tmp_path: Path) -> None:
    """A smoke run prints all figures that are asked for and has no trouble to report; their values are not judged."""
    names = [name for name in bench_main.NAMES if name not in ("cache", "channels", "sends", "inventory")]

    printed = await printed_by(tmp_path / "bench", names, 100)

    assert [name for name in FIGURES if name not in printed] == []


@pytest.mark.timeout(60)
async def test_the_cache_s_figures_are_measured_and_its_answers_are_right(tmp_path: Path) -> None:
    """The same for the cache. What webdis does beside it is looked at where webdis is installed, and always in CI."""
    printed = await printed_by(tmp_path / "bench", ["cache"], 50)

    assert [name for name in CACHE_FIGURES if name not in printed] == []
    if webdis.binary() is None:
        assert os.environ.get("CI") != "true", "webdis is not installed, and CI must measure beside it"
        pytest.skip(cache_speed.NO_WEBDIS)
    assert [name for name in WEBDIS_FIGURES if name not in printed] == []


@pytest.mark.timeout(60)
async def test_the_channels_figures_are_measured_and_every_subscriber_gets_everything(tmp_path: Path) -> None:
    """The same for the channels. What nchan does beside them is looked at where it is installed, and always in CI."""
    printed = await printed_by(tmp_path / "bench", ["channels"], 50)

    assert [name for name in CHANNEL_FIGURES if name not in printed] == []
    if nchan.binary() is None:
        assert os.environ.get("CI") != "true", "nchan is not installed, and CI must measure beside it"
        pytest.skip(channel_speed.NO_NCHAN)
    assert [name for name in NCHAN_FIGURES if name not in printed] == []
