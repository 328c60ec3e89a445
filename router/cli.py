"""Command line: names the commands and turns errors into one line and an exit code. Each command imports what it runs.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 not ready. Results go to stdout, all else to stderr.
The lines above the imports must stay readable for every Python 3: they say that this one is too old.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036  reached when the packages are run from the folder itself
    sys.exit("buzon: needs Python 3.11 or newer, this is %d.%d" % sys.version_info[:2])  # noqa: UP031

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from router.__about__ import __version__

if TYPE_CHECKING:
    from router.settings import Loaded

EXIT_FAILED, EXIT_USAGE, EXIT_NOT_READY = 1, 2, 3
FLAGS = {"port": "PORT", "host": "APP_HOST", "data_dir": "DATA_DIR", "workers": "WORKERS"}
"""The options of `serve` and the settings that they give."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="buzon")
def main() -> None:
    """Gather messages per key and deliver each batch to a webhook: reliably, in order, whatever crashes."""


def _config_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option("--config", type=click.Path(path_type=Path), help="YAML file with settings.")(command)


def _load(config: Path | None, flags: dict[str, str]) -> Loaded:
    from router.settings import SettingsError, load  # noqa: PLC0415  keeps --help fast

    try:
        return load(os.environ, config=config, flags=flags)
    except SettingsError as error:
        _stop(str(error), EXIT_USAGE)


def _stop(line: str, code: int) -> NoReturn:
    click.echo(f"buzon: {line}", err=True)
    sys.exit(code)


def _warn(loaded: Loaded) -> None:
    for warning in loaded.warnings:
        click.echo(f"buzon: warning: {warning}", err=True)


@main.command()
@_config_option
@click.option("--port", metavar="PORT[,PORT…]", help="Setting PORT.")
@click.option("--host", help="Setting APP_HOST.")
@click.option("--data-dir", metavar="FOLDER", help="Setting DATA_DIR.")
@click.option("--workers", metavar="NUMBER", help="Setting WORKERS.")
def serve(config: Path | None, **options: str | None) -> None:
    """Run a node, or several workers, in the foreground. Ctrl-C or SIGTERM stops it."""
    flags = {FLAGS[name]: text for name, text in options.items() if text is not None}
    loaded = _load(config, flags)
    from router.banner import START_ERRORS, start_error_line  # noqa: PLC0415

    try:
        code = _serve(loaded, config, flags)
    except START_ERRORS as error:
        line = start_error_line(error)
        if line is None:
            raise
        _stop(line, EXIT_FAILED)
    sys.exit(code)


def _serve(loaded: Loaded, config: Path | None, flags: dict[str, str]) -> int:
    """One node, a worker of a parent, or that parent, which loads nothing of a node."""
    if loaded.settings.worker is None:
        _warn(loaded)
        if loaded.settings.workers > 1:
            from router import workers  # noqa: PLC0415

            command = (*workers.SERVE, "--config", str(config)) if config else workers.SERVE
            return workers.run(loaded, {**os.environ, **flags}, command)
    from router.lifecycle import run  # noqa: PLC0415  the node's imports are slow, and only this command needs them

    return run(loaded.settings)


@main.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=9000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--status", type=click.IntRange(200, 599), default=200, show_default=True, help="What it answers.")
@click.option("--delay", type=click.FloatRange(0, 3600), default=0, show_default=True, help="Seconds to wait first.")
@click.option("--fail", type=click.IntRange(0), default=0, metavar="N", help="Answer the first N requests with 500.")
@click.option("--answer", default="", metavar="JSON", help="The body of each answer, as an agent's.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON per request.")
def listen(port: int, host: str, as_json: bool, **flags: object) -> None:
    """Receive webhooks and print what arrives."""
    from router.cli_listen import answers_of, run  # noqa: PLC0415  keeps --help fast

    error = run(host, port, answers_of(flags), as_json=as_json)
    if error:
        _stop(error, EXIT_FAILED)


