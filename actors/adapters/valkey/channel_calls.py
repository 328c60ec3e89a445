"""Channel calls: what the scripts of channels are called with, and what their replies say."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from actors.adapters.valkey.keys import AWAKE_CHANNEL, PREFIXES
from actors.adapters.valkey.runner import Transition
from actors.channel_ports import (
    ChannelName,
    Ingest,
    Position,
    Publication,
    Publish,
    Published,
    Recall,
    Recalled,
    Report,
)
from actors.core.partition import dedupe_id

HEAD_MS_MIN = 86_400_000
"""A position in a stream that was quiet for a day still says what it said."""
MARK_MS = 600_000
REPORT_S = 6.0
"""Three reports: one that is late makes nobody vanish."""
MARKED_BYTES_MAX = 4 * 1024 * 1024
"""What one call reads of all streams together, beyond one message of each: other requests wait behind it."""
SEED_BYTES = 6
_FIELDS_PER_PUBLISHED = 5
_FIELDS_PER_PUBLICATION = 3


class ChannelOptions(Struct, frozen=True, kw_only=True):
    """A stream keeps `history_size` messages until it was quiet for `history_ms`; for `once_ms` it is known which
    messages were published once. `incarnation` is the node's own."""

    history_size: int
    history_ms: int
    once_ms: int
    incarnation: str


class Publishes:
    """The scripts that write streams. `entropy` gives random bytes, `others` the incarnations of the other nodes."""

    def __init__(
        self, options: ChannelOptions, entropy: Callable[[int], bytes], others: Callable[[], Sequence[str]]
    ) -> None:
        self._options = options
        self._head_ms = max(HEAD_MS_MIN, 2 * options.history_ms)
        self._entropy = entropy
        self._others = others
        self.publish: Transition[Publish, Published] = Transition("publish", self._publish, _published)
        self.ingest: Transition[Ingest, bool] = Transition("ingest", self._ingest, _flags)
        self.mark: Transition[Recall, Recalled] = Transition("mark", self._mark, _recalled_all)

    def _head(self) -> list[Any]:
        seed = urlsafe_b64encode(self._entropy(SEED_BYTES))
        return [seed, self._options.history_size, self._options.history_ms, self._head_ms]

    def _publish(self, messages: Sequence[Publish]) -> list[Any]:
        others = self._others()
        arguments = [*self._head(), self._options.once_ms, len(others), *others]
        for each in messages:
            channel = each.channel
            once = once_name(channel.kid, each.id) if each.once else ""
            arguments += (PREFIXES[channel.partition], channel.kid, channel.name, once, each.id, each.data)
        return arguments

    def _ingest(self, batches: Sequence[Ingest]) -> list[Any]:
        arguments = [*self._head(), MARK_MS]
        for each in batches:
            arguments += (PREFIXES[each.partition], each.channel.kid, *(each.gone or ("", 0)))
            arguments += (each.mark, each.number, len(each.messages))
            for message in each.messages:
                arguments += message
        return arguments

    def _mark(self, recalls: Sequence[Recall]) -> list[Any]:
        arguments = [*self._head(), MARKED_BYTES_MAX]
        for each in recalls:
            arguments += (*recall_arguments(each), each.mark, each.last_id)
        return arguments


def probe_arguments(seed: bytes, kept_ms: int, prefix: str, kid: str, name: str, number: int) -> list[Any]:
    """What publishes a number on a channel of which nothing stays for longer."""
    return [seed, 1, kept_ms, kept_ms, kept_ms, 0, prefix, kid, name, "", "probe", number]


def once_name(kid: str, message_id: str) -> str:
    """What stands for a message id of a channel in the name of a key."""
    return urlsafe_b64encode(dedupe_id(kid, message_id)).decode().rstrip("=")


def recall_arguments(recall: Recall) -> tuple[Any, ...]:
    """What a stream is read with."""
    epoch, offset = ("", "") if recall.since is None else (recall.since.epoch, recall.since.offset)
    return PREFIXES[recall.partition], recall.channel.kid, epoch, offset, recall.limit, recall.bytes_max


def recalled(reply: Sequence[Any]) -> Recalled:
    """`{epoch, top, more, {offset, id, data, …}}`, and of a mark also the newest message's id."""
    epoch, top, more, flat, *newest = reply
    publications = [
        Publication(flat[at], flat[at + 1].decode(), flat[at + 2])
        for at in range(0, len(flat), _FIELDS_PER_PUBLICATION)
    ]
    top_id = newest[0].decode() if newest else ""
    return Recalled(Position(epoch.decode(), top), tuple(publications), more == 1, top_id)


def attended_arguments(incarnations: Sequence[str], channels: Sequence[ChannelName]) -> list[Any]:
    """What is looked up of channels."""
    arguments: list[Any] = [len(incarnations), *incarnations]
    for each in channels:
        arguments += (PREFIXES[each.partition], each.kid)
    return arguments


def reporting(incarnation: str) -> Transition[Report, bool]:
    """The script by which a node says how many listen on it."""

    def arguments(reports: Sequence[Report]) -> list[Any]:
        found: list[Any] = [incarnation, int(REPORT_S * 1000)]
        for each in reports:
            found += (PREFIXES[each.partition], int(each.whole), len(each.counts))
            for count in each.counts:
                found += count
        return found

    return Transition("report", arguments, _flags)


def awakening(kept_ms: int) -> Transition[ChannelName, bool]:
    """The script by which everybody learns that somebody listens to the router's own channels."""

    def arguments(channels: Sequence[ChannelName]) -> list[Any]:
        found: list[Any] = [AWAKE_CHANNEL, kept_ms]
        for each in channels:
            found += (PREFIXES[each.partition], each.kid, each.name)
        return found

    return Transition("awaken", arguments, _flags)


def _published(messages: Sequence[Publish], flat: list[Any]) -> list[Published]:
    answers = []
    for at in range(0, _FIELDS_PER_PUBLISHED * len(messages), _FIELDS_PER_PUBLISHED):
        epoch, offset, elsewhere, foreign, again = flat[at : at + _FIELDS_PER_PUBLISHED]
        answers.append(Published(Position(epoch.decode(), offset), elsewhere, foreign, again == 1))
    return answers


def _recalled_all(_recalls: Sequence[Recall], replies: list[Any]) -> list[Recalled]:
    return [recalled(reply) for reply in replies]


def _flags(_requests: Sequence[Any], replies: list[int]) -> list[bool]:
    return [flag == 1 for flag in replies]
