"""Settings: what one node is told, read once at its start into a frozen tree.

Flags go before the environment, that before the YAML file, that before the defaults; within one of them the first
name of a setting goes before its older aliases. `SETTINGS` is the only list of names, defaults and meanings: the
README table and `buzon config show` are made from it. A bad value is one `SettingsError` line that names the setting.
What a worker is told by its parent (`router/worker_place.py`) is read here too, but is no setting.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit, urlunsplit

from msgspec import Struct

from actors.core.refusals import CannotStart
from actors.core.tasks import OnUnknown
from router import values
from router.declarations import SETTINGS, UNUSED_NAMES
from router.setting import Setting
from router.values import Secret
from router.worker_place import VARIABLE, WorkerPlace, worker_place

__all__ = ["SETTINGS", "Loaded", "Secret", "Setting", "Settings", "SettingsError", "Source", "load"]

ENVIRONMENT = "environment"
SHOWN_CHARACTERS_MAX = 60
NODE_ID_CHARACTERS_MAX = 64
Ingest = Literal["direct", "forward"]


class SettingsError(CannotStart):
    """A setting cannot be used: its name and what was expected."""


class Settings(Struct, frozen=True, kw_only=True):
    """Everything one node is told. Times in seconds, sizes in bytes."""

    app_name: str
    ports: tuple[int, ...]
    """Each is listened on; 0 lets the kernel pick."""
    host: str
    data_dir: Path
    """Absolute. May not exist yet."""
    node_id: str
    """Of a parent of workers: what the name of each begins with, if it was given."""
    workers: int
    """Nodes to run; each of them is told the same number."""
    cluster_name: str
    node_address: tuple[str, int] | None
    """Host and port at which the other nodes reach this one, as NODE_URL says; port 0 lets the kernel pick."""
    ingest: Ingest
    redis_url: str | None
    """As `router/store_url.py` allows; a `Secret`, for its password. None: the embedded engine."""
    database_url: Secret | None
    """PostgreSQL of the inventory. None: an embedded one."""
    secret_key: Secret | None
    auth_off: bool
    allowed_origins: tuple[str, ...]
    log_level: str
    """Lower case: debug, info, warning, error or critical."""
    debug: bool
    webhook_timeout_s: float
    webhook_allowed_networks: tuple[str, ...]
    max_retries: int
    retry_delay_s: float
    dead_ttl_s: float
    delivered_ttl_s: float
    idempotency_ttl_s: float
    body_bytes_max: int
    fast_lane: bool
    allow_unsafe_store: bool
    evolution_webhook_token: Secret | None
    cache_url: Secret | None
    """As `redis_url`. None: the cache lives in the store."""
    cache_default_ttl_s: float
    """0: for ever."""
    cache_near_bytes: int
    cache_stale_s: float
    reserved_prefix: str
    queue_channel: str
    channel_history_size: int
    channel_history_ttl_s: float
    channels_per_connection: int
    channel_message_bytes_max: int
    channel_commands_per_s: int
    connections_max: int
    connections_per_client: int
    evolution_url: str
    """Without a slash at its end."""
    evolution_api_key: Secret | None
    evolution_instance: str
    evolution_timeout_s: float
    evolution_on_unknown: OnUnknown
    evolution_every_s: float | None
    """From one send of an instance to the next; None: no matter."""
    evolution_gap_s: tuple[float, float] | None
    task_retry_delay_s: float
    result_ttl_s: float
    worker: WorkerPlace | None = None
    """Which worker of a parent this process is; None when it is a node of its own or that parent."""

    @property
    def loopback_only(self) -> bool:
        """Whether nobody but programs on this machine can reach the node."""
        return values.is_loopback(self.host)


class Source(Struct, frozen=True, kw_only=True):
    """Where one setting's value came from; `shown` never holds a secret."""

    name: str
    shown: str
    origin: str


class Loaded(Struct, frozen=True, kw_only=True):
    """The settings, where each came from, and what their giver should know."""

    settings: Settings
    sources: tuple[Source, ...]
    warnings: tuple[str, ...]


