"""The tests of ownership and membership in the store bite: each check taken out of their scripts is noticed.

As in `test_store_mutations`, where mutants and laws are explained.
"""

from __future__ import annotations

import pytest

from tests.integration import test_store_membership, test_store_partitions
from tests.integration.test_store_mutations import FENCE, Mutant, noticed
from tests.support.valkey import ValkeyServer

MEMBERSHIP, PARTITIONS = test_store_membership, test_store_partitions
ACQUIRED = PARTITIONS.test_an_epoch_is_above_the_stored_one_the_highest_seen_and_the_time
GIVEN = PARTITIONS.test_a_moves_epoch_is_above_the_stored_one_and_the_time
STORED, TIME, SEEN = "tonumber(stored) + 1, ", "t[1] * 1000000 + t[2], ", ", tonumber(seen) + 1"

MUTANTS = {
    "resign without its fence": Mutant(
        "resign", "if not fence then", "if true then", PARTITIONS.test_giving_up_under_an_old_epoch_changes_nothing
    ),
    "a resignation that forgets the epoch": Mutant(
        "resign", "'node', '')", "'node', '', 'ep', '0')", PARTITIONS.test_a_partition_that_was_given_up_is_nobodys
    ),
    "acquire without comparing": Mutant(
        "acquire", "stored ~= expected", "false", PARTITIONS.test_of_two_that_reach_for_a_partition_one_gets_it
    ),
    "two that reach for everything, without comparing": Mutant(
        "acquire",
        "stored ~= expected",
        "false",
        PARTITIONS.test_two_nodes_that_reach_for_everything_share_it_without_overlap,
    ),
    "an acquired epoch that forgets the stored one": Mutant("acquire", STORED, "", ACQUIRED),
    "an acquired epoch that ignores the time": Mutant("acquire", TIME, "", ACQUIRED),
    "an acquired epoch that forgets what was seen": Mutant("acquire", SEEN, "", ACQUIRED),
    "a take-over that leaves what was in hand": Mutant(
        "acquire", "ipairs(busy)", "ipairs({})", PARTITIONS.test_the_new_owner_takes_over_what_was_in_hand
    ),
    "a given epoch that forgets the stored one": Mutant(
        "hand_over", "math.max(" + STORED, "math.max(", GIVEN, also=((SEEN, ""),)
    ),
    "a given epoch that ignores the time": Mutant("hand_over", TIME, "", GIVEN),
    "a move without its fence": Mutant(
        "hand_over", FENCE, "", PARTITIONS.test_a_move_under_an_old_epoch_is_refused_and_changes_nothing
    ),
    "a move under the epoch before": Mutant(
        "hand_over",
        "'ep', epoch, 'node', node",
        "'node', node",
        PARTITIONS.test_a_planned_move_makes_another_node_the_owner,
    ),
    "a move that leaves what was in hand": Mutant(
        "hand_over",
        "  put_back(p, epoch, now)\n",
        "",
        PARTITIONS.test_what_was_in_hand_at_a_move_may_start_again,
    ),
    "a beat under another's name": Mutant(
        "beat",
        "string.sub(own, 1, #incarnation) ~= incarnation",
        "false",
        MEMBERSHIP.test_a_name_belongs_to_the_process_that_came_last,
    ),
    "a first beat that finds the name taken": Mutant(
        "beat", " and beat ~= '1'", "", MEMBERSHIP.test_a_name_belongs_to_the_process_that_came_last
    ),
    "two of a name that both go on": Mutant(
        "beat",
        "string.sub(own, 1, #incarnation) ~= incarnation",
        "false",
        MEMBERSHIP.test_two_processes_of_one_name_do_not_both_go_on,
    ),
    "the living are buried": Mutant(
        "beat",
        "string.sub(stands, 1, #ARGV[at + 1]) == ARGV[at + 1]",
        "true",
        MEMBERSHIP.test_the_dead_are_buried_as_they_were_seen,
    ),
    "the dead are not buried": Mutant(
        "beat",
        "redis.call('HDEL', KEYS[2], ARGV[at])",
        "redis.call('HLEN', KEYS[2])",
        MEMBERSHIP.test_the_dead_are_buried_as_they_were_seen,
    ),
    "a beat into another cluster's store": Mutant(
        "beat", "found ~= ARGV[1]", "false", MEMBERSHIP.test_a_store_that_became_another_clusters_is_let_go
    ),
    "a beat into an empty store": Mutant(
        "beat",
        "found ~= ARGV[1]",
        "found ~= '' and found ~= ARGV[1]",
        MEMBERSHIP.test_a_store_that_was_emptied_is_noticed_by_the_next_beat,
    ),
    "a log without an end": Mutant(
        "beat", "'MAXLEN', '~', ARGV[at], ", "", MEMBERSHIP.test_the_log_does_not_grow_for_ever
    ),
    "a log that stays": Mutant(
        "beat", "redis.call('EXPIRE', KEYS[3], 604800)", "", MEMBERSHIP.test_the_log_does_not_grow_for_ever
    ),
    "a full store that hears no signs of life": Mutant(
        "beat", " flags=allow-oom", "", MEMBERSHIP.test_signs_of_life_get_through_when_memory_is_full
    ),
    "whoever leaves takes another's record along": Mutant(
        "leave",
        "string.sub(own, 1, #ARGV[2]) == ARGV[2]",
        "true",
        MEMBERSHIP.test_who_leaves_takes_its_record_along,
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_check_that_is_missing_is_noticed(
    own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """By the test that is there for it."""
    await noticed(MUTANTS[name], own_valkey, monkeypatch)
