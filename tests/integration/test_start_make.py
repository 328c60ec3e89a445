"""The Makefile where a person meets it first: its list of commands, and a machine that is not suited."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {"help", "setup", "run", "dev", "test", "lint", "fmt", "typecheck", "benchmark", "lock", "clean"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A fresh clone, as far as make is concerned."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


def make(tree: Path, *arguments: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    """Run make there."""
    program = shutil.which("make")
    assert program is not None, "make is not installed"
    return subprocess.run(  # noqa: S603  our own arguments
        [program, *arguments],
        cwd=tree,
        env={"PATH": path},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def script(folder: Path, name: str, text: str) -> Path:
    """A program of that name."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return program


def test_make_alone_prints_every_command(tree: Path) -> None:
    """And does nothing."""
    result = make(tree)

    assert result.returncode == 0
    assert {line.split()[1] for line in result.stdout.splitlines()} >= COMMANDS
    assert not (tree / ".venv").exists()


@pytest.mark.parametrize("command", ["run", "test"])
def test_a_python_that_is_too_old_is_one_line(tree: Path, command: str) -> None:
    """It says what is needed and how to name another; nothing is left behind."""
    old = script(tree, "python-old", "exit 1")  # as 3.10 answers the question whether it is 3.11

    result = make(tree, command, f"PYTHON={old}")

    assert result.returncode != 0
    said = [line for line in result.stderr.splitlines() if not line.startswith("make: ")]
    assert said == ["buzon: needs Python 3.11 or newer; name one with PYTHON=/path/to/python"]
    assert not (tree / ".venv").exists()


def test_a_python_that_cannot_make_environments_is_one_line(tree: Path) -> None:
    """Debian's, without its venv package: no half-made environment stays to confuse the next run."""
    lame = script(tree, "python-lame", 'case "$*" in "-m venv"*) mkdir -p .venv/bin; exit 1;; esac')

    result = make(tree, "run", f"PYTHON={lame}")

    assert result.returncode != 0
    assert f"buzon: {lame} cannot make a virtual environment" in result.stderr
    assert not (tree / ".venv").exists()


def test_a_finished_setup_is_not_repeated(tree: Path) -> None:
    """Installing happens once; a changed lock file makes it happen again, a moved tree too."""
    venv = f"mkdir -p .venv/bin; cp {tree}/python-fake .venv/bin/python"
    fake = script(tree, "python-fake", f'case "$*" in "-m venv"*) {venv};; esac')

    first, second = make(tree, "setup", f"PYTHON={fake}"), make(tree, "setup", f"PYTHON={fake}")
    (tree / "requirements" / "run.lock").touch()
    third = make(tree, "setup", f"PYTHON={fake}")
    moved = tree.rename(tree.with_name("elsewhere"))
    fourth = make(moved, "setup")

    assert [result.returncode for result in (first, second, third, fourth)] == [0, 0, 0, 0]
    assert "installing" in first.stderr
    assert "installing" not in second.stderr
    assert "installing" in third.stderr
    assert "installing" in fourth.stderr
