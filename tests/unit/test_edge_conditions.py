"""Entity tags of a request: read as RFC 9110 writes them, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.edge.conditions import Tags, if_match, if_none_match, matches_strongly, matches_weakly, parse_tags
from router.edge.errors import BadInput
from router.edge.usecase import RequestHeaders


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("*", Tags(any=True)),
        (" *\t", Tags(any=True)),
        ('"a"', Tags(strong=("a",))),
        ('""', Tags(strong=("",))),
        ('W/"a"', Tags(weak=("a",))),
        ('"a", W/"b" ,"c"', Tags(strong=("a", "c"), weak=("b",))),
        ('"a,b"', Tags(strong=("a,b",))),
        (',"a",, ,"b",', Tags(strong=("a", "b"))),
        ('"*"', Tags(strong=("*",))),
        ('"ñ\\"', Tags(strong=("ñ\\",))),
    ],
)
def test_what_is_a_list(text: str, tags: Tags) -> None:
    """Empty elements count for nothing."""
    assert parse_tags("If-Match", text) == tags


@pytest.mark.parametrize(
    "text",
    [
        *(",", " ", ", ,", "a", '"a', 'a"', '"a" "b"', '"a"b', 'w/"a"', 'W/ "a"', "W/a", '"a b"', '"a\tb"', "'a'"),
        *('*, "a"', '"a", *', "**", '"a"\n', '"a";q=1', '"\x7f"', '"a"' + "," * 9000),
    ],
)
def test_what_is_none(text: str) -> None:
    """Half-read it would protect nothing."""
    with pytest.raises(BadInput) as refused:
        parse_tags("If-Match", text)
    assert refused.value.pointer == "If-Match"


@given(st.text(st.sampled_from('W/"a, *\t\\'), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """At once, and with at least one tag."""
    try:
        tags = parse_tags("If-Match", text)
    except BadInput:
        return
    assert tags.any or tags.strong or tags.weak


def test_comparison() -> None:
    """Strong never takes a weak one, weak takes both."""
    tags = Tags(strong=("a",), weak=("b",))
    assert [matches_strongly(tags, tag) for tag in "abc"] == [True, False, False]
    assert [matches_weakly(tags, tag) for tag in "abc"] == [True, True, False]
    assert matches_strongly(Tags(any=True), "c")
    assert matches_weakly(Tags(any=True), "c")


def test_which_header_is_which() -> None:
    """None is sent as a rule."""
    headers = RequestHeaders(path="/", request_id="r", if_match='"a"', if_none_match="*")
    assert (if_match(headers), if_none_match(headers)) == (Tags(strong=("a",)), Tags(any=True))
    nothing = RequestHeaders(path="/", request_id="r")
    assert (if_match(nothing), if_none_match(nothing)) == (None, None)
