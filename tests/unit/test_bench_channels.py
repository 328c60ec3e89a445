"""The channels' benchmark counts frames by their bytes: what it must notice, and what its figures come to."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import channel_figures, channel_speed, nchan
from tests.bench.channel_frames import (
    MESSAGE,
    MESSAGE_BYTES,
    PING,
    complaints,
    publication,
    sent_times,
    text_frame,
    walk,
)
from tests.bench.channel_load import FanResult, FanSpec
from tests.bench.channel_speed import BARE, MANY, NCHAN, NODE, ONE, READS, STALLS, FanOut, Target
from tests.bench.channel_streams import Ended, Reader, Stream
from tests.bench.figures import Turn
from tests.bench.rig import Rig

PING_FRAME = bytes((PING, 0))
CLOSE_FRAME = b"\x88\x02\x0b\xc0"


def body_of(request: bytes) -> bytes:
    """The body of a request, which is as long as its head says."""
    head, _, body = request.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    return body


def payloads(count: int) -> list[bytes]:
    """The texts of that many messages of a channel, as a subscriber should get them."""
    build = publication("plain", 1, "c")
    return [body_of(build(number, 12.5 + number)) for number in range(count)]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's end and the subscriber's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@given(sizes=st.lists(st.sampled_from([0, 1, 125, 126, 200, 65_535]), max_size=6), cut=st.integers(0, 300))
def test_frames_are_found_whole_and_what_follows_is_left(sizes: Sequence[int], cut: int) -> None:
    """Every length field, and a start of a frame after them, which is none."""
    data = b"".join(text_frame(b"x" * size) for size in sizes)
    rest = text_frame(b"y" * 300)[:cut]

    frames = walk(data + rest)

    assert [frame.end - frame.payload for frame in frames] == list(sizes)
    assert all(frame.first == MESSAGE for frame in frames)
    assert (frames[-1].end if frames else 0) == len(data)


def test_a_long_frame_has_eight_bytes_of_length() -> None:
    """And is none until all of them are there."""
    head = bytes((MESSAGE, 127)) + (70_000).to_bytes(8, "big")

    assert walk(head[:9]) == []
    assert walk(head + b"x" * 70_000)[0].end == 70_010


def test_whoever_makes_the_frame_subscribers_get_as_many_bytes() -> None:
    """The node is sent 100 bytes of JSON; who only passes bodies on is sent the node's whole frame around them."""
    ours = msgspec.json.decode(body_of(publication("node", 1, "news")(7, 3.25)))
    theirs = msgspec.json.decode(body_of(publication("plain", 1, "news")(7, 3.25)))

    assert ours["channel"] == theirs["channel"] == "news"
    assert ours["message"] == theirs["data"]
    assert len(msgspec.json.encode(ours["message"])) == MESSAGE_BYTES
    assert set(theirs) == {"type", "channel", "id", "offset", "data"}


def test_messages_say_when_they_were_due() -> None:
    """To the microsecond, however many come in one read."""
    block = b"".join(text_frame(payload) for payload in payloads(3))

    assert sent_times(block) == pytest.approx([12.5, 13.5, 14.5])
    assert sent_times(PING_FRAME) == []


def test_every_message_once_and_in_order_is_no_complaint() -> None:
    """Published together they may come in any order of their numbers, but the node's offsets never."""
    whole = payloads(3)
    swapped = [whole[1], whole[0], whole[2]]

    assert complaints(whole, "node", 3, in_order=True) == []
    assert complaints(swapped, "plain", 3, in_order=False) == []


@pytest.mark.parametrize(
    ("got", "word"),
    [([0, 1], "not in order, of 3"), ([0, 2, 1], "do not follow"), ([0, 1, 1, 2], "an id came twice"), ([], "of 3")],
)
def test_what_is_missing_swapped_or_doubled_is_told(got: Sequence[int], word: str) -> None:
    """Whatever is wrong with the one subscriber that is looked at."""
    whole = payloads(3)

    assert word in "; ".join(complaints([whole[number] for number in got], "node", 3, in_order=True))


def test_messages_of_two_channels_are_told() -> None:
    """A subscriber of one gets nothing of another."""
    stray = body_of(publication("plain", 1, "other")(1, 0.0))

    assert "messages of several channels" in complaints([payloads(1)[0], stray], "plain", 2, in_order=True)


@given(cuts=st.lists(st.integers(1, 2200), max_size=12), ping_at=st.integers(0, 10))
def test_however_the_bytes_are_cut_the_count_and_the_checksum_are_the_same(cuts: Sequence[int], ping_at: int) -> None:
    """Ten messages in reads of any sizes, with a ping between two of them, which is answered."""
    frames = [text_frame(payload) for payload in payloads(10)]
    data = b"".join([*frames[:ping_at], PING_FRAME, *frames[ping_at:]])
    reader, straight = Reader(timed=True), Reader(timed=False)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream, plain = Stream(theirs, b"", []), Stream(theirs, b"", None)
        ours.send(b"".join(frames))
        straight.read(plain)

        at = 0
        for cut in [*cuts, len(data)]:
            if data[at : at + cut]:
                ours.send(data[at : at + cut])
                reader.read(stream)
            at += cut
        answer = ours.recv(100)

    assert reader.frames == straight.frames == 10
    assert stream.digest == plain.digest
    assert stream.kept == payloads(10)
    assert len(reader.latencies) == 10
    assert answer == b"\x8a\x80\x00\x00\x00\x00"


