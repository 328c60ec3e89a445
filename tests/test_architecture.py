"""Architecture: the rules that keep the tree as it was designed, checked on its sources.

RULES says what holds where. Each rule is also shown a source that breaks it and one that does not, so that a rule
which no longer bites fails here. A file's text is all that is looked at: nothing is imported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("router", "actors", "tests")

FILE_LINES_MAX = 400
TEST_LINES_MAX = 500
FUNCTION_LINES_MAX = 50
PARAMETERS_MAX = 6

PURE_LIBRARIES = (
    *("__future__", "abc", "base64", "binascii", "bisect", "collections", "dataclasses", "datetime", "decimal"),
    *("email.utils.parsedate_to_datetime", "enum", "fractions", "functools", "hashlib", "heapq", "hmac", "ipaddress"),
    *("itertools", "json", "math", "operator", "re", "statistics", "string", "struct", "types", "typing"),
    *("unicodedata", "urllib.parse", "zlib", "joserfc", "msgspec", "yarl"),
)
STORE_LIBRARIES = ("redis", "valkey", "hiredis", "asyncpg")
EDGE_LIBRARIES = ("aiohttp", "prometheus_client", "prometheus_async")
IMPURE_CALLS = ("open", "print", "input", "eval", "exec", "__import__", "*.now", "*.utcnow", "*.today")
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "base", "misc"}
CODE = ("router/**.py", "actors/**.py")
TESTS = ("tests/**.py",)
EVERYWHERE = (*CODE, *TESTS)


class Source(NamedTuple):
    """A file of the tree, or of a planted one. `path` is relative to the root."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        """The parsed source."""
        return _parsed(self.text)

    @property
    def nodes(self) -> tuple[ast.AST, ...]:
        """All of it, walked once."""
        return _walked(self.text)


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


@cache
def _walked(text: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(_parsed(text)))


Check = Callable[[Source], Iterator[str]]


class Rule(NamedTuple):
    """`check` yields what is wrong in a file that matches one of `where` and none of `but`."""

    name: str
    where: tuple[str, ...]
    check: Check
    but: tuple[str, ...] = ()


def _covers(pattern: str, path: str) -> bool:
    """`*` stands for a part of a name, `**` for anything."""
    wild = {"**": ".*", "*": "[^/]*"}
    parts = re.split(r"(\*\*|\*)", pattern)
    return re.fullmatch("".join(wild.get(part, re.escape(part)) for part in parts), path) is not None


def _within(name: str, names: tuple[str, ...]) -> bool:
    return any(name == each or name.startswith(each + ".") for each in names)


def _imports(source: Source) -> Iterator[tuple[int, str]]:
    """Every import, also a late one and one for type checkers: line and full name of what is imported."""
    package = source.path.removesuffix(".py").removesuffix("/__init__").split("/")
    if not source.path.endswith("/__init__.py"):
        package.pop()
    for node in source.nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def _functions(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in source.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imports_only(*allowed: str) -> Check:
    """Nothing but these and what is in them."""

    def check(source: Source) -> Iterator[str]:
        for line, name in _imports(source):
            if not _within(name, allowed):
                yield f"{line}: imports {name}"

    return check


def imports_none(*forbidden: str) -> Check:
    """None of these nor anything in them."""

    def check(source: Source) -> Iterator[str]:
        for line, name in _imports(source):
            if _within(name, forbidden):
                yield f"{line}: imports {name}"

    return check


def of_ours_only(*allowed: str) -> Check:
    """Of this project's own modules nothing but these."""

    def check(source: Source) -> Iterator[str]:
        for line, name in _imports(source):
            if _within(name, PACKAGES) and not _within(name, allowed):
                yield f"{line}: imports {name}"

    return check


def calls_none(*forbidden: str) -> Check:
    """None of these calls; `*.now` is a method of anything."""

    def check(source: Source) -> Iterator[str]:
        for node in source.nodes:
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in forbidden or "*." + called.rpartition(".")[2] in forbidden:
                    yield f"{node.lineno}: calls {called}"

    return check


