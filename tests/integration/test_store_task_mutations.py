"""The tests of tasks in the store bite: each check that is taken out of a script makes one of them fail.

As in `test_store_mutations`, where mutants and laws are explained.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest

from tests.integration import (
    test_store_receipts,
    test_store_task_attempts,
    test_store_task_lists,
    test_store_task_replay,
    test_store_tasks,
)
from tests.integration.test_store_mutations import Mutant, noticed
from tests.support.store import Hand
from tests.support.tasks import TaskHand
from tests.support.valkey import ValkeyServer

ATTEMPTS, LISTS, RECEIPTS = test_store_task_attempts, test_store_task_lists, test_store_receipts
REPLAY, TASKS = test_store_task_replay, test_store_tasks
FIRST_READY = "if code == 2 then redis.call('ZADD', p .. 'ready', now, id) end"


def law(test: Callable[..., Any]) -> Callable[..., Any]:
    """A test of tasks, for a hand."""

    @wraps(test)
    async def of_hand(hand: Hand, **extra: Any) -> None:
        await test(at_work=TaskHand(hand), **extra)

    del of_hand.__wrapped__
    return of_hand


MUTANTS = {
    "an id that is taken twice": Mutant(
        "enqueue", "'d:' .. id) == 0", "'d:' .. id) >= 0", law(TASKS.test_an_id_is_stored_once)
    ),
    "everybody of a contact is the first": Mutant(
        "enqueue",
        FIRST_READY,
        FIRST_READY.replace("code == 2", "true"),
        law(TASKS.test_a_contact_gets_its_messages_in_order),
    ),
    "a later task that stands in its line": Mutant(
        "enqueue", "if due > now then", "if false then", law(TASKS.test_a_later_task_is_not_in_its_line_before_its_time)
    ),
    "a later task that overtakes": Mutant(
        "claim",
        "id) > 1 then return {'GONE'} end",
        "id) > 1 then d[10] = nil end",
        law(TASKS.test_a_task_whose_time_has_come_waits_behind_who_is_there),
    ),
    "a later task that joins no line": Mutant(
        "claim", "if d[10] then", "if false then", law(TASKS.test_who_comes_after_a_task_whose_time_has_come_waits)
    ),
    "a task that joins its line each time": Mutant(
        "claim",
        "redis.call('HDEL', p .. 'd:' .. id, 'w')",
        "",
        law(TASKS.test_a_task_whose_time_has_come_waits_behind_who_is_there),
    ),
    "a named time that moves with the clock": Mutant(
        "turn_back",
        "redis.call('HEXISTS', record, 'w') == 0",
        "true",
        law(TASKS.test_a_clock_that_is_turned_back_leaves_the_time_that_was_named),
    ),
    "a full store that takes tasks": Mutant(
        "enqueue", "#!lua\n", "#!lua flags=allow-oom\n", RECEIPTS.test_a_receipt_comes_through_when_memory_is_full
    ),
    "a held task that crashed": Mutant(
        "settle",
        "redis.call('HINCRBY', record, 'x', -1)",
        "",
        law(ATTEMPTS.test_a_held_task_uses_up_no_retry),
    ),
    "a held task that failed": Mutant(
        "settle",
        "if status == 'held' then",
        "if status == 'held' then redis.call('HINCRBY', record, 'f', 1)",
        law(ATTEMPTS.test_a_held_task_uses_up_no_retry),
    ),
    "a cut-off that is not told": Mutant(
        "claim", "cut_off and 1 or 0", "0", law(ATTEMPTS.test_a_try_that_was_cut_off_is_told_to_the_next)
    ),
    "every second try was cut off": Mutant(
        "claim", "or '', '^%d')", "or '', '^.')", law(ATTEMPTS.test_a_failed_try_counts_and_waits)
    ),
    "a webhook that was cut off": Mutant(
        "claim",
        "is_task(id) and attempt > tonumber",
        "attempt > tonumber",
        law(ATTEMPTS.test_a_webhook_is_never_said_to_have_been_cut_off),
    ),
    "a doubt that whoever wants another try does not take upon himself": Mutant(
        "requeue",
        "redis.call('HSET', record, 'rq', redis.call('HGET', record, 'a'))",
        "",
        law(ATTEMPTS.test_who_wants_it_tried_again_takes_the_doubt_upon_himself),
    ),
    "an untried claim that counts": Mutant(
        "release",
        "if untried == '1' and is_task(id) then",
        "if false then",
        law(ATTEMPTS.test_a_claim_that_was_given_back_untried_was_none),
    ),
    "a claim given back that was never made": Mutant(
        "release",
        "untried == '1' and ",
        "",
        law(ATTEMPTS.test_a_try_that_a_drain_gives_back_may_have_been_sent),
    ),
    "a log without an end": Mutant(
        "settle",
        "redis.call('HDEL', record, 'l' .. (tonumber(attempt) - LINES_MAX))",
        "",
        law(ATTEMPTS.test_a_log_is_bounded),
    ),
    "a task revoked while it waits for a retry": Mutant(
        "discard",
        "not is_task(id) and ",
        "",
        law(ATTEMPTS.test_only_a_task_that_has_not_started_is_revoked),
        {"status": "retrying", "kept_as": "retrying"},
    ),
    "an old result of a task that is tried again": Mutant(
        "requeue", "redis.call('HDEL', record, 'res', 'eta')", "", law(ATTEMPTS.test_a_dead_task_can_be_tried_again)
    ),
    "a result that is not kept": Mutant(
        "settle", "if result ~= '' then", "if false then", law(ATTEMPTS.test_a_task_that_was_sent_keeps_its_result)
    ),
    "a retry that is counted as pending": Mutant(
        "settle",
        "status == 'retrying' and 'SADD' or 'SREM'",
        "'SREM'",
        law(LISTS.test_a_task_is_counted_in_one_state_at_a_time),
    ),
    "a retry that is counted for ever": Mutant(
        "claim",
        "status == 'retrying' and 'SADD' or 'SREM'",
        "'SADD'",
        law(LISTS.test_a_task_is_counted_in_one_state_at_a_time),
    ),
    "webhooks that are counted as started": Mutant(
        "task_counts", "if is_task(id) then", "if true then", law(LISTS.test_tasks_are_counted_by_their_state)
    ),
    "what is forgotten is counted": Mutant(
        "settle",
        "redis.call('ZREMRANGEBYSCORE', filed, '-inf', now - ttl_ms)",
        "",
        LISTS.test_numbers_and_lists_leave_out_what_is_forgotten_while_others_are_kept,
    ),
    "records of tasks that stay": Mutant(
        "settle",
        "redis.call('PEXPIRE', p .. 'd:' .. id, ttl_ms)",
        "",
        law(LISTS.test_every_key_of_an_ended_task_expires),
    ),
    "marks that stay": Mutant(
        "settle",
        "redis.call('PEXPIRE', sent, kept.task)",
        "",
        law(LISTS.test_every_key_of_an_ended_task_expires),
    ),
    "tasks among webhooks": Mutant(
        "settle",
        "(is_task(id) and 't' or '')",
        "''",
        law(LISTS.test_a_task_is_counted_in_one_state_at_a_time),
    ),
    "a list of any instance": Mutant(
        "page",
        "(host ~= '' and d[3] ~= host)",
        "false",
        law(LISTS.test_instances_of_one_partition_are_told_apart),
    ),
    "a receipt that goes back": Mutant(
        "receipt", ">= RANK[receipt]", ">= 9", law(RECEIPTS.test_a_message_comes_further_and_never_back)
    ),
    "a receipt that came too early": Mutant(
        "settle",
        "if receipt then",
        "if false then",
        law(RECEIPTS.test_a_receipt_that_comes_before_the_task_is_settled_waits),
    ),
    "a receipt for nobody that stays": Mutant(
        "receipt",
        "redis.call('PEXPIRE', sent, tonumber(ARGV[4]))",
        "",
        law(RECEIPTS.test_a_receipt_that_comes_before_the_task_is_settled_waits),
    ),
    "a receipt that lives as long as more come": Mutant(
        "receipt", "redis.call('PTTL', sent) < 0", "true", law(RECEIPTS.test_a_receipt_for_nobody_is_forgotten)
    ),
    "a receipt that makes a record": Mutant(
        "receipt",
        "redis.call('EXISTS', record) == 1",
        "true",
        law(RECEIPTS.test_a_receipt_makes_no_record_of_what_was_forgotten),
    ),
    "a full store that hears no receipts": Mutant(
        "receipt", " flags=allow-oom", "", RECEIPTS.test_a_receipt_comes_through_when_memory_is_full
    ),
    "facts without a bound": Mutant(
        "health", "if over <= 0", "if over <= 9e9", law(RECEIPTS.test_facts_of_instances_are_bounded)
    ),
    "a foreign mark that stays": Mutant(
        "note_sent",
        "redis.call('PEXPIRE', sent, tonumber(ARGV[3]))",
        "redis.call('PTTL', sent)",
        law(RECEIPTS.test_a_foreign_mark_is_forgotten_and_shortens_no_other),
    ),
    "a foreign mark that shortens ours": Mutant(
        "note_sent",
        "if redis.call('PTTL', sent) < 0 then",
        "if true then",
        law(RECEIPTS.test_a_foreign_mark_is_forgotten_and_shortens_no_other),
    ),
    "facts of which the newest go": Mutant(
        "health", "ZPOPMIN", "ZPOPMAX", law(RECEIPTS.test_facts_of_instances_are_bounded)
    ),
    "facts that stay behind": Mutant(
        "health",
        "redis.call('HDEL', KEYS[1], what .. ':' .. oldest[i])",
        "",
        law(RECEIPTS.test_facts_of_instances_are_bounded),
    ),
    "a task that comes back twice": Mutant(
        "restore_tasks",
        "redis.call('EXISTS', p .. 'd:' .. id) == 1",
        "false",
        law(REPLAY.test_lost_tasks_come_back_as_they_were),
        {"order": (0, 1, 2)},
    ),
    "tasks that come back at the end": Mutant(
        "restore_tasks",
        "if later and",
        "if false and",
        law(REPLAY.test_what_was_lost_goes_before_what_came_later),
        {"lost": (0,)},
    ),
    "a task that goes before one that is being sent": Mutant(
        "restore_tasks",
        "and not redis.call('ZSCORE', p .. 'busy', other) ",
        "",
        law(REPLAY.test_nobody_goes_before_a_task_that_is_being_sent),
    ),
    "two of a contact that may start": Mutant(
        "restore_tasks",
        "if place == 1 then redis.call('ZREM', p .. 'ready', other) end",
        "",
        law(REPLAY.test_what_was_lost_goes_before_what_came_later),
        {"lost": (0,)},
    ),
    "a task that comes back before its time": Mutant(
        "restore_tasks",
        "if due > now then",
        "if false then",
        law(REPLAY.test_a_task_that_is_wanted_later_waits_for_its_time_again),
    ),
    "a task that comes back as of now": Mutant(
        "restore_tasks",
        "if at_us == 0 then at_us = now_us end",
        "at_us = now_us",
        law(REPLAY.test_lost_tasks_come_back_as_they_were),
        {"order": (2, 1, 0)},
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_check_that_is_missing_is_noticed(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """By the test that is there for it. Only one that fills its server up needs one of its own."""
    own = "own_valkey" in inspect.signature(MUTANTS[name].law).parameters
    server: ValkeyServer = request.getfixturevalue("own_valkey" if own else "valkey")
    await noticed(MUTANTS[name], server, monkeypatch)