def test_another_message_in_the_place_of_one_changes_the_checksum(pair: tuple[socket.socket, socket.socket]) -> None:
    """Of the same length, in the middle of a read that is not taken apart."""
    ours, theirs = pair
    reader = Reader(timed=False)
    first, second, third = (text_frame(payload) for payload in payloads(3))
    streams = [Stream(theirs, b"", None), Stream(theirs, b"", None)]

    for stream, middle in zip(streams, (second, first), strict=True):
        for block in (first, first + middle + third):
            ours.send(block)
            reader.read(stream)

    assert reader.frames == 8
    assert streams[0].digest != streams[1].digest


@pytest.mark.parametrize("ending", [CLOSE_FRAME, b""])
def test_a_subscriber_that_is_closed_ends_the_run(pair: tuple[socket.socket, socket.socket], ending: bytes) -> None:
    """By a frame that says so, or without a word."""
    ours, theirs = pair
    ours.send(ending)
    ours.shutdown(socket.SHUT_WR)

    with pytest.raises(Ended, match="closed"):
        Reader(timed=False).read(Stream(theirs, b"", None))


def turn(operations: int = 0, p99_ms: float = 0.0, busy: float = 0.5) -> Turn:
    """A turn of one second of everything."""
    return Turn(operations=operations, seconds=1.0, server_cpu_s=1.0, p99_ms=p99_ms, generator_busy=busy)


def loop(*results: FanResult) -> FanOut:
    """A loop that has had these turns."""
    target = Target(port=1, kind="node", greetings=1, pids={"server": 1})
    made = FanOut(Rig(), target, FanSpec(port=1, kind="node", channel="c", subscribers=1, flood="stalled"))
    made.results += results
    made.of_others += [0.0] * len(results)
    return made


def test_speed_is_asked_of_the_node_alone() -> None:
    """Its shares in the others' are printed as they come out; a full core of the subscribers' is told of."""
    turns = {
        ONE.format(NODE): [turn(90_000)],
        ONE.format(BARE): [turn(150_000)],
        ONE.format(NCHAN): [turn(45_000, busy=0.99)],
        MANY.format(NODE): [turn(600_000)],
    }

    figures = {figure.name: figure for figure in channel_figures.speeds(turns)}

    node = figures["channels, one a tick: deliveries per CPU-second"]
    assert (node.measured, node.asked, node.met) == ("90,000 (90,000 … 90,000)", "≥ 100,000", False)
    assert figures["channels, 10 a tick: deliveries per CPU-second"].met
    assert figures["channels ÷ bare transports, one a tick"].measured == "0.60 (0.60 … 0.60)"
    assert figures["channels ÷ nchan (C, 1 process), one a tick"].measured == "2.00 (2.00 … 2.00)"
    other = figures["nchan (C, 1 process), one a tick: deliveries per CPU-second"]
    assert other.met is None
    assert "the subscribers' core was full" in other.detail


def test_the_pace_is_half_a_core_of_the_node() -> None:
    """100,000 deliveries cost a core, so half of one pays for 100 messages to 500."""
    turns = {ONE.format(NODE): [turn(100_000)], ONE.format(BARE): [turn(200_000)]}

    assert channel_speed.half_rate(turns, smoke=False) == 100


def test_what_a_stalled_reader_does_to_the_others_is_a_ratio_of_medians() -> None:
    """Of all turns, of which some are disturbed; how it ended and what the node grew by stand beside it."""
    turns = {
        READS: [turn(p99_ms=10), turn(p99_ms=90), turn(p99_ms=10)],
        STALLS: [turn(p99_ms=11), turn(p99_ms=9), turn(p99_ms=70)],
    }
    results = [FanResult(resident=(1 << 20, 3 << 20), ended="3008"), FanResult(resident=(3 << 20, 5 << 20))]

    moved, grown = channel_figures.stall(turns, {READS: loop(results[0]), STALLS: loop(*results)})

    assert (moved.measured, moved.met) == ("1.10", True)
    assert "it was closed: 3008, not closed" in moved.detail
    assert grown.measured == "2.0 (2.0 … 2.0) MiB"


async def test_a_stalled_reader_that_is_not_closed_is_a_trouble() -> None:
    """However well the others fared."""
    assert await loop(FanResult(ended="3008"), FanResult(ended="reset")).check() == []
    assert await loop(FanResult(ended="3008"), FanResult()).check() == ["1 stalled readers were not closed"]


def test_latency_is_asked_of_the_node_alone() -> None:
    """p99 of the turns' median."""
    loops = {name: loop(FanResult(max_ms=30.0)) for name in ("channels at the pace", "bare transports at the pace")}
    turns = {name: [turn(p99_ms=12.5)] for name in loops}

    node, bare = channel_figures.latencies(turns, loops, 100.0)

    assert (node.measured, node.asked, node.met) == ("12.5 (12.5 … 12.5) ms", "≤ 20 ms", True)
    assert (bare.met, "max 30.0 ms" in bare.detail) == (None, True)


def test_nginx_gets_a_file_of_ours_and_writes_nowhere_else(tmp_path: Path) -> None:
    """One process in the foreground, on loopback, with the module and everything it writes in the folder given."""
    argv = nchan.command("/usr/sbin/nginx", tmp_path, 12345)
    config = (tmp_path / "nginx.conf").read_text()

    assert argv[:5] == ["/usr/sbin/nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    assert "daemon off;\nmaster_process off;" in config
    assert "listen 127.0.0.1:12345;" in config
    assert all(str(tmp_path) in line for line in config.splitlines() if "_path" in line or line.startswith("pid"))
