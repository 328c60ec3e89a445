"""The tests of the store bite: each check that is taken out of a script makes one of them fail.

A mutant is a script with one piece of its text replaced; the law is the test that must notice. Here a test that
passes is the failure.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, settings
from msgspec import Struct

from actors.adapters.valkey import store as adapter
from actors.adapters.valkey.scripts import Script, load_all
from actors.node_ports import NodeReplaced
from actors.ports import StoreAway
from tests.integration import (
    test_store_batches,
    test_store_dedupe,
    test_store_deliveries,
    test_store_identity,
    test_store_lists,
    test_store_model,
    test_store_partitions,
    test_store_records,
    test_store_replay,
    test_store_server,
)
from tests.support.store import Hand, connected
from tests.support.valkey import ValkeyServer

BATCHES, DEDUPE, DELIVERIES = test_store_batches, test_store_dedupe, test_store_deliveries
IDENTITY, REPLAY = test_store_identity, test_store_replay
LISTS, PARTITIONS, RECORDS, SERVER = test_store_lists, test_store_partitions, test_store_records, test_store_server
WRITES = {write.name: write for write in PARTITIONS.WRITES}
NOTICED = (AssertionError, pytest.fail.Exception, StoreAway, NodeReplaced)
"""How a test says no; the last two where the store refuses what it must not."""
FENCE = "if fence then return fence end"
HEAD = "if first then redis.call('ZADD', p .. 'ready', now, id) end"


class Mutant(Struct, frozen=True):
    """`taken` out of a script, `put` in its place; `law` is called with `extra` beside its fixtures."""

    script: str
    taken: str
    put: str
    law: Callable[..., Any]
    extra: dict[str, Any] = {}
    also: tuple[tuple[str, str], ...] = ()
    """More of the same, where two checks stand in for each other."""

    def scripts(self) -> dict[str, Script]:
        """All scripts, this one among them."""
        scripts = load_all()
        text = scripts[self.script].source.decode()
        for taken, put in ((self.taken, self.put), *self.also):
            assert taken in text, "the script has changed; so must its mutant"
            text = text.replace(taken, put)
        source = text.encode()
        sha = hashlib.sha1(source, usedforsecurity=False).hexdigest()
        return scripts | {self.script: Script(self.script, source, sha)}


def _fence(script: str, write: str) -> Mutant:
    law = PARTITIONS.test_a_write_under_an_old_epoch_is_refused_and_changes_nothing
    return Mutant(script, FENCE, "", law, {"write": WRITES[write]})


MUTANTS = {
    "close without its fence": _fence("close", "close"),
    "cancel without its fence": _fence("cancel", "cancel"),
    "claim without its fence": _fence("claim", "claim"),
    "settle without its fence": _fence("settle", "settle delivered"),
    "release without its fence": _fence("release", "release ready"),
    "requeue without its fence": _fence("requeue", "requeue dead"),
    "discard without its fence": _fence("discard", "discard pending"),
    "a fence that looks at the name": Mutant(
        "claim",
        "if own[1] == epoch then",
        "if own[2] == 'node-1' then",
        PARTITIONS.test_the_owner_itself_is_refused_under_its_older_epoch,
    ),
    "a take-over that leaves what was in hand": Mutant(
        "acquire", "ipairs(busy)", "ipairs({})", PARTITIONS.test_the_new_owner_takes_over_what_was_in_hand
    ),
    "no dedupe": Mutant(
        "append", "recent, dedupe) == 0", "recent, dedupe) < 0", BATCHES.test_an_id_of_a_key_is_taken_once
    ),
    "dedupe in one window": Mutant(
        "append",
        "'i:' .. (bucket - 1)",
        "'none'",
        DEDUPE.test_an_id_is_remembered_across_the_border_of_two_windows,
    ),
    "a long batch that forgets its own ids": Mutant(
        "append",
        "now - first > window",
        "false",
        DEDUPE.test_an_open_batch_that_outlives_the_window_knows_its_own_ids,
        {"messages": DEDUPE._messages((60_000, 0), (60_000, 0))},
    ),
    "payloads taken for ids": Mutant(
        "append", "at % 3 == 0", "true", DEDUPE.test_only_ids_count_in_a_batch_that_outlives_the_window
    ),
    "one message too many": Mutant(
        "append", "n >= max_size", "n > max_size", BATCHES.test_the_message_that_fills_a_batch_closes_it
    ),
    "one byte too many": Mutant(
        "append", "b >= max_bytes", "b > max_bytes", BATCHES.test_a_batch_closes_when_its_bytes_are_in
    ),
    "a window that moves": Mutant(
        "append", "elseif n == 1 then", "else", BATCHES.test_a_window_keeps_the_deadline_of_its_first_message
    ),
    "a debounce without an end": Mutant(
        "append",
        "math.min(now + wait, first + max_wait)",
        "now + wait",
        BATCHES.test_a_debounce_waits_for_quiet_but_not_for_ever,
    ),
    "a close that believes its caller": Mutant(
        "close",
        "deadline > tonumber(believed)",
        "false",
        BATCHES.test_a_batch_that_closes_later_than_believed_stays_open,
    ),
    "a close that cannot be repeated": Mutant(
        "close", "if known[1] then", "if false then", BATCHES.test_closing_again_under_the_same_id_gives_the_same_answer
    ),
    "everybody is the head, closed by its owner": Mutant(
        "close", HEAD, HEAD.replace("first", "true"), DELIVERIES.test_only_the_head_of_a_line_can_be_claimed
    ),
    "everybody is the head, tried again": Mutant(
        "requeue",
        HEAD,
        HEAD.replace("first", "true"),
        DELIVERIES.test_a_dead_delivery_that_comes_back_joins_the_end_of_its_line,
    ),
    "whoever leaves calls the next": Mutant(
        "discard",
        "if not was_head then",
        "if false then",
        DELIVERIES.test_a_discarded_delivery_never_starts_and_the_next_may,
        {"state": "behind"},
    ),
    "claimed by two": Mutant(
        "claim",
        "  redis.call('ZREM', p .. 'ready', id)\n",
        "",
        DELIVERIES.test_a_delivery_is_claimed_by_one,
    ),
    "a claim that is not counted": Mutant(
        "claim",
        "tonumber(d[8]) + 1",
        "tonumber(d[8])",
        DELIVERIES.test_a_delivery_that_stops_its_nodes_is_dead_after_five_claims,
    ),
    "one claim too many": Mutant(
        "claim",
        ">= tonumber(ARGV[1])",
        "> tonumber(ARGV[1])",
        DELIVERIES.test_a_delivery_that_stops_its_nodes_is_dead_after_five_claims,
    ),
    "failures taken for crashes": Mutant(
        "claim", "tonumber(d[8]) - tonumber(d[2])", "tonumber(d[8])", DELIVERIES.test_settled_attempts_are_no_crashes
    ),
    "a release taken for a crash": Mutant(
        "release", "'x', -1", "'x', 0", DELIVERIES.test_a_released_delivery_was_not_tried
    ),
    "settled by an older attempt": Mutant(
        "settle", "or d[2] ~= attempt", "", DELIVERIES.test_an_attempt_is_settled_once
    ),
    "settled without being under way": Mutant(
        "settle", "d[1] ~= 'delivering' or", "", DELIVERIES.test_an_attempt_is_settled_once
    ),
    "a discard of what is under way": Mutant(
        "discard",
        "or d[1] == 'dead'))",
        "or d[1] == 'dead' or d[1] == 'delivering'))",
        DELIVERIES.test_what_is_under_way_or_done_is_neither_retried_nor_discarded,
        {"status": "delivering"},
    ),
    "a dead letter that comes back and expires": Mutant(
        "requeue",
        "redis.call('PERSIST', p .. 'o:' .. id)",
        "",
        DELIVERIES.test_a_dead_delivery_that_comes_back_does_not_expire,
    ),
    "records that stay for ever": Mutant(
        "settle",
        "redis.call('PEXPIRE', p .. 'd:' .. id, ttl_ms)",
        "",
        RECORDS.test_when_all_is_done_nothing_is_left_but_owners_and_the_format,
    ),
    "pages that start over among ties": Mutant(
        "page",
        "or comes_after(found[j], passed_name)",
        "or true",
        LISTS.test_open_batches_are_listed_once_each_whatever_the_page_size,
        {"limit": 3},
    ),
    "pages that skip ties": Mutant(
        "page",
        "or comes_after(found[j], passed_name)",
        "",
        LISTS.test_open_batches_are_listed_once_each_whatever_the_page_size,
        {"limit": 3},
    ),
    "messages taken by a full store": Mutant(
        "append", "#!lua\n", "#!lua flags=allow-oom\n", SERVER.test_a_full_store_takes_no_message_but_can_be_emptied
    ),
    "a full store that cannot be emptied": Mutant(
        "settle", " flags=allow-oom", "", SERVER.test_a_full_store_takes_no_message_but_can_be_emptied
    ),
    "a replay that puts everything at the end": Mutant(
        "restore",
        "before - 2)) > at do",
        "before - 2)) > 9e99 do",
        REPLAY.test_messages_of_a_key_keep_their_order_whoever_had_them,
    ),
    "a replay that adds what is known": Mutant(
        "restore",
        "recent, dedupe) == 0",
        "recent, dedupe) < 0",
        REPLAY.test_messages_of_a_key_keep_their_order_whoever_had_them,
    ),
    "a replay that is refused when memory is full": Mutant(
        "restore", " flags=allow-oom", "", SERVER.test_a_full_server_takes_back_what_it_had_acknowledged
    ),
    "a replay that overfills batches": Mutant(
        "reclose",
        "if not count then return 0 end",
        "if true then return 0 end",
        REPLAY.test_batches_that_fill_up_again_close_in_order_and_are_not_overfilled,
    ),
    "an identity that is written over": Mutant(
        "identity", "== 1 then return {0}", "== 2 then return {0}", IDENTITY.test_the_record_is_written_once
    ),
}

NOTICED_BY_THE_MODEL = (
    "no dedupe",
    "one message too many",
    "one byte too many",
    "everybody is the head, closed by its owner",
    "settled by an older attempt",
    "a take-over that leaves what was in hand",
    "discard without its fence",
)


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_check_that_is_missing_is_noticed(
    own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """By the test that is there for it."""
    await noticed(MUTANTS[name], own_valkey, monkeypatch)


async def noticed(mutant: Mutant, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Call a mutant's law, which must say no to it."""
    scripts = mutant.scripts()  # here: a mutant that has no place any more is no mutant that was noticed
    monkeypatch.setattr(adapter, "load_all", lambda: scripts)

    with pytest.raises(NOTICED):
        await _call(mutant, server)


async def _call(mutant: Mutant, server: ValkeyServer) -> None:
    """Call the law with what it asks for."""
    wanted = inspect.signature(mutant.law).parameters
    if "hand" in wanted:
        async with connected(server) as store:
            await mutant.law(hand=Hand(server, store), **mutant.extra)
    else:
        servers = {fixture: server for fixture in ("any_store", "own_store", "own_valkey") if fixture in wanted}
        await mutant.law(**servers, **mutant.extra)


@pytest.mark.parametrize("name", NOTICED_BY_THE_MODEL)
def test_the_model_notices_too(valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Without being told where to look."""
    scripts = MUTANTS[name].scripts()
    monkeypatch.setattr(adapter, "load_all", lambda: scripts)
    bounds = settings(
        max_examples=100, stateful_step_count=30, deadline=None, derandomize=True, phases=[Phase.generate]
    )

    with pytest.raises(AssertionError):
        test_store_model.lives(valkey, bounds)
