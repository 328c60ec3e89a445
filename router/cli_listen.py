"""Listen: a tiny webhook receiver that prints what arrives, for trying things out and for tests.

Keeps nothing but a count. Prints a request before it answers it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from itertools import count

import msgspec
from aiohttp import web
from msgspec import Struct

from router.listening import CannotListen, addresses, http_url, listen

BODY_BYTES_MAX = 64 * 1024 * 1024
SHOWN_HEADERS = ("webhook-", "x-buffer-", "x-attempt", "content-type", "traceparent")
FAILURE = 500


class Answers(Struct, frozen=True, kw_only=True):
    """What the receiver answers: `status` and `body` after `delay_s`, but 500 to the first `failures` requests."""

    status: int = 200
    delay_s: float = 0
    failures: int = 0
    body: str = ""


class Arrival(Struct, frozen=True, kw_only=True):
    """One request as it arrived, and the status it gets. `at` is local time with its zone; `path` as it was sent."""

    at: datetime
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int


def answers_of(flags: Mapping[str, object]) -> Answers:
    """What the flags of the command ask for."""
    names = {"status": "status", "delay": "delay_s", "fail": "failures", "answer": "body"}
    return msgspec.convert({names[name]: value for name, value in flags.items()}, Answers)


def run(host: str, port: int, answers: Answers, *, as_json: bool) -> str:
    """Serve until Ctrl-C or SIGTERM; returns one line if it could not, else nothing."""
    try:
        asyncio.run(_serve(host, port, answers, _json_line if as_json else _paragraph))
    except CannotListen as error:
        return str(error)
    return ""


async def _serve(host: str, port: int, answers: Answers, render: Callable[[Arrival], str]) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    sockets = listen(host, [port])
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.router.add_route("*", "/{path:.*}", _receiver(answers, render))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        for listener in sockets:
            await web.SockSite(runner, listener).start()
        url = http_url(*addresses(sockets)[0])
        print(f"listening on {url} (Ctrl-C stops)", file=sys.stderr, flush=True)  # stdout is for requests alone
        await stopped.wait()
    finally:
        await runner.cleanup()


def _receiver(
    answers: Answers, render: Callable[[Arrival], str]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    numbers = count(1)

    async def receive(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        status = FAILURE if next(numbers) <= answers.failures else answers.status
        arrival = Arrival(
            at=datetime.now().astimezone(),
            method=request.method,
            path=request.raw_path,
            headers=dict(request.headers),
            body=body,
            status=status,
        )
        print(render(arrival), flush=True)
        await asyncio.sleep(answers.delay_s)
        if status == FAILURE or not answers.body:
            return web.Response(status=status)
        return web.Response(status=status, text=answers.body, content_type="application/json")

    return receive


def _json_line(arrival: Arrival) -> str:
    """The request as one line of JSON, its body decoded if it is JSON."""
    line = {
        "at": arrival.at.isoformat(timespec="milliseconds"),
        "method": arrival.method,
        "path": arrival.path,
        "headers": arrival.headers,
        "body": _decoded(arrival.body),
        "status": arrival.status,
    }
    return json.dumps(line)


def _paragraph(arrival: Arrival) -> str:
    """The request for people: what it asks, the headers that matter for a webhook, the body indented."""
    at = arrival.at.strftime("%H:%M:%S.%f")[:-3]
    lines = [f"{at}  {arrival.method} {_safe(arrival.path)}  (answered {arrival.status})"]
    shown = [(name, value) for name, value in arrival.headers.items() if name.lower().startswith(SHOWN_HEADERS)]
    lines += [f"  {name}: {_safe(value)}" for name, value in shown]
    body = _decoded(arrival.body)
    text = _safe(body) if isinstance(body, str) else json.dumps(body, indent=2, ensure_ascii=False)
    lines += [f"  {_safe(line)}" for line in text.split("\n")]
    return "\n".join(lines) + "\n"


def _decoded(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode(errors="replace")


def _safe(text: str) -> str:
    """The text without characters that could move a terminal's cursor or colour it."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
