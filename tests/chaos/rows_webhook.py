"""Rows 30 to 33 and 38: webhooks that hang, reset, drip, flood and flap. Another host's keys never notice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from msgspec import structs

from tests.chaos import stretch
from tests.chaos.chaos import Chaos
from tests.chaos.evidence import Evidence, Post
from tests.chaos.rig import Rig
from tests.chaos.rows import STANDARD_LOAD, Allows, Group, Setup, row
from tests.chaos.stretch import Stretch

OTHERS = tuple(group.name for group in STANDARD_LOAD)
OTHERS_SHARE = 0.10
OTHERS_FLOOR_S = 0.150
"""What two cores that many programs share add to a 99th percentile, one time and not the next."""
TIMEOUT_S = 2.0
SICK = Group(name="sick", keys=40, rate=60, max_size=3, wait_s=0.5, path="/sick", sink=1, timeout_s=TIMEOUT_S)
SICK_TOO = Group(name="sicktoo", keys=20, rate=30, max_size=3, wait_s=0.5, path="/too", sink=1, timeout_s=TIMEOUT_S)
WEBHOOKS = Allows(duplicates=0, late_s=None)
"""How late the sick host's batches come is the sick host's doing; the others' lateness is judged by itself."""
TURN_S = 0.1
RETRY_S_MIN = 0.08
"""The shortest first wait before a retry: 100 ms less 20 %."""
GROWTH_MIB_MAX = 8.0
"""One answer read to its end would be 160 or 300; the asked 1 is less than what the load itself adds and frees."""
FLAP_S = 2.0
FLAPS = 3
FLAP_RETRY_S = 1.0
OPENING_ATTEMPTS = 5 + 16
"""What may be out at a host when the fifth failure in a row opens its breaker."""
PROBES = 3
"""A breaker is opened for a second, then for two."""


async def others_notice_nothing(chaos: Chaos, healthy: Stretch, sick: Stretch) -> None:
    """The other host's batches come as they did before."""

    def judge(evidence: Evidence) -> Iterator[str]:
        before, now = (stretch.late(evidence, each, stretch.of_group(*OTHERS)) for each in (healthy, sick))
        chaos.note(stretch.compared("others' lateness", before, now))
        yield from stretch.slower("lateness at another host", before, now, OTHERS_SHARE, OTHERS_FLOOR_S)

    chaos.judge(judge)


def retried(evidence: Evidence, sick: Stretch, *names: str) -> list[Sequence[Post]]:
    """The attempts of each batch that was tried in the stretch more than once."""
    tried = stretch.attempts(evidence, stretch.of_group(*names)).values()
    return [posts for posts in tried if len(posts) > 1 and sick.holds(posts[0].begun.at)]


def cut_after(evidence: Evidence, sick: Stretch, what: str, *names: str) -> Iterator[str]:
    """Attempts that got no answer ended at their timeout: the next came not before, and the soonest right after."""
    gaps = [
        late.begun.at - early.begun.at
        for posts in retried(evidence, sick, *names)
        for early, late in pairwise(posts)
        if early.status == 0
    ]
    if not gaps:
        yield f"no attempt that {what} was followed by another"
    elif not TIMEOUT_S <= min(gaps) <= TIMEOUT_S + 1:
        yield f"the next attempt came {min(gaps):.2f} s after one that {what}, the timeout is {TIMEOUT_S:g} s"


@row(
    30,
    title="a webhook that accepts and never answers",
    allows=WEBHOOKS,
    setup=Setup(load=(*STANDARD_LOAD, SICK), load_s=8),
)
async def hang(rig: Rig, chaos: Chaos) -> None:
    """Attempts end at their timeout and are tried again; another host's batches come as before."""
    await chaos.balanced()
    healthy = stretch.begin()
    await chaos.passing(2)
    sick = healthy.end()
    await rig.sink.on(SICK.path, "/hang", sink=1)
    await chaos.passing(4.5)
    sick.end()
    await rig.sink.on(SICK.path, "/well", sink=1)
    await others_notice_nothing(chaos, healthy, sick)
    chaos.judge(lambda evidence: cut_after(evidence, sick, "hung", SICK.name))


@row(
    31,
    title="RST at connect, at the request and in the answer",
    allows=WEBHOOKS,
    setup=Setup(load=(*STANDARD_LOAD, SICK, SICK_TOO), load_s=8),
)
async def reset(rig: Rig, chaos: Chaos) -> None:
    """Tried again under the same id with the same bytes; an answer that breaks off after a 200 has been given."""
    await chaos.balanced()
    healthy = stretch.begin()
    await chaos.passing(2)
    sick = healthy.end()
    await rig.sink.on(SICK.path, "/reset", sink=1)
    await rig.sink.on(SICK_TOO.path, "/reset-answer", sink=1)
    await rig.sink.reset_connections(30, sink=1)
    await chaos.passing(2.5)
    await rig.sink.on(SICK.path, "/well", sink=1)
    await chaos.passing(1)
    sick.end()
    await rig.sink.on(SICK_TOO.path, "/well", sink=1)
    await others_notice_nothing(chaos, healthy, sick)

    def same_again(evidence: Evidence) -> Iterator[str]:
        again = retried(evidence, sick, SICK.name)
        chaos.note(f"{len(again)} batches tried again")
        if not again:
            yield "no batch was tried again after a reset"
        for posts in again:
            if len({post.begun.sha256 for post in posts}) > 1 or not posts[-1].taken:
                yield f"{posts[0].begun.webhook_id}: {[post.status for post in posts]}"
        broken_off = stretch.attempts(evidence, stretch.of_group(SICK_TOO.name)).values()
        if not any(post.taken and not post.whole for posts in broken_off for post in posts):
            yield "no answer broke off"
        yield from (f"{posts[0].begun.webhook_id} came again after its 200" for posts in broken_off if twice(posts))

    chaos.judge(same_again)


