"""Instances: which lanes are held and until when, who is asked how often, how fast the others go, what all are told."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.evolution_answers import Trouble
from actors.core.evolution_server import InstanceState, Paused
from actors.evolution import OUT_OF_REACH
from actors.host import FREE
from actors.instances import ASK_S_MAX, INSTANCES_MAX, LOOK_S, Pacing
from tests.support.doubles import Stage, value
from tests.support.evolution_rig import LICENSE, REFUSED, EvolutionRig, Step, fault, said, state
from tests.support.until import passing
from tests.support.virtual_time import WALL_AT_START_S, in_virtual_time

CLOSED = Paused("closed", "it is closed")
TROUBLE = Trouble("closed", "Connection Closed")


@in_virtual_time
async def test_a_lane_is_held_until_its_instance_is_open() -> None:
    """That is said once each time, and whoever waits goes on."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        told: list[tuple[str, Paused | None]] = []
        rig.instances.on_held = lambda instance, paused: told.append((instance, paused))
        lane, other = rig.instances.lane("evolution:i"), rig.instances.lane("evolution:j")
        assert not lane.held()
        rig.instances.hold("i", CLOSED)
        rig.instances.hold("i", CLOSED)
        assert lane.held()
        assert not other.held()
        assert value(stage.meters.lanes_held) == 1
        assert rig.freed == []
        rig.run()
        await passing(2 * LOOK_S)
        assert not lane.held()
        assert value(stage.meters.lanes_held) == 0
        assert rig.freed == ["evolution:i"]
        assert told == [("i", CLOSED), ("i", None)]
        assert stage.journal.phrases() == ["whatsapp instance held", "whatsapp instance free"]
        assert stage.journal.lines[0][2] == {"instance": "i", "cause": "closed", "reason": "it is closed"}
        await passing(60.0)
        assert rig.server.count("state") == 1


@in_virtual_time
async def test_a_held_instance_is_asked_for_more_and_more_rarely() -> None:
    """After one second, two, four, eight, and then every fifteen: and it is free soon after it is open."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.state = state("close")
        times: list[float] = []
        began = stage.clock.monotonic()
        rig.server.on_request = lambda _kind: times.append(stage.clock.monotonic() - began)
        rig.instances.hold("i", CLOSED)
        rig.run()
        await passing(60.5)
        assert times == [1.0, 3.0, 7.0, 15.0, 30.0, 45.0, 60.0]
        rig.server.state = state("open")
        await passing(ASK_S_MAX)
        assert rig.freed == ["evolution:i"]
        rig.instances.hold("i", CLOSED)
        await passing(2 * LOOK_S)
        assert rig.freed == ["evolution:i"] * 2, "it is asked at first as often as ever"


@pytest.mark.parametrize(
    ("answer", "held"),
    [
        (state("open"), False),
        (said(404, {"response": {"message": ['The "i" instance does not exist']}}), False),
        (said(401, {}), False),
        (state("close"), True),
        (state("connecting"), True),
        (state("refused"), True),
        (state(None), True),
        (REFUSED, True),
        (LICENSE, True),
        (said(500, {}), True),
    ],
)
@in_virtual_time
async def test_what_holds_a_lane_and_what_frees_it(answer: Step, *, held: bool) -> None:
    """The same for a send that failed and for a lane that is held: what can send nothing waits, the rest is tried."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.state = answer
        found = await rig.instances.doubt("i", TROUBLE)
        assert isinstance(found, Paused) is held
        assert (list(rig.instances.held()) == ["i"]) is held
        rig.instances.hold("i", CLOSED)
        rig.run()
        await passing(2 * LOOK_S)
        assert (rig.freed == []) is held
        assert [lane.paused for lane in rig.instances.held().values()] == ([found] if held else [])


@in_virtual_time
async def test_those_who_doubt_at_the_same_time_get_one_answer() -> None:
    """Of one instance one question is under way; another's is its own; who comes later asks anew."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.state, rig.server.took_s = state("close"), 1.0
        found = await asyncio.gather(*(rig.instances.doubt(name, TROUBLE) for name in ["i"] * 30 + ["j"] * 30))
        assert rig.server.count("state") == 2
        assert {paused.cause for paused in found if paused is not None} == {"closed"}
        assert None not in found
        rig.server.state = state("open")
        assert await rig.instances.doubt("i", TROUBLE) is None
        assert rig.server.count("state") == 3


@in_virtual_time
async def test_who_doubts_while_a_question_is_under_way_gets_an_answer_of_its_own() -> None:
    """That question was asked before its send failed: its answer may be of before."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.took_s = 1.0
        rig.server.planned["state"].extend([state("open"), state("close")])
        first = asyncio.ensure_future(rig.instances.doubt("i", TROUBLE))
        await passing(0.5)
        second, third = await asyncio.gather(*(rig.instances.doubt("i", TROUBLE) for _ in range(2)))
        assert await first is None
        assert second is third
        assert isinstance(second, Paused)
        assert rig.server.count("state") == 2


