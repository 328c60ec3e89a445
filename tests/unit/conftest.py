"""What several files of unit tests ask for by name."""

from __future__ import annotations

import pytest

from tests.support import commit_rig


@pytest.fixture(name="tells", params=[False, True], ids=["awaited", "told"])
def fixture_tells(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a committer hears what came of a call, the same holds."""
    monkeypatch.setattr(commit_rig.Store, "tells", request.param)
