"""The line of a delivery's log: what the API shows of an attempt."""

from __future__ import annotations

import msgspec
import pytest

from actors.core.outcome import Answered, Failed
from actors.errand import log_line
from tests.support.doubles import Stage
from tests.support.virtual_time import in_virtual_time

AT = "2027-01-15T08:00:00.000Z"


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (Answered(200, None, "", 12.3456), {"latency_ms": 12.35, "status_code": 200}),
        (
            Answered(503, "17", "busy", 1.0, b"busy", "text/plain"),
            {"latency_ms": 1.0, "status_code": 503, "response_excerpt": "busy"},
        ),
        (Failed("timeout", 0.0, written=True), {"latency_ms": 0.0, "error": "timeout"}),
    ],
)
@in_virtual_time
async def test_a_line_says_when_how_long_and_what(outcome: Answered | Failed, line: dict[str, object]) -> None:
    """And no more: no body that was kept, nothing that is absent."""
    async with Stage() as stage:
        assert msgspec.json.decode(log_line(outcome, stage.clock)) == {"at": AT, **line}