class _Layer(Struct, frozen=True):
    """One place that gives settings: names in capitals to texts, or to tuples where the place knows lists."""

    label: str
    given: Mapping[str, str | tuple[str, ...]]


class _Found(Struct, frozen=True, kw_only=True):
    """A setting with its parsed value. `rank` 0 is the strongest layer; `name` is the one that was used."""

    setting: Setting
    name: str
    rank: int
    origin: str
    value: object


def load(
    environment: Mapping[str, str], *, config: Path | None = None, flags: Mapping[str, str] | None = None
) -> Loaded:
    """Read every setting; `SettingsError` for the first that cannot be used. `flags` hold names like the environment's.

    Writes nothing and resolves no host name; the only file read is `config`.
    """
    layers = [_Layer("flag", flags or {}), _Layer(ENVIRONMENT, environment)]
    if config is not None:
        layers.append(_Layer(config.name, _read_yaml(config)))
    found = {setting.name: _find(setting, layers) for setting in SETTINGS}
    settings = _assemble(found, environment)
    _refuse_open_bind(settings, found["APP_HOST"].name)
    if settings.worker is None:
        _refuse_too_many_workers(settings)
    return Loaded(
        settings=settings,
        sources=tuple(_source(each, settings) for each in found.values()),
        warnings=tuple(_warnings(settings, found, layers)),
    )


def _read_yaml(path: Path) -> dict[str, str | tuple[str, ...]]:
    from router.settings_file import read_settings_file  # noqa: PLC0415  most starts have no file: no YAML import

    try:
        return read_settings_file(path)
    except ValueError as error:
        raise SettingsError(f"{path.name}: {error}") from None


def _find(setting: Setting, layers: list[_Layer]) -> _Found:
    for rank, layer in enumerate(layers):
        for name in setting.names:
            given = layer.given.get(name, "")
            if given if isinstance(given, tuple) else given.strip():
                value = _parse(setting, name, given, layer.label)
                return _Found(setting=setting, name=name, rank=rank, origin=layer.label, value=value)
    value = _parse(setting, setting.name, setting.default, "default") if setting.default else None
    return _Found(setting=setting, name=setting.name, rank=len(layers), origin="default", value=value)


def _parse(setting: Setting, name: str, given: str | tuple[str, ...], label: str) -> object:
    try:
        return _value(setting, given)
    except ValueError as error:
        place = f"{name} (in {label})" if label not in ("flag", ENVIRONMENT) else name
        shown = "" if setting.secret else f", not {_short(given)}"
        raise SettingsError(f"{place}: {error}{shown}") from None


def _value(setting: Setting, given: str | tuple[str, ...]) -> object:
    if setting.parse_list is not None:
        return setting.parse_list(given if isinstance(given, tuple) else values.split_list(given.strip()))
    if isinstance(given, tuple):
        raise ValueError("expected one value")
    text = given if setting.secret else given.strip()
    if not text.isprintable():
        raise ValueError("expected text without control characters")
    return setting.parse(text)


def _short(given: str | tuple[str, ...]) -> str:
    text = ascii(given if isinstance(given, str) else ", ".join(given))
    return text if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[: SHOWN_CHARACTERS_MAX - 2]}…'"


def _assemble(found: Mapping[str, _Found], environment: Mapping[str, str]) -> Settings:
    fields: dict[str, object] = {each.setting.field: each.value for each in found.values() if each.setting.field}
    if fields["log_level"] is None:
        fields["log_level"] = "debug" if fields["debug"] else "info"
    if fields["node_id"] is None:
        fields["node_id"] = f"node-{secrets.token_hex(4)}"
    fields |= {"redis_url": _store_url(found), "worker": _place(environment)}
    return Settings(**fields)  # type: ignore[arg-type]  # parsers give the types


def _place(environment: Mapping[str, str]) -> WorkerPlace | None:
    try:
        return worker_place(environment)
    except ValueError as error:
        raise SettingsError(f"{VARIABLE}: {error}") from None


