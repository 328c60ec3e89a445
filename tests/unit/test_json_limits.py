"""JSON limits: nesting and integers, found in the bytes, whatever else the bytes are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.core.json_limits import DEPTH_MAX, JsonLimit, check_limits, is_plain_rest
from tests.support.json_text import VALUES, spelled

MIB = 1 << 20
INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
BEGINNING = b'{"payload"'
TRICKY_STRINGS = st.text('[]{}"\\\\,:\x00é0123456789', max_size=6)


def refusal(body: bytes) -> JsonLimit | None:
    """What `check_limits` says."""
    try:
        check_limits(body)
    except JsonLimit as limit:
        return limit
    return None


NESTS = [(b"[", b"]"), (b'{"a":', b"}"), (b'{"[":', b"}"), (b'[{"\\"[":', b"}]")]


@pytest.mark.parametrize(("opening", "closing"), NESTS)
def test_nesting_is_counted_exactly(opening: bytes, closing: bytes) -> None:
    """32 levels pass and 33 don't, of arrays, of objects, mixed, under keys that look like structure."""
    levels = len(closing)
    fits = DEPTH_MAX // levels
    deepest = opening * fits + b"1" + closing * fits
    assert refusal(deepest) is None
    limit = refusal(b"[" + deepest + b"]")
    assert limit is not None
    assert (limit.pointer, limit.detail) == ("$", "nested more than 32 deep")


@settings(deadline=None)
@given(st.data(), st.integers(20, 44), st.booleans())
def test_brackets_in_strings_do_not_nest(data: st.DataObject, levels: int, beside: bool) -> None:
    """Only structure counts, whatever the strings around it hold and however they are written."""
    body = data.draw(TRICKY_STRINGS.flatmap(spelled))
    for _ in range(levels):
        text = data.draw(TRICKY_STRINGS.flatmap(spelled))
        body = f"[{text},{body}]" if beside else f"{{{text}:{body},{text}:{text}}}"
    assert (refusal(body.encode()) is not None) == (levels > DEPTH_MAX)


@settings(deadline=None)
@given(VALUES, st.integers(0, 4))
def test_what_any_encoder_may_write_passes(text: str, copies: int) -> None:
    """Values within the limits pass, also many of them side by side."""
    body = f"[{','.join([text] * 10**copies)}]" if copies else text
    check_limits(body.encode())


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(['"', "\\", "[", "]", "{", "}", "a", "1", ",", ":", "\x00", "é"]),
            st.sampled_from([1, 2, 40, 2000]),
        ),
        max_size=8,
    )
)
@example([("]", 2000), ("[", 2000)])
@example([("[", 2000), ("}", 2000)])
@example([('"', 1), ("[", 2000)])
def test_no_decoder_recurses_after_the_check(runs: list[tuple[str, int]]) -> None:
    """Of bytes that are no JSON at all it says nothing or refuses them; what it lets pass no decoder chokes on."""
    body = "".join(piece * times for piece, times in runs).encode()
    if refusal(body) is None:
        with suppress(msgspec.DecodeError):
            msgspec.json.decode(body)


INTEGERS = [
    ("9223372036854775807", None),
    ("-9223372036854775808", None),
    ("9223372036854775808", "$"),
    ("-9223372036854775809", "$"),
    ("18446744073709551616", "$"),
    ("-" + "9" * 5000, "$"),
    ('{"payload":{"a":[1,2,3,9223372036854775808]}}', "$.payload.a[3]"),
    ('{"buffer":{"max_size":12345678901234567890},"b":1}', "$.buffer.max_size"),
    (" [ 1.5 , -99999999999999999999 ] ", "$[1]"),
    ('["9223372036854775808", "\\"", 1]', None),
    ('{"9223372036854775808":"a 9223372036854775808,"}', None),
    ('["\\\\", 9223372036854775808, "x"]', "$[1]"),
    ("12345678901234567890.5", None),
    ("12345678901234567890e2", None),
    ("[0.12345678901234567890123, 1e-12345678901234567890]", None),
    ('{"a":9223372036854775808,"a":1}', "$"),  # the decoder never sees the first, a receiver might
    ("[" + "1," * 20_000 + "9223372036854775808]", "$"),  # too large to look for the field
]


