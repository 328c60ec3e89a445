"""Conditions: the entity tags of `If-Match` and `If-None-Match` (RFC 9110, section 13), read and judged.

A tag is weak or strong. Strong comparison (`If-Match`) never takes a weak one; weak comparison (`If-None-Match`) looks
at the characters alone. A list that is not well-formed is the caller's fault: nobody guesses what it would protect.
"""

from __future__ import annotations

import re

from msgspec import Struct

from router.edge.errors import BadInput
from router.edge.usecase import RequestHeaders

ANY = "*"
LIST_CHARACTERS_MAX = 8190

_ELEMENT = re.compile(r'[ \t]*+((W/)?"([\x21\x23-\x7e\x80-\U0010ffff]*+)")?+[ \t]*+(?:,|\Z)')


class Tags(Struct, frozen=True):
    """What a header lists: anything at all, or these tags, without their quotes. Weak ones are not in `strong`."""

    any: bool = False
    strong: tuple[str, ...] = ()
    weak: tuple[str, ...] = ()


def parse_tags(name: str, text: str) -> Tags:
    """The list of a header that was sent. Raises `BadInput` that names the header."""
    if text.strip(" \t") == ANY:
        return Tags(any=True)
    if len(text) > LIST_CHARACTERS_MAX:
        raise BadInput(name, f"has at most {LIST_CHARACTERS_MAX} characters")
    found: dict[bool, list[str]] = {False: [], True: []}
    at = 0
    while at < len(text):
        element = _ELEMENT.match(text, at)
        if element is None:
            raise BadInput(name, "is not a list of entity tags")
        if element[1] is not None:
            found[element[2] is not None].append(element[3])
        at = element.end()
    if not any(found.values()):
        raise BadInput(name, "is not a list of entity tags")
    return Tags(strong=tuple(found[False]), weak=tuple(found[True]))


def if_match(headers: RequestHeaders) -> Tags | None:
    """What `If-Match` lists, None when it was not sent."""
    return parse_tags("If-Match", headers.if_match) if headers.if_match else None


def if_none_match(headers: RequestHeaders) -> Tags | None:
    """What `If-None-Match` lists, None when it was not sent."""
    return parse_tags("If-None-Match", headers.if_none_match) if headers.if_none_match else None


def matches_strongly(tags: Tags, etag: str) -> bool:
    """Whether a strong tag that exists is one of these."""
    return tags.any or etag in tags.strong


def matches_weakly(tags: Tags, etag: str) -> bool:
    """Whether a tag that exists is one of these, weak or strong."""
    return tags.any or etag in tags.strong or etag in tags.weak
