"""SQL: the statements beside this file, each in a file of its own that says at its head what $1, $2 … are.

Never builds a statement from parts: what runs is what the file holds.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def sql(name: str) -> str:
    """The text of `NAME.sql`."""
    return files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")


def statements(name: str) -> list[str]:
    """The statements of `NAME.sql`, for files with several: each ends with a semicolon at the end of its line."""
    lines = [line for line in sql(name).splitlines() if not line.lstrip().startswith("--")]
    return [part.strip() for part in "\n".join(lines).split(";\n") if part.strip(" \n;")]
