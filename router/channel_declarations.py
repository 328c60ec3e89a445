"""Channel declarations: the settings of channels and of those who listen to them."""

from __future__ import annotations

from router import setting, values
from router.setting import DAY_S, Setting

HISTORY_MAX = 100_000
COUNT_MAX = 10_000_000

CHANNEL_SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="QUEUE_CHANNEL",
        field="queue_channel",
        default="inventarios_updates",
        parse=values.channel,
        meaning="The channel of a message that is published without naming one.",
    ),
    Setting(
        name="CHANNEL_HISTORY_SIZE",
        field="channel_history_size",
        default="1000",
        parse=values.integer(1, HISTORY_MAX),
        meaning="Messages each channel keeps for listeners who come back.",
    ),
    Setting(
        name="CHANNEL_HISTORY_TTL",
        field="channel_history_ttl_s",
        default="5m",
        parse=values.duration_s(1, DAY_S),
        show=setting.duration,
        meaning="How long it keeps them.",
    ),
    Setting(
        name="CHANNELS_PER_CONNECTION",
        field="channels_per_connection",
        default="128",
        parse=values.integer(1, 10_000),
        meaning="Channels that one connection may listen to.",
    ),
    Setting(
        name="CHANNEL_MESSAGE_BYTES",
        field="channel_message_bytes_max",
        default="64KiB",
        parse=values.size_bytes(1024, 1024 * 1024),
        meaning="The longest frame that is taken from a WebSocket.",
    ),
    Setting(
        name="CHANNEL_COMMANDS_PER_SECOND",
        field="channel_commands_per_s",
        default="100",
        parse=values.integer(1, 1_000_000),
        meaning="Frames a second that one WebSocket may send, over some seconds; who sends more is closed.",
    ),
    Setting(
        name="CONNECTIONS_MAX",
        field="connections_max",
        default="50000",
        parse=values.integer(1, COUNT_MAX),
        meaning="Listening connections of one node; one more is answered 503.",
    ),
    Setting(
        name="CONNECTIONS_PER_CLIENT",
        field="connections_per_client",
        default="10000",
        parse=values.integer(1, COUNT_MAX),
        meaning="Listening connections of one client address; one more is answered 429.",
    ),
)
