"""Free ports: nobody is given one that somebody else is about to bind."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.support.valkey import PORTS, SHARES, free_port, ports_of

WORKERS = ["", *(f"gw{number}" for number in range(SHARES - 1))]


def test_processes_that_run_side_by_side_share_the_ports_out() -> None:
    """None of them has one of another's, and all are below those of outgoing connections."""
    shares = sorted((ports_of(worker) for worker in WORKERS), key=lambda share: share.start)
    assert all(before.stop <= after.start for before, after in pairwise(shares))
    assert shares[0].start == PORTS[0]
    assert shares[-1].stop <= PORTS[1]


def test_a_process_is_not_given_the_same_port_soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may not have bound the first one yet."""
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw2")
    given = [free_port() for _ in range(900)]
    assert len(set(given)) == len(given)
    assert set(given) <= set(ports_of("gw2"))
