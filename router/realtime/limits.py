"""Limits: what one listener may ask of a node, and how long it may be silent."""

from __future__ import annotations

from msgspec import Struct


class RealtimeLimits(Struct, frozen=True, kw_only=True):
    """Bounds of listening connections. Who sends more than `messages_per_s` for `burst_s` is closed with 3013."""

    channels_max: int = 128
    message_bytes_max: int = 64 * 1024
    """Of one frame; a longer one is answered with an error."""
    frame_bytes_max: int = 1024 * 1024
    """A frame that is announced as longer than this is not read any more: the connection is closed with 1009."""
    messages_per_s: float = 100.0
    burst_s: float = 5.0
    errors_max: int = 100
    """Mistakes of one connection; then it is closed with 3509."""
    jobs_max: int = 64
    """Commands of one connection that wait for the store."""
    held_bytes_max: int = 1024 * 1024
    """What a slow reader may leave unread here; more, and it is closed with 3008."""
    connections_max: int = 50_000
    connections_per_client_max: int = 10_000
    ping_s: float = 25.0
    pong_s: float = 10.0
    heartbeat_s: float = 15.0
    """Between two comments to a listener of events."""
    connect_s: float = 15.0
    """For the first command, where one is asked for."""
    close_s: float = 5.0
    """For the other side to let go of a connection that was closed."""
