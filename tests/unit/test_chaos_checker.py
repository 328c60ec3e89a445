"""The chaos checker finds and names every kind of fault that is planted into clean evidence, and nothing where all is
well."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest

from actors.core.partition import locate
from tests.chaos.checker import check
from tests.chaos.evidence import (
    BROKEN,
    EVERY_NODE,
    OK,
    TIMED_OUT,
    Answered,
    Begun,
    Counted,
    Crash,
    Evidence,
    Fault,
    Policy,
    Post,
    Probe,
    Sample,
    Try,
    joined,
)
from tests.chaos.rows import Allows
from tests.chaos.verdict import violations

KEY = "k"
SIZE, TIME, DEBOUNCE = "size", "timeout", "debounce"
POLICIES = {
    KEY: Policy(max_size=3, wait_s=10),
    TIME: Policy(max_size=100, wait_s=1),
    DEBOUNCE: Policy(max_size=100, wait_s=1, debounce=True, max_wait_s=3),
}


def sent(sequence: int, at: float, key: str = KEY, status: int = OK, node: str = "a") -> Try:
    """One message, answered after 10 ms."""
    return Try(f"{key}.{sequence}", key, sequence, node, at, status, at + 0.01)


def post(
    batch: str, at: float, *sequences: int, key: str = KEY, reason: str = SIZE, node: str = "a", status: int = OK
) -> Post:
    """One delivery, answered after 10 ms."""
    begun = Begun(
        number=int(at * 1000),
        at=at,
        node=node,
        webhook_id=batch,
        sha256=f"hash of {batch}",
        key=key,
        reason=reason,
        attempt=1,
        ids=tuple(f"{key}.{sequence}" for sequence in sequences),
        path="/hook",
    )
    if not status:
        return Post(begun=begun)
    return Post(begun=begun, status=status, answered_at=at + 0.01, whole=True)


CLEAN = Evidence(
    tries=[
        *(sent(number, number * 0.1) for number in range(1, 7)),
        sent(1, 0.0, TIME),
        sent(2, 0.5, TIME),
        sent(1, 0.0, DEBOUNCE),
        sent(2, 0.9, DEBOUNCE),
    ],
    posts=[
        post("b1", 0.35, 1, 2, 3),
        post("b2", 0.65, 4, 5, 6, node="b"),
        post("b3", 1.02, 1, 2, key=TIME, reason="timeout"),
        post("b4", 1.95, 1, 2, key=DEBOUNCE, reason="timeout"),
    ],
    probes=[Probe("a", "/livez", 0.1, OK, 0.01)],
    samples=[Sample(0.1, "a", 1, 50 * 2**20, 10, 1, 5)],
    policies=POLICIES,
    counted=Counted(accepted=10, duplicates=0, delivered=4),
)

Change = Callable[[Evidence], Evidence]


def posts(*changed: Post) -> Change:
    """With these deliveries instead."""
    return lambda evidence: msgspec.structs.replace(evidence, posts=changed, counted=None)


def replaced(number: int, change: Post) -> Change:
    """With another delivery in this place."""
    rows = list(CLEAN.posts)
    rows[number] = change
    return posts(*rows)


def more_tries(*tries: Try, faults: Sequence[Fault] = ()) -> Change:
    """With further tries."""
    return lambda evidence: msgspec.structs.replace(
        evidence, tries=[*evidence.tries, *tries], faults=faults, counted=None
    )


def with_counted(accepted: int, duplicates: int, delivered: int) -> Change:
    """With other counters."""
    counted = Counted(accepted=accepted, duplicates=duplicates, delivered=delivered)
    return lambda evidence: msgspec.structs.replace(evidence, counted=counted)


def mutated(evidence: Evidence) -> Evidence:
    """The second attempt of a delivery has another body; the first was refused, so nothing else is wrong."""
    refused = post("b1", 0.32, 1, 2, 3, status=500)
    other = msgspec.structs.replace(refused, begun=msgspec.structs.replace(refused.begun, sha256="another"))
    return msgspec.structs.replace(evidence, posts=[other, *evidence.posts])


def crash_of(node: str, at: float) -> Crash:
    """A crash of the node that owns KEY."""
    return Crash(node=node, at=at, until=at + 1, partitions=frozenset({locate(KEY)[1]}))


PLANTED: dict[str, tuple[Change, str]] = {
    "a lost message": (posts(*CLEAN.posts[1:]), "3 lost (k.1, k.2, k.3)"),
    "a refused delivery is none": (replaced(0, post("b1", 0.35, 1, 2, 3, status=500)), "3 lost"),
    "an unanswered delivery is none": (replaced(0, post("b1", 0.35, 1, 2, 3, status=0)), "3 lost"),
    "a delivery that comes again": (posts(*CLEAN.posts, post("b1", 3, 1, 2, 3)), "1 deliveries came again, 0 may (b1)"),
    "a message in two deliveries": (posts(*CLEAN.posts, post("b9", 1.5, 3, 1, 2)), "3 in two deliveries"),
    "another order in a batch": (replaced(0, post("b1", 0.35, 1, 3, 2)), "1 keys out of order (k)"),
    "another order of batches": (
        posts(CLEAN.posts[1], post("b1", 0.7, 1, 2, 3), *CLEAN.posts[2:]),
        "1 keys out of order (k)",
    ),
    "another body under one webhook-id": (mutated, "1 with two bodies (b1)"),
    "a message nobody sent": (replaced(0, post("b1", 0.35, 1, 2, 3, 99)), "1 never sent (k.99)"),
    "a batch before its time": (replaced(2, post("b3", 0.9, 1, 2, key=TIME, reason="timeout")), "1 early (b3)"),
    "a debounced batch before its time": (
        replaced(3, post("b4", 1.8, 1, 2, key=DEBOUNCE, reason="timeout")),
        "1 early (b4)",
    ),
    "a full batch that is not full": (
        posts(post("b1", 0.35, 1, 2), post("b5", 0.4, 3, reason="manual"), *CLEAN.posts[1:]),
        "1 early (b1)",
    ),
    "a full batch that is late": (replaced(1, post("b2", 2.2, 4, 5, 6)), "b2 came 1.59 s late, allowed 1.5 s"),
    "a batch whose time was over": (
        replaced(2, post("b3", 2.6, 1, 2, key=TIME, reason="timeout")),
        "b3 came 1.59 s late, allowed 1.5 s",
    ),
    "too few accepted": (with_counted(9, 0, 4), "stored or there already 9, but 10 to 10 were"),
    "too many duplicates": (with_counted(10, 1, 4), "stored or there already 11, but 10 to 10 were"),
    "too many accepted": (
        lambda evidence: with_counted(11, 0, 4)(more_tries(sent(6, 0.62))(evidence)),
        "accepted 11, but only 10 were sent",
    ),
    "a duplicate that is not counted": (
        lambda evidence: with_counted(10, 0, 4)(more_tries(Try("k.6", KEY, 6, "a", 0.61, OK, 0.62, True))(evidence)),
        "stored or there already 10, but 11 to 11 were",
    ),
    "another number of deliveries": (with_counted(10, 0, 5), "delivered 5, but the webhook took 4"),
    "a request that failed for nothing": (more_tries(sent(6, 0.55, status=503)), "1 failed elsewhere (k.6 at a: 503"),
    "a probe that failed for nothing": (
        lambda evidence: msgspec.structs.replace(evidence, probes=[Probe("a", "/readyz", 0.1, 503, 0.01)]),
        "1 failed elsewhere (/readyz at a: 503",
    ),
    "an answer that nobody expects": (
        more_tries(sent(6, 0.55, status=400), faults=[Fault(node=EVERY_NODE, at=0)]),
        "1 answered strangely (k.6: 400)",
    ),
    "a slow refusal": (
        more_tries(Try("k.6", KEY, 6, "a", 0.55, 503, 2.0), faults=[Fault(node="a", at=0)]),
        "a refusal took 1.45 s, allowed 1.2 s",
    ),
    "a batch that stays open": (
        lambda evidence: msgspec.structs.replace(evidence, still_open=frozenset({"k"})),
        "1 still open (k)",
    ),
    "memory": (
        lambda evidence: msgspec.structs.replace(evidence, samples=[Sample(0, "a", 1, 300 * 2**20, 1, 1, 1)]),
        "300 MiB resident, allowed 150 MiB",
    ),
    "nobody takes over": (
        lambda evidence: msgspec.structs.replace(evidence, crashes=[crash_of("a", at=0.9)]),
        "first flush by a new owner after inf s, allowed 3 s",
    ),
}


def found(evidence: Evidence, allows: Allows = Allows()) -> list[str]:  # noqa: B008  frozen
    """What is wrong."""
    return list(violations(check(evidence), allows))


def test_nothing_is_found_where_all_is_well() -> None:
    """Three buffers: full, over their time, silent."""
    report = check(CLEAN)

    assert found(CLEAN) == []
    assert report.acknowledged == 10
    assert 0 < report.late_max_s < 0.1


@pytest.mark.parametrize(("change", "said"), PLANTED.values(), ids=PLANTED)
def test_a_planted_fault_is_named(change: Change, said: str) -> None:
    """It alone is found."""
    (problem,) = found(change(CLEAN))

    assert problem.startswith(said)


def test_a_dead_letter_is_a_kept_promise() -> None:
    """What gave up loudly is not lost."""
    evidence = msgspec.structs.replace(posts(*CLEAN.posts[1:])(CLEAN), dead=frozenset({"k.1", "k.2", "k.3"}))

    assert found(evidence) == []


def test_a_message_that_is_sent_again_is_one_message() -> None:
    """Refused at one node, taken by the next: its place in the order is that of its sequence."""
    evidence = more_tries(
        sent(3, 0.25, status=503, node="b"),
        sent(4, 0.3, status=BROKEN),
        sent(4, 0.3, status=TIMED_OUT),
        faults=[Fault(node=EVERY_NODE, at=0, until=1)],
    )(CLEAN)

    assert found(evidence) == []


def test_failures_count_only_where_nothing_was_done() -> None:
    """A request may fail at a node that was killed, from just before until just after, and nowhere else."""
    fault = [Fault(node="a", at=0.5, until=0.6)]

    assert found(more_tries(sent(6, 0.495, status=BROKEN), faults=fault)(CLEAN)) == []
    assert found(more_tries(sent(6, 0.495, status=BROKEN, node="b"), faults=fault)(CLEAN)) != []
    assert found(more_tries(sent(6, 0.7, status=BROKEN), faults=fault)(CLEAN)) != []


CRASH = Crash(node="a", at=5.0, until=6.0)


@pytest.mark.parametrize(
    ("original", "may"),
    [
        (post("b1", 4.9, 1, 2, 3), 1),  # answered just before: perhaps not settled yet
        (post("b1", 4.9, 1, 2, 3, node=""), 1),  # nobody knows whose it was
        (post("b1", 5.5, 1, 2, 3), 1),  # written before the crash, read after it
        (post("b1", 4.5, 1, 2, 3), 0),  # answered long before
        (post("b1", 4.9, 1, 2, 3, node="b"), 0),  # another node's
        (post("b1", 6.5, 1, 2, 3), 0),  # after its restart
        (post("b1", 5.5, 1, 2, 3, node=""), 0),  # somebody else's, as the crashed one was gone
    ],
)
def test_what_was_out_at_a_crash_may_come_again(original: Post, may: int) -> None:
    """Only that, and each only once; and only where the row does not forbid it."""
    again = post("b1", 7, 1, 2, 3, node="b")
    evidence = msgspec.structs.replace(posts(original, again, *CLEAN.posts[1:])(CLEAN), crashes=[CRASH])
    allows = Allows(late_s=None)

    assert check(evidence).budget == may
    assert (found(evidence, allows) == []) == bool(may)
    assert found(evidence, Allows(late_s=None, duplicates=0)) == ["1 deliveries came again, 0 may (b1)"]
    assert found(evidence, Allows(late_s=None, duplicates=1)) == []


def test_the_first_flush_by_a_new_owner_is_timed() -> None:
    """From the crash to the first batch of a key that the crashed node had; other nodes' own batches are none."""
    crash = crash_of("a", at=0.4)
    evidence = msgspec.structs.replace(CLEAN, crashes=[crash])

    (seconds,) = check(evidence).first_flushes_s
    assert seconds == pytest.approx(0.25)
    assert found(evidence, Allows(first_flush_s=0.2)) == ["first flush by a new owner after 0.2 s, allowed 0.2 s"]


