"""The command line: exit codes, one line for what is wrong, secrets hidden, and quick answers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from router.__about__ import __version__
from router.cli import main
from router.settings import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
CLEAN: dict[str, str | None] = {name: None for setting in SETTINGS for name in setting.names}
"""Removes whatever this machine's environment sets."""


def buzon(*arguments: str, **environment: str) -> Result:
    """Run a command with just these settings in its environment."""
    return CliRunner().invoke(main, arguments, env={**CLEAN, **environment})


def test_help_names_every_command() -> None:
    """Whoever types only the name, or asks for help, sees what there is."""
    result = buzon("--help")

    assert result.exit_code == 0
    for command in ("serve", "listen", "fake-evolution", "config", "healthcheck", "openapi", "version"):
        assert f"\n  {command} " in result.stdout


def test_the_version_is_printed_alone() -> None:
    """So that a script can use it."""
    assert buzon("version").stdout == f"{__version__}\n"


def test_config_check_says_ok_or_what_a_start_would_say() -> None:
    """The exit code tells the same."""
    good, bad = buzon("config", "check"), buzon("config", "check", PORT="none")

    assert (good.exit_code, good.stdout, good.stderr) == (0, "ok\n", "")
    assert (bad.exit_code, bad.stdout) == (2, "")
    assert bad.stderr == (
        "buzon: PORT: expected a port from 0 to 65535, or a comma list of different ones, not 'none'\n"
    )


def test_config_show_lists_each_setting_with_its_origin_and_no_secret(tmp_path: Path) -> None:
    """One line each: name, value, where it came from."""
    file = tmp_path / "b.yaml"
    file.write_text("retry_delay: 1m\n")

    result = buzon("config", "show", "--config", str(file), SECRET_KEY="canary-canary", PORT="1,2")

    lines = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()}
    assert result.exit_code == 0
    assert set(lines) == {setting.name for setting in SETTINGS}
    assert lines["PORT"] == ["1,2", "environment"]
    assert lines["RETRY_DELAY"] == ["1m0s", "b.yaml"]
    assert lines["SECRET_KEY"] == ["***", "environment"]
    assert lines["REDIS_URL"] == ["-", "default"]
    assert "canary" not in result.output
    assert "warning: SECRET_KEY is set" in result.stderr


@pytest.mark.parametrize("arguments", [["serve"], ["config", "check"], ["config", "show"], ["inventory", "verify"]])
@pytest.mark.parametrize("rest", ["canary@127.0.0.1:notaport/x", "canary#y@h/x", "canary/y@h/x", "canary@a..b/x"])
def test_a_database_that_cannot_be_read_is_refused_without_a_piece_of_it(
    arguments: list[str], rest: str, tmp_path: Path
) -> None:
    """One line that names the setting, exit code 2."""
    result = buzon(*arguments, DATABASE_URL=f"postgresql://ana:{rest}", DATA_DIR=str(tmp_path / "data"))

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("buzon: DATABASE_URL: ")
    assert result.stderr.count("\n") == 1
    assert "canary" not in result.output


@pytest.mark.parametrize("arguments", [["serve", "--port", "x"], ["serve", "--host", "0.0.0.0"]])
def test_serve_refuses_bad_settings_before_it_does_anything(arguments: list[str], tmp_path: Path) -> None:
    """One line on stderr, exit code 2, and no folder made."""
    result = buzon(*arguments, "--data-dir", str(tmp_path / "data"))

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("buzon: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_wrong_usage_is_exit_code_2() -> None:
    """As everywhere else."""
    assert buzon("serve", "--no-such-option").exit_code == 2


def test_a_node_that_does_not_answer_is_not_ready() -> None:
    """Exit code 3, so that a container's health check can use the command."""
    result = buzon("healthcheck", "--url", "http://127.0.0.1:9")

    assert result.exit_code == 3
    assert result.stderr.startswith("buzon: not ready: http://127.0.0.1:9 does not answer")


def test_a_health_check_needs_a_known_port() -> None:
    """Port 0 says nothing about where the node listens."""
    assert buzon("healthcheck", PORT="0").exit_code == 2


def test_help_imports_nothing_of_the_node() -> None:
    """Help, completion and version answer at once because the server's parts are not loaded for them."""
    loaded = "import sys, router.cli; print(sorted(sys.modules))"
    modules = set(ast.literal_eval(_python("-c", loaded).stdout))

    slow = {"aiohttp", "redis", "uvloop", "structlog", "prometheus_client", "yaml", "msgspec", "asyncio", "router.app"}
    assert not modules & slow


def test_an_old_python_reads_far_enough_to_say_so() -> None:
    """`python3.8 -m router serve` answers one line, not a syntax error."""
    for file in ("router/__init__.py", "router/__main__.py", "router/__about__.py", "router/cli.py"):
        ast.parse((ROOT / file).read_text(), file, feature_version=(3, 7))
    pretend = "import sys; sys.version_info = (3, 9, 2); import runpy; runpy.run_module('router', run_name='__main__')"

    result = _python("-c", pretend)

    assert result.returncode == 1
    assert result.stderr == "buzon: needs Python 3.11 or newer, this is 3.9\n"


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  our own interpreter and arguments
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