def names_none(*forbidden: str) -> Check:
    """None of these names anywhere: imported, called or as an attribute."""

    def check(source: Source) -> Iterator[str]:
        for node in source.nodes:
            match node:
                case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name) if name in forbidden:
                    yield f"{node.lineno}: {name}"

    return check


def wait_for(source: Source) -> Iterator[str]:
    """`asyncio.wait_for` swallows cancellation before 3.12; a condition's own `wait_for` is another thing."""
    for line, name in _imports(source):
        if name == "asyncio.wait_for":
            yield f"{line}: imports {name}"
    yield from calls_none("asyncio.wait_for")(source)


def broad_except(source: Source) -> Iterator[str]:
    """A handler for everything that does not end in `raise` hides what nobody thought of."""
    for node in source.nodes:
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            broad = any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in kinds)
            last = node.body[-1]
            if broad and not (isinstance(last, ast.Raise) and last.exc is None):
                yield f"{node.lineno}: catches everything"


def task_creation(source: Source) -> Iterator[str]:
    """A task nobody owns. A TaskGroup owns its own."""
    groups = {
        item.optional_vars.id
        for node in source.nodes
        if isinstance(node, ast.AsyncWith)
        for item in node.items
        if ast.unparse(item.context_expr) == "asyncio.TaskGroup()" and isinstance(item.optional_vars, ast.Name)
    }
    for node in source.nodes:
        if isinstance(node, ast.Attribute | ast.alias):
            name = node.attr if isinstance(node, ast.Attribute) else node.name
            owner = ast.unparse(node.value) if isinstance(node, ast.Attribute) else ""
            if name in ("create_task", "ensure_future", "run_coroutine_threadsafe") and owner not in groups:
                yield f"{node.lineno}: {owner}.{name}"


def sleeping(source: Source) -> Iterator[str]:
    """A test that sleeps is slow when it passes and wrong when the machine is busy. `asyncio.sleep(0)` only yields."""
    for node in source.nodes:
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("asyncio.sleep", "time.sleep", "sleep"):
            is_yield = ast.unparse(node.func) != "time.sleep" and [ast.unparse(each) for each in node.args] == ["0"]
            if not is_yield:
                yield f"{node.lineno}: {ast.unparse(node)}"


def file_size(lines_max: int) -> Check:
    """No file longer than that."""

    def check(source: Source) -> Iterator[str]:
        lines = source.text.count("\n")
        if lines > lines_max:
            yield f"{lines} lines"

    return check


def function_size(source: Source) -> Iterator[str]:
    """A function fits a screen and a call fits a head; `self` and `cls` are no parameters of a call."""
    for node in _functions(source):
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            yield f"{node.lineno}: {node.name} has {lines} lines"
        names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        parameters = len(names) - (names[:1] in (["self"], ["cls"]))
        if parameters > PARAMETERS_MAX:
            yield f"{node.lineno}: {node.name} has {parameters} parameters"


def module_docstring(source: Source) -> Iterator[str]:
    """Every file with something in it says what it owns."""
    if source.tree.body and ast.get_docstring(source.tree) is None:
        yield "no module docstring"


def telling_name(source: Source) -> Iterator[str]:
    """A name that could hold anything soon does."""
    for part in source.path.removesuffix(".py").split("/"):
        if VAGUE_NAMES & set(part.split("_")):
            yield f"named {part}"


def key_table(source: Source) -> Iterator[str]:
    """A script says at its head which keys it touches; beyond the first each is named there by number."""
    lines = [line for line in source.text.splitlines() if not line.startswith("#!")]
    head = "\n".join(takewhile(lambda line: line.startswith("--"), lines))
    if not head:
        yield "no comment at its head"
    if not Path(source.path).name.startswith("_"):
        if "KEYS" not in head:
            yield "no KEYS at its head"
        for key in sorted(set(re.findall(r"KEYS\[(?!1\])\d+\]", source.text))):
            if key not in head:
                yield f"{key} is not at its head"


