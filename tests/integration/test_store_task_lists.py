"""Lists and numbers of tasks in the real store, and how long anything is kept of them."""

from __future__ import annotations

from itertools import count

import pytest

from actors.adapters.valkey.deliveries import Kept
from actors.adapters.valkey.keys import PREFIXES
from actors.core.partition import PARTITIONS
from actors.core.tasks import TaskState
from actors.ports import DeliveryFilter, ListCursor
from actors.task_ports import NewTask, TaskFilter
from router.edge.paging import Cursor
from tests.support.store import Hand, all_deliveries, connected, key_names, pages
from tests.support.tasks import HOUR_MS, MARK, PARTITION, RESULT, TaskHand, policy, task
from tests.support.until import until
from tests.support.valkey import ValkeyServer

SHORT = Kept(delivered_ms=60_000, dead_ms=60_000, task_ms=300)
NONE = {"PENDING": 0, "STARTED": 0, "RETRY": 0, "SUCCESS": 0, "FAILURE": 0, "REVOKED": 0}
STATES: tuple[TaskState, ...] = ("PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE", "REVOKED")


@pytest.fixture
def at_work(hand: Hand) -> TaskHand:
    """A node at work with tasks."""
    return TaskHand(hand)


async def one_of_each(at_work: TaskHand, instance: str) -> dict[TaskState, NewTask]:
    """A task in every state, each of a contact of its own."""
    made = {state: task(f"{number}@g.us", instance=instance) for number, state in enumerate(STATES)}
    await at_work.enqueue(*made.values())
    await at_work.hand.claimed(made["STARTED"].task_id)
    await at_work.ended(made["RETRY"], "retrying", retry_in_ms=HOUR_MS)
    await at_work.ended(made["SUCCESS"], "delivered", result=RESULT)
    await at_work.ended(made["FAILURE"], "dead")
    await at_work.hand.discard(made["REVOKED"].task_id)
    return made


async def test_every_task_is_listed_once_whatever_the_page(at_work: TaskHand) -> None:
    """Unfinished ones first, then failed, sent and revoked ones."""
    made = [await one_of_each(at_work, instance) for instance in ("a", "b", "c")]
    expected = {of.task_id for each in made for of in each.values()}
    for limit in (1, 2, 5, 18, 1000):
        listed = await at_work.listed(limit=limit)
        assert len(listed) == len(expected)
        assert set(listed) == expected
        ends = [{each[state].task_id for each in made} for state in ("FAILURE", "SUCCESS", "REVOKED")]
        assert [set(listed[at : at + 3]) for at in (9, 12, 15)] == ends


async def test_every_place_in_a_list_can_be_asked_for(at_work: TaskHand) -> None:
    """A caller gets it as text, and the last list is as good as the first."""
    await one_of_each(at_work, "a")
    seen: list[str] = []
    at: ListCursor | None = ListCursor()
    while at is not None:
        rows, at = await at_work.tasks.list_tasks(TaskFilter(), at, 1)
        seen += [row.state for row in rows]
        if at is not None:
            assert Cursor(ListCursor).decode(Cursor(ListCursor).encode(at)) == at
    assert set(seen) == set(STATES)


async def test_a_list_shows_what_is_wanted(at_work: TaskHand) -> None:
    """By state, by instance, by both; an instance nobody knows has none."""
    made = {instance: await one_of_each(at_work, instance) for instance in ("a", "b")}
    for limit in (1, 1000):
        for state in STATES:
            both = {made[instance][state].task_id for instance in made}
            assert set(await at_work.listed(TaskFilter(state=state), limit)) == both
            wanted = TaskFilter(state=state, instance="b")
            assert await at_work.listed(wanted, limit) == [made["b"][state].task_id]
        of_one = {of.task_id for of in made["a"].values()}
        assert set(await at_work.listed(TaskFilter(instance="a"), limit)) == of_one
    assert await at_work.listed(TaskFilter(instance="nobody")) == []


async def test_instances_of_one_partition_are_told_apart(at_work: TaskHand) -> None:
    """The list of one does not show the other's."""
    one = task(instance="one")
    others = (task(instance=f"i{number}") for number in count())
    twin = next(of for of in others if of.partition == one.partition)
    await at_work.enqueue(one, twin)
    assert await at_work.listed(TaskFilter(instance=twin.host.removeprefix("evolution:"))) == [twin.task_id]


@pytest.mark.parametrize("cursor", [ListCursor(stage=3, partition=7), ListCursor(partition=255, score="x")])
async def test_a_place_that_is_not_in_the_list_is_its_end(at_work: TaskHand, cursor: ListCursor) -> None:
    """Cursors come from outside."""
    await one_of_each(at_work, "a")
    assert await at_work.tasks.list_tasks(TaskFilter(state="PENDING", instance="a"), cursor, 10) == ([], None)


async def test_tasks_are_counted_by_their_state(at_work: TaskHand) -> None:
    """Over all partitions; those of webhooks are not among them."""
    assert await at_work.tasks.counts() == NONE
    for instance in ("a", "b", "c"):
        await one_of_each(at_work, instance)
    delivery = await at_work.hand.frozen("k", "m1")
    await at_work.hand.claimed(delivery)
    await at_work.hand.frozen("k2", "m1")

    assert await at_work.tasks.counts() == dict.fromkeys(STATES, 3)


