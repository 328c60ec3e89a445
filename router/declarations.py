"""Declarations: every setting by name, with its older names, its default as one would write it, and its meaning.

A default goes through the same parser as a given value, so the one that is documented is the one that holds. An
empty default is None. `UNUSED_NAMES` are names of the contract that later versions will use: known, without effect.
"""

from __future__ import annotations

from router import setting, values
from router.cache_declarations import CACHE_SETTINGS
from router.channel_declarations import CHANNEL_SETTINGS
from router.database_url import database_url
from router.evolution_declarations import EVOLUTION_SETTINGS
from router.setting import DAY_S, TTL_S_MAX, Setting
from router.store_url import store_url

WORKERS_MAX = 64

SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="PORT",
        field="ports",
        aliases=("APP_PORT", "DC_SERVER_PORT"),
        default="8000",
        parse_list=values.ports,
        meaning="Port to listen on, or a comma list; 0 lets the kernel pick.",
    ),
    Setting(
        name="APP_HOST",
        field="host",
        aliases=("DC_SERVER_HOST",),
        default="127.0.0.1",
        parse=values.host,
        meaning="Address to listen on. Anything but loopback needs `AUTH=off`: tokens are not checked yet.",
    ),
    Setting(
        name="AUTH",
        field="auth_off",
        default="on",
        parse=values.auth_off,
        show=setting.auth,
        meaning="`off` lets everybody who reaches the node do everything.",
    ),
    Setting(
        name="SECRET_KEY",
        field="secret_key",
        parse=values.secret,
        show=setting.hidden,
        secret=True,
        meaning="Will check bearer tokens; this version warns that it does not.",
    ),
    Setting(
        name="ALLOWED_ORIGINS",
        field="allowed_origins",
        default="[]",
        parse_list=values.origins,
        meaning="JSON list of the web origins whose pages may listen, beside the node's own; `*` for all.",
    ),
    Setting(
        name="APP_NAME",
        field="app_name",
        default="buzon",
        parse=values.word("1 to 64 letters, digits, spaces, dots, dashes or underscores", r"[\w. -]{1,64}"),
        meaning="The service's name in `/health`.",
    ),
    Setting(
        name="NODE_ID",
        field="node_id",
        parse=values.word("1 to 64 letters, digits, dots, dashes or underscores", r"[A-Za-z0-9_.-]{1,64}"),
        meaning="The node's name among nodes; made afresh at each start when absent. Worker 2 of it is `NAME-2`.",
    ),
    Setting(
        name="WORKERS",
        field="workers",
        default="1",
        parse=values.integer(1, WORKERS_MAX),
        meaning="Nodes to run on the same port, each in a process of its own, so that all cores are used.",
    ),
    Setting(
        name="CLUSTER_NAME",
        field="cluster_name",
        default="buzon",
        parse=values.word("1 to 64 letters, digits, dots, dashes or underscores", r"[A-Za-z0-9_.-]{1,64}"),
        meaning="Nodes of differently named clusters refuse each other's store.",
    ),
    Setting(
        name="NODE_URL",
        field="node_address",
        parse=values.node_url,
        show=setting.node_url,
        meaning="How the other nodes reach this one, as `tcp://host:port`; when absent `APP_HOST` (or, for all "
        "addresses, the one used towards the store) and a port that the kernel picks. Worker 2 has the next port.",
    ),
    Setting(
        name="INGEST",
        field="ingest",
        default="direct",
        parse=values.choice("direct", "forward"),
        meaning="A message for a key that another node owns: `direct` stores it at once, `forward` hands it to that "
        "node first.",
    ),
    Setting(
        name="DATA_DIR",
        field="data_dir",
        default="./data",
        parse=values.directory,
        meaning="Folder of everything the node keeps on disk: its lock and the embedded store's data.",
    ),
    Setting(
        name="REDIS_URL",
        field="",
        parse=store_url,
        show=setting.url,
        secret=True,
        meaning="Redis (7.0 or newer) or Valkey to use: `redis://`, `rediss://`, `unix://`, and with `+sentinel` or "
        "`+cluster` several hosts; with neither this nor `REDIS_HOST` an embedded Valkey runs.",
    ),
    Setting(
        name="REDIS_HOST",
        field="",
        parse=values.host,
        meaning="The same in parts: host.",
    ),
    Setting(
        name="REDIS_PORT",
        field="",
        default="6379",
        parse=values.integer(1, values.PORT_MAX),
        meaning="The same in parts: port.",
    ),
    Setting(
        name="REDIS_DB",
        field="",
        aliases=("DC_CACHE_DATABASE",),
        default="0",
        parse=values.integer(0, 65_535),
        meaning="The same in parts: database. Fills in for a `REDIS_URL` that names none.",
    ),
    Setting(
        name="REDIS_PASSWORD",
        field="",
        aliases=("DC_CACHE_PASSWORD",),
        parse=values.secret,
        show=setting.hidden,
        secret=True,
        meaning="The same in parts: password. Fills in for a `REDIS_URL` that has none.",
    ),
    Setting(
        name="DC_CACHE_ADDRESSES",
        field="",
        parse=values.address,
        show=setting.address,
        meaning="The same as one `host:port`.",
    ),
    Setting(
        name="DATABASE_URL",
        field="database_url",
        parse=database_url,
        show=setting.database_url,
        secret=True,
        meaning="PostgreSQL of the inventory, as `postgresql://user:password@host/name`, one for all nodes of a store; "
        "when absent an embedded one under `DATA_DIR` starts with the inventory's first use.",
    ),
    Setting(
        name="ALLOW_UNSAFE_STORE",
        field="allow_unsafe_store",
        default="false",
        parse=values.flag,
        show=setting.flag,
        meaning="Work on a store of yours that evicts keys or keeps no append-only file: messages may be lost.",
    ),
    Setting(
        name="WEBHOOK_TIMEOUT",
        field="webhook_timeout_s",
        default="10s",
        parse=values.duration_s(0.01, 120),
        show=setting.duration,
        meaning="How long one attempt may take when the message does not say.",
    ),
    Setting(
        name="MAX_RETRIES",
        field="max_retries",
        default="3",
        parse=values.integer(0, 20),
        meaning="Attempts after the first one when the message does not say.",
    ),
    Setting(
        name="RETRY_DELAY",
        field="retry_delay_s",
        default="5s",
        parse=values.duration_s(0.001, 3600),
        show=setting.duration,
        meaning="Wait before the first retry; doubled for each further one, ±20 %.",
    ),
    Setting(
        name="WEBHOOK_ALLOWED_NETWORKS",
        field="webhook_allowed_networks",
        default="[]",
        parse_list=values.networks,
        meaning="Private networks that webhooks may be in, as a comma list; a node on loopback allows loopback anyway.",
    ),
    Setting(
        name="DEAD_TTL",
        field="dead_ttl_s",
        default="168h",
        parse=values.duration_s(1, TTL_S_MAX),
        show=setting.duration,
        meaning="How long a dead delivery is kept for a replay.",
    ),
    Setting(
        name="DELIVERED_TTL",
        field="delivered_ttl_s",
        default="1h",
        parse=values.duration_s(1, TTL_S_MAX),
        show=setting.duration,
        meaning="How long a delivered delivery can still be looked up.",
    ),
    Setting(
        name="IDEMPOTENCY_TTL",
        field="idempotency_ttl_s",
        default="10m",
        parse=values.duration_s(1, 30 * DAY_S),
        show=setting.duration,
        meaning="How long an `Idempotency-Key` is remembered.",
    ),
    Setting(
        name="MAX_BODY_BYTES",
        field="body_bytes_max",
        default="1MiB",
        parse=values.size_bytes(1024, 256 * 2**20),
        meaning="Largest request body.",
    ),
    Setting(
        name="FAST_LANE",
        field="fast_lane",
        default="on",
        parse=values.flag,
        show=setting.switch,
        meaning="Plain requests of the busiest routes are answered without aiohttp's own machinery; `off` changes "
        "nothing but the speed.",
    ),
    Setting(
        name="LOG_LEVEL",
        field="log_level",
        aliases=("DC_LOGGER_LEVEL",),
        parse=values.log_level,
        meaning="debug, info, warning, error or critical; info when absent, debug with `DEBUG`.",
    ),
    Setting(
        name="DEBUG",
        field="debug",
        default="false",
        parse=values.flag,
        show=setting.flag,
        meaning="More logs, and asyncio's own checks.",
    ),
    *CACHE_SETTINGS,
    *CHANNEL_SETTINGS,
    *EVOLUTION_SETTINGS,
)

UNUSED_NAMES = frozenset(
    {
        "RATE_LIMIT",
        "JWT_AUDIENCE",
        "JWT_ISSUER",
        "DC_SERVER_READ_TIMEOUT",
        "DC_SERVER_WRITE_TIMEOUT",
        "DC_SERVER_IDLE_TIMEOUT",
        "DC_CACHE_MAX_RETRIES",
        "DC_CACHE_POOL_SIZE",
        "DC_CACHE_MIN_IDLE_CONNS",
        "DC_LOGGER_FORMAT",
        "DC_LOGGER_OUTPUT_PATH",
    }
)


def settings_table() -> str:
    """The settings as a Markdown table, as README shows it."""
    lines = ["| setting (older names) | default | meaning |", "|---|---|---|"]
    for each in SETTINGS:
        names = ", ".join(f"`{name}`" for name in each.names)
        lines.append(f"| {names} | {f'`{each.default}`' if each.default else ''} | {each.meaning} |")
    return "\n".join([*lines, ""])
