"""The egress asks once more before the first byte: nothing of a request that may not start reaches the webhook."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import msgspec
import pytest

from actors.adapters.http.egress import HttpEgress
from actors.core.addresses import Guard
from actors.core.outcome import Answered
from actors.egress_ports import OutboundRequest, Withheld
from tests.support.sink import Sink


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """A receiver for one test."""
    async with Sink() as sink:
        yield sink


@pytest.fixture
async def egress() -> AsyncIterator[HttpEgress]:
    """An egress that may reach loopback."""
    async with aclosing(HttpEgress(Guard(loopback_allowed=True))) as egress:
        await egress.start()
        yield egress


def asked(times: int) -> Callable[[], bool]:
    """Says yes so many times, then no."""
    answers = iter([True] * times)
    return lambda: next(answers, False)


@pytest.mark.parametrize("yes", [0, 1], ids=["before it is handed to its connection", "before its bytes are written"])
@pytest.mark.parametrize("warm", [False, True], ids=["new connection", "kept connection"])
async def test_a_request_that_may_not_start_is_not_written(
    egress: HttpEgress, sink: Sink, yes: int, warm: bool
) -> None:
    """At both looks, on either kind of connection; the next request is sent as if nothing had been."""
    request = OutboundRequest(method="POST", url=sink.url("/hook"), headers={}, body=b"{}", timeout_s=5.0)
    if warm:
        assert isinstance(await egress.send(request), Answered)

    assert await egress.send(msgspec.structs.replace(request, may_start=asked(yes))) == Withheld()

    assert isinstance(await egress.send(request), Answered)
    assert len(sink.requests) == 1 + warm
