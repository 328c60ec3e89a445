"""Lean: a pytest plugin for runs of which only one thing is asked: does a test notice?

Hypothesis makes no failure smaller, gives the same examples each time and keeps nothing for the next run. A test that
runs on several kinds of server runs on the first: what is taken out is the same text on all.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings

SERVERS = ("any_topology", "any_store", "own_store")
FIRST = "valkey"

settings.register_profile(
    "mutation",
    phases=[Phase.explicit, Phase.generate],
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("mutation")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the other kinds of server out."""
    left = [item for item in items if not _on_first(item)]
    items[:] = [item for item in items if _on_first(item)]
    config.hook.pytest_deselected(items=left)


def _on_first(item: pytest.Item) -> bool:
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return all(parameters.get(name, FIRST) == FIRST for name in SERVERS)
