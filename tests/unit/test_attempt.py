"""One try at a delivery: claim, build, check, post, judge, settle, and what becomes of it when the store is away."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from actors.attempt import STORE_PAUSE_S, Attempts, InHand
from actors.core.outcome import Answered, Failed
from actors.core.policy import Policy
from actors.core.rendering import render
from actors.egress_ports import OutboundRequest
from actors.ownership import Ownership
from actors.ports import Attempt, Claim, Fenced, Overloaded, Ready, Release, Settle, Status
from tests.support.doubles import OK, REFUSED, RULES, Stage, Webhooks, make_entry, make_policy, observed, value
from tests.support.memory_store import CRASHES_MAX, LATENCY_S, NODE, Delivery, MemoryStore, hold_everything
from tests.support.until import passing
from tests.support.virtual_time import WALL_AT_START_S, in_virtual_time


class Rig:
    """Attempts over a store in memory and webhooks that do as they are told."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.store = MemoryStore()
        self.webhooks = Webhooks()
        self.ownership = Ownership(NODE, self.store, stage.clock, stage.meters)
        self.attempts = Attempts(self.store, self.webhooks, self.ownership, RULES, stage.tools())
        self.reports: list[Answered | Failed] = []
        self.slot = asyncio.Semaphore(16)

    async def start(self) -> Rig:
        """Hold every partition."""
        await hold_everything(self.ownership)
        return self

    async def batch(self, name: str = "dlv_1", key: str = "k", policy: Policy | None = None) -> Ready:
        """A closed batch of one message; not ready while another of its key is in front."""
        stored = msgspec.json.encode(policy or make_policy())
        entry = make_entry(key, name, b'{"n":1}', max_size=1, batch_id=name, policy=stored)
        await self.store.append([entry])
        return Ready(entry.partition, name, entry.terms.host, 0)

    async def run(self, ready: Ready) -> Ready | None:
        """Try once."""
        return await self.attempts.run(ready, self.slot, self.reports.append)

    async def _run(self, ready: Ready) -> None:
        await self.run(ready)

    async def release_all(self) -> None:
        """Give everything back."""
        await self.attempts.release_all()

    def spawn(self, ready: Ready) -> asyncio.Task[None]:
        """Try once, beside the test."""
        return self.stage.supervisor.spawn("attempt", self._run(ready))

    def delivery(self, name: str = "dlv_1") -> Delivery:
        """What the store has of it."""
        return self.store.deliveries[name]

    def log(self, name: str = "dlv_1") -> list[Attempt | None]:
        """Its attempts, None for one that nobody settled."""
        decoder = msgspec.json.Decoder(Attempt)
        return [None if line is None else decoder.decode(line) for line in self.delivery(name).log]


@in_virtual_time
async def test_a_delivery_that_is_taken_is_settled() -> None:
    """Claimed before it is posted, settled after; what was answered is logged, reported and measured."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        ready = await rig.batch()
        seen: list[tuple[Status, dict[str, InHand]]] = []
        rig.webhooks.on_send = lambda _request: seen.append((rig.delivery().status, dict(rig.attempts.in_hand)))
        assert await rig.run(ready) is None
        epoch = rig.ownership.epoch(ready.partition)
        assert seen == [("delivering", {"dlv_1": InHand(ready.partition, epoch, 1)})]
        assert rig.delivery().status == "delivered"
        assert rig.attempts.in_hand == {}
        assert rig.reports == [OK]
        assert [each and each.status_code for each in rig.log()] == [200]
        assert observed(stage.meters.attempt_seconds) == [0.003]
        assert value(stage.meters.deliveries["delivered"]) == 1
        assert stage.journal.lines == []


@in_virtual_time
async def test_what_is_sent() -> None:
    """The batch rendered under its policy, our headers, the policy's own timeout or the setting's."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        policy = make_policy(method="PUT", headers={"X-Mine": "1"}, timeout=2.5)
        await rig.run(await rig.batch(policy=policy))
        await rig.run(await rig.batch("dlv_2", "k2"))
        [(_, request), (_, other)] = rig.webhooks.sent
        messages = rig.delivery().batch.messages
        assert request.body == render(policy, key="k", reason="size", messages=messages)
        assert (request.method, request.url, request.timeout_s) == ("PUT", "https://a.example/hook", 2.5)
        expected = {
            "X-Mine": "1",
            "User-Agent": RULES.user_agent,
            "webhook-id": "dlv_1",
            "X-Attempt": "1",
            "X-Buffer-Key": "k",
            "X-Buffer-Size": "1",
            "X-Buffer-Reason": "size",
        }
        assert expected.items() <= request.headers.items()
        assert int(request.headers["webhook-timestamp"]) == int(WALL_AT_START_S)
        assert other.timeout_s == RULES.timeout_s


