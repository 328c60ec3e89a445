"""Cache declarations: the settings of the cache."""

from __future__ import annotations

from actors.core.durations import format_duration
from router import setting, values
from router.setting import DAY_S, Setting
from router.store_url import store_url

TTL_S_MAX = 9_223_372_036.0
"""The longest duration that Go's clients can read: 2^63 - 1 nanoseconds."""
FOR_EVER = "none"
_ttl_s = values.duration_s(0.001, TTL_S_MAX)


def ttl_s(text: str) -> float:
    """A time to live in seconds, 0 for `none`: the entry stays."""
    return 0.0 if text.lower() == FOR_EVER else _ttl_s(text)


def _ttl(value: object) -> str:
    return format_duration(float(str(value))) if value else FOR_EVER


CACHE_SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="CACHE_REDIS_URL",
        field="cache_url",
        parse=store_url,
        show=setting.url,
        secret=True,
        meaning="A server (or several) for cache entries alone, which may evict them; the store of the messages, in "
        "which nothing may be evicted, when absent.",
    ),
    Setting(
        name="CACHE_DEFAULT_TTL",
        field="cache_default_ttl_s",
        default="1h",
        parse=ttl_s,
        show=_ttl,
        meaning="How long a cache entry stays that is stored without a `ttl`; `none` is for ever.",
    ),
    Setting(
        name="CACHE_NEAR_BYTES",
        field="cache_near_bytes",
        default="64MiB",
        parse=values.size_bytes(0, 64 * 2**30),
        meaning="Room for entries that are answered from the node's own memory; 0 keeps none.",
    ),
    Setting(
        name="CACHE_STALE_IF_ERROR",
        field="cache_stale_s",
        default="60s",
        parse=values.duration_s(0, DAY_S),
        show=setting.duration,
        meaning="How long such an entry may be shown, marked stale, while the cache's server is away.",
    ),
    Setting(
        name="RESERVED_PREFIX",
        field="reserved_prefix",
        default="buzon:",
        parse=values.word("1 to 64 printable ASCII characters without spaces", r"[!-~]{1,64}"),
        meaning="Names beginning with it are out of the cache's reach, as those beginning with `buzon:` always are.",
    ),
)
