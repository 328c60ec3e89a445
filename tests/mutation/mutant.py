"""Mutant: one file of the code with one piece of its text replaced, and the tests of which one must notice.

The text to be replaced must stand in the file exactly once: a mutant whose file has changed under it is stale, and
that is an error, not a pass. Decides nothing else; never touches the working tree.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

NEWER_S = 10
"""So that no compiled form of the file is taken for the mutant's."""


class Stale(Exception):
    """The file does not hold the text that the mutant replaces, or holds it more than once."""


class Mutant(Struct, frozen=True, kw_only=True):
    """`taken` out of a file, `put` in its place. `tests` are node ids below tests/, `file` is below the root."""

    name: str
    file: str
    taken: str
    put: str
    tests: tuple[str, ...]


def mutated(mutant: Mutant, root: Path) -> str:
    """The text of the mutant's file. Raises Stale."""
    text = (root / mutant.file).read_text()
    found = text.count(mutant.taken)
    if found != 1:
        raise Stale(f"{mutant.name}: {mutant.file} holds {mutant.taken!r} {found} times, not once")
    return text.replace(mutant.taken, mutant.put)


@contextmanager
def applied(mutant: Mutant, copy: Path) -> Iterator[None]:
    """Put the mutant into a copy of the tree, and the original back afterwards. Raises Stale."""
    path = copy / mutant.file
    original, times = path.read_bytes(), path.stat()
    text = mutated(mutant, copy)
    try:
        path.write_text(text)
        os.utime(path, (times.st_atime + NEWER_S, times.st_mtime + NEWER_S))
        yield
    finally:
        path.write_bytes(original)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