@in_virtual_time
async def test_every_try_sends_the_same_bytes_under_the_same_id() -> None:
    """Only the number of the attempt and its time tell them apart."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.webhooks.default = REFUSED
        ready = await rig.batch()
        for _ in range(3):
            await rig.run(ready)
            await passing(60.0)
        requests = [request for _, request in rig.webhooks.sent]
        assert len({request.body for request in requests}) == 1
        assert rig.webhooks.ids() == ["dlv_1"] * 3
        assert [request.headers["X-Attempt"] for request in requests] == ["1", "2", "3"]
        varying = {"X-Attempt", "webhook-timestamp"}
        steady = [{name: text for name, text in each.headers.items() if name not in varying} for each in requests]
        assert steady[0] == steady[1] == steady[2]


@in_virtual_time
async def test_a_failure_is_tried_again_later_and_at_last_is_dead() -> None:
    """Each is logged with what happened; the waits are the policy's of retries; each transition is said once."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        ready = await rig.batch()
        waits: list[float] = []
        for outcome in (
            Failed("timeout", 10_000.4),
            Answered(500, None, "oops", 2.0),
            REFUSED,
            Answered(404, None, "", 1.0),
        ):
            rig.webhooks.default = outcome
            await rig.run(ready)
            waits.append((rig.store.ready.get("dlv_1", 0) - rig.store.now_ms()) / 1000)
            await passing(60.0)
        assert waits[:3] == [5.0, 10.0, 20.0]
        assert rig.delivery().status == "dead"
        log = [each for each in rig.log() if each is not None]
        assert [(each.error, each.status_code, each.response_excerpt) for each in log] == [
            ("timeout", None, None),
            (None, 500, "oops"),
            ("connection refused", None, None),
            (None, 404, None),
        ]
        assert log[0].latency_ms == 10_000.4
        assert log[0].at == "2027-01-15T08:00:00.004Z"
        assert stage.journal.phrases() == ["delivery will be retried"] * 3 + ["delivery dead"]
        assert stage.journal.lines[-1][2] == {"delivery_id": "dlv_1", "attempt": 4, "status_code": 404}
        assert value(stage.meters.deliveries["retrying"]) == 3
        assert value(stage.meters.deliveries["dead"]) == 1


@in_virtual_time
async def test_the_policy_says_how_hard_to_try() -> None:
    """No retries is a number too."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.webhooks.default = REFUSED
        await rig.run(await rig.batch(policy=make_policy(max_retries=0)))
        assert rig.delivery().status == "dead"


@in_virtual_time
async def test_the_next_of_the_key_may_start() -> None:
    """When the one in front is delivered or dead, not while it is tried again."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        ready = await rig.batch()
        following = await rig.batch("dlv_2")
        rig.webhooks.default = REFUSED
        assert await rig.run(ready) is None
        await passing(6.0)
        rig.webhooks.default = OK
        assert await rig.run(ready) == following


@in_virtual_time
async def test_a_delivery_that_is_gone_is_not_posted() -> None:
    """Somebody else claimed, settled or discarded it."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        ready = await rig.batch()
        rig.store.ready.clear()
        assert await rig.run(ready) is None
        assert rig.webhooks.sent == []
        assert rig.attempts.in_hand == {}


@in_virtual_time
async def test_a_batch_that_stops_nodes_is_dead_in_the_end() -> None:
    """Claimed again and again with nobody living to settle it: said, counted, and the next of its key may start."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        ready = await rig.batch()
        following = await rig.batch("dlv_2")
        rig.delivery().claims = CRASHES_MAX
        assert await rig.run(ready) == following
        assert rig.webhooks.sent == []
        assert stage.journal.lines == [
            ("error", "delivery dead", {"delivery_id": "dlv_1", "reason": "its attempts stopped nodes"})
        ]
        assert value(stage.meters.deliveries["dead"]) == 1


@in_virtual_time
async def test_a_node_that_does_not_hold_the_partition_does_nothing() -> None:
    """It does not even ask."""
    async with Stage() as stage:
        rig = Rig(stage)
        assert await rig.run(await rig.batch()) is None
        assert rig.store.faults.count("claim") == 0


@in_virtual_time
async def test_a_claim_that_is_refused_ends_the_ownership() -> None:
    """Another node holds the partition: nothing is posted, and this node stops acting for it."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        ready = await rig.batch()
        rig.store.lose(ready.partition)
        assert await rig.run(ready) is None
        assert rig.webhooks.sent == []
        assert rig.ownership.epoch(ready.partition) == 0


@in_virtual_time
async def test_a_partition_lost_between_claim_and_post_posts_nothing() -> None:
    """What was claimed is the new owner's; it is not this node's to give back."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        ready = await rig.batch()
        rig.slot = asyncio.Semaphore(0)
        attempt = rig.spawn(ready)
        await passing(1.0)
        assert rig.delivery().status == "delivering"
        other = rig.spawn(await rig.batch("dlv_2", "k2"))
        await passing(1.0)
        rig.store.lose(ready.partition)
        owner = rig.store.owned[ready.partition]
        rig.ownership.fenced(ready.partition, Fenced(owner.epoch, owner.node))
        rig.slot.release()
        rig.slot.release()
        await attempt
        await other
        assert rig.webhooks.ids() == ["dlv_2"]
        assert rig.attempts.in_hand == {}
        assert rig.store.faults.count("settle") == 1
        assert len(rig.reports) == 1