@main.command("fake-evolution")
@click.option("--port", type=click.IntRange(0, 65_535), default=8080, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--version", type=click.Choice(("1", "2.3", "2.4")), default="2.3", show_default=True)
@click.option("--instance", "instances", multiple=True, default=("demo",), show_default=True, help="May be repeated.")
@click.option("--key", envvar="EVOLUTION_API_KEY", help="The global apikey.")
@click.option("--webhook", metavar="URL", help="Where all events go, as with WEBHOOK_GLOBAL_URL.")
@click.option("--by-events", is_flag=True, help="Append /messages-upsert and so on to it.")
@click.option("--copies", type=click.IntRange(1, 10), default=1, show_default=True, help="Of every webhook.")
@click.option(
    "--jitter", type=click.FloatRange(0, 60), default=0, show_default=True, help="Seconds; reorders webhooks."
)
@click.option("--echo", is_flag=True, help="Tell of sent messages as if they had come in, too.")
@click.option("--unlicensed", is_flag=True, help="Let 2.4 wait for POST /fake/activate.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON per event.")
def fake_evolution(host: str, port: int, as_json: bool, **flags: object) -> None:
    """Be an Evolution API without a WhatsApp: print what arrives and let people write."""
    from router.cli_fake_evolution import options, run  # noqa: PLC0415  keeps --help fast

    error = run(host, port, options(flags), as_json=as_json)
    if error:
        _stop(error, EXIT_FAILED)


@main.group()
def config() -> None:
    """Look at the settings as this node would see them."""


@config.command("show")
@_config_option
def show_config(config: Path | None) -> None:
    """Print each setting, its value (secrets hidden) and where it came from."""
    loaded = _load(config, {})
    name_width = max(len(source.name) for source in loaded.sources)
    shown_width = max(len(source.shown) for source in loaded.sources)
    for source in loaded.sources:
        click.echo(f"{source.name:{name_width}}  {source.shown:{shown_width}}  {source.origin}".rstrip())
    _warn(loaded)


@config.command("check")
@_config_option
def check_config(config: Path | None) -> None:
    """Say whether a node would start with these settings."""
    _warn(_load(config, {}))
    click.echo("ok")


@main.command()
@_config_option
def migrate(config: Path | None) -> None:
    """Bring the inventory's database to this version's tables."""
    from router import cli_inventory  # noqa: PLC0415  keeps --help fast

    sys.exit(cli_inventory.migrate(_load(config, {}).settings))


@main.group()
def inventory() -> None:
    """Look after the inventory's projection."""


@inventory.command("rebuild")
@_config_option
def rebuild_inventory(config: Path | None) -> None:
    """Make the projection anew from all events, while it is read."""
    from router import cli_inventory  # noqa: PLC0415  keeps --help fast

    sys.exit(cli_inventory.rebuild(_load(config, {}).settings))


@inventory.command("verify")
@_config_option
def verify_inventory(config: Path | None) -> None:
    """Hold the projection against the events and the model: exit 4 when they differ."""
    from router import cli_inventory  # noqa: PLC0415  keeps --help fast

    sys.exit(cli_inventory.verify(_load(config, {}).settings))


@main.command()
@_config_option
@click.option("--url", help="The node; by default the one that these settings describe.")
def healthcheck(config: Path | None, url: str | None) -> None:
    """Ask the node whether it is ready: exit 0, or 3 and one line."""
    from router.cli_healthcheck import not_ready_reason, ready_url  # noqa: PLC0415  keeps --help fast

    target = url or ready_url(_load(config, {}).settings)
    if target is None:
        _stop("PORT: 0 does not tell where the node is; use --url", EXIT_USAGE)
    reason = not_ready_reason(target)
    if reason:
        _stop(reason, EXIT_NOT_READY)
    click.echo("ready")


@main.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    from router.app import openapi_document  # noqa: PLC0415  builds the whole document

    click.echo(openapi_document())


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(__version__)


if __name__ == "__main__":
    main()
