"""What a node says of itself: each thing that keeps it from working is named, and only while it does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from actors.core.partition import PARTITIONS
from actors.core.refusals import CannotStart
from router.settings import load
from router.status import Status


def status_of(*, echo_age_s: float = 0.0, ear_age_s: float = 0.0, **changes: Any) -> Status:
    """A node that is ready but for `changes`."""
    parts = {"connected": True, "held": range(PARTITIONS), "started": True, "draining": False, "late": False, **changes}
    store: Any = SimpleNamespace(
        connected=parts["connected"],
        usable=parts["connected"],
        unfit=parts.get("unfit"),
        server=None,
        refusal=parts.get("refusal", ""),
    )
    ownership: Any = SimpleNamespace(held=lambda: parts["held"], beat_late=lambda: parts["late"])
    cache: Any = SimpleNamespace(connected=parts.get("cache", True))
    settings = load({"CACHE_REDIS_URL": parts.get("cache_url", "")}).settings
    status = Status(settings, store, cache, ownership, lambda: echo_age_s, lambda: ear_age_s)
    status.started, status.draining = parts["started"], parts["draining"]
    return status


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, []),
        ({"draining": True}, ["stopping"]),
        ({"started": False, "held": ()}, ["starting"]),
        ({"connected": False}, ["the store is away"]),
        ({"connected": False, "unfit": CannotStart("the store is empty")}, ["the store is empty"]),
        ({"refusal": "OOM command not allowed"}, ["the store refuses to write: OOM command not allowed"]),
        ({"held": ()}, []),
        ({"late": True}, ["its signs of life do not reach the store in time"]),
        ({"late": True, "started": False}, ["starting"]),
        ({"late": True, "connected": False}, ["the store is away"]),
        ({"echo_age_s": 3.0}, []),
        ({"echo_age_s": 3.01}, ["publish/subscribe does not echo (3 s)"]),
        ({"ear_age_s": 3.0}, []),
        ({"ear_age_s": 4.2}, ["what is published on channels is not heard (4 s)"]),
        ({"echo_age_s": 12.6, "connected": False}, ["the store is away", "publish/subscribe does not echo (13 s)"]),
    ],
)
def test_each_reason_is_named(changes: dict[str, Any], reasons: list[str]) -> None:
    """None of them hides another."""
    assert status_of(**changes).not_ready_reasons() == reasons


def test_a_cache_with_a_store_of_its_own_is_told_apart() -> None:
    """Nothing is said of one that lives in the store; being away does not keep the node from its work."""
    url = "redis://127.0.0.1:1/0"
    assert status_of().cache_connected() is None
    assert status_of(cache_url=url).cache_connected() is True
    away = status_of(cache_url=url, cache=False)
    assert away.cache_connected() is False
    assert away.not_ready_reasons() == []
