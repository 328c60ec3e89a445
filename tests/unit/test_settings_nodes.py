"""Settings of nodes among nodes: how many, under which names, where they find each other and their store."""

from __future__ import annotations

import pytest

from router.settings import SettingsError, load
from router.worker_place import VARIABLE, WorkerPlace, with_place

PLACE = WorkerPlace(group="g", index=2, parent=1, line=3)
SECRET = "hunter2-hunter2"


def refusal(environment: dict[str, str]) -> str:
    """What a start with this environment says instead of starting."""
    with pytest.raises(SettingsError) as caught:
        load(environment)
    return str(caught.value)


def test_a_node_that_is_told_nothing_is_one_node_of_the_usual_cluster() -> None:
    """It finds its own address and stores at once."""
    settings = load({}).settings

    assert settings.workers == 1
    assert settings.cluster_name == "buzon"
    assert settings.node_address is None
    assert settings.ingest == "direct"
    assert settings.worker is None


@pytest.mark.parametrize(
    ("environment", "field", "value"),
    [
        ({"WORKERS": "64"}, "workers", 64),
        ({"CLUSTER_NAME": "eu-1.blue"}, "cluster_name", "eu-1.blue"),
        ({"NODE_URL": "tcp://10.0.0.5:7000"}, "node_address", ("10.0.0.5", 7000)),
        ({"NODE_URL": "tcp://[fd00::1]:7000"}, "node_address", ("fd00::1", 7000)),
        ({"NODE_URL": "tcp://buzon-1.local:0"}, "node_address", ("buzon-1.local", 0)),
        ({"INGEST": "Forward"}, "ingest", "forward"),
        ({"NODE_ID": "n" * 61, "WORKERS": "64"}, "workers", 64),
        ({"NODE_URL": "tcp://h:65532", "WORKERS": "4"}, "workers", 4),
    ],
)
def test_the_environment_sets_a_field(environment: dict[str, str], field: str, value: object) -> None:
    """Each of them, up to its bounds."""
    assert getattr(load(environment).settings, field) == value


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"WORKERS": "0"}, "WORKERS"),
        ({"WORKERS": "65"}, "WORKERS"),
        ({"WORKERS": "auto"}, "WORKERS"),
        ({"CLUSTER_NAME": "a b"}, "CLUSTER_NAME"),
        ({"CLUSTER_NAME": "x" * 65}, "CLUSTER_NAME"),
        ({"NODE_URL": "10.0.0.5:7000"}, "NODE_URL"),
        ({"NODE_URL": "http://10.0.0.5:7000"}, "NODE_URL"),
        ({"NODE_URL": "tcp://10.0.0.5"}, "NODE_URL"),
        ({"NODE_URL": "tcp://10.0.0.5:65536"}, "NODE_URL"),
        ({"NODE_URL": "tcp://10.0.0.5:7000/"}, "NODE_URL"),
        ({"NODE_URL": "tcp://u:p@h:1"}, "NODE_URL"),
        ({"NODE_URL": "tcp://fd00::1:7000"}, "NODE_URL"),
        ({"NODE_URL": "tcp://:7000"}, "NODE_URL"),
        ({"INGEST": "both"}, "INGEST"),
        ({"NODE_ID": "n" * 63, "WORKERS": "2"}, "NODE_ID"),
        ({"NODE_ID": "n" * 62, "WORKERS": "10"}, "NODE_ID"),
        ({"NODE_URL": "tcp://h:65533", "WORKERS": "4"}, "NODE_URL"),
        ({VARIABLE: "1"}, VARIABLE),
        ({VARIABLE: '{"group":"g","index":1}'}, VARIABLE),
    ],
)
def test_a_bad_value_stops_the_start_with_one_line_that_names_the_setting(
    environment: dict[str, str], name: str
) -> None:
    """The line says what was expected."""
    line = refusal(environment)

    assert line.startswith(f"{name}: expected ")
    assert line.isprintable()
    assert len(line) < 250


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"REDIS_URL": "redis+sentinel://a:26379,b:26379/main"}, "redis+sentinel://a:26379,b:26379/main"),
        ({"REDIS_URL": "redis+sentinel://a/main", "REDIS_DB": "2"}, "redis+sentinel://a/main?db=2"),
        ({"REDIS_URL": "redis+sentinel://a/main?db=1", "REDIS_DB": "2"}, "redis+sentinel://a/main?db=1"),
        (
            {"REDIS_URL": "rediss+sentinel://a:1,b:2/main?sentinel_password=s", "REDIS_PASSWORD": "p@"},
            "rediss+sentinel://:p%40@a:1,b:2/main?sentinel_password=s",
        ),
        ({"REDIS_URL": "redis+cluster://[::1]:7000,[::1]:7001"}, "redis+cluster://[::1]:7000,[::1]:7001"),
        ({"REDIS_URL": "redis+cluster://u:p@a:7000,b:7001"}, "redis+cluster://u:p@a:7000,b:7001"),
        ({"REDIS_URL": "rediss+cluster://a/0", "REDIS_PASSWORD": "p"}, "rediss+cluster://:p@a/0"),
    ],
)
def test_a_store_of_several_servers_is_named_by_its_url(environment: dict[str, str], url: str) -> None:
    """Account and database are filled in as for one server; the path of a Sentinel URL stays the service's name."""
    assert load(environment).settings.redis_url == url


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://a:26379",
        "redis+sentinel://a:26379/",
        "redis+sentinel://a:0/main",
        "redis+sentinel://a:x/main",
        "redis+sentinel://a,,b/main",
        "redis+sentinel:///main",
        "redis+sentinel://a/main/2",
        "redis+sentinel://a/main?db=x",
        "redis+cluster://a:7000,",
        "redis+cluster://a:7000/1",
        "redis+cluster://a:7000?db=1",
        "unix+cluster://a:7000",
        "redis+other://a:1",
    ],
)
def test_a_url_of_several_servers_that_cannot_be_used_is_refused(url: str) -> None:
    """Without being repeated: it may hold a password."""
    line = refusal({"REDIS_URL": url.replace("://", f"://u:{SECRET}@")})

    assert line.startswith("REDIS_URL: expected ")
    assert SECRET not in line
    assert len(line) < 250