def twice(posts: Sequence[Post]) -> bool:
    """Whether a batch came again after it had been taken."""
    return any(post.taken for post in posts[:-1])


@row(
    32,
    title="a webhook that drips a byte at a time",
    allows=WEBHOOKS,
    setup=Setup(load=(*STANDARD_LOAD, SICK, SICK_TOO), load_s=8),
)
async def drip(rig: Rig, chaos: Chaos) -> None:
    """The timeout is one of the whole attempt. A status that was read counts, the rest of that answer does not."""
    await chaos.balanced()
    healthy = stretch.begin()
    await chaos.passing(2)
    sick = healthy.end()
    await rig.sink.on(SICK.path, "/drip-head", sink=1)
    await rig.sink.on(SICK_TOO.path, "/drip", sink=1)
    await chaos.passing(4.5)
    sick.end()
    await rig.sink.on(SICK.path, "/well", sink=1)
    await rig.sink.on(SICK_TOO.path, "/well", sink=1)
    await others_notice_nothing(chaos, healthy, sick)
    chaos.judge(lambda evidence: cut_after(evidence, sick, "dripped", SICK.name))

    def status_counts(evidence: Evidence) -> Iterator[str]:
        dripped = stretch.attempts(evidence, stretch.of_group(SICK_TOO.name)).values()
        if not any(post.taken and not post.whole for posts in dripped for post in posts):
            yield "no answer's body dripped"
        yield from (f"{posts[0].begun.webhook_id} came again after its 200" for posts in dripped if twice(posts))

    chaos.judge(status_counts)


@row(
    33,
    title="answers of 300 MB and gzip bombs",
    allows=WEBHOOKS,
    setup=Setup(
        load=(*STANDARD_LOAD, *(structs.replace(group, timeout_s=None) for group in (SICK, SICK_TOO))), load_s=8
    ),
)
async def huge_answers(rig: Rig, chaos: Chaos) -> None:
    """They are read for 64 KiB and then closed; memory stays as it is, and nobody waits."""
    await chaos.balanced()
    await rig.sink.on(SICK_TOO.path, "/gzip", "/well", sink=1)
    await chaos.passing(0.7)
    await rig.sink.seen()  # it packs its bomb at the first request, and is deaf meanwhile
    await chaos.passing(1.5)
    healthy = stretch.begin()
    await chaos.passing(2)
    sick = healthy.end()
    await rig.sink.on(SICK.path, "/flood", sink=1)
    await rig.sink.on(SICK_TOO.path, "/gzip", sink=1)
    await chaos.passing(4)
    sick.end()
    await rig.sink.on(SICK.path, "/well", sink=1)
    await rig.sink.on(SICK_TOO.path, "/well", sink=1)
    await others_notice_nothing(chaos, healthy, sick)

    def memory(evidence: Evidence) -> Iterator[str]:
        before, now = stretch.resident(evidence, healthy), stretch.resident(evidence, sick)
        growth = {node: (now.get(node, 0) - most) / stretch.MIB for node, most in before.items()}
        posts = [post for post in evidence.posts if post.begun.path in (SICK.path, SICK_TOO.path)]
        huge = sum(sick.holds(post.begun.at) for post in posts)
        chaos.note(f"{huge} such answers, memory +{max(growth.values()):.1f} MiB")
        if not huge:
            yield "no answer was huge"
        for node, mib in growth.items():
            if mib > GROWTH_MIB_MAX:
                yield f"{node} grew by {mib:.0f} MiB"

    chaos.judge(memory)


FLAPPING = Group(name="flapping", keys=300, rate=150, max_size=1, wait_s=1, path="/sick", sink=1)


@row(
    38,
    title=f"a webhook that flaps each {FLAP_S:g} s",
    allows=WEBHOOKS,
    setup=Setup(
        load=(*STANDARD_LOAD, FLAPPING), rig="poison", environment=(("RETRY_DELAY", f"{FLAP_RETRY_S:g}s"),), limit_s=40
    ),
)
async def flap(rig: Rig, chaos: Chaos) -> None:
    """While it is down the breaker lets few attempts through; all is delivered soon after the last time."""
    await chaos.balanced()
    healthy = stretch.begin()
    await chaos.passing(2)
    healthy.end()
    downs: list[Stretch] = []
    for _ in range(FLAPS):
        await rig.sink.on(FLAPPING.path, "/status/503", sink=1)
        downs.append(stretch.begin())
        await chaos.passing(FLAP_S)
        await rig.sink.on(FLAPPING.path, "/well", sink=1)
        downs[-1].end()
        await chaos.passing(FLAP_S)
    await others_notice_nothing(chaos, healthy, Stretch(since=downs[0].since, until=downs[-1].until))

    def bounded(evidence: Evidence) -> Iterator[str]:
        refused = [post.begun for post in evidence.posts if post.begun.path == FLAPPING.path and post.status == 503]
        chaos.note(f"{len(refused)} attempts refused in {len(downs)} times down")
        if not refused:
            yield "no attempt was refused"
        for down in downs:
            for node in rig.nodes:
                count = sum(down.holds(each.at) and each.node == node.name for each in refused)
                if count > OPENING_ATTEMPTS + PROBES:
                    yield f"{node.name} tried {count} times while it was down"

    chaos.judge(bounded)