CORE = ("actors/core/**.py",)
ADAPTERS = ("actors/adapters/**.py",)
WAYS_OUT = ("actors/adapters/http/**.py", "router/cli*.py", "router/fake_evolution/posting.py")
FAKES = ("router/fake_evolution/**.py",)
PORTS = (
    *("actors.ports", "actors.node_ports", "actors.egress_ports", "actors.cache_ports", "actors.channel_ports"),
    *("actors.task_ports", "actors.inbound_ports", "actors.record_ports", "actors.inventory_ports"),
    *("actors.runtime.outcome",),
)
ROOTS = ("router/composition.py", "router/app.py", "router/engine.py", "router/inventory_database.py")
RULES = (
    Rule("core is pure and imports only core", CORE, imports_only("actors.core", *PURE_LIBRARIES)),
    Rule("core has no clock, no chance, no output", CORE, calls_none(*IMPURE_CALLS)),
    Rule("ports know only core", ("actors/ports.py",), imports_only("actors.core", *PURE_LIBRARIES)),
    Rule("the runtime knows no domain", ("actors/runtime/**.py",), of_ours_only("actors.runtime", "actors.ports")),
    Rule("actors know no router and no adapter", ("actors/*.py",), imports_none("router", "actors.adapters")),
    Rule("adapters know only ports and core", ADAPTERS, of_ours_only(*PORTS, "actors.core", "actors.adapters")),
    Rule("one root sees adapters", ("router/**.py",), imports_none("actors.adapters"), but=ROOTS),
    Rule(
        "the edge knows no resource",
        ("router/edge/**.py",),
        imports_none("router.api", "router.app", "router.composition"),
    ),
    Rule("nothing imports its tests", CODE, imports_none("tests")),
    Rule("only adapters speak to a store", CODE, imports_none(*STORE_LIBRARIES), but=ADAPTERS),
    Rule("actors speak no HTTP and no metrics", ("actors/**.py",), imports_none(*EDGE_LIBRARIES), but=WAYS_OUT),
    Rule("one way out", CODE, names_none("ClientSession", "TCPConnector"), but=WAYS_OUT),
    Rule("a node has no fakes", CODE, imports_none("router.fake_evolution"), but=(*FAKES, "router/cli_fake*.py")),
    Rule("a fake knows no node", FAKES, of_ours_only("router.fake_evolution")),
    Rule("every task has an owner", CODE, task_creation, but=("actors/runtime/**.py",)),
    Rule("asyncio.timeout, never wait_for", EVERYWHERE, wait_for),
    Rule("nothing is caught unseen", EVERYWHERE, broad_except, but=("actors/runtime/**.py",)),
    Rule("tests never sleep", TESTS, sleeping),
    Rule("files stay small", CODE, file_size(FILE_LINES_MAX)),
    Rule("test files stay small", TESTS, file_size(TEST_LINES_MAX)),
    Rule("functions stay small", CODE, function_size),
    Rule("every module says what it owns", EVERYWHERE, module_docstring),
    Rule("names tell", EVERYWHERE, telling_name),
    Rule("scripts have a key table", ("actors/adapters/**.lua",), key_table),
)


def _applies(rule: Rule, path: str) -> bool:
    return any(_covers(each, path) for each in rule.where) and not any(_covers(each, path) for each in rule.but)


def _violations(rule: Rule, sources: list[Source]) -> list[str]:
    return [
        f"{source.path}:{found}" for source in sources if _applies(rule, source.path) for found in rule.check(source)
    ]


@pytest.fixture(scope="module")
def tree() -> list[Source]:
    """Every source of the tree."""
    files = sorted(
        file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.suffix in (".py", ".lua")
    )
    return [Source(file.relative_to(ROOT).as_posix(), file.read_text()) for file in files]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_tree_keeps(rule: Rule, tree: list[Source]) -> None:
    """Each rule holds in every file it is about, and is about one at least."""
    assert any(_applies(rule, source.path) for source in tree)
    found = _violations(rule, tree)
    assert not found, "\n".join(found)