def test_answers_that_nobody_could_read_are_no_duplicates() -> None:
    """A head without its body: the message counts as delivered, the next attempt as the first."""
    half = msgspec.structs.replace(post("b1", 0.33, 1, 2, 3), whole=False)

    assert found(posts(half, *CLEAN.posts)(CLEAN)) == []
    assert found(posts(half, *CLEAN.posts[1:])(CLEAN)) == []


def test_nothing_is_late_while_the_store_is_kept_away() -> None:
    """From the end of the outage on it is."""
    late = replaced(1, post("b2", 5.0, 4, 5, 6))(CLEAN)

    def away(at: float, until: float) -> list[str]:
        return found(msgspec.structs.replace(late, faults=[Fault(node=EVERY_NODE, at=at, until=until)]))

    assert away(0.5, 4.0) == []
    assert away(0.7, 9.0) == []
    assert away(0.5, 3.0) == ["b2 came 2.00 s late, allowed 1.5 s"]
    assert found(msgspec.structs.replace(late, faults=[Fault(node="a", at=0.5, until=4.0)])) != []


def test_the_longest_silence_is_measured() -> None:
    """No answer at all from anybody."""
    assert check(CLEAN).silence_s == pytest.approx(0.3)


def test_probes_of_healthy_nodes_are_timed() -> None:
    """What a node that something was done to took says nothing."""
    probes = [Probe("a", "/livez", 0.1 * number, OK, 0.001 * number) for number in range(100)]
    slow = Probe("b", "/livez", 1, OK, 2.0)
    evidence = msgspec.structs.replace(CLEAN, probes=[*probes, slow], faults=[Fault(node="b", at=0, until=9)])

    assert check(evidence).probe_p99_s == pytest.approx(0.099)
    assert check(msgspec.structs.replace(evidence, probes=[])).probe_p99_s == 0


def test_the_sink_log_becomes_one_value_a_request() -> None:
    """Answers find their requests by number, in whatever order they come."""
    first, second = post("b1", 0.1, 1).begun, post("b2", 0.2, 2).begun

    assert joined([first, second, Answered(second.number, 0.3, 200), Answered(first.number, 0.4, 500)]) == [
        Post(begun=first, status=500, answered_at=0.4, whole=True),
        Post(begun=second, status=200, answered_at=0.3, whole=True),
    ]
    assert joined([first]) == [Post(begun=first)]
