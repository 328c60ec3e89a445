"""Catalogue: every mutant there is, as the files of `mutants/` say it.

`=== file` begins the mutants of a file. Each is a block of lines: its name, the lines that are taken out (`-`), those
that are put in their place (`+`, or none), the tests of which one must notice (`@`). What is taken need not be whole
lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mutation.mutant import Mutant

FOLDER = Path(__file__).with_name("mutants")
_FILE = "=== "


def read(text: str) -> Iterator[Mutant]:
    """The mutants that a text describes. Raises ValueError for a line that is none of theirs."""
    file = ""
    for block in text.strip().split("\n\n"):
        if block.startswith(_FILE):
            file = block.removeprefix(_FILE)
        else:
            yield _mutant(file, *block.split("\n"))


def chosen(only: Sequence[str]) -> list[Mutant]:
    """The mutants whose name or file holds one of these; all when there are none."""
    return [of for of in MUTANTS if not only or any(part in f"{of.file} {of.name}" for part in only)]


def _mutant(file: str, name: str, *lines: str) -> Mutant:
    marked: dict[str, list[str]] = {"-": [], "+": [], "@": []}
    for line in lines:
        mark, content = line[:1], line[2:]
        if mark not in marked:
            raise ValueError(f"{name}: {line!r} begins with none of {' '.join(marked)}")
        marked[mark].append(content)
    taken, put = ("\n".join(marked[mark]) for mark in "-+")
    return Mutant(name=name, file=file, taken=taken, put=put, tests=tuple(marked["@"]))


MUTANTS: tuple[Mutant, ...] = tuple(of for file in sorted(FOLDER.glob("*.txt")) for of in read(file.read_text()))
