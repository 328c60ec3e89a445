"""Row 51: an Evolution that hangs, resets, refuses the key, answers too late, and tells everything three times.

Out: what is done with a send of which nobody knows whether it was made is what its `on_unknown` says, unless Evolution
takes message ids: then it is sent again and comes once. In: each message is in one delivery, in its order.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from time import monotonic
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct

from actors.core.evolution_events import dedupe_id
from actors.core.tasks import FINAL, OnUnknown
from tests.chaos.chaos import Chaos
from tests.chaos.rig import Rig
from tests.chaos.rig_evolution import INSTANCES, WRONG_KEY, EvolutionRig, IdempotentRig
from tests.chaos.rows import Allows, row
from tests.chaos.rows_sends import SEND_TIMEOUT_S, setup, with_evolution
from tests.chaos.send_run import arrivals_in
from tests.support.client import Client
from tests.support.sink import Sink
from tests.support.until import passing, until

LATE_S = SEND_TIMEOUT_S + 2
HANG_S = 30.0
ENDED_S = 25.0
PHONE_FROM = 491_520_000_000
CONTACTS = 12
MESSAGES = 10
COPIES = 3
JITTER_S = 1.0
LATEST_S = 20.0
QUIET_S = 2.0
WRITTEN_AT_S = 1_717_689_097


class Case(Struct, frozen=True, kw_only=True):
    """What a send meets. `goes_out`: how often that alone puts the message on the phone."""

    fault: str
    goes_out: int
    delay_s: float | None = None


class Expected(Struct, frozen=True):
    """How a task must end, and how often its message comes."""

    status: str
    copies: int
    uncertain: bool = False


CASES = (
    Case(fault="sent-then-slow", goes_out=1, delay_s=LATE_S),
    Case(fault="slow", goes_out=1, delay_s=HANG_S),
    Case(fault="hang", goes_out=0),
    Case(fault="sent-then-reset", goes_out=1),
    Case(fault="reset", goes_out=0),
)
"""Everything after which nobody knows."""


def expected(case: Case, on_unknown: OnUnknown, *, idempotent: bool) -> Expected:
    """What the policy says."""
    if idempotent:
        return Expected("SUCCESS", 1)
    if on_unknown == "retry":
        return Expected("SUCCESS", case.goes_out + 1)
    return Expected("FAILURE", case.goes_out, uncertain=True)


async def doubtful(rig: Rig, chaos: Chaos) -> None:
    """Send one message into each case under each policy, and one with a key that Evolution does not take."""
    evolution = with_evolution(rig)
    prefix = f"o{chaos.row.name}-{chaos.random.randrange(10**6)}"
    await evolution.evolution_does("heal")
    began = monotonic()
    wanted: dict[str, tuple[str, Expected]] = {}
    policies: tuple[OnUnknown, ...] = ("retry", "dead")
    for number, case in enumerate(CASES):
        for turn, policy in enumerate(policies):
            phone = str(PHONE_FROM + 2 * number + turn)
            more = {} if case.delay_s is None else {"delay_s": case.delay_s}
            await evolution.evolution_does("fail", fault=case.fault, number=phone, **more)
            text = f"{prefix}/{case.fault}/{policy}"
            task_id = await send(_any(rig, chaos), phone, text, instance=INSTANCES[number], on_unknown=policy)
            wanted[text] = task_id, expected(case, policy, idempotent=isinstance(rig, IdempotentRig))
    ends = {text: await ended(_any(rig, chaos), task_id) for text, (task_id, _) in wanted.items()}
    await chaos.passing(max(0.0, HANG_S + 1 - (monotonic() - began)))  # what hung goes out now
    copies: dict[str, set[str]] = defaultdict(set)
    for arrival in arrivals_in(evolution.phones, prefix):
        copies[arrival.text].add(arrival.id)
    for text, (_, wish) in wanted.items():
        result = ends[text]["result"] or {}
        found = Expected(ends[text]["status"], len(copies[text]), bool(result.get("uncertain", False)))
        chaos.expect(found == wish, f"{text.partition('/')[2]}: {found}, not {wish}")
    chaos.note(f"{len(wanted)} doubtful sends, {sum(map(len, copies.values()))} messages came")
    await _refused_key(evolution, chaos, f"{prefix}/key")


async def _refused_key(rig: EvolutionRig, chaos: Chaos, text: str) -> None:
    """A send with a wrong key fails at once, and is sent when somebody asks for it again."""
    await rig.kill_evolution()
    await rig.start_evolution(WRONG_KEY)
    phone = str(PHONE_FROM + 100)
    client = _any(rig, chaos)
    task_id = await send(client, phone, text, instance=INSTANCES[0], on_unknown="retry")
    end = await ended(client, task_id)
    chaos.expect(
        (end["status"], end["attempts"]) == ("FAILURE", 1) and "key" in end["result"]["error"], f"a wrong key: {end}"
    )
    await rig.kill_evolution()
    await rig.start_evolution()
    answer = await client.call("POST", f"/tasks/{task_id}/retry")
    chaos.expect(answer.status == 202, f"a retry is answered {answer.status}")
    end = await ended(client, task_id)
    came = sum(each.text == text for each in arrivals_in(rig.phones, text.partition("/")[0]))
    chaos.expect((end["status"], came) == ("SUCCESS", 1), f"after the retry it came {came} times: {end}")


async def send(client: Client, phone: str, text: str, *, instance: str, on_unknown: OnUnknown) -> str:
    """Send a message that must be taken; its task's id."""
    body = {"phone": phone, "message": text, "instance_name": instance, "on_unknown": on_unknown}
    answer = await client.call("POST", "/messages", body)
    assert answer.status == 202, answer
    return str(answer.json["task_id"])


