"""Node logs: what the nodes wrote during a row, searched for exceptions that nobody handled."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from tests.chaos.rig import Node

GRAVE = frozenset({"critical"})
CAUSE_CHARACTERS = 160


class Positions:
    """Where the nodes' logs ended when the row began."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._starts = {path: path.stat().st_size for node in nodes for path in _paths(node)}

    def unhandled(self, allowed: Collection[str]) -> Iterator[str]:
        """A line for each event with an exception in it, each kind once a node."""
        for node in self._nodes:
            seen: set[str] = set()
            for path in _paths(node):
                for what in filter(None, map(_trouble, self._new(path).splitlines())):
                    if what not in seen and not any(what.startswith(each) for each in allowed):
                        seen.add(what)
                        yield f"{node.name} logged: {what}"

    def copy(self, folder: Path) -> None:
        """Put what was written since into a folder."""
        for node in self._nodes:
            for path in _paths(node):
                (folder / path.name).write_bytes(self._new(path))

    def _new(self, path: Path) -> bytes:
        with path.open("rb") as file:
            file.seek(self._starts.get(path, 0))
            return file.read()


def _paths(node: Node) -> list[Path]:
    return [node.process.child.stdout_path, node.process.child.stderr_path] if node.launched else []


def _trouble(line: bytes) -> str:
    try:
        event = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return line.decode(errors="replace") if line.startswith(b"Traceback") else ""
    if not isinstance(event, dict) or not ("exception" in event or event.get("level") in GRAVE):
        return ""
    last = str(event.get("exception", "")).strip().rpartition("\n")[2]
    return f"{event.get('event')}: {last[:CAUSE_CHARACTERS]}"