@in_virtual_time
async def test_an_outcome_that_is_refused_is_not_ours_any_more() -> None:
    """The partition was lost while the request was out: the new owner tries again."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        ready = await rig.batch()
        rig.webhooks.on_send = lambda _request: rig.store.lose(ready.partition)
        assert await rig.run(ready) is None
        assert rig.attempts.in_hand == {}
        assert rig.ownership.epoch(ready.partition) == 0
        assert value(stage.meters.deliveries["delivered"]) == 0


@pytest.mark.parametrize("written", [True, False], ids=["claimed", "not claimed"])
@in_virtual_time
async def test_a_claim_whose_answer_was_lost_is_released(written: bool) -> None:
    """Right in either case; nothing is posted, nothing counts as tried, and it is ready again."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        ready = await rig.batch()
        (rig.store.faults.after if written else rig.store.faults.before)["claim"] = 1
        assert await rig.run(ready) is None
        assert rig.webhooks.sent == []
        assert rig.delivery().status == "pending"
        assert rig.delivery().claims == 0
        assert rig.store.ready == {"dlv_1": rig.store.now_ms()}
        assert rig.attempts.in_hand == {}
        epoch = rig.ownership.epoch(ready.partition)
        assert rig.store.faults.requests("release") == [
            Release(partition=ready.partition, epoch=epoch, delivery_id="dlv_1", in_ms=0, untried=True)
        ]
        assert await rig.run(ready) is None
        assert rig.delivery().status == "delivered"


@in_virtual_time
async def test_releasing_goes_on_until_the_store_is_back() -> None:
    """Every tenth of a second, as long as it takes."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.store.faults.after["claim"] = 1
        rig.store.faults.before["release"] = 50
        began = stage.clock.monotonic()
        await rig.run(await rig.batch())
        assert stage.clock.monotonic() - began == pytest.approx(50 * (STORE_PAUSE_S + LATENCY_S), abs=0.2)
        assert rig.delivery().status == "pending"


@in_virtual_time
async def test_a_claim_that_found_no_room_is_left_to_a_sweep() -> None:
    """Nothing was asked, so there is nothing to give back."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.store.faults.broken["claim"] = Overloaded("full")
        assert await rig.run(await rig.batch()) is None
        assert rig.store.faults.count("release") == 0
        assert rig.store.ready.keys() == {"dlv_1"}


@pytest.mark.parametrize("written", [True, False], ids=["settled", "not settled"])
@in_virtual_time
async def test_an_outcome_is_written_until_the_store_answers(written: bool) -> None:
    """The same settle again and again; a webhook that took it is not asked twice."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        ready = await rig.batch()
        await rig.batch("dlv_2")
        (rig.store.faults.after if written else rig.store.faults.before)["settle"] = 1
        rig.store.faults.before["settle"] += 0 if written else 30
        attempt = rig.spawn(ready)
        await passing(1.0)
        assert attempt.done() is written
        await attempt
        assert rig.delivery().status == "delivered"
        assert len(rig.webhooks.sent) == 1
        assert len(set(map(msgspec.json.encode, rig.store.faults.requests("settle")))) == 1
        assert rig.attempts.in_hand == {}
        assert rig.store.lines[rig.delivery().batch.entry.terms.kid] == ["dlv_2"]


@in_virtual_time
async def test_requests_at_one_host_are_bounded() -> None:
    """While one is out the others are claimed and wait for its slot."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.slot = asyncio.Semaphore(2)
        rig.webhooks.took_s["a.example"] = 1.0
        attempts = [rig.spawn(await rig.batch(f"dlv_{number}", f"k{number}")) for number in range(6)]
        await asyncio.gather(*attempts)
        assert rig.webhooks.under_way_max == {"a.example": 2}
        assert len(rig.webhooks.sent) == 6