DOC = '"""What this owns."""\n'
LONG_FUNCTION = "def f() -> None:\n" + "    g()\n" * FUNCTION_LINES_MAX
LINE = "x = 1\n"
LUA = "actors/adapters/valkey/scripts"
PLANTED: dict[str, tuple[list[str], list[str]]] = {  # rule: what breaks it, what looks like it and does not
    "core is pure and imports only core": (
        [
            "actors/core/x.py | import asyncio",
            "actors/core/x.py | import msgspec, time",
            "actors/core/x.py | from random import choice",
            "actors/core/x.py | import logging as log",
            "actors/core/x.py | from email.utils import localtime",
            "actors/core/x.py | from actors.ports import Reason",
            "actors/core/x.py | from ..ports import Clock",
            "actors/core/x.py | from actors import buffers",
            "actors/core/x.py | def f():\n    import secrets",
        ],
        ["actors/core/x.py | import re, msgspec\nfrom .policy import Policy\nfrom actors.core import ids"],
    ),
    "core has no clock, no chance, no output": (
        ["actors/core/x.py | datetime.now(UTC)", "actors/core/x.py | date.today()", "actors/core/x.py | print(1)"],
        ["actors/core/x.py | datetime.fromtimestamp(0, UTC)\nblueprint(1)"],
    ),
    "ports know only core": (
        ["actors/ports.py | from actors.buffer import Buffer", "actors/ports.py | import asyncio"],
        ["actors/ports.py | from typing import Protocol\nfrom actors.core.policy import Reason"],
    ),
    "the runtime knows no domain": (
        [
            "actors/runtime/x.py | from actors.core import retry",
            "actors/runtime/x.py | from actors.buffer import Buffer",
        ],
        ["actors/runtime/x.py | from actors.ports import Clock\nfrom actors.runtime.clock import Clock"],
    ),
    "actors know no router and no adapter": (
        ["actors/x.py | import actors.adapters.embedded", "actors/x.py | from router.settings import Settings"],
        ["actors/x.py | import actors.core.ids", "actors/adapters/x.py | import actors.adapters.embedded"],
    ),
    "adapters know only ports and core": (
        [
            "actors/adapters/x.py | from actors.buffers import Buffers",
            "actors/adapters/http/x.py | from router import values\nfrom actors.runtime.clock import Clock",
        ],
        ["actors/adapters/x.py | import redis\nfrom actors.core import ids\nfrom actors.runtime.outcome import Tell"],
    ),
    "one root sees adapters": (
        [
            "router/api/x.py | from actors import adapters",
            "router/x.py | if TYPE_CHECKING:\n    import actors.adapters.http",
        ],
        ["router/app.py | from actors import adapters", "router/x.py | from actors import ports"],
    ),
    "the edge knows no resource": (
        ["router/edge/x.py | from router.api import buffers", "router/edge/x.py | from ..api.buffers import Flush"],
        ["router/edge/x.py | from router.edge import errors"],
    ),
    "nothing imports its tests": (["router/x.py | import tests.support.sink"], ["router/x.py | import testsuite"]),
    "only adapters speak to a store": (
        ["router/x.py | from redis import asyncio", "actors/x.py | import valkey"],
        ["actors/adapters/valkey/x.py | from redis import asyncio", "actors/x.py | import redistribution"],
    ),
    "actors speak no HTTP and no metrics": (
        ["actors/runtime/x.py | from aiohttp import web", "actors/x.py | import prometheus_client"],
        ["actors/adapters/http/x.py | from aiohttp import web", "router/edge/x.py | import prometheus_client"],
    ),
    "one way out": (
        ["router/api/x.py | aiohttp.ClientSession()", "actors/x.py | from aiohttp import TCPConnector as Connector"],
        ["router/cli_listen.py | aiohttp.ClientSession()", "actors/adapters/http/x.py | aiohttp.ClientSession()"],
    ),
    "a node has no fakes": (
        ["router/cli.py | from router import fake_evolution", "actors/x.py | import router.fake_evolution.fake"],
        ["router/cli_fake_evolution.py | from router.fake_evolution import fake", "router/x.py | import router.faked"],
    ),
    "a fake knows no node": (
        [
            "router/fake_evolution/x.py | from actors.core import signing",
            "router/fake_evolution/x.py | import router.listening",
        ],
        ["router/fake_evolution/x.py | import aiohttp\nfrom router.fake_evolution import numbers"],
    ),
    "every task has an owner": (
        [
            "actors/x.py | asyncio.create_task(f())",
            "router/x.py | asyncio.get_running_loop().create_task(f())",
            "router/x.py | from asyncio import ensure_future",
            "actors/x.py | start = loop.create_task",
        ],
        [
            "actors/runtime/x.py | asyncio.create_task(f())",
            "actors/x.py | async def f():\n async with asyncio.TaskGroup() as jobs:\n  jobs.create_task(g())",
            "actors/x.py | loop.create_future()",
        ],
    ),
    "asyncio.timeout, never wait_for": (
        ["tests/x.py | from asyncio import wait_for", "router/x.py | asyncio.wait_for(f(), 1)"],
        ["router/x.py | condition.wait_for(ready)\nasyncio.timeout(1)"],
    ),
    "nothing is caught unseen": (
        [
            "router/x.py | try: f()\nexcept Exception: pass",
            "actors/x.py | try: f()\nexcept: pass",
            "tests/x.py | try: f()\nexcept (A, BaseException) as e: raise B from e",
        ],
        [
            "router/x.py | try: f()\nexcept ValueError: pass",
            "actors/x.py | try: f()\nexcept BaseException:\n g()\n raise",
            "actors/runtime/x.py | try: f()\nexcept Exception: g()",
        ],
    ),
    "tests never sleep": (
        ["tests/x.py | asyncio.sleep(0.1)", "tests/support/x.py | time.sleep(0)", "tests/x.py | sleep(pause)"],
        ["tests/x.py | asyncio.sleep(0)", "router/x.py | asyncio.sleep(1)"],
    ),
    "files stay small": (
        [f"actors/x.py | {LINE * (FILE_LINES_MAX + 1)}"],
        [f"actors/x.py | {LINE * FILE_LINES_MAX}"],
    ),
    "test files stay small": (
        [f"tests/x.py | {LINE * (TEST_LINES_MAX + 1)}"],
        [f"tests/x.py | {LINE * TEST_LINES_MAX}"],
    ),
    "functions stay small": (
        [f"router/x.py | {LONG_FUNCTION}", "router/x.py | def f(a, b, c, d, *, e, f, g): ..."],
        [f"tests/x.py | {LONG_FUNCTION}", "router/x.py | class A:\n def f(self, a, b, c, d, *, e, f): ..."],
    ),
    "every module says what it owns": (
        ["tests/unit/x.py | x = 1", "actors/x/__init__.py | from x import y"],
        [f"tests/unit/x.py | {DOC}x = 1", "actors/x/__init__.py | "],
    ),
    "names tell": (
        ["router/api/http_utils.py | x = 1", "actors/helpers/x.py | x = 1", "tests/support/base.py | x = 1"],
        ["router/api/database.py | x = 1", "actors/commons/x.py | x = 1"],
    ),
    "scripts have a key table": (
        [
            f"{LUA}/x.lua | #!lua\nreturn 1",
            f"{LUA}/x.lua | -- Does it.\nreturn KEYS[1]",
            f"{LUA}/x.lua | -- KEYS own\nreturn KEYS[2]",
        ],
        [
            f"{LUA}/x.lua | #!lua flags=no-writes\n-- Does it.\n-- KEYS own\nreturn KEYS[1]",
            f"{LUA}/x.lua | -- KEYS[1] own, KEYS[2] open\nreturn KEYS[2]",
            f"{LUA}/_x.lua | -- What is shared.\nreturn 1",
        ],
    ),
}


def _planted(plants: list[str]) -> Iterator[Source]:
    for plant in plants:
        path, _, text = plant.partition(" | ")
        yield Source(path, text)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_bites(rule: Rule) -> None:
    """Every planted violation is found, and nothing is found in what only looks like one."""
    bad, good = PLANTED[rule.name]
    assert [source for source in _planted(bad) if not _violations(rule, [source])] == []
    assert _violations(rule, list(_planted(good))) == []


def test_every_rule_is_planted_and_every_plant_has_its_rule() -> None:
    """A rule that nothing shows to bite could be dead."""
    assert list(PLANTED) == [rule.name for rule in RULES]