async def test_a_task_is_counted_in_one_state_at_a_time(at_work: TaskHand) -> None:
    """Through all of its life."""
    new = await at_work.queued()
    assert await at_work.tasks.counts() == NONE | {"PENDING": 1}
    await at_work.hand.claimed(new.task_id)
    assert await at_work.tasks.counts() == NONE | {"STARTED": 1}
    await at_work.settle(new, 1, "retrying")
    assert await at_work.tasks.counts() == NONE | {"RETRY": 1}
    await at_work.hand.claimed(new.task_id)
    assert await at_work.tasks.counts() == NONE | {"STARTED": 1}
    await at_work.settle(new, 2, "dead")
    assert await at_work.tasks.counts() == NONE | {"FAILURE": 1}
    await at_work.hand.requeue(new.task_id)
    assert await at_work.tasks.counts() == NONE | {"PENDING": 1}
    await at_work.hand.discard(new.task_id)
    assert await at_work.tasks.counts() == NONE | {"REVOKED": 1}


async def test_webhooks_and_tasks_are_not_in_each_others_lists(at_work: TaskHand) -> None:
    """Dead, done or waiting; and a deliveries' census does not count tasks."""
    made = await one_of_each(at_work, "a")
    waiting = await at_work.hand.frozen("k1", "m1")
    done, dead, gone = [await at_work.hand.frozen(key, "m1") for key in ("k2", "k3", "k4")]
    await at_work.hand.ended(done, "delivered")
    await at_work.hand.ended(dead, "dead")
    await at_work.hand.discard(gone)

    assert set(await at_work.listed()) == {of.task_id for of in made.values()}
    found = await all_deliveries(at_work.hand.store)
    assert {record.delivery_id for record in found} == {waiting, done, dead, gone}
    assert len(await all_deliveries(at_work.hand.store, DeliveryFilter(status="dead"))) == 1
    census = await at_work.hand.store.partitions.census(range(PARTITIONS))
    assert census.undelivered == 1


async def test_what_has_ended_is_forgotten_in_time(any_store: ValkeyServer) -> None:
    """Records, lists, marks and numbers: after the time for results, and all by themselves."""
    async with connected(any_store, kept=SHORT) as store:
        at_work = TaskHand(Hand(any_store, store))
        made = await one_of_each(at_work, "a")
        extra = await at_work.queued("9@g.us", instance="a")
        await at_work.sent(extra)
        assert (await at_work.tasks.counts())["SUCCESS"] == 2
        ended = [made["SUCCESS"], made["FAILURE"], made["REVOKED"], extra]

        async def forgotten() -> bool:
            return await at_work.states(*ended) == [None] * 4

        await until(forgotten, what="the end of the records")

        assert await at_work.tasks.counts() == dict.fromkeys(STATES, 1) | {"SUCCESS": 0, "FAILURE": 0, "REVOKED": 0}
        left = {made[state].task_id for state in ("PENDING", "STARTED", "RETRY")}
        assert set(await at_work.listed()) == left
        names = {name.split(":")[2] for name in key_names(any_store) if not name.endswith("cfg")}
        assert names == {"own", "d", "o", "q", "ready", "busy", "tlive", "tretry"}


async def test_numbers_and_lists_leave_out_what_is_forgotten_while_others_are_kept(any_store: ValkeyServer) -> None:
    """A list that lives on because of a new entry does not show the old."""
    async with connected(any_store, kept=SHORT) as store:
        at_work = TaskHand(Hand(any_store, store))
        old = await at_work.queued()
        await at_work.ended(old, "dead")

        async def forgotten() -> bool:
            another = await at_work.queued("8@g.us")
            await at_work.ended(another, "dead")
            return await at_work.states(old) == [None]

        await until(forgotten, every_s=0.05, what="the end of the record")

        listed = await at_work.listed(TaskFilter(state="FAILURE"))
        assert old.task_id not in listed
        assert (await at_work.tasks.counts())["FAILURE"] <= len(listed) + 1
        assert old.task_id not in str(any_store.command("ZRANGE", f"{PREFIXES[PARTITION]}tdead", 0, -1))


async def test_every_key_of_an_ended_task_expires(at_work: TaskHand) -> None:
    """Whatever happened to it before; what is not tasks' own stays."""
    new = await at_work.queued(policy=policy(on_unknown="dead"))
    await at_work.ended(new, "dead")
    await at_work.hand.requeue(new.task_id)
    everlasting = {name.split(":")[2] for name in key_names(at_work.hand.server, everlasting=True) if ":d:" in name}
    assert everlasting == {"d"}
    await at_work.ended(new, "delivered", result=RESULT, mark=MARK)

    kept = {name.split(":")[2] for name in key_names(at_work.hand.server, everlasting=True) if not name.endswith("cfg")}

    assert kept == {"own"}


async def test_a_page_goes_on_after_many_that_nobody_wants(at_work: TaskHand) -> None:
    """Rows are looked at in bounded numbers; the list is whole all the same."""
    many = [task(f"{number}@g.us", instance="a") for number in range(1200)]
    await at_work.enqueue(*many)
    await at_work.ended(many[-1], "retrying", retry_in_ms=HOUR_MS)
    wanted = TaskFilter(state="RETRY", instance="a")
    found = await pages(lambda cursor: at_work.tasks.list_tasks(wanted, cursor, 10))
    assert [row.task_id for page in found for row in page] == [many[-1].task_id]
