"""What a node says of itself: each thing that keeps it from working is named, and only while it does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from actors.core.partition import PARTITIONS
from actors.core.refusals import CannotStart
from router.settings import load
from router.status import Status


def status_of(*, echo_age_s: float = 0.0, **changes: Any) -> Status:
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
    status = Status(load({}).settings, store, ownership, lambda: echo_age_s)
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
        ({"echo_age_s": 12.6, "connected": False}, ["the store is away", "publish/subscribe does not echo (13 s)"]),
    ],
)
def test_each_reason_is_named(changes: dict[str, Any], reasons: list[str]) -> None:
    """None of them hides another."""
    assert status_of(**changes).not_ready_reasons() == reasons
