"""Docs: what the documents say, taken apart so that it can be compared with the code, and their generated tables.

`python -m tests.support.docs` writes the generated tables into README.md. Marks are HTML comments: `<!-- name -->` …
`<!-- /name -->` around a table, `<!-- example: name -->` before a fenced block.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from prometheus_client import Metric

from router.declarations import settings_table
from router.edge.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    *(
        "README.md",
        "OPERATIONS.md",
        "ARCHITECTURE.md",
        "CACHE.md",
        "CHANNELS.md",
        "WHATSAPP.md",
        "INVENTORY.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    ),
)
BUCKET_LABEL = "le"

_EXAMPLE = re.compile(r"^<!-- example: (?P<name>[a-z-]+) -->\n```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
_FENCE = re.compile(r"^```(\w*)\n.*?^```$", re.MULTILINE | re.DOTALL)
_REFERENCE = re.compile(r"`([\w./-]+\.(?:py|lua|toml|md|lock))(?::([\w.]+))?`")
_LINK = re.compile(r"\[[^\]]+\]\((?!https?://)([^)#]*)(?:#([^)]+))?\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_LUA_FUNCTION = re.compile(r"^local function (\w+)\(", re.MULTILINE)


class Example(NamedTuple):
    """A fenced block that a test runs or compares."""

    name: str
    language: str
    text: str


class Reference(NamedTuple):
    """A file of the tree as a document names it, and what is said to be in it ("": nothing in particular)."""

    path: str
    name: str


def read(document: str) -> str:
    """A document of the root."""
    return (ROOT / document).read_text()


def examples(text: str) -> dict[str, Example]:
    """Every marked block by its name."""
    found = (Example(match["name"], match["language"], match["text"]) for match in _EXAMPLE.finditer(text))
    return {example.name: example for example in found}


def fences(text: str, language: str) -> int:
    """How many fenced blocks of that language there are, marked or not."""
    return sum(match[1] == language for match in _FENCE.finditer(text))


def marked(text: str, name: str) -> str:
    """What stands between the marks of that name; they come once."""
    (found,) = re.findall(rf"^<!-- {name} -->\n(.*?)^<!-- /{name} -->$", text, re.MULTILINE | re.DOTALL)
    return str(found)


def rows(table: str) -> list[list[str]]:
    """The cells of a Markdown table, without its head."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def references(text: str) -> set[Reference]:
    """Every `path` and `path:name` in backticks."""
    return {Reference(path, name) for path, name in _REFERENCE.findall(text)}


def links(text: str) -> set[tuple[str, str]]:
    """Every relative link: file ("": this one) and anchor."""
    return set(_LINK.findall(text))


def anchors(text: str) -> set[str]:
    """What the headings can be linked by, as GitHub makes it."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(_FENCE.sub("", text)))
    return {heading.strip().replace(" ", "-") for heading in plain}


@cache
def defined(path: str) -> frozenset[str]:
    """What a source defines at its top and in its classes: `name`, `Class.name`."""
    text = (ROOT / path).read_text()
    if path.endswith(".lua"):
        return frozenset(_LUA_FUNCTION.findall(text))
    return frozenset(_names(ast.parse(text).body, ""))


def _names(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield prefix + name
            case ast.ClassDef(name=name):
                yield prefix + name
                yield from _names(node.body, f"{prefix}{name}.")
            case ast.Assign(targets=targets):
                names = (each for target in targets for each in ast.walk(target) if isinstance(each, ast.Name))
                yield from (prefix + each.id for each in names)
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield prefix + name
            case _:
                pass


def metrics_table() -> str:
    """The node's own metrics as a Markdown table, as README shows it."""
    metrics = Metrics("")
    metrics.route("GET", "/").count(200)  # its series come with the first request
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for metric in metrics.registry.collect():
        if metric.name.startswith("buzon_"):
            labels = ", ".join(f"`{label}`" for label in _labels(metric))
            lines.append(f"| `{_exposed(metric)}` | {metric.type} | {labels} | {metric.documentation} |")
    return "\n".join([*lines, ""])


def _exposed(metric: Metric) -> str:
    """The name a scraper sees; of a histogram the one that its three series begin with."""
    return metric.name if metric.type == "histogram" else metric.samples[0].name


def _labels(metric: Metric) -> list[str]:
    return sorted({label for sample in metric.samples for label in sample.labels} - {BUCKET_LABEL})


def filled(text: str) -> str:
    """The text with its generated tables as they should be."""
    for name, table in (("settings", settings_table()), ("metrics", metrics_table())):
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->\n")
        assert start, f"no mark {name}"
        assert end, f"no end of {name}"
        text = before + start + table + end + after
    return text


if __name__ == "__main__":
    (ROOT / "README.md").write_text(filled(read("README.md")))
