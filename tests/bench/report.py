"""The result as a table, for the terminal or for the README, under a line that says what it was measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

from tests.bench.figures import Figure, Turn, at_least, ratios, spread
from tests.support.valkey import valkey_binary

Share: TypeAlias = tuple[str, str, float | None]
"""Ours, theirs, and what is asked of ours ÷ theirs, if anything."""
SHARES: Sequence[Share] = (
    ("accept", "baseline", 2.0),
    ("pipeline", "baseline", 0.8),
    ("deliveries", "bare client", 0.45),
)
FEW_US = 10
TITLES = {
    "baseline": "aiohttp handler that decodes and answers a constant",
    "accept": "accept only",
    "pipeline": "whole pipeline, max_size 5",
    "bare client": "bare aiohttp client",
    "deliveries": "deliveries alone",
}


def speed_figures(
    turns: Mapping[str, Sequence[Turn]], titles: Mapping[str, str] = TITLES, shares: Sequence[Share] = SHARES
) -> list[Figure]:
    """The speeds of all scenarios that ran, then the shares of one in another."""
    figures = [
        Figure(
            name=f"{titles[name]}, per CPU-second",
            measured=spread([turn.per_cpu_s for turn in taken]).of(",.0f"),
            detail=cost(taken),
        )
        for name, taken in turns.items()
    ]
    for ours, theirs, asked in shares:
        if ours in turns and theirs in turns:
            name, detail = f"{ours} ÷ {theirs}", f"{len(turns[ours])} turns each"
            ratio = ratios(turns[ours], turns[theirs])
            plain = Figure(name=name, measured=ratio.of(".2f"), detail=detail)
            figures.append(plain if asked is None else at_least(name, ratio, asked, detail))
    return figures


def cost(turns: Sequence[Turn]) -> str:
    """What the turns cost on either core."""
    busy = spread([turn.server_cpu_s / turn.seconds for turn in turns]).middle
    words = [f"{spread([turn.operations / turn.seconds for turn in turns]).middle:,.0f}/s, server {busy:.0%} busy"]
    if any(turn.store_cpu_s for turn in turns):
        store = spread([turn.store_cpu_s / max(1, turn.operations) * 1e6 for turn in turns]).middle
        words.append(f"store {store:.{1 if store < FEW_US else 0}f} µs each")
    if any(turn.generator_busy for turn in turns):
        words.append(f"generator {spread([turn.generator_busy for turn in turns]).middle:.0%} busy")
    if any(turn.frames_per_read for turn in turns):
        words.append(f"{spread([turn.frames_per_read for turn in turns]).middle:.1f} frames a read")
    if any(turn.p99_ms for turn in turns):
        p50, p99 = (spread([getattr(turn, name) for turn in turns]).middle for name in ("p50_ms", "p99_ms"))
        words.append(f"p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    if any(turn.answer_bytes for turn in turns):
        checked, hits = (sum(getattr(turn, name) for turn in turns) for name in ("checked", "hits"))
        words.append(f"answers of {turns[-1].answer_bytes:,} bytes, {checked:,} checked")
        words += [f"{hits:,} hits"] if hits else []
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
