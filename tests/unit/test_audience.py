"""What the store is told of those who listen here: when, how much at once, and after it could not be told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.audience import CHANGES_S, REFRESH_S, REPORTS_MAX, Audience
from actors.channel_ports import ChannelName, Report
from actors.ports import StoreAway
from tests.support.channel_doubles import StoreDouble, channel
from tests.support.doubles import Stage
from tests.support.until import passing
from tests.support.virtual_time import VirtualClock, in_virtual_time

A, B, C = channel("a"), channel("b"), channel("c")
LATE_S = 0.01


class Believing(StoreDouble):
    """Keeps what it is told, as the store does: by partition and kid. `restart` forgets it."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, dict[str, int]] = {}

    async def report(self, reports: Sequence[Report]) -> Sequence[bool | StoreAway]:
        """False where a part comes for something that is not known."""
        await super().report(reports)
        return [self._take(report) for report in reports]

    def restart(self) -> None:
        """All is forgotten."""
        self.known.clear()

    def _take(self, report: Report) -> bool:
        if report.whole:
            self.known[report.partition] = dict(report.counts)
        elif report.partition not in self.known:
            return False
        else:
            self.known[report.partition].update(report.counts)
        return True

    def people(self) -> dict[str, int]:
        """How many it believes there are."""
        return {kid: count for counts in self.known.values() for kid, count in counts.items() if count}


class Rig:
    """An audience and its store."""

    def __init__(self) -> None:
        self.store = Believing()
        self.audience = Audience(self.store, VirtualClock())

    def count(self, people: Mapping[ChannelName, int]) -> None:
        """So many listen now."""
        for of, number in people.items():
            self.audience.count(of, number)

    def told(self) -> list[Report]:
        """What the store was told since the last look."""
        reports = [report for reports in self.store.reports for report in reports]
        self.store.reports.clear()
        return reports


@in_virtual_time
async def test_what_has_changed_goes_out_gathered() -> None:
    """The latest number of each channel, once; who listens no more is 0. Then nothing more."""
    rig = Rig()
    rig.count({A: 1})
    assert await rig.audience.run_once() == 0  # the store knew nothing of the partition, and wants the whole
    assert await rig.audience.run_once() == 1
    rig.told()
    rig.count({A: 2})
    rig.count({A: 3})
    assert await rig.audience.run_once() == 1
    assert rig.told() == [Report(A.partition, ((A.kid, 3),), False)]
    rig.count({A: 0})
    assert await rig.audience.run_once() == 1
    assert rig.told() == [Report(A.partition, ((A.kid, 0),), False)]
    assert await rig.audience.run_once() == 0
    assert rig.told() == []


@in_virtual_time
async def test_a_store_that_forgot_is_told_the_whole() -> None:
    """Of that partition, not what had changed alone."""
    rig = Rig()
    same = ChannelName("other", "other-kid", A.partition)
    rig.count({A: 1, same: 2, B: 3})
    while await rig.audience.run_once() < 2:
        pass
    rig.store.known.pop(A.partition)
    rig.count({A: 5})
    rig.told()
    assert await rig.audience.run_once() == 0
    assert await rig.audience.run_once() == 1
    [partly, whole] = rig.told()
    assert not partly.whole
    assert whole.whole
    assert dict(whole.counts) == {A.kid: 5, same.kid: 2}
    assert rig.store.people() == {A.kid: 5, same.kid: 2, B.kid: 3}


@in_virtual_time
async def test_the_rest_is_said_to_hold_from_time_to_time() -> None:
    """Every REFRESH_S, without numbers; not of what nobody listens to, nor of what is told anyway."""
    rig = Rig()
    rig.count({A: 1, B: 1, C: 1})
    while rig.store.people().keys() != {A.kid, B.kid, C.kid}:
        await rig.audience.run_once()
    rig.told()
    await passing(REFRESH_S)
    rig.count({B: 2, C: 0})
    await rig.audience.run_once()
    reports = [Report(A.partition, (), False), Report(B.partition, ((B.kid, 2),), False)]
    reports.append(Report(C.partition, ((C.kid, 0),), False))
    assert {report.partition: report for report in rig.told()} == {report.partition: report for report in reports}
    await passing(REFRESH_S)
    await rig.audience.run_once()
    assert {report.partition for report in rig.told()} == {A.partition, B.partition}


@in_virtual_time
async def test_what_the_store_could_not_take_is_told_again_whole() -> None:
    """Whatever has changed meanwhile."""
    rig = Rig()
    rig.store.away = True
    rig.count({A: 1, B: 1})
    assert await rig.audience.run_once() == 0
    rig.count({A: 4})
    assert await rig.audience.run_once() == 0
    rig.store.away = False
    assert await rig.audience.run_once() == 2
    assert {(report.partition, report.counts, report.whole) for report in rig.told()} == {
        (A.partition, ((A.kid, 4),), True),
        (B.partition, ((B.kid, 1),), True),
    }