@in_virtual_time
async def test_a_batch_that_cannot_be_rendered_is_given_up() -> None:
    """A crash in here counts as a failed attempt, else it would be tried for ever; the next of its key may start."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        ready = await rig.batch()
        following = await rig.batch("dlv_2")
        rig.delivery().batch.messages.clear()
        with pytest.raises(IndexError):
            await rig.run(ready)
        assert rig.webhooks.sent == []
        assert rig.reports == []
        assert await rig.attempts.give_up(ready) == following
        assert rig.delivery().status == "dead"
        assert [each and each.error for each in rig.log()] == ["internal error"]
        assert rig.attempts.in_hand == {}
        assert await rig.attempts.give_up(ready) is None


@in_virtual_time
async def test_a_stored_policy_that_is_no_policy_is_given_up_too() -> None:
    """It was claimed, so it is in hand."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        ready = await rig.batch()
        rig.delivery().batch.entry = make_entry(policy=b"{}")
        with pytest.raises(msgspec.ValidationError):
            await rig.run(ready)
        await rig.attempts.give_up(ready)
        assert rig.delivery().status == "dead"


@in_virtual_time
async def test_a_drain_gives_back_what_is_in_hand() -> None:
    """Untried and at once ready for whoever comes next; what has been settled is not touched."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        await rig.run(await rig.batch("dlv_0", "k0"))
        rig.webhooks.took_s["a.example"] = 60.0
        attempts = [rig.spawn(await rig.batch(f"dlv_{number}", f"k{number}")) for number in (1, 2)]
        await passing(1.0)
        assert rig.attempts.in_hand.keys() == {"dlv_1", "dlv_2"}
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
        assert await rig.attempts.release_all() == 2
        assert [rig.delivery(f"dlv_{number}").status for number in range(3)] == ["delivered", "pending", "pending"]
        assert rig.store.ready.keys() == {"dlv_1", "dlv_2"}
        assert rig.attempts.in_hand == {}
        assert await rig.attempts.release_all() == 0


@in_virtual_time
async def test_a_claim_that_is_under_way_when_its_attempt_ends_is_given_back() -> None:
    """The write is not cancelled with who asked for it: nobody would know of the claim, nor ever settle it."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        gate = rig.store.faults.gates["claim"] = asyncio.Event()
        attempt = rig.spawn(await rig.batch())
        await passing(0.5)
        attempt.cancel()
        releasing = stage.supervisor.spawn("release", rig.release_all())
        await passing(0.5)
        gate.set()
        await releasing
        assert rig.delivery().status == "pending"
        assert rig.delivery().claims == 0
        assert rig.store.busy == set()


@in_virtual_time
async def test_an_outcome_that_is_under_way_when_its_attempt_ends_stands() -> None:
    """Giving it back as well would make a delivery that has to wait due at once."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.webhooks.default = Answered(503, "1800", "", 1.0)
        gate = rig.store.faults.gates["settle"] = asyncio.Event()
        attempt = rig.spawn(await rig.batch())
        await passing(0.5)
        attempt.cancel()
        releasing = stage.supervisor.spawn("release", rig.release_all())
        await passing(0.5)
        gate.set()
        await releasing
        assert rig.delivery().status == "retrying"
        assert rig.store.ready["dlv_1"] - rig.store.now_ms() > 1_790_000
        assert rig.attempts.in_hand == {}


@in_virtual_time
async def test_what_this_node_has_in_hand_is_known() -> None:
    """From the claim to the outcome."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        seen: list[bool] = []

        def look(request: OutboundRequest) -> None:
            seen.append(rig.attempts.has_in_hand(request.headers["webhook-id"]))

        rig.webhooks.on_send = look
        await rig.run(await rig.batch())
        assert seen == [True]
        assert not rig.attempts.has_in_hand("dlv_1")


@in_virtual_time
async def test_a_claim_that_nobody_knows_of_can_be_given_back() -> None:
    """By its id alone; only for a partition that this node holds."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        ready = await rig.batch()
        name = f"dlv_{ready.partition:02x}lost"
        await rig.batch(name)
        rig.store.lines[rig.delivery(name).batch.entry.terms.kid].remove("dlv_1")
        rig.store.ready[name] = 0
        epoch = rig.ownership.epoch(ready.partition)
        await rig.store.work([Claim(partition=ready.partition, epoch=epoch, delivery_id=name)])
        assert rig.delivery(name).status == "delivering"
        await rig.attempts.give_back(name)
        assert rig.delivery(name).status == "pending"
        await rig.ownership.resign([ready.partition])
        released = rig.store.faults.count("release")
        await rig.attempts.give_back(name)
        assert rig.store.faults.count("release") == released


@in_virtual_time
async def test_claims_and_outcomes_share_a_call() -> None:
    """Those of one turn are one write, in the order in which they were asked."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.store.faults.latency_s = 0.0
        readies = [await rig.batch(f"dlv_{number}", f"k{number}") for number in range(20)]
        await asyncio.gather(*map(rig.run, readies))
        asked = [type(request) for name in ("claim", "settle") for request in rig.store.faults.requests(name)]
        assert asked == [Claim] * 20 + [Settle] * 20
        assert rig.store.faults.count("claim") == 1
