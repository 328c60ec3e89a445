"""The operator's commands on a DATA_DIR of their own: who comes second waits for the first."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.child import Child
from tests.support.forked import Fork
from tests.support.until import until

ENDS_S = 40.0


async def test_two_migrations_of_a_fresh_folder_at_once_are_both_done(short_path: Path) -> None:
    """One makes it; the other uses what that one started, or starts it again once it is alone."""
    argv = [sys.executable, "-m", "router", "migrate"]
    environment = {"DATA_DIR": str(short_path / "data")}
    children = [Child(argv, short_path / name, environment=environment, begin=Fork) for name in ("a", "b")]
    try:
        await until(lambda: all(child.exit_code is not None for child in children), ENDS_S, what="both ends")
        said = [child.stderr_path.read_text() for child in children]
        assert [child.exit_code for child in children] == [0, 0], said
        assert sorted(child.stdout_path.read_text() for child in children) == ["current\n", "migrated\n"]
        assert not any("Traceback" in each for each in said)
    finally:
        for child in children:
            child.close()
