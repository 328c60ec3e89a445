"""The result as lines while it runs and as a Markdown table at the end."""

from __future__ import annotations

from collections.abc import Sequence

from tests.mutation.trial import Verdict

TAKEN_CHARACTERS_MAX = 72
COLUMNS = ("mutant", "file", "taken out", "killed by", "s")


def line(verdict: Verdict) -> str:
    """One mutant as it ends, for the terminal."""
    head = f"{_word(verdict):8} {verdict.seconds:5.1f} s  {verdict.file}: {verdict.name}"
    return f"{head}\n         {verdict.killed_by or verdict.trouble or 'no test noticed'}"


def markdown(verdicts: Sequence[Verdict]) -> str:
    """The whole table, with what went wrong below it."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for of in verdicts:
        test = f"`{of.killed_by.removeprefix('tests/').partition('[')[0]}`" if of.killed_by else f"**{_word(of)}**"
        file = of.file.removeprefix("actors/").removeprefix("adapters/")
        lines.append(f"| {of.name} | {file} | `{_short(of.taken)}` | {test} | {of.seconds:.1f} |")
    lines += ["", summary(verdicts)]
    lines += [f"- {of.name}: {of.trouble or 'no test noticed'}" for of in verdicts if not of.killed_by]
    return "\n".join(lines)


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many of each."""
    survived = sum(of.survived for of in verdicts)
    troubled = sum(bool(of.trouble) for of in verdicts)
    killed = len(verdicts) - survived - troubled
    return f"{len(verdicts)} mutants: {killed} killed, {survived} survived, {troubled} could not be tried."


def _word(verdict: Verdict) -> str:
    if verdict.trouble:
        return "trouble"
    return "killed" if verdict.killed_by else "SURVIVED"


def _short(taken: str) -> str:
    """The text as one line that a table can hold."""
    flat = " ".join(taken.split()).replace("|", "\\|")
    return flat if len(flat) <= TAKEN_CHARACTERS_MAX else f"{flat[: TAKEN_CHARACTERS_MAX - 1]}…"