@in_virtual_time
async def test_a_server_that_was_away_is_asked_what_it_is() -> None:
    """Before the first send of a lane that is free again."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        await rig.evolution.look()
        rig.instances.hold("i", CLOSED)
        rig.run()
        await passing(2 * LOOK_S)
        await rig.evolution.look()
        assert rig.server.count("look") == 2


@in_virtual_time
async def test_what_happens_is_told_to_all_nodes() -> None:
    """Soon: when it was sent, what failed, why a lane is held; and that it is held no more."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.state = state("close")
        rig.instances.sent("i")
        rig.instances.failed("j", "no")
        rig.instances.hold("j", CLOSED)
        assert rig.health.facts == {}
        rig.run()
        await passing(1.1 * LOOK_S)
        now_ms = str(round(WALL_AT_START_S * 1000))
        assert rig.health.facts["i"] == {"sent_at": now_ms}
        assert rig.health.facts["j"].items() >= {("failed_at", now_ms), ("failed", "no"), ("held_at", now_ms)}
        await passing(2 * LOOK_S)
        assert "not connected" in rig.health.facts["j"]["held"], "as it was found since"
        rig.server.state = state("open")
        await passing(5 * LOOK_S)
        assert rig.health.facts["j"].keys() == {"failed_at", "failed"}


@in_virtual_time
async def test_what_could_not_be_told_is_told_when_the_store_is_back() -> None:
    """The last word of each: else a lane would be shown as held for ever. Lanes are asked for meanwhile."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.instances.sent("i")
        rig.instances.hold("i", CLOSED)
        rig.run()
        await passing(0.5 * LOOK_S)
        await rig.health.note({("held", "i"): "it is closed", ("held_at", "i"): "1"})
        rig.health.away = True
        await passing(5 * LOOK_S)
        assert rig.freed == ["evolution:i"]
        rig.health.away = False
        await passing(LOOK_S)
        assert rig.health.facts["i"].keys() == {"sent_at"}
        assert stage.crashes == []


@in_virtual_time
async def test_facts_between_two_looks_are_bounded() -> None:
    """Whoever posts events chooses the names of instances; that a lane is free is told in any case."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.instances.hold("held", CLOSED)
        for number in range(2 * INSTANCES_MAX):
            rig.instances.note("state", f"i{number}", "open")
        rig.run()
        await passing(3.1 * LOOK_S)
        assert len(rig.health.facts) <= INSTANCES_MAX + 1
        assert rig.health.facts["held"] == {}


@in_virtual_time
async def test_names_that_callers_make_up_do_not_fill_a_node() -> None:
    """Nothing is kept of an instance that nobody asks about any more, and only so many are listened for."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        for number in range(INSTANCES_MAX + 100):
            await rig.instances.doubt(f"i{number}", TROUBLE)
            rig.instances.failed(f"i{number}", "Evolution has no such instance")
        assert rig.instances._questions == {}
        assert len(rig.instances._lanes) == INSTANCES_MAX


@in_virtual_time
async def test_a_word_of_others_leads_to_a_question() -> None:
    """It never holds a lane by itself; only of an instance that this node sends for, and only what is new."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.instances.sent("i")
        await rig.health.note({("state", "i"): "close", ("state_at", "i"): "1", ("state", "j"): "close"})
        rig.run()
        await passing(3 * LOOK_S)
        assert rig.server.count("state") == 0, "what was so when this node began is no news"
        await rig.health.note({("state", "i"): "close", ("state_at", "i"): "2", ("state_at", "j"): "2"})
        await passing(3 * LOOK_S)
        assert rig.server.count("state") == 1
        assert rig.instances.held() == {}, "Evolution says that it is open"
        assert stage.journal.lines == [], "nor was it held for a while"
        await rig.health.note({("state", "i"): "open", ("state_at", "i"): "3"})
        await passing(3 * LOOK_S)
        assert rig.server.count("state") == 1
        rig.server.state = state("close")
        await rig.health.note({("state", "i"): "connecting", ("state_at", "i"): "4"})
        await passing(LOOK_S)
        assert list(rig.instances.held()) == ["i"]