@pytest.mark.parametrize(("body", "pointer"), INTEGERS)
def test_integers_beyond_int64_are_refused_by_name(body: str, pointer: str | None) -> None:
    """An integer that not every reader can hold is named; floats and strings of as many digits are fine."""
    limit = refusal(body.encode())
    assert (limit and limit.pointer) == pointer


def _unfit(value: object, path: str = "$") -> Iterator[str]:
    if isinstance(value, list):
        for index, element in enumerate(value):
            yield from _unfit(element, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from _unfit(member, f"{path}.{key}")
    elif isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
        yield path


NEAR_THE_EDGE = st.one_of(
    st.integers(-5, 5).map(lambda n: INT64_MAX + n),
    st.integers(-5, 5).map(lambda n: INT64_MIN + n),
    st.integers(-(10**25), 10**25),
)
TREES = st.recursive(
    st.one_of(NEAR_THE_EDGE, TRICKY_STRINGS, st.floats(allow_nan=False, allow_infinity=False), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TRICKY_STRINGS, inner, max_size=4)),
    max_leaves=12,
)


@settings(deadline=None, max_examples=80)
@given(TREES)
def test_the_named_field_holds_the_first_unfit_integer(value: object) -> None:
    """Refused exactly when some integer does not fit, and the first of them in the text is named."""
    limit = refusal(msgspec.json.encode(value))
    assert (limit and limit.pointer) == next((path[:200] for path in _unfit(value)), None)


@given(TREES, st.integers(0, 40), st.sampled_from(["", "x", "ñ"]), st.sampled_from([b"", b"\xff", b"\xc3", b"["]))
def test_what_is_plain_keeps_the_limits(tree: object, levels: int, text: str, damage: bytes) -> None:
    """Also those of the object that it is the rest of."""
    rest = b":%b%b%b%b}" % (b"[" * levels, msgspec.json.encode([tree, text]), b"]" * levels, damage)
    if is_plain_rest(rest):
        assert refusal(BEGINNING + rest) is None
        (BEGINNING + rest).decode()


@pytest.mark.parametrize(("levels", "plain"), [(DEPTH_MAX - 1, True), (DEPTH_MAX, False)])
def test_a_rest_is_one_level_deep_already(levels: int, *, plain: bool) -> None:
    """It follows what an object begins with."""
    rest = b":" + b"[" * levels + b"]" * levels + b"}"
    assert is_plain_rest(rest) == plain == (refusal(BEGINNING + rest) is None)


def test_a_long_path_is_cut() -> None:
    """The caller's own key does not come back at any length."""
    limit = refusal(b'{"%b":9223372036854775808}' % (b"k" * 5000))
    assert limit is not None
    assert len(limit.pointer) == 200


LONGEST = b"9223372036854775807"
ATTACKS: dict[str, Callable[[], bytes]] = {
    "only opening": lambda: b"[" * MIB,
    "only closing": lambda: b"]" * MIB,
    "pairs": lambda: b"[" + b"[]," * (MIB // 3) + b"1]",
    "as deep as allowed": lambda: b"[" * 31 + b"[[]]," * (MIB // 5) + b"1" + b"]" * 31,
    "strings": lambda: b'["[",' + b'"["],["]",' * (MIB // 10),
    "unterminated": lambda: b"[" * 33 + b'"' + b'\\"' * (MIB // 2),
    "backslashes": lambda: b"[" * 33 + b'"' + b"\\" * MIB,
    "ones": lambda: b"[" + b"1," * (MIB // 2) + LONGEST + b"]",
    "longest": lambda: b"[" + (LONGEST + b",") * (MIB // 20) + b"1]",
    "one digit run": lambda: b"9" * MIB,
    "long and quotes": lambda: LONGEST + b'"' * MIB,
    "long and minus": lambda: LONGEST + b"-" * MIB,
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_megabyte_does_not_hold_up_the_loop(name: str) -> None:
    """Linear in the body's size: each attack takes 1 … 30 ms alone; anything worse would be a hundred times that."""
    body = ATTACKS[name]()
    started = time.process_time()
    refusal(body)
    assert time.process_time() - started < 0.5