@in_virtual_time
async def test_one_call_holds_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when one of the calls fails."""
    monkeypatch.setattr("actors.audience.REPORTS_MAX", 3)
    assert REPORTS_MAX >= 256, "one call holds all partitions"
    rig = Rig()
    rig.count({ChannelName(f"n{number}", f"kid{number}", number): 1 for number in range(7)})
    await rig.audience.run_once()
    assert [len(reports) for reports in rig.store.reports] == [3, 3, 1]
    await rig.audience.run_once()
    assert len(rig.store.people()) == 7


@in_virtual_time
async def test_leaving_tells_that_nobody_is_here() -> None:
    """Of every partition somebody listened to; StoreAway is said."""
    rig = Rig()
    rig.count({A: 1, B: 2})
    while rig.store.people() != {A.kid: 1, B.kid: 2}:
        await rig.audience.run_once()
    rig.store.away = True
    with pytest.raises(StoreAway):
        await rig.audience.leave()
    rig = Rig()
    rig.count({A: 1, B: 2})
    while rig.store.people() != {A.kid: 1, B.kid: 2}:
        await rig.audience.run_once()
    await rig.audience.leave()
    assert rig.store.people() == {}


@in_virtual_time
async def test_the_service_tells_changes_in_time_and_repeats_itself() -> None:
    """A change is known within CHANGES_S, and nothing goes out while nobody listens."""
    async with Stage() as stage:
        rig = Rig()
        stage.supervisor.service("audience", rig.audience.run)
        await passing(10 * REFRESH_S)
        assert rig.told() == []
        rig.count({A: 1})
        await passing(2 * CHANGES_S + LATE_S)  # the store forgot all there was, and asks for it
        assert rig.store.people() == {A.kid: 1}
        rig.count({A: 2})
        await passing(CHANGES_S + LATE_S)
        assert rig.store.people() == {A.kid: 2}
        rig.told()
        await passing(10 * REFRESH_S)
        assert 4 <= len(rig.told()) <= 10
        rig.count({A: 0})
        await passing(CHANGES_S + LATE_S)
        assert rig.store.people() == {}
        rig.told()
        await passing(10 * REFRESH_S)
        assert rig.told() == []


@in_virtual_time
async def test_the_service_outlives_a_store_that_is_away() -> None:
    """It tries again, not in every turn of the loop; what it tells then is of then. A restart is noticed."""
    async with Stage() as stage:
        rig = Rig()
        stage.supervisor.service("audience", rig.audience.run)
        rig.store.away = True
        rig.count({A: 1})
        await passing(5.0)
        rig.count({A: 7})
        rig.store.away = False
        await passing(CHANGES_S + LATE_S)
        assert rig.store.people() == {A.kid: 7}
        rig.store.restart()
        await passing(2 * (REFRESH_S + CHANGES_S) + CHANGES_S + LATE_S)
        assert rig.store.people() == {A.kid: 7}
        assert stage.crashes == []


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["count", "round", "restart", "away"]), st.integers(0, 2), st.integers(0, 3)),
        max_size=30,
    )
)
@in_virtual_time
async def test_after_two_rounds_the_store_knows(steps: list[tuple[str, int, int]]) -> None:
    """Whatever happened before: one in which it may say that it has forgotten, and one with the whole."""
    rig = Rig()
    channels = [A, B, ChannelName("other", "other-kid", A.partition)]
    now: dict[str, int] = {}
    for step, which, number in steps:
        match step:
            case "count":
                rig.count({channels[which]: number})
                now[channels[which].kid] = number
            case "round":
                await rig.audience.run_once()
            case "restart":
                rig.store.restart()
            case _:
                rig.store.away = True
                await rig.audience.run_once()
                rig.store.away = False
    await passing(REFRESH_S)
    await rig.audience.run_once()
    await rig.audience.run_once()
    assert rig.store.people() == {kid: number for kid, number in now.items() if number}


@in_virtual_time
async def test_a_change_during_a_report_is_not_forgotten() -> None:
    """It goes out with the next."""
    rig = Rig()
    rig.store.took_s = 0.5
    rig.count({A: 1})
    round_under_way = asyncio.ensure_future(rig.audience.run_once())
    await passing(0.1)
    rig.count({A: 2})
    await round_under_way
    await rig.audience.run_once()
    assert rig.store.people() == {A.kid: 2}


@in_virtual_time
async def test_what_a_report_was_meant_to_say_is_said_again_whatever_became_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when it ended in a way that nobody foresaw: until it has answered, the store may know nothing."""
    rig = Rig()
    rig.count({A: 1})
    with monkeypatch.context() as broken:
        broken.setattr(rig.store, "report", _broken)
        with pytest.raises(RuntimeError):
            await rig.audience.run_once()
    await rig.audience.run_once()
    assert rig.store.people() == {A.kid: 1}


async def _broken(_reports: Sequence[Report]) -> Sequence[bool | StoreAway]:
    raise RuntimeError