@in_virtual_time
async def test_a_word_of_others_has_a_held_instance_asked_for_at_once() -> None:
    """It may be open again."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.state = state("close")
        rig.instances.failed("i", "no")
        rig.instances.hold("i", CLOSED)
        rig.run()
        await passing(31.5)
        rig.server.state = state("open")
        await passing(3.0)
        assert rig.freed == []
        await rig.health.note({("state", "i"): "open", ("state_at", "i"): "1"})
        await passing(LOOK_S)
        assert rig.freed == ["evolution:i"]


@in_virtual_time
async def test_a_lane_says_how_fast_its_instance_may_send() -> None:
    """A webhook's line has neither pace nor anything that holds it."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        assert rig.instances.lane("a.example:443") is FREE
        assert (rig.instances.lane("evolution:i").pace, rig.instances.lane("evolution:i").alone) == (None, False)
        rig = EvolutionRig(stage, pacing=Pacing(every_s=3.0))
        lane = rig.instances.lane("evolution:i")
        assert lane.pace is not None
        assert (lane.pace(), lane.alone) == (3.0, False)
        rig = EvolutionRig(stage, pacing=Pacing(gap_s=(1.0, 3.0)))
        lane = rig.instances.lane("evolution:i")
        assert lane.pace is not None
        assert (lane.pace(), lane.alone) == (2.0, True)
        rig.chance = 0.0
        assert lane.pace() == 1.0
        assert rig.instances.lane("a.example:443") is FREE


@given(st.floats(0, 100), st.none() | st.tuples(st.floats(0, 50), st.floats(0, 50)), st.floats(0, 1, exclude_max=True))
def test_a_pace_is_never_faster_than_either_allows(
    every_s: float, gap_s: tuple[float, float] | None, chance: float
) -> None:
    """Neither than the rate nor than the shortest gap; and no slower than the longer of rate and longest gap."""
    gap = None if gap_s is None else (min(gap_s), max(gap_s))
    wait_s = Pacing(every_s=every_s, gap_s=gap).wait_s(chance)
    low, high = gap or (0.0, 0.0)
    assert max(every_s, low) <= wait_s <= max(every_s, high) + 1e-9
    assert gap is not None or wait_s == every_s


@in_virtual_time
async def test_a_failed_send_and_a_good_one_are_told_apart() -> None:
    """By nothing but what is noted: neither asks for anything."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.instances.sent("i")
        rig.instances.failed("i", "no")
        assert rig.server.asked == []
        assert fault("x").status == 400


@in_virtual_time
async def test_when_one_is_back_all_that_were_out_of_reach_are_asked_for() -> None:
    """The server was away, not the instances: the others need not wait for their turn."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.state = REFUSED
        rig.instances.hold("early", OUT_OF_REACH)
        rig.run()
        await passing(40)
        rig.instances.hold("late", OUT_OF_REACH)
        rig.server.state = state("open")
        await passing(3 * LOOK_S)
        assert sorted(rig.freed) == ["evolution:early", "evolution:late"]


@in_virtual_time
async def test_what_another_node_sends_for_is_let_go() -> None:
    """It finds out by itself; nobody here is told that the lane is free, because it is not."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.state = REFUSED
        rig.instances.hold("i", OUT_OF_REACH)
        rig.instances.owns = lambda _instance: False
        rig.run()
        await passing(3 * LOOK_S)
        assert (list(rig.instances.held()), rig.freed) == ([], [])
        assert value(stage.meters.lanes_held) == 0


@in_virtual_time
async def test_one_that_does_not_answer_keeps_no_other_waiting() -> None:
    """Nor the telling of facts."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        state_of = rig.evolution.state
        hanging = asyncio.Event()

        async def asked(instance: str) -> InstanceState | Paused | None:
            if instance == "hangs":
                await hanging.wait()
            return await state_of(instance)

        rig.evolution.state = asked  # type: ignore[method-assign]  # the server's, of one instance
        rig.server.state = state("open")
        for instance in ("hangs", "answers"):
            rig.instances.hold(instance, CLOSED)
        rig.run()
        await passing(3 * LOOK_S)
        assert rig.freed == ["evolution:answers"]
        assert "held" in rig.health.facts["hangs"]
        hanging.set()
        await passing(LOOK_S)
        assert rig.freed == ["evolution:answers", "evolution:hangs"]


@in_virtual_time
async def test_an_instance_that_was_taken_over_lately_keeps_its_pace() -> None:
    """As if its former owner had sent right before."""
    async with Stage() as stage:
        rig = EvolutionRig(stage, pacing=Pacing(every_s=2.0, gap_s=(1.0, 3.0)))
        now = stage.clock.monotonic()
        owned_s = {"long": 60.0, "lately": 0.5}
        rig.instances.owned_for_s = owned_s.__getitem__
        begins = [rig.instances.lane(f"evolution:{each}").begins_at - now for each in owned_s]
        assert begins == pytest.approx([0.0, 2.5])