def _store_url(found: Mapping[str, _Found]) -> Secret | None:
    """The strongest of the three ways to name a store; an account or database that it lacks is filled in."""
    ways = [found[name] for name in ("REDIS_URL", "REDIS_HOST", "DC_CACHE_ADDRESSES") if found[name].value is not None]
    if not ways:
        return None
    way = min(ways, key=lambda each: each.rank)
    if way.setting.name == "REDIS_URL":
        return _with_account(str(way.value), found)
    host, port = way.value if isinstance(way.value, tuple) else (str(way.value), found["REDIS_PORT"].value)
    bracketed = f"[{host}]" if ":" in host else host
    return _with_account(f"redis://{bracketed}:{port}", found)


def _with_account(url: str, found: Mapping[str, _Found]) -> Secret:
    parts = urlsplit(url)
    password, database = found["REDIS_PASSWORD"].value, found["REDIS_DB"].value
    if parts.scheme == "unix":
        return Secret(url)  # its query carries both; there is no common way to add them from outside
    account = parts.netloc.rpartition("@")[0]
    netloc = parts.netloc
    if password and not account:
        netloc = f":{quote(str(password), safe='')}@{parts.netloc}"
    path, query = parts.path, parts.query
    if parts.scheme.endswith("+cluster"):
        if database:
            raise SettingsError(f"{found['REDIS_DB'].name}: expected 0, the only database of a cluster, not {database}")
    elif parts.scheme.endswith("+sentinel"):
        if database and "db=" not in query:  # the path is the service's name
            query = f"{query}&db={database}".lstrip("&")
    elif not path.strip("/") and "db=" not in query:
        path = f"/{database}"
    return Secret(urlunsplit((parts.scheme, netloc, path, query, "")))


def _refuse_open_bind(settings: Settings, host_name: str) -> None:
    if settings.loopback_only or settings.auth_off:
        return
    why = "SECRET_KEY is set but this version" if settings.secret_key else "this version"
    raise SettingsError(
        f"{host_name}: {settings.host} can be reached from other machines and {why} cannot check tokens yet: "
        "bind 127.0.0.1, or set AUTH=off to let anybody in"
    )


def _refuse_too_many_workers(settings: Settings) -> None:
    """Each worker gets a name and a port of its own; there must be that many."""
    more = settings.workers - 1
    if more and len(f"{settings.node_id}-{settings.workers}") > NODE_ID_CHARACTERS_MAX:
        raise SettingsError(f"NODE_ID: expected a shorter name with WORKERS={settings.workers}, each adds its number")
    _, port = settings.node_address or ("", 0)
    if port and port + more > values.PORT_MAX:
        raise SettingsError(f"NODE_URL: expected a lower port with WORKERS={settings.workers}, each takes one")


def _warnings(settings: Settings, found: Mapping[str, _Found], layers: list[_Layer]) -> list[str]:
    warnings = []
    if settings.auth_off and not settings.loopback_only:
        warnings.append(f"AUTH=off: anybody who reaches {settings.host} may do everything")
    elif settings.secret_key:
        warnings.append("SECRET_KEY is set, but this version checks no tokens: every local program may do everything")
    if settings.redis_url is None:
        lonely = [name for name in ("REDIS_PORT", "REDIS_DB", "REDIS_PASSWORD") if found[name].origin != "default"]
        warnings += [f"{found[name].name} has no effect without REDIS_HOST or REDIS_URL" for name in lonely]
    for layer in layers[2:]:
        unused = [name for name in layer.given if name in UNUSED_NAMES]
        warnings += [f"{name} (in {layer.label}) has no effect in this version" for name in unused]
    return warnings


def _source(each: _Found, settings: Settings) -> Source:
    origin = each.origin if each.name == each.setting.name else f"{each.origin} ({each.name})"
    value = each.value
    if each.setting.name == "NODE_ID" and each.origin == "default":
        value, origin = settings.node_id, "made"
    if each.setting.name == "LOG_LEVEL" and each.value is None:
        value = settings.log_level
    shown = "-" if value in (None, ()) else each.setting.show(value)
    return Source(name=each.setting.name, shown=shown, origin=origin)
