"""The result as a table, for the terminal or for the README, under a line that says what it was measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from tests.bench.figures import Figure, Turn, at_least, ratios, spread
from tests.support.valkey import valkey_binary

SHARES = (("accept", "baseline", 0.70), ("pipeline", "baseline", 0.45), ("deliveries", "bare client", 0.45))
TITLES = {
    "baseline": "aiohttp handler that decodes and answers a constant",
    "accept": "accept only",
    "pipeline": "whole pipeline, max_size 5",
    "bare client": "bare aiohttp client",
    "deliveries": "deliveries alone",
}


def speed_figures(turns: Mapping[str, Sequence[Turn]]) -> list[Figure]:
    """The speeds of all scenarios that ran, then the shares that were asked for."""
    figures = [
        Figure(
            name=f"{TITLES[name]}, per CPU-second",
            measured=spread([turn.per_cpu_s for turn in taken]).of(",.0f"),
            detail=cost(taken),
        )
        for name, taken in turns.items()
    ]
    for ours, theirs, asked in SHARES:
        if ours in turns and theirs in turns:
            detail = f"{len(turns[ours])} turns each"
            figures.append(at_least(f"{ours} ÷ {theirs}", ratios(turns[ours], turns[theirs]), asked, detail))
    return figures


def cost(turns: Sequence[Turn]) -> str:
    """What the turns cost on either core."""
    busy = spread([turn.server_cpu_s / turn.seconds for turn in turns]).middle
    words = [f"{spread([turn.operations / turn.seconds for turn in turns]).middle:,.0f}/s, server {busy:.0%} busy"]
    if any(turn.store_cpu_s for turn in turns):
        store = spread([turn.store_cpu_s / max(1, turn.operations) * 1e6 for turn in turns]).middle
        words.append(f"store {store:.0f} µs each")
    if any(turn.generator_busy for turn in turns):
        words.append(f"generator {spread([turn.generator_busy for turn in turns]).middle:.0%} busy")
    if any(turn.p99_ms for turn in turns):
        p50, p99 = (spread([getattr(turn, name) for turn in turns]).middle for name in ("p50_ms", "p99_ms"))
        words.append(f"p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    return "; ".join(words)


def machine() -> str:
    """What it ran on: processor, cores, kernel and the versions that matter."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    model = found[1] if found else platform.machine()
    store = subprocess.run(  # noqa: S603  the engine of our own environment
        [valkey_binary(), "--version"], capture_output=True, text=True, check=True
    ).stdout
    valkey = re.search(r"v=(\S+)", store)
    packages = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "uvloop", "msgspec"))
    return (
        f"{model}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, {packages}, Valkey {valkey[1] if valkey else '?'} (AOF everysec)"
    )


def verdict(figure: Figure) -> str:
    """Whether what was asked is met."""
    return "" if figure.met is None else "yes" if figure.met else "NO"


def table(figures: Sequence[Figure]) -> str:
    """Aligned columns, and each figure's detail on a line below it."""
    names = max(len(figure.name) for figure in figures)
    measured = max(len(figure.measured) for figure in figures)
    lines = []
    for figure in figures:
        columns = f"{figure.name:<{names}}  {figure.measured:>{measured}}  {figure.asked:>14}  {verdict(figure)}"
        lines += [columns.rstrip(), f"    {figure.detail}"] if figure.detail else [columns.rstrip()]
    return "\n".join(lines)


def markdown(figures: Sequence[Figure]) -> str:
    """The same for the README."""
    lines = ["| figure | measured: median (min … max) | asked | met |", "|---|---|---|---|"]
    lines += [f"| {each.name} | {each.measured} | {each.asked} | {verdict(each)} |" for each in figures]
    return "\n".join(lines)
