"""Deliveries as a whole: whatever webhooks and store do, everything comes to its end, in order and within bounds."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.core.outcome import Answered, Failed
from actors.host import CONCURRENCY
from actors.ports import Ready
from tests.support.delivery_rig import DeliveryRig
from tests.support.doubles import OK, REFUSED, Stage
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time

KEYS = ["a", "b", "c"]
HOSTS = ["one.example", "two.example"]
SWEEPS_MAX = 20_000
OUTCOMES = st.sampled_from(
    [OK, OK, REFUSED, Failed("timeout", 1.0), *(Answered(status, "2", "", 1.0) for status in (503, 404, 410))]
)
Batch = st.tuples(st.just("batch"), st.sampled_from(KEYS), st.sampled_from(HOSTS))
Step = st.one_of(
    Batch,
    Batch,
    Batch,
    st.tuples(st.just("time"), st.sampled_from([0.0, 0.001, 0.3, 2.0, 20.0]), st.just(0)),
    st.tuples(st.just("lost"), st.sampled_from(["claim", "settle", "release"]), st.integers(1, 3)),
    st.tuples(st.just("away"), st.sampled_from(["claim", "settle", "release"]), st.integers(1, 3)),
    st.tuples(st.just("gone"), st.just(0), st.just(0)),
)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(Step, min_size=8, max_size=30),
    outcomes=st.lists(OUTCOMES, min_size=5, max_size=40),
    took_s=st.sampled_from([0.0, 0.01, 1.5]),
    swept=st.booleans(),
)
@in_virtual_time
async def test_everything_comes_to_its_end_in_order(
    steps: list[tuple[str, object, object]], outcomes: list[Answered | Failed], took_s: float, swept: bool
) -> None:
    """Batches of few keys for few hosts; webhooks that refuse, ask to wait, are gone; a store that loses writes or
    answers. Each batch is delivered or dead in the end; a key's batches are first tried in the order of closing, none
    before the one in front is over; what a webhook took is not sent again; no host gets more than its share."""
    async with Stage() as stage:
        rig = await DeliveryRig(stage).start()
        for host in HOSTS:
            rig.webhooks.answers[host] = deque(outcomes)
            rig.webhooks.took_s[host] = took_s
        watch = Watch(rig)
        for name, which, extra in steps:
            await watch.do(name, which, extra)
            if swept:
                rig.offer_due()
        for _ in range(SWEEPS_MAX):
            if all(of.status in ("delivered", "dead", "discarded") for of in rig.store.deliveries.values()):
                break
            rig.offer_due()
            await passing(0.25)
        await passing(1.0)
        watch.check()
        assert rig.deliveries.running == 0
        assert rig.attempts.in_hand == {}
        assert rig.store.busy == set()
        assert stage.crashes == []


class Watch:
    """Does the steps, and knows what was made in which order."""

    def __init__(self, rig: DeliveryRig) -> None:
        self.rig = rig
        self.lines: dict[str, list[Ready]] = {key: [] for key in KEYS}
        self.early: list[str] = []
        rig.webhooks.on_send = lambda request: self.sent(request.headers["webhook-id"])

    async def do(self, name: str, which: object, extra: object) -> None:
        """One step."""
        store = self.rig.store
        match name, which, extra:
            case "batch", str(key), str(host):
                self.lines[key].append(await self.rig.batch(host, key))
                self.rig.offer(self.lines[key][-1])
            case "time", float(seconds), _:
                await passing(seconds)
            case "lost", str(call), int(times):
                store.faults.after[call] = times
            case "away", str(call), int(times):
                store.faults.before[call] = times
            case _:
                for line in self.lines.values():
                    if line and self.rig.of(line[-1]).status in ("pending", "retrying"):
                        await self.rig.deliveries.discard(line[-1].delivery_id, line[-1].partition)

    def sent(self, name: str) -> None:
        """A request went out: whoever is in front of it must be over."""
        for line in self.lines.values():
            names = [ready.delivery_id for ready in line]
            if name in names:
                front = self.rig.statuses(*line[: names.index(name)])
                self.early += [name for status in front if status not in ("delivered", "dead", "discarded")]

    def check(self) -> None:
        """At the end."""
        rig = self.rig
        assert self.early == []
        assert set(rig.statuses(*(ready for line in self.lines.values() for ready in line))) <= {
            *("delivered", "dead", "discarded")
        }
        assert all(line == [] for line in rig.store.lines.values())
        assert all(most <= CONCURRENCY for most in rig.webhooks.under_way_max.values())
        for line in self.lines.values():
            for ready in line:
                of = rig.of(ready)
                tries = rig.webhooks.ids().count(ready.delivery_id)
                assert tries == sum(entry is not None for entry in of.log)
                assert tries == of.failures + (of.status == "delivered")
