"""The chaos suite itself works, and its most telling rows pass, within a minute; `make chaos` runs all of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.child import Child
from tests.support.until import until

SMOKE_S = 60.0


@pytest.mark.timeout(SMOKE_S * 2)
async def test_the_most_telling_faults(tmp_path: Path) -> None:
    """Every row passes, and a table says so."""
    argv = [sys.executable, "-m", "tests.chaos", "--smoke", "--keep", str(tmp_path / "failed")]
    with Child(argv, tmp_path / "chaos") as chaos:
        await until(lambda: chaos.exit_code is not None, SMOKE_S * 1.5, every_s=0.1, what="the suite ends")

    output = chaos.stdout_path.read_text()
    assert chaos.exit_code == 0, output + chaos.stderr_path.read_text()
    assert "| PASS |" in output
    assert " 0 lost." in output
