"""The settings file: names in any case, texts as they are written, and one line for everything that is wrong in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.settings import SettingsError, load


def written(folder: Path, text: str | bytes) -> Path:
    """A settings file with this text."""
    file = folder / "buzon.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_names_are_the_environments_in_any_case(tmp_path: Path) -> None:
    """Plain values and flat lists; nothing stands for nothing."""
    file = written(
        tmp_path,
        "port: [8001, 8002]\nApp_Host: 127.0.0.3\nWEBHOOK_TIMEOUT: 30s\nALLOWED_ORIGINS:\n  - https://a.example\n"
        "secret_key: ~\nnode_id:\n",
    )

    found = load({}, config=file).settings

    assert found.ports == (8001, 8002)
    assert found.host == "127.0.0.3"
    assert found.webhook_timeout_s == 30
    assert found.allowed_origins == ("https://a.example",)
    assert found.secret_key is None
    assert found.node_id.startswith("node-")


def test_values_mean_what_they_mean_in_the_environment(tmp_path: Path) -> None:
    """YAML's own types (off is false, 0123 is octal, 12:30 is base 60) never reach a setting."""
    file = written(tmp_path, "auth: off\ndebug: no\nsecret_key: 0123\nnode_id: 1e3\nredis_password: off\n")

    found = load({}, config=file).settings

    assert found.auth_off is True
    assert found.debug is False
    assert found.secret_key == "0123"
    assert found.node_id == "1e3"


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n"])
def test_an_empty_file_sets_nothing(tmp_path: Path, text: str) -> None:
    """Like no file at all."""
    assert load({"NODE_ID": "n"}, config=written(tmp_path, text)).settings == load({"NODE_ID": "n"}).settings


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("webhook_timeot: 3\n", "buzon.yaml: WEBHOOK_TIMEOT in line 1 is not a setting; did you mean WEBHOOK_TIMEOUT?"),
        ("port: 1\n\nzzzzzz: 3\n", "buzon.yaml: ZZZZZZ in line 3 is not a setting"),
        ("port: 1\nPORT: 2\n", "buzon.yaml: PORT stands twice, again in line 2"),
        ("port: {a: 1}\n", "buzon.yaml: PORT: expected one value or a flat list"),
        ("port: [[1]]\n", "buzon.yaml: PORT: expected one value or a flat list"),
        ("- port\n", "buzon.yaml: expected settings as `NAME: value` lines"),
        ("8000\n", "buzon.yaml: expected settings as `NAME: value` lines"),
        ("port: [1\n", "buzon.yaml: is not YAML: expected ',' or ']', but got '<stream end>' in line 2"),
        ("port: 1\n---\nport: 2\n", "buzon.yaml: is not YAML: but found another document in line 2"),
        (b"port: \xff\n", "buzon.yaml: is not UTF-8 text"),
        ("port: \x07\n", "buzon.yaml: is not YAML: it holds characters that YAML forbids"),
        ("max_retries: many\n", "MAX_RETRIES (in buzon.yaml): expected a whole number from 0 to 20, not 'many'"),
        ("max_retries: [1]\n", "MAX_RETRIES (in buzon.yaml): expected one value, not '1'"),
        ("[a, b]: 1\n", "buzon.yaml: ? in line 1 is not a setting"),
    ],
)
def test_what_is_wrong_in_the_file_is_one_line(tmp_path: Path, text: str | bytes, line: str) -> None:
    """It names the file, and the setting or the line; a typo gets the nearest name."""
    with pytest.raises(SettingsError) as caught:
        load({}, config=written(tmp_path, text))

    assert str(caught.value) == line


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Somebody asked for it, so going on without it would not be what they meant."""
    with pytest.raises(SettingsError, match=r"^gone.yaml: cannot be read: No such file or directory$"):
        load({}, config=tmp_path / "gone.yaml")


def test_a_setting_of_a_later_version_is_pointed_out(tmp_path: Path) -> None:
    """The contract's names that mean nothing yet are no typos."""
    file = written(tmp_path, "rate_limit: 2\n")

    assert load({}, config=file).warnings == ("RATE_LIMIT (in buzon.yaml) has no effect in this version",)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=80), st.text(max_size=80)))
def test_any_file_is_settings_or_one_line(tmp_path: Path, content: bytes | str) -> None:
    """No file makes the start fail with anything but a line."""
    text = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")

    assert "\n" not in refusal(written(tmp_path, text))


def refusal(file: Path) -> str:
    """What a start with this file would say; nothing if it would go on."""
    try:
        load({}, config=file)
    except SettingsError as error:
        return str(error)
    return ""
