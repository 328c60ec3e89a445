"""Settings of WhatsApp sends: what is read, what is refused, and how it is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.evolution import EvolutionRules
from actors.instances import Pacing
from router import setting, told, values
from router.api.tasks import MessageRules
from router.settings import SettingsError, load

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def shown(**environment: str) -> dict[str, str]:
    """How the settings of a node with this environment are shown."""
    return {source.name: source.shown for source in load(environment).sources}


def test_a_node_that_is_told_nothing() -> None:
    """The defaults are those of the contract."""
    settings = load({}).settings
    assert told.evolution_rules(settings) == EvolutionRules(
        url="http://localhost:8080", api_key="", timeout_s=60.0, user_agent=told.USER_AGENT
    )
    assert told.message_rules(settings) == MessageRules(instance="default", on_unknown="retry", max_retries=3)
    assert told.pacing(settings) == Pacing(every_s=0.0, gap_s=None)
    assert (settings.task_retry_delay_s, settings.result_ttl_s) == (5.0, 86_400.0)


def test_everything_can_be_said() -> None:
    """And reaches the part that it is for; the key is never shown."""
    environment = {
        "EVOLUTION_API_URL": "https://evo.example/base/",
        "EVOLUTION_API_KEY": "B6D711FCDE4D4FD5936544120E713976",
        "EVOLUTION_INSTANCE_NAME": "ventas",
        "EVOLUTION_TIMEOUT": "90s",
        "EVOLUTION_ON_UNKNOWN": "dead",
        "EVOLUTION_RATE": "20/m",
        "EVOLUTION_GAP": "1s-3s",
        "TASK_RETRY_DELAY": "250ms",
        "RESULT_TTL": "1h",
        "MAX_RETRIES": "7",
    }
    settings = load(environment).settings
    rules = told.evolution_rules(settings)
    assert (rules.url, rules.api_key, rules.timeout_s) == (
        "https://evo.example/base",
        "B6D711FCDE4D4FD5936544120E713976",
        90.0,
    )
    assert told.message_rules(settings) == MessageRules(instance="ventas", on_unknown="dead", max_retries=7)
    assert told.pacing(settings) == Pacing(every_s=3.0, gap_s=(1.0, 3.0))
    assert (settings.task_retry_delay_s, settings.result_ttl_s) == (0.25, 3600.0)
    told_of = shown(**environment)
    assert "B6D7" not in str(told_of)
    assert [told_of[name] for name in ("EVOLUTION_API_URL", "EVOLUTION_RATE", "EVOLUTION_GAP", "RESULT_TTL")] == [
        "https://evo.example/base",
        "20/m",
        "1s-3s",
        "1h0m0s",
    ]


@pytest.mark.parametrize(
    ("text", "every_s"),
    [("none", None), ("NONE", None), ("1/s", 1.0), ("5/s", 0.2), ("20/m", 3.0), ("20/M", 3.0), ("1/h", 3600.0)],
)
def test_a_rate_is_the_time_between_two(text: str, every_s: float | None) -> None:
    """`none` is as fast as it goes."""
    assert values.rate(text) == every_s


@pytest.mark.parametrize(
    "text", ["", "20", "0/s", "-1/s", "1.5/s", "20/d", "20 / m", "/m", "20/", "1/s\n", "9999999/s"]
)
def test_other_rates_are_refused(text: str) -> None:
    """With an example."""
    with pytest.raises(ValueError, match="20/m"):
        values.rate(text)


@given(st.integers(1, 999_999), st.sampled_from("smh"))
def test_a_rate_is_shown_as_one_that_means_the_same(count: int, unit: str) -> None:
    """In the shortest unit of which it is a whole number."""
    every_s = values.rate(f"{count}/{unit}")
    assert every_s is not None
    again = values.rate(setting.rate(every_s))
    assert again is not None
    assert again == pytest.approx(every_s, rel=1e-9)


@pytest.mark.parametrize(("text", "expected"), [("90/m", "90/m"), ("120/m", "2/s"), ("90/h", "90/h"), ("60/h", "1/m")])
def test_a_rate_is_not_rounded(text: str, expected: str) -> None:
    """Ninety a minute are not two a second."""
    assert shown(EVOLUTION_RATE=text)["EVOLUTION_RATE"] == expected


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("1s-3s", (1.0, 3.0)),
        ("500ms - 1m", (0.5, 60.0)),
        ("2s-2s", (2.0, 2.0)),
        ("1-3", (1.0, 3.0)),
        ("0s-1h", (0.0, 3600.0)),
    ],
)
def test_a_gap_is_two_durations(text: str, span: tuple[float, float]) -> None:
    """The shorter one first; they may be the same."""
    assert values.span_s(0, 3600)(text) == span
    assert values.span_s(0, 3600)(setting.span(span)) == span


@pytest.mark.parametrize("text", ["1s", "3s-1s", "", "-", "1s-", "-3s", "1s-2h", "1s-2s-3s", "a-b"])
def test_other_gaps_are_refused(text: str) -> None:
    """Also one that is longer than allowed."""
    with pytest.raises(ValueError, match=r"."):
        values.span_s(0, 3600)(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://localhost:8080", "http://localhost:8080"),
        ("https://evo.example/", "https://evo.example"),
        ("HTTP://evo.example//", "HTTP://evo.example"),
        ("http://[::1]:8080/api/", "http://[::1]:8080/api"),
    ],
)
def test_where_an_api_is(text: str, url: str) -> None:
    """Paths are put behind it."""
    assert values.base_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost:8080",
        "ftp://evo.example",
        "http://",
        "http:///path",
        "http://user:pass@evo.example",
        "http://evo.example?apikey=1",
        "http://evo.example/#x",
        "http://evo.example:0",
        "http://evo.example:99999",
        "http://evo.example:x",
        "http://[::1",
        "http://evo example",
        "http://evo.example/a b",
        "http://evo.example/\n",
        "http://ñ.example",
    ],
)
def test_other_places_are_refused(text: str) -> None:
    """Above all one that holds a password or a query."""
    with pytest.raises(ValueError, match="without user name and query"):
        values.base_url(text)


@pytest.mark.parametrize("text", ["default", "mi instancia", "ñandú", "a:b?c", "x" * 128])
def test_the_name_of_an_instance(text: str) -> None:
    """As Evolution has it."""
    assert values.instance(text) == text


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "a\nb", "x" * 129])
def test_what_is_no_name_of_an_instance(text: str) -> None:
    """It would become another route."""
    with pytest.raises(ValueError, match="name of an instance"):
        values.instance(text)


def test_a_bad_value_is_told_and_a_bad_key_is_not() -> None:
    """With the name of its setting."""
    with pytest.raises(SettingsError, match=r"EVOLUTION_RATE.*fast"):
        load({"EVOLUTION_RATE": "fast"})
    with pytest.raises(SettingsError, match="EVOLUTION_ON_UNKNOWN"):
        load({"EVOLUTION_ON_UNKNOWN": "perhaps"})