async def ended(client: Client, task_id: str) -> dict[str, Any]:
    """A task, when it has ended."""

    found: dict[str, Any] = {}

    async def over() -> bool:
        answer = await client.call("GET", f"/tasks/{task_id}")
        found.update(answer.json)
        return answer.status == 200 and found["status"] in FINAL

    await until(over, ENDED_S, every_s=0.1, what=f"{task_id} ends")
    return found


def _any(rig: Rig, chaos: Chaos) -> Client:
    return rig.client(chaos.random.choice(chaos.living()))


@row(51, title="Evolution (2.3) hangs, resets, refuses the key, answers after the timeout", setup=setup("2.3", 120))
async def doubtful_2_3(rig: Rig, chaos: Chaos) -> None:
    """`retry`: sent, perhaps twice; `dead`: at most once, and the task says that nobody knows."""
    await doubtful(rig, chaos)


@row("51b", title="the same (2.4)", setup=setup("2.4", 120))
async def doubtful_2_4(rig: Rig, chaos: Chaos) -> None:
    """Sent, and once, whatever the policy."""
    await doubtful(rig, chaos)


@row(
    "51c",
    title=f"Evolution tells everything {COPIES} times, out of order, to nodes of which one is killed",
    allows=Allows(late_s=4.0),
    setup=setup("2.3"),
)
async def told_again(rig: Rig, chaos: Chaos) -> None:
    """Each message is in one delivery, and a delivery's messages are in the order in which they were written."""
    instance = f"in-{chaos.random.randrange(10**6)}"
    async with Sink() as sink:
        buffer = {"wait_time": 2, "mode": "debounce", "max_wait": 15, "max_size": 100, "format": "envelope"}
        route = {"webhook": {"url": sink.url()}, "buffer": buffer}
        answer = await _any(rig, chaos).call("PUT", f"/api/v1/inbound/{instance}", route)
        assert answer.status == 200, answer
        await chaos.balanced()
        victim = await chaos.pick()
        tellings = [
            _tell(rig, chaos, _upsert(instance, contact, number), chaos.random.uniform(0, JITTER_S * MESSAGES / 2))
            for contact in range(CONTACTS)
            for number in range(MESSAGES)
            for _ in range(COPIES)
        ]
        telling = asyncio.gather(*tellings)
        await chaos.passing(JITTER_S)
        await chaos.kill(victim)
        results = await telling
        places = [(contact, number) for contact in range(CONTACTS) for number in range(MESSAGES)]
        names = {dedupe_id(instance, _key_id(*place)).removeprefix("wa_"): place for place in places}
        found = await _gathered(sink, names)
        await chaos.flushed_by_others(victim)
    chaos.note(f"{len(results)} webhook calls: {dict(Counter(results))}")
    chaos.note(f"{len(places)} messages in {len(found)} deliveries")
    for webhook_id, batch in found.items():
        chaos.expect(batch == sorted(batch), f"{webhook_id} is out of order: {batch}")
    times = Counter(place for batch in found.values() for place in batch)
    wrong = {place: times[place] for place in places if times[place] != 1}
    chaos.expect(not wrong, f"{len(wrong)} messages are not in one delivery: {dict(list(wrong.items())[:4])}")


async def _gathered(sink: Sink, names: dict[str, tuple[int, int]]) -> dict[str, list[tuple[int, int]]]:
    """What each delivery held, when all messages have come and nothing comes any more."""
    found: dict[str, list[tuple[int, int]]] = {}

    async def all_here() -> bool:
        for request in sink.requests:
            ids = [each["message_id"].rpartition("_")[2] for each in msgspec.json.decode(request.body)["messages"]]
            found[request.headers["webhook-id"]] = [names[each] for each in ids]
        return len({place for batch in found.values() for place in batch}) == len(names)

    await until(all_here, LATEST_S, every_s=0.2, what="all messages are delivered")
    await passing(QUIET_S)
    await all_here()
    return found


async def _tell(rig: Rig, chaos: Chaos, event: dict[str, Any], after_s: float) -> str:
    """One webhook call, again at another node until it is answered well; what became of it."""
    await passing(after_s)
    path = chaos.random.choice(("/evolution/webhook", "/evolution/webhook/messages-upsert"))
    gives_up_at = monotonic() + LATEST_S
    while True:
        try:
            answer = await rig.client(chaos.random.choice(rig.nodes)).call("POST", path, event)
        except (aiohttp.ClientError, TimeoutError):
            answer = None
        if answer is not None and answer.status == 200:
            return str(answer.json["result"])
        assert monotonic() < gives_up_at, f"the webhook was not taken within {LATEST_S:g} s: {answer}"
        await passing(0.3)


def _key_id(contact: int, number: int) -> str:
    return f"3A{contact:04d}{number:04d}"


def _upsert(instance: str, contact: int, number: int) -> dict[str, Any]:
    key = {"remoteJid": f"{PHONE_FROM + contact}@s.whatsapp.net", "fromMe": False, "id": _key_id(contact, number)}
    data = {
        "key": key,
        "pushName": "Ana",
        "message": {"conversation": f"{contact}.{number}"},
        "messageType": "conversation",
        "messageTimestamp": WRITTEN_AT_S + number,
    }
    return {"event": "messages.upsert", "instance": instance, "data": data}