def test_a_cluster_has_one_database() -> None:
    """Another one is refused under the name that was used."""
    assert refusal({"REDIS_URL": "redis+cluster://a", "DC_CACHE_DATABASE": "3"}) == (
        "DC_CACHE_DATABASE: expected 0, the only database of a cluster, not 3"
    )


def test_no_password_of_several_servers_shows() -> None:
    """Neither the store's nor Sentinel's own."""
    url = f"redis+sentinel://u:{SECRET}@a:1,b:2/main?sentinel_username=s&sentinel_password={SECRET}"

    found = load({"REDIS_URL": url})

    assert SECRET not in repr(found)
    shown = {source.name: source.shown for source in found.sources}
    assert shown["REDIS_URL"] == ("redis+sentinel://u:***@a:1,b:2/main?sentinel_username=s&sentinel_password=***")


def test_a_worker_knows_its_place() -> None:
    """Its settings are a node's otherwise, and bounds that were for its parent do not hold for it again."""
    environment = with_place({"WORKERS": "4", "NODE_URL": "tcp://h:65535", "NODE_ID": "n" * 63}, PLACE)

    settings = load(environment).settings

    assert settings.worker == PLACE
    assert settings.workers == 4
    assert settings.node_address == ("h", 65535)


def test_an_address_for_nodes_is_shown_as_it_is_written() -> None:
    """Also with brackets."""
    sources = {source.name: source.shown for source in load({"NODE_URL": "tcp://[fd00::1]:7000"}).sources}

    assert sources["NODE_URL"] == "tcp://[fd00::1]:7000"
