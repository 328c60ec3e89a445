"""Settings: where each value comes from, which place wins, what stops a start, and what never shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.declarations import UNUSED_NAMES, settings_table
from router.settings import SETTINGS, Setting, Settings, SettingsError, load
from router.values import Secret

SECRET = "hunter2-hunter2"


def loaded(**environment: str) -> Settings:
    """The settings of a node with just this environment."""
    return load(environment).settings


def refusal(environment: dict[str, str]) -> str:
    """What a start with this environment would say; nothing if it would go on."""
    try:
        load(environment)
    except SettingsError as error:
        return str(error)
    return ""


def test_a_node_that_is_told_nothing_listens_on_loopback_with_its_own_store() -> None:
    """The defaults are those of the contract."""
    settings = loaded()

    assert settings.ports == (8000,)
    assert settings.host == "127.0.0.1"
    assert settings.loopback_only
    assert settings.redis_url is None
    assert settings.secret_key is None
    assert not settings.auth_off
    assert settings.data_dir == Path.cwd() / "data"
    assert settings.webhook_timeout_s == 10
    assert settings.max_retries == 3
    assert settings.retry_delay_s == 5
    assert settings.dead_ttl_s == 7 * 86_400
    assert settings.delivered_ttl_s == 3600
    assert settings.idempotency_ttl_s == 600
    assert settings.body_bytes_max == 1024 * 1024
    assert settings.allowed_origins == ()
    assert settings.webhook_allowed_networks == ()
    assert settings.log_level == "info"
    assert not settings.debug
    assert not settings.allow_unsafe_store
    assert settings.app_name == "buzon"


@pytest.mark.parametrize(
    ("environment", "field", "value"),
    [
        ({"PORT": "8001"}, "ports", (8001,)),
        ({"PORT": "0"}, "ports", (0,)),
        ({"PORT": "8001, 8002"}, "ports", (8001, 8002)),
        ({"APP_PORT": "8003"}, "ports", (8003,)),
        ({"DC_SERVER_PORT": "8082"}, "ports", (8082,)),
        ({"PORT": "1", "APP_PORT": "2", "DC_SERVER_PORT": "3"}, "ports", (1,)),
        ({"PORT": "", "APP_PORT": "2"}, "ports", (2,)),
        ({"APP_HOST": "localhost"}, "host", "localhost"),
        ({"APP_HOST": "[::1]"}, "host", "::1"),
        ({"DC_SERVER_HOST": "127.0.0.2"}, "host", "127.0.0.2"),
        ({"APP_NAME": "buffer-service"}, "app_name", "buffer-service"),
        ({"NODE_ID": "a.b-c_1"}, "node_id", "a.b-c_1"),
        ({"LOG_LEVEL": "INFO"}, "log_level", "info"),
        ({"LOG_LEVEL": "WARN"}, "log_level", "warning"),
        ({"DC_LOGGER_LEVEL": "debug"}, "log_level", "debug"),
        ({"DEBUG": "True"}, "log_level", "debug"),
        ({"DEBUG": "True", "LOG_LEVEL": "error"}, "log_level", "error"),
        ({"DEBUG": "False"}, "debug", False),
        ({"SECRET_KEY": SECRET}, "secret_key", SECRET),
        ({"EVOLUTION_WEBHOOK_TOKEN": SECRET}, "evolution_webhook_token", SECRET),
        ({"AUTH": "OFF"}, "auth_off", True),
        ({"ALLOWED_ORIGINS": '["https://example.com"]'}, "allowed_origins", ("https://example.com",)),
        ({"ALLOWED_ORIGINS": '["*"]'}, "allowed_origins", ("*",)),
        ({"WEBHOOK_TIMEOUT": "10"}, "webhook_timeout_s", 10),
        ({"WEBHOOK_TIMEOUT": "0.25"}, "webhook_timeout_s", 0.25),
        ({"WEBHOOK_TIMEOUT": "1m30s"}, "webhook_timeout_s", 90),
        ({"MAX_RETRIES": "0"}, "max_retries", 0),
        ({"RETRY_DELAY": "50ms"}, "retry_delay_s", 0.05),
        ({"DEAD_TTL": "48h"}, "dead_ttl_s", 172_800),
        ({"DELIVERED_TTL": "60"}, "delivered_ttl_s", 60),
        ({"IDEMPOTENCY_TTL": "2m"}, "idempotency_ttl_s", 120),
        ({"MAX_BODY_BYTES": "2048"}, "body_bytes_max", 2048),
        ({"MAX_BODY_BYTES": "4 MiB"}, "body_bytes_max", 4 * 1024 * 1024),
        ({"WEBHOOK_ALLOWED_NETWORKS": "10.0.0.0/8, fd00::/8"}, "webhook_allowed_networks", ("10.0.0.0/8", "fd00::/8")),
        ({"WEBHOOK_ALLOWED_NETWORKS": "10.1.2.3"}, "webhook_allowed_networks", ("10.1.2.3/32",)),
        ({"DATA_DIR": "/var/lib/buzon"}, "data_dir", Path("/var/lib/buzon")),
        ({"DATA_DIR": "~/buzon"}, "data_dir", Path.home() / "buzon"),
        ({"ALLOW_UNSAFE_STORE": "yes"}, "allow_unsafe_store", True),
    ],
)
def test_the_environment_sets_a_field(environment: dict[str, str], field: str, value: object) -> None:
    """Every name that the older services used still means what it meant, and the strongest of several holds."""
    assert getattr(loaded(**environment), field) == value


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"REDIS_URL": "redis://localhost:6379"}, "redis://localhost:6379/0"),
        ({"REDIS_URL": "redis://localhost:6379/2"}, "redis://localhost:6379/2"),
        ({"REDIS_URL": "redis://h", "REDIS_PASSWORD": "p@:/w"}, "redis://:p%40%3A%2Fw@h/0"),
        ({"REDIS_URL": "redis://u:own@h", "REDIS_PASSWORD": "other"}, "redis://u:own@h/0"),
        ({"REDIS_URL": "redis://h?db=4", "REDIS_DB": "1"}, "redis://h?db=4"),
        ({"REDIS_URL": " rediss://h:1/0 "}, "rediss://h:1/0"),
        ({"REDIS_URL": "unix:///run/redis.sock?db=1"}, "unix:///run/redis.sock?db=1"),
        ({"REDIS_HOST": "redis"}, "redis://redis:6379/0"),
        (
            {"REDIS_HOST": "10.0.0.1", "REDIS_PORT": "1", "REDIS_DB": "3", "REDIS_PASSWORD": "x"},
            "redis://:x@10.0.0.1:1/3",
        ),
        ({"REDIS_HOST": "::1"}, "redis://[::1]:6379/0"),
        ({"REDIS_URL": "redis://a", "REDIS_HOST": "b"}, "redis://a/0"),
        ({"DC_CACHE_ADDRESSES": "localhost:6379", "DC_CACHE_PASSWORD": ""}, "redis://localhost:6379/0"),
        (
            {"DC_CACHE_ADDRESSES": "c:1", "DC_CACHE_PASSWORD": "x", "DC_CACHE_DATABASE": "5"},
            "redis://:x@c:1/5",
        ),
        ({"REDIS_HOST": "", "REDIS_URL": "  "}, None),
    ],
)
def test_the_store_is_named_by_url_or_in_parts(environment: dict[str, str], url: str | None) -> None:
    """A URL, the seeds' REDIS_ parts or their DC_CACHE_ names all end in one URL; none of them: the embedded store."""
    assert loaded(**environment).redis_url == url


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"PORT": "http"}, "PORT"),
        ({"PORT": "65536"}, "PORT"),
        ({"PORT": "-1"}, "PORT"),
        ({"PORT": "8000,8000"}, "PORT"),
        ({"PORT": "8000,"}, "PORT"),
        ({"APP_PORT": "8000x"}, "APP_PORT"),
        ({"APP_HOST": "127.0.0.1:8000"}, "APP_HOST"),
        ({"APP_HOST": "a b"}, "APP_HOST"),
        ({"AUTH": "no"}, "AUTH"),
        ({"DEBUG": "perhaps"}, "DEBUG"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL"),
        ({"APP_NAME": "a/b"}, "APP_NAME"),
        ({"NODE_ID": "a b"}, "NODE_ID"),
        ({"NODE_ID": "x\ny"}, "NODE_ID"),
        ({"ALLOWED_ORIGINS": "https://example.com/path"}, "ALLOWED_ORIGINS"),
        ({"ALLOWED_ORIGINS": '["https://example.com"'}, "ALLOWED_ORIGINS"),
        ({"ALLOWED_ORIGINS": '[["https://example.com"]]'}, "ALLOWED_ORIGINS"),
        ({"WEBHOOK_TIMEOUT": "0"}, "WEBHOOK_TIMEOUT"),
        ({"WEBHOOK_TIMEOUT": "1h"}, "WEBHOOK_TIMEOUT"),
        ({"WEBHOOK_TIMEOUT": "10 s"}, "WEBHOOK_TIMEOUT"),
        ({"WEBHOOK_TIMEOUT": "nan"}, "WEBHOOK_TIMEOUT"),
        ({"WEBHOOK_TIMEOUT": "1e3"}, "WEBHOOK_TIMEOUT"),
        ({"MAX_RETRIES": "21"}, "MAX_RETRIES"),
        ({"MAX_RETRIES": "3.0"}, "MAX_RETRIES"),
        ({"MAX_RETRIES": "٣"}, "MAX_RETRIES"),
        ({"RETRY_DELAY": "-5s"}, "RETRY_DELAY"),
        ({"MAX_BODY_BYTES": "1 million"}, "MAX_BODY_BYTES"),
        ({"MAX_BODY_BYTES": "1"}, "MAX_BODY_BYTES"),
        ({"WEBHOOK_ALLOWED_NETWORKS": "10.0.0.0/33"}, "WEBHOOK_ALLOWED_NETWORKS"),
        ({"REDIS_URL": "http://localhost"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://h:99999"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://h/name"}, "REDIS_URL"),
        ({"REDIS_URL": "unix://run/redis.sock"}, "REDIS_URL"),
        ({"REDIS_HOST": "h", "REDIS_PORT": "tcp://10.0.0.1:6379"}, "REDIS_PORT"),
        ({"DC_CACHE_ADDRESSES": "a:1,b:2"}, "DC_CACHE_ADDRESSES"),
        ({"DC_CACHE_ADDRESSES": "a"}, "DC_CACHE_ADDRESSES"),
        ({"DATA_DIR": "~no-such-user-here/x"}, "DATA_DIR"),
        ({"ALLOW_UNSAFE_STORE": "2"}, "ALLOW_UNSAFE_STORE"),
    ],
)
def test_a_bad_value_stops_the_start_with_one_line_that_names_the_setting(
    environment: dict[str, str], name: str
) -> None:
    """The line begins with the name that was used, says what was expected, and shows what was given."""
    with pytest.raises(SettingsError) as caught:
        load(environment)

    line = str(caught.value)
    assert line.startswith(f"{name}: expected ")
    assert "\n" not in line
    assert len(line) < 250


@given(st.sampled_from(SETTINGS), st.text(max_size=300))
def test_any_text_is_a_value_or_one_line(setting: Setting, text: str) -> None:
    """Whatever stands in a variable, the answer is a settings tree or a short printable line."""
    line = refusal({"AUTH": "off"} | {setting.name: text})

    assert line == "" or line.startswith(setting.name)
    assert line.isprintable()
    assert len(line) < 300


@pytest.mark.parametrize("name", ["SECRET_KEY", "REDIS_PASSWORD", "REDIS_URL"])
def test_a_secret_is_not_repeated_in_its_error(name: str) -> None:
    """A password with a stray newline, or a URL that is none, is refused without being printed."""
    with pytest.raises(SettingsError) as caught:
        load({name: f"{SECRET}\n"} if name != "REDIS_URL" else {name: f"http://u:{SECRET}@h"})

    assert SECRET not in str(caught.value)


def test_no_secret_shows_in_the_tree_or_in_the_list_of_sources() -> None:
    """What `config show` prints, and what a log of the settings would, holds stars."""
    found = load({"SECRET_KEY": SECRET, "REDIS_URL": f"redis://user:{SECRET}@h:1/0?password={SECRET}"})

    assert SECRET not in repr(found)
    assert found.settings.secret_key == SECRET
    shown = {source.name: source.shown for source in found.sources}
    assert shown["SECRET_KEY"] == "***"
    assert shown["REDIS_URL"] == "redis://user:***@h:1/0?password=***"


def test_flags_go_before_the_environment_that_before_the_file_and_that_before_the_defaults(tmp_path: Path) -> None:
    """Each place overrides the next, whichever of a setting's names it uses, and is told as the origin."""
    file = tmp_path / "buzon.yaml"
    file.write_text("port: 1\nmax_retries: 7\nretry_delay: 9s\n")

    found = load({"APP_PORT": "2", "MAX_RETRIES": "8"}, config=file, flags={"PORT": "3"})

    assert found.settings.ports == (3,)
    assert found.settings.max_retries == 8
    assert found.settings.retry_delay_s == 9
    origins = {source.name: source.origin for source in found.sources}
    assert origins["PORT"] == "flag"
    assert origins["MAX_RETRIES"] == "environment"
    assert origins["RETRY_DELAY"] == "buzon.yaml"
    assert origins["DEAD_TTL"] == "default"
    assert origins["NODE_ID"] == "made"


def test_an_older_name_is_told_with_its_place() -> None:
    """Whoever looks for a value finds the variable that it came from."""
    sources = {source.name: source.origin for source in load({"DC_SERVER_PORT": "1"}).sources}

    assert sources["PORT"] == "environment (DC_SERVER_PORT)"


def test_a_store_in_the_environment_goes_before_one_in_the_file(tmp_path: Path) -> None:
    """Also when the two use different names for it."""
    file = tmp_path / "buzon.yaml"
    file.write_text("redis_url: redis://file\n")

    assert load({"REDIS_HOST": "environment"}, config=file).settings.redis_url == "redis://environment:6379/0"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com", "127.1", "localhost.example.com"])
@pytest.mark.parametrize("secret", [{}, {"SECRET_KEY": SECRET}])
def test_only_loopback_is_bound_without_auth_off(host: str, secret: dict[str, str]) -> None:
    """No token can be checked yet, with or without a secret, and the line says so."""
    with pytest.raises(SettingsError, match=r"^APP_HOST: .* cannot check tokens yet: .*AUTH=off") as caught:
        load({"APP_HOST": host} | secret)
    assert ("SECRET_KEY" in str(caught.value)) == bool(secret)

    found = load({"APP_HOST": host, "AUTH": "off"} | secret)
    assert not found.settings.loopback_only
    assert found.warnings == (f"AUTH=off: anybody who reaches {host} may do everything",)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_needs_nothing_said(host: str) -> None:
    """The default run asks for no authentication, and warns only that a secret has no effect."""
    assert load({"APP_HOST": host}).warnings == ()
    (warning,) = load({"APP_HOST": host, "SECRET_KEY": SECRET}).warnings
    assert warning.startswith("SECRET_KEY is set, but this version checks no tokens")


def test_a_part_of_a_store_without_its_host_is_pointed_out() -> None:
    """A lone REDIS_PORT would otherwise be ignored in silence."""
    assert load({"REDIS_PORT": "6380"}).warnings == ("REDIS_PORT has no effect without REDIS_HOST or REDIS_URL",)


def test_a_node_gets_a_fresh_name_unless_it_is_given_one() -> None:
    """Two starts are two nodes."""
    first, second = loaded().node_id, loaded().node_id

    assert first != second
    assert re.fullmatch(r"node-[0-9a-f]{8}", first)


def test_every_setting_is_declared_once_and_its_default_holds() -> None:
    """No name stands for two settings; every attribute of the tree has a declaration; each has a meaning to print."""
    names = [name for setting in SETTINGS for name in setting.names]
    fields = {setting.field for setting in SETTINGS if setting.field}

    assert len(names) == len(set(names))
    assert not set(names) & UNUSED_NAMES
    assert fields | {"redis_url", "worker"} == set(Settings.__struct_fields__)
    assert all(setting.meaning.endswith(".") for setting in SETTINGS)
    defaults = {setting.name: setting.default for setting in SETTINGS if setting.default}
    assert load(defaults | {"NODE_ID": "same"}).settings == load({"NODE_ID": "same"}).settings


def test_the_table_for_people_has_a_row_per_setting() -> None:
    """With its older names, its default as one would write it, and its meaning."""
    lines = settings_table().splitlines()

    assert len(lines) == 2 + len(SETTINGS)
    assert "| `PORT`, `APP_PORT`, `DC_SERVER_PORT` | `8000` | Port to listen on, or a" in lines[2]
    assert all(line.count(" | ") == 2 for line in lines[2:])


def test_a_secret_is_text_that_does_not_show() -> None:
    """It can be used like any text, but not read off a log of something that holds it."""
    assert Secret("abc") == "abc"
    assert "abc" not in repr([Secret("abc")])
