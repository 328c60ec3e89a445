"""What a channel may be called, and who may publish on it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.channel_names import EVENTS_PREFIX, INTERNAL_PREFIX, NAME_BYTES_MAX, is_event_channel, name_fault
from actors.events import EVENT_CHANNELS


@pytest.mark.parametrize("name", ["a", "news", "a/b:c@d e", "canción", "\N{FIREWORKS}", "\x00\n", "$buffers", "buzon"])
def test_any_unicode_is_a_name(name: str) -> None:
    """Nothing is wrong with signs, spaces, control characters, or the prefix without its colon."""
    assert name_fault(name) == ""


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "has 1 to 255 bytes"),
        ("x" * 256, "has 1 to 255 bytes"),
        ("ñ" * 128, "has 1 to 255 bytes"),
        ("\ud800", "is not valid UTF-8"),
        ("buzon:", "begins with a prefix that is the router's own"),
        ("buzon:ch", "begins with a prefix that is the router's own"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(name: str, fault: str) -> None:
    """The length is that of its UTF-8."""
    assert name_fault(name) == fault


@given(name=st.text(st.characters(exclude_categories=[])))
def test_a_name_is_right_when_it_can_be_sent_fits_and_is_nobodys(name: str) -> None:
    """Three conditions, and no others."""
    size_bytes = len(name.encode("utf-8", "surrogatepass"))
    surrogates = any("\ud800" <= each <= "\udfff" for each in name)
    right = not surrogates and 1 <= size_bytes <= NAME_BYTES_MAX and not name.startswith(INTERNAL_PREFIX)
    assert (name_fault(name) == "") is right


@pytest.mark.parametrize("size_bytes", [1, NAME_BYTES_MAX])
def test_both_bounds_are_within(size_bytes: int) -> None:
    """The shortest and the longest name."""
    assert name_fault("n" * size_bytes) == ""


def test_the_routers_own_events_begin_with_a_dollar() -> None:
    """All of them, and nothing that merely holds one."""
    assert all(is_event_channel(name) for name in EVENT_CHANNELS)
    assert is_event_channel(EVENTS_PREFIX)
    assert not any(is_event_channel(name) for name in ("news", "a$b", "", "buffers"))
