"""Fake Evolution: serves the fake from the command line and prints what arrives, for trying things out.

Prints to stdout what happens, to stderr where it listens and what to type. Prints no key but the public default.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec
from msgspec import Struct

from router.fake_evolution.dialects import DIALECTS, Json
from router.fake_evolution.fake import DEFAULT_KEY, Fake, Note, Options
from router.fake_evolution.posting import Mischief
from router.fake_evolution.running import serving
from router.fake_evolution.webhook_calls import GlobalWebhook
from router.listening import CannotListen, addresses, http_url, listen

EXAMPLE_NUMBER = "5511988887777"


class Flags(Struct, frozen=True, kw_only=True):
    """The options of the command."""

    version: str
    instances: tuple[str, ...]
    key: str | None
    webhook: str | None
    by_events: bool
    copies: int
    jitter: float
    echo: bool
    unlicensed: bool


def options(flags: Mapping[str, object]) -> Options:
    """What the flags of the command ask for."""
    given = msgspec.convert(dict(flags), Flags)
    return Options(
        dialect=DIALECTS[given.version],
        key=given.key or DEFAULT_KEY,
        instances=given.instances,
        webhook=None if given.webhook is None else GlobalWebhook(url=given.webhook, by_events=given.by_events),
        activated=not given.unlicensed,
        echoes=given.echo,
        mischief=Mischief(copies=given.copies, jitter_s=given.jitter),
    )


def run(host: str, port: int, options: Options, *, as_json: bool) -> str:
    """Serve until Ctrl-C or SIGTERM; returns one line if it could not, else nothing."""
    try:
        asyncio.run(_serve(host, port, options, _json_line if as_json else _line))
    except CannotListen as error:
        return str(error)
    return ""


async def _serve(host: str, port: int, options: Options, render: Callable[[Note], str]) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    sockets = listen(host, [port])
    url = http_url(*addresses(sockets)[0])
    fake = Fake(options, told=lambda note: print(render(note), flush=True))
    async with serving(fake, sockets, url), asyncio.TaskGroup() as tasks:
        posting = tasks.create_task(fake.poster.run())
        print(hints(url, options), file=sys.stderr, flush=True)  # stdout is for what happens alone
        await stopped.wait()
        posting.cancel()


def hints(url: str, options: Options) -> str:
    """Where it listens, and the lines of curl that send and write."""
    key = DEFAULT_KEY if options.key == DEFAULT_KEY else "$EVOLUTION_API_KEY"
    instance = options.instances[0]
    text: Json = {"textMessage": {"text": "hola"}} if options.dialect.nested_text else {"text": "hola"}
    send = json.dumps({"number": EXAMPLE_NUMBER, **text})
    write = json.dumps({"instance": instance, "from": EXAMPLE_NUMBER, "text": "hola"})
    as_json = "-H 'content-type: application/json'"
    return "\n".join(
        (
            f"Evolution {options.dialect.version} (a fake) on {url}, instances: {', '.join(options.instances)}"
            " (Ctrl-C stops)",
            "somebody writes:",
            f"  curl -s {url}/fake/incoming {as_json} -d '{write}'",
            "you send:",
            f"  curl -s {url}/message/sendText/{instance} -H \"apikey: {key}\" {as_json} -d '{send}'",
        )
    )


def _json_line(note: Note) -> str:
    return json.dumps({"at": _now().isoformat(timespec="milliseconds"), "what": note.what, **note.fields})


def _line(note: Note) -> str:
    """One line for people: when, what, and the rest by name; control characters shown, not obeyed."""
    fields = "  ".join(f"{name}={_shown(value)}" for name, value in note.fields.items())
    return f"{_now():%H:%M:%S}  {note.what:<8}  {fields}"


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _now() -> datetime:
    return datetime.now().astimezone()
