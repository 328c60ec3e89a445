"""The documents: the README's examples do what they say, and what is written about the code is so.

Examples run as they are written; only the ports are replaced, so that tests can stand side by side, and the programs
of `.venv` by those that run this test. Tables, names, links and limits are compared with the code.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from actors.core.policy import BufferOptions, Webhook
from router.__about__ import __version__
from router.app import openapi_document
from router.cli_listen import SHOWN_HEADERS
from tests.conftest import NodeFactory
from tests.support.child import Child
from tests.support.docs import (
    DOCUMENTS,
    ROOT,
    Example,
    anchors,
    defined,
    examples,
    fences,
    filled,
    links,
    marked,
    read,
    references,
    rows,
)
from tests.support.node import NodeProcess
from tests.support.sink import Reply, Sink
from tests.support.until import steady, until
from tests.support.valkey import free_port

README, ARCHITECTURE = read("README.md"), read("ARCHITECTURE.md")
EXAMPLES = examples(README)
ARCHITECTURE_LINES_MAX = 250
UNITS = {"": 1, "s": 1, "ms": 1, "KiB": 1024, "MiB": 1024 * 1024}
PLACEHOLDERS = {"NAME", "actors/NAME.py", "actors/adapters/valkey/scripts/NAME.lua"}
KEY_LINE = re.compile(r"^--   (\S+(?: \S+)*?) +(HASH|LIST|SET|ZSET|STREAM|STRING) ", re.MULTILINE)
SHELL_ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
SETTLED_S = 0.5


class Shell:
    """A terminal that stays open, as a reader's does: functions and variables live from one block to the next."""

    def __init__(self, folder: Path, node: NodeProcess, webhook_port: int, evolution_port: int = 8080) -> None:
        bash = shutil.which("bash")
        assert bash is not None, "bash is not installed"
        assert shutil.which("curl") is not None, "curl is not installed"
        self._ports = {":8000": f":{node.port}", ":9000": f":{webhook_port}", ":8080": f":{evolution_port}"}
        self._process = subprocess.Popen(  # noqa: S603  the blocks of our own README
            [bash, "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env=SHELL_ENVIRONMENT,
        )

    def run(self, example: Example) -> list[str]:
        """Type a block and give the lines it prints. Its last command must succeed."""
        text = example.text
        for documented, ours in self._ports.items():
            text = text.replace(documented, ours)
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{text}echo ::$?\n")
        process.stdin.flush()
        lines: list[str] = []
        while not (line := process.stdout.readline()).startswith("::"):
            assert line, f"the shell ended in {example.name}: {lines}"
            lines.append(line.rstrip("\n"))
        assert line == "::0\n", (example.name, lines)
        return lines

    def close(self) -> None:
        """Leave the shell."""
        self._process.communicate()


@contextmanager
def shell(folder: Path, node: NodeProcess, webhook_port: int, evolution_port: int = 8080) -> Iterator[Shell]:
    """A terminal in a folder, for one test."""
    opened = Shell(folder, node, webhook_port, evolution_port)
    try:
        yield opened
    finally:
        opened.close()


class Listener:
    """What `buzon listen --json` has printed so far."""

    def __init__(self, child: Child, port: int) -> None:
        self._child = child
        self.port = port

    @property
    def arrivals(self) -> list[dict[str, Any]]:
        """Every request that arrived."""
        return [json.loads(line) for line in self._child.stdout_path.read_text().splitlines()]


@asynccontextmanager
async def listener(folder: Path, name: str = "listen") -> AsyncIterator[Listener]:
    """A receiver of the README's on a port of its own, one line of JSON for each request."""
    port = free_port()
    typed = shlex.split(EXAMPLES[name].text.replace("9000", str(port)))
    assert typed[0] == ".venv/bin/buzon"
    argv = [sys.executable, "-m", "router", *typed[1:], "--json"]
    with Child(argv, folder / "listen") as child:
        await until(lambda: "listening on" in child.stderr_path.read_text(), what="the receiver listens")
        yield Listener(child, port)


def headers_and_body(printed: str) -> tuple[set[str], object]:
    """The header names (lower case) and the body of a request as `buzon listen` prints it."""
    head, _, body = printed.partition("\n  {")
    names = {line.partition(":")[0].strip().lower() for line in head.splitlines()[1:]}
    return names, json.loads("{" + body)


def queries(lines: list[str]) -> list[Any]:
    """The answers that curl printed, one a line, each a success."""
    answers = [json.loads(line) for line in lines]
    assert [answer["status"] for answer in answers] == ["success"] * len(answers)
    return answers


async def one_arrives(receiver: Listener, within_s: float) -> dict[str, Any]:
    """Wait for a request and see that it stays the only one."""
    await until(lambda: receiver.arrivals, within_s, what="the webhook got its request")
    await steady(lambda: len(receiver.arrivals) == 1, SETTLED_S, every_s=0.05, what="the request stays the only one")
    return receiver.arrivals[0]


async def settled(http: aiohttp.ClientSession, node: NodeProcess) -> list[str]:
    """How the deliveries stand, once nothing waits any more."""
    async with http.get(f"{node.url}/api/v1/buffers") as response:
        assert (await response.json())["buffers"] == []
    async with http.get(f"{node.url}/api/v1/deliveries") as response:
        return [delivery["status"] for delivery in (await response.json())["deliveries"]]


async def test_the_first_example_shows_one_aggregated_request(
    tmp_path: Path, make_node: NodeFactory, http: aiohttp.ClientSession
) -> None:
    """Three messages of one key, one request; answers, headers and body are those that the README shows. Then the
    commands that look inside."""
    node = make_node(data_dir=tmp_path / "data")
    await node.start()
    async with listener(tmp_path) as receiver:
        with shell(tmp_path, node, receiver.port) as terminal:
            answers = queries(terminal.run(EXAMPLES["send"]))
            arrival = await one_arrives(receiver, 8)
            assert await settled(http, node) == ["delivered"]
            looks = terminal.run(EXAMPLES["look"])
            await until(lambda: len(receiver.arrivals) == 2, what="the flushed batch arrived")
            flushed = receiver.arrivals[1]

    shown = json.loads(EXAMPLES["answer"].text)
    assert [answer["buffer_info"]["current_size"] for answer in answers] == [1, 2, 3]
    assert (answers[2].keys(), answers[2]["buffer_info"].keys()) == (shown.keys(), shown["buffer_info"].keys())
    names, body = headers_and_body(EXAMPLES["arrives"].text)
    assert arrival["body"] == body
    assert (arrival["method"], arrival["path"]) == ("POST", "/webhook")
    assert {name.lower() for name in arrival["headers"] if name.lower().startswith(SHOWN_HEADERS)} == names
    assert f"  X-Buffer-Size: {arrival['headers']['X-Buffer-Size']}\n" in EXAMPLES["arrives"].text
    assert f"  X-Buffer-Reason: {arrival['headers']['X-Buffer-Reason']}\n" in EXAMPLES["arrives"].text

    waiting, closed, listed = (json.loads(line) for line in looks[1:])
    assert waiting["size"] == closed["size"] == 1
    assert flushed["headers"]["webhook-id"] == closed["delivery_id"]
    assert flushed["headers"]["X-Buffer-Reason"] == "manual"
    assert closed["delivery_id"] in {delivery["id"] for delivery in listed["deliveries"]}


async def test_the_same_with_kill_9_before_the_third_message(
    tmp_path: Path, make_node: NodeFactory, http: aiohttp.ClientSession
) -> None:
    """The node dies with two messages, comes back, takes the third: one request with all three, at the first one's
    deadline."""
    node = make_node(data_dir=tmp_path / "data")
    await node.start()
    async with listener(tmp_path) as receiver:
        with shell(tmp_path, node, receiver.port) as terminal:
            define = EXAMPLES["send"].text.partition("}\nsend ")[0] + "}\n"
            terminal.run(Example("define", "sh", define))
            before = queries(terminal.run(EXAMPLES["crash"]))
            assert await node.ended() < 0
            await node.start()
            (third,) = queries(terminal.run(EXAMPLES["resume"]))
            remaining_s = third["buffer_info"]["time_remaining"]
            assert not receiver.arrivals
            arrival = await one_arrives(receiver, remaining_s + 3)
            assert await settled(http, node) == ["delivered"]

    assert [answer["buffer_info"]["current_size"] for answer in [*before, third]] == [1, 2, 3]
    assert 0 < remaining_s < before[1]["buffer_info"]["time_remaining"]
    assert arrival["body"] == headers_and_body(EXAMPLES["arrives"].text)[1]
    assert arrival["headers"]["X-Buffer-Size"] == "3"


async def test_the_cache_examples_of_both_services(tmp_path: Path, make_node: NodeFactory) -> None:
    """Each line answers what the older service answered; what the second example stores is gone at its end."""
    node = make_node(data_dir=tmp_path / "data")
    await node.start()
    with shell(tmp_path, node, webhook_port=free_port()) as terminal:
        seconds = [json.loads(line) for line in terminal.run(EXAMPLES["cache-seconds"])]
        lines = terminal.run(EXAMPLES["cache-durations"])

    key, pattern = "inventarios:producto:123", "inventarios:*"
    assert seconds[:-1] == [
        {"message": "Valor guardado en cache", "key": key, "ttl": 3600},
        {"key": key, "value": [{"id": 1, "cantidad": 50}], "ttl": 3600},
        {"key": key, "exists": True},
        {"pattern": pattern, "count": 1, "keys": [key], "cursor": None},
        {"message": "Clave eliminada del cache", "key": key},
        {"message": "Claves eliminadas", "pattern": pattern, "deleted_count": 0},
        {"message": "Cache limpiado", "deleted_count": 0},
    ]
    assert seconds[-1]["status"] == "connected"
    put, got, *rest = [json.loads(line) for line in lines if line.startswith("{")]
    assert (put["key"], put["ttl"]) == ("mi_clave", "1h0m0s")
    assert (got["key"], got["value"]) == ("mi_clave", "mi_valor")
    assert lines[2].strip() == "HTTP/1.1 200 OK"
    deleted, stored, batch, removed, listed, stats, cleared = rest
    assert (deleted["key"], stored["count"], removed["count"]) == ("mi_clave", 3, 2)
    assert {name: item["value"] for name, item in batch["items"].items()} == {
        f"clave{n}": f"valor{n}" for n in (1, 2, 3)
    }
    assert (listed["keys"], stats["size"], cleared["deleted_count"]) == (["clave3"], 1, 1)
    assert stats["info"]["misses"] >= 4


async def test_the_channels_section_works(tmp_path: Path, make_node: NodeFactory) -> None:
    """Publish, list, count, read."""
    node = make_node(data_dir=tmp_path / "data")
    await node.start()
    with shell(tmp_path, node, webhook_port=free_port()) as terminal:
        published, listed, counted, history = [json.loads(line) for line in terminal.run(EXAMPLES["channels-publish"])]

    channel, message = "inventarios_updates", {"event": "update", "producto_id": 123}
    assert (published["message"], published["channel"], published["offset"]) == ("Mensaje publicado", channel, 1)
    assert listed == {"pattern": "inventarios*", "count": 0, "channels": [], "cursor": None}
    assert counted == {"channel": channel, "subscribers": 0}
    assert history["epoch"] == published["epoch"]
    assert history["messages"] == [{"id": published["id"], "offset": 1, "data": message}]


async def test_the_inventory_example_works(tmp_path: Path, make_node: NodeFactory) -> None:
    """Two commands, the projection, the lines, and both events."""
    node = make_node(data_dir=tmp_path / "data")
    await node.start()
    with shell(tmp_path, node, webhook_port=free_port()) as terminal:
        made, line, page, one, history = [json.loads(each) for each in terminal.run(EXAMPLES["inventory"])]

    row = {"inventario_id": 1, "cliente": "Ana", "total_items": 12, "fecha_caducidad": "2027-01-31"}
    assert (made["id"], made["total_items"], line["cantidad"]) == (1, 0, 12)
    assert page == [row]
    assert one == {**row, "lineas": [{"id": 1, "producto": "tuerca", "cantidad": 12}]}
    assert [message["data"]["event_id"] for message in history["messages"]] == [made["event_id"], line["event_id"]]


async def test_the_whatsapp_example_goes_round(
    tmp_path: Path, make_node: NodeFactory, http: aiohttp.ClientSession
) -> None:
    """The stand-in, the node, the agent and what is typed: asked once with all three texts, two texts on the phone."""
    *settings, make, target = shlex.split(EXAMPLES["whatsapp-run"].text)
    assert (make, target) == ("make", "run")
    evolution_port = free_port()
    given = {
        **dict(setting.split("=", 1) for setting in settings),
        "EVOLUTION_API_URL": f"http://127.0.0.1:{evolution_port}",
    }
    node = make_node(given, data_dir=tmp_path / "data")
    await node.start()
    typed = shlex.split(EXAMPLES["whatsapp-fake"].text.replace("8000", str(node.port)))
    assert typed[0] == ".venv/bin/buzon"
    fake = Child([sys.executable, "-m", "router", *typed[1:], "--port", str(evolution_port)], tmp_path / "fake")
    with fake:
        await until(lambda: "(a fake) on" in fake.stderr_path.read_text(), what="the fake listens")
        async with listener(tmp_path, "whatsapp-agent") as agent:
            with shell(tmp_path, node, agent.port, evolution_port) as terminal:
                route, queued = [json.loads(line) for line in terminal.run(EXAMPLES["whatsapp"])]
                request = await one_arrives(agent, 6)

                async def sent() -> list[Any] | None:
                    tasks, phone = [json.loads(line) for line in terminal.run(EXAMPLES["whatsapp-look"])]
                    return [tasks, phone] if len(tasks["tasks"]) == 2 else None

                tasks, phone = await until(sent, 5, every_s=0.2, what="both texts are sent") or [{}, {}]

    assert route["webhook"]["url"].endswith("/agent")
    assert queued["success"] is True
    assert request["body"]["data"]["message"]["conversation"] == "hola\nquería saber\nsi abren hoy"
    assert {task["status"] for task in tasks["tasks"]} == {"SUCCESS"}
    texts = [message["text"] for messages in phone.values() for message in messages]
    assert sorted(texts) == ["Abrimos a las nueve.", "Hola Carlos, este es un mensaje de prueba"]


async def test_the_receiver_in_the_readme_takes_a_batch_once(
    tmp_path: Path, make_node: NodeFactory, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It verifies what the node really signs, handles it once however often it comes, and refuses a changed body."""
    secret = "whsec_" + base64.b64encode(os.urandom(24)).decode()
    monkeypatch.setenv("WEBHOOK_SECRET", secret)
    monkeypatch.chdir(tmp_path)
    handled: list[dict[str, Any]] = []
    example: dict[str, Any] = {"handle": handled.append}
    exec(compile(EXAMPLES["receive"].text, "README.md", "exec"), example)  # noqa: S102  our own example
    node = make_node({"RETRY_DELAY": "0.05"})
    await node.start()
    async with Sink() as sink:
        sink.on("/hook", Reply(status=500), Reply())
        message = {
            "webhook": {"url": sink.url(), "secret": secret},
            "buffer": {"key": "k", "max_size": 1},
            "payload": {"n": 1},
        }
        async with http.post(f"{node.url}/api/v1/message", json=message) as response:
            assert response.status == 200
        requests = await sink.wait_for_requests(2)

    for request in requests:
        example["receive"](request.headers, request.body)
    with pytest.raises(WebhookVerificationError):
        example["receive"](requests[0].headers, requests[0].body + b" ")
    example["database"].close()

    assert len(requests) == 2
    assert [message["payload"] for envelope in handled for message in envelope["messages"]] == [{"n": 1}]


async def test_the_production_example_names_settings_that_work(tmp_path: Path) -> None:
    """A node would start with them: nothing is misspelt, and the warning is the one that AUTH=off deserves."""
    *settings, make, target = shlex.split(EXAMPLES["production"].text)
    assert (make, target) == ("make", "run")
    environment = dict(setting.split("=", 1) for setting in settings)
    argv = [sys.executable, "-m", "router", "config", "check"]
    with Child(argv, tmp_path / "check", environment=environment) as check:
        code = await asyncio.to_thread(check.wait, 10)
        assert code == 0, check.output()
        assert check.stdout_path.read_text() == "ok\n"
        assert "AUTH=off" in check.stderr_path.read_text()


def test_every_shell_block_of_the_readme_is_run() -> None:
    """By the tests above: a new block needs a name and a test."""
    ran = {"run", "listen", "send", "crash", "resume", "look", "production", "cache-seconds", "cache-durations"}
    ran |= {
        "channels-publish",
        "whatsapp",
        "whatsapp-fake",
        "whatsapp-run",
        "whatsapp-agent",
        "whatsapp-look",
        "inventory",
    }

    assert {example.name for example in EXAMPLES.values() if example.language == "sh"} == ran
    assert fences(README, "sh") == len(ran)
    assert fences(README, "python") == 1


def test_make_run_starts_what_the_tests_start() -> None:
    """`make run` ends in `buzon serve` of its own environment, which is `python -m router serve`."""
    make = shutil.which("make")
    assert make is not None, "make is not installed"
    planned = subprocess.run(  # noqa: S603  our own arguments
        [make, "--dry-run", *shlex.split(EXAMPLES["run"].text)[1:]],
        cwd=ROOT,
        env=SHELL_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert re.search(r"\.venv/bin/buzon serve *$", planned)
    assert 'buzon = "router.cli:main"' in read("pyproject.toml")


def test_the_generated_tables_are_up_to_date() -> None:
    """Settings and metrics: `python -m tests.support.docs` writes them."""
    assert filled(README) == README, "run: .venv/bin/python -m tests.support.docs"


def test_the_table_of_routes_is_the_documents() -> None:
    """Each route with its summary and the place in Swagger UI that describes it."""
    paths = json.loads(openapi_document())["paths"]
    wanted = {
        f"`{method.upper()} {path}`": f"[{operation['summary']}](http://127.0.0.1:8000/docs#/{tag}/{name})"
        for path, methods in paths.items()
        for method, operation in methods.items()
        for tag, name in [(operation["tags"][0], operation["operationId"])]
    }

    assert dict(rows(marked(README, "routes"))) == wanted


def test_the_table_of_options_is_the_structs() -> None:
    """Every field of a message's webhook and buffer, with its default."""
    wanted = {}
    for name, struct in (("webhook", Webhook), ("buffer", BufferOptions)):
        for field in msgspec.structs.fields(struct):
            default = {} if field.default_factory is not msgspec.NODEFAULT else field.default
            shown = "" if default in (None, msgspec.NODEFAULT) else f"`{json.dumps(default)}`".replace(".0`", "`")
            wanted[f"`{name}.{field.name}`"] = shown

    assert {field: default for field, default, _ in rows(marked(README, "options"))} == wanted


def test_the_limits_are_those_of_the_code() -> None:
    """Each value that OPERATIONS names is the one that holds."""
    limits = rows(marked(read("OPERATIONS.md"), "limits"))
    wrong = {}
    for name, value, _ in limits:
        path, _, attribute = name.strip("`").partition(":")
        found: Any = import_module(path.removesuffix(".py").replace("/", "."))
        for step in attribute.split("."):
            found = getattr(found, step)
        number, _, unit = value.partition(" ")
        if ast.literal_eval(number) * UNITS[unit] != found:
            wrong[name] = found

    assert len(limits) > 10
    assert wrong == {}


def test_the_keys_are_those_of_the_scripts() -> None:
    """Every kind of key that `_partition.lua` declares, with its type, and no other."""
    declared = KEY_LINE.findall(read("actors/adapters/valkey/scripts/_partition.lua"))
    documented = [(name, kind) for cell, kind, _ in rows(marked(ARCHITECTURE, "keys")) for name in cell.split(", ")]

    assert len(declared) > 5
    assert sorted(documented) == sorted((f"`{name}`", kind) for names, kind in declared for name in names.split())


def test_every_module_is_on_the_map() -> None:
    """ARCHITECTURE says where to look: by path, or by name in the row of its folder."""
    places = ARCHITECTURE.partition("## Where things are")[2].partition("## Actors")[0]
    named = {reference.path for reference in references(places)}
    for cell, meaning in rows(places):
        folder = cell.strip("`")
        if folder.endswith("/"):
            named |= {f"{folder}{name}.py" for name in re.findall(r"`(\w+)`", meaning) if folder != "tests/"}
    modules = {path.relative_to(ROOT).as_posix() for top in ("router", "actors") for path in (ROOT / top).rglob("*.py")}

    assert {path for path in modules if not path.endswith(("__.py", "__init__.py"))} - named == set()
    assert {path for path in named if path.endswith(".py")} <= modules | {"tests/test_architecture.py"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_names_exists(document: str) -> None:
    """Files, the functions in them, linked files and headings, and targets of make."""
    text = read(document)
    for path, name in references(text):
        if path in PLACEHOLDERS or "/" not in path:
            continue
        assert (ROOT / path).is_file(), path
        assert not name or name in defined(path), f"{path}:{name}"
    for path, anchor in links(text):
        assert (ROOT / path).exists(), path
        assert not anchor or anchor in anchors(read(path) if path else text), f"{path}#{anchor}"
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets


def test_architecture_stays_readable_and_the_changelog_current() -> None:
    """One page, and an entry for the version that is being built."""
    assert len(ARCHITECTURE.splitlines()) <= ARCHITECTURE_LINES_MAX
    assert f"## [{__version__}]" in read("CHANGELOG.md")
