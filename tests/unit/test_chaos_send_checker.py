"""The checker of WhatsApp sends finds what is planted into clean evidence, and nothing where all is well."""

from __future__ import annotations

import msgspec
import pytest

from tests.chaos.send_checker import Arrival, Deed, Ended, Found, Sends, check
from tests.chaos.send_load import Acknowledged

CONTACT = "s65/wa-0/49151"
KILLED = Deed(what="killed", since=10.0, until=12.0, instances=frozenset({"wa-0"}), each=2)


def promised(sequence: int) -> Acknowledged:
    """A message that was acknowledged."""
    return Acknowledged(f"{CONTACT}.{sequence}", CONTACT, sequence, f"t{sequence}", float(sequence))


def came(sequence: int, at: float, key: str = "") -> Arrival:
    """A message that reached the phone."""
    return Arrival(f"{CONTACT}.{sequence}", key or f"K{sequence}", at)


CLEAN = Sends(
    acknowledged=[promised(1), promised(2), promised(3)],
    arrivals=[came(1, 5.0), came(2, 11.0), came(3, 13.0)],
    ended={f"t{sequence}": Ended("SUCCESS", f"K{sequence}") for sequence in (1, 2, 3)},
    deeds=[KILLED],
    idempotent=False,
)


def found(**changes: object) -> Found:
    """The verdict on the clean evidence with these changes."""
    return check(msgspec.structs.replace(CLEAN, **changes))


def test_nothing_is_wrong_with_clean_evidence() -> None:
    """Three promised, three came."""
    verdict = found()
    assert (verdict.problems, verdict.acknowledged, verdict.arrived, verdict.twice) == ([], 3, 3, 0)


def test_what_was_on_its_way_may_come_twice() -> None:
    """The first copy came while something was done, the second whenever."""
    verdict = found(arrivals=[came(1, 5.0), came(2, 11.0, "K0"), came(2, 14.0), came(3, 15.0)])
    assert (verdict.problems, verdict.twice, verdict.may) == ([], 1, 2)


def test_the_same_id_again_is_no_second_message() -> None:
    """A phone shows it once, and even a late repetition puts nothing out of order."""
    verdict = found(arrivals=[*CLEAN.arrivals, came(1, 20.0)], idempotent=True)
    assert (verdict.problems, verdict.twice, verdict.repeated) == ([], 0, 1)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"arrivals": [came(1, 5.0), came(3, 13.0)]}, "1 messages never arrived"),
        ({"ended": {**CLEAN.ended, "t2": Ended("FAILURE", error="no")}}, "1 tasks did not end well"),
        ({"ended": {**CLEAN.ended, "t2": Ended("RETRY")}}, "1 tasks did not end well"),
        ({"ended": {}}, "3 tasks did not end well"),
        ({"ended": {**CLEAN.ended, "t2": Ended("SUCCESS", "K9")}}, "1 tasks name an id that never arrived"),
        ({"arrivals": [came(2, 4.0), came(1, 5.0), came(3, 13.0)]}, "1 messages came out of order"),
        ({"arrivals": [*CLEAN.arrivals, came(5, 14.0)]}, "1 messages arrived that nobody sent"),
        ({"arrivals": [came(1, 5.0, "K0"), *CLEAN.arrivals]}, "were not on their way when something was done"),
        ({"arrivals": [came(2, 11.0, "K0"), *CLEAN.arrivals], "idempotent": True}, "1 messages came twice, 0 may"),
        ({"deeds": []}, ""),
        (
            {"arrivals": [came(1, 5.0), came(2, 11.0, "K0"), came(2, 11.5)], "deeds": []},
            "1 messages came twice, 0 may",
        ),
    ],
)
def test_what_is_planted_is_found(changes: dict[str, object], problem: str) -> None:
    """Each kind of fault by its sentence."""
    problems = found(**changes).problems
    assert any(problem in each for each in problems) if problem else problems == []
