"""JSON texts as no encoder of ours would write them: odd spacing, escapes, spellings of numbers, equal keys.

What must keep or judge a caller's bytes is tested with these instead of with what our own encoder makes.
"""

from __future__ import annotations

from hypothesis import strategies as st

WHITESPACE = st.text(" \t\r\n", max_size=2)
KEYS = st.sampled_from(["a", "b", "0", "1", "", "ñ", 'q"', "\\", "[{", "a\\u0062", "\n"])
"""Few, so that equal keys happen, and with all that could be mistaken for structure."""

INTEGERS = st.integers(-(2**63), 2**63 - 1).map(str)
FLOATS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20}([eE][+-]?[0-9]{1,2})?|[eE][+-]?[0-9]{1,2})", fullmatch=True
)
_SHORT = {"\n": "\\n", "\t": "\\t", '"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\f": "\\f", "\r": "\\r"}


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{int.from_bytes(units[at : at + 2]):04x}" for at in range(0, len(units), 2))


@st.composite
def spelled(draw: st.DrawFn, text: str) -> str:
    """A string in one of the ways it can be written."""
    written = ['"']
    for character in text:
        ways = [_escaped(character)]
        if character in _SHORT:
            ways.append(_SHORT[character])
        if character >= " " and character not in '"\\':
            ways.append(character)
        written.append(draw(st.sampled_from(ways)))
    return "".join([*written, '"'])


STRINGS = st.one_of(KEYS, st.text(st.characters(exclude_categories=["Cs"]), max_size=6)).flatmap(spelled)
SCALARS = st.one_of(STRINGS, INTEGERS, FLOATS, st.sampled_from(["true", "false", "null", "-0", "1.0", "1E2"]))


@st.composite
def _array(draw: st.DrawFn, elements: st.SearchStrategy[str]) -> str:
    inside = [draw(WHITESPACE) + element + draw(WHITESPACE) for element in draw(st.lists(elements, max_size=4))]
    return "[" + (",".join(inside) or draw(WHITESPACE)) + "]"


@st.composite
def _object(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    members = draw(st.lists(st.tuples(KEYS.flatmap(spelled), values), max_size=4))
    inside = [
        draw(WHITESPACE) + key + draw(WHITESPACE) + ":" + draw(WHITESPACE) + value + draw(WHITESPACE)
        for key, value in members
    ]
    return "{" + (",".join(inside) or draw(WHITESPACE)) + "}"


def _containers(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(_array(values), _object(values))


VALUES = st.recursive(SCALARS, _containers, max_leaves=12)
OBJECTS = _object(VALUES)
