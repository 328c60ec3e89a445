"""Phones: what names somebody on WhatsApp, a phone number or a JID (`user[:device]@domain`).

Owns which recipients `POST /messages` takes and the key that keeps what goes to one of them in order. Never rewrites a
number: Brazil, Mexico and Argentina have numbers whose JID differs from what is dialled, and Evolution and WhatsApp
know which (createJid.ts). So the JID of an answer may differ from the number sent; the two are matched by `key.id`.
Source: the HTTP contract, section 4; the facts about Evolution, section 2.2.
"""

from __future__ import annotations

import re

from msgspec import Struct

from actors.core.json_limits import BadField

PHONE_DOMAIN = "@s.whatsapp.net"
GROUP_DOMAIN = "@g.us"
LID_DOMAIN = "@lid"
DIGITS_MIN = 8
DIGITS_MAX = 15
"""ITU-T E.164: no number has more. Evolution takes 18 digits and more for a group."""
USER_CHARACTERS_MAX = 64

_DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_SPACES = " \u00a0\u2009\u202f"
_IGNORED = str.maketrans("", "", _DASHES + _SPACES + ".()[]")
_NUMBER = re.compile(rf"\+?([0-9]{{{DIGITS_MIN},{DIGITS_MAX}}})")
_JID = re.compile(rf"([0-9A-Za-z._-]{{1,{USER_CHARACTERS_MAX}}})(?::[0-9]{{1,5}})?(@s\.whatsapp\.net|@g\.us|@lid)")


class BadPhone(BadField):
    """The text is neither a phone number nor the id of a person or a group."""


class Recipient(Struct, frozen=True):
    """Where a text goes. `number` is what Evolution is given, `contact` the key of what has to stay in order."""

    number: str
    contact: str


def parse_phone(text: str) -> Recipient:
    """Read the `phone` of a send. Raises BadPhone.

    A number goes to Evolution as its digits alone, an id as it was given. A number and its JID have one contact.
    """
    if "@" in text:
        contact = bare_jid(text)
        if contact is None:
            raise BadPhone("$.phone", f"an id ends in {PHONE_DOMAIN}, {GROUP_DOMAIN} or {LID_DOMAIN}")
        return Recipient(text, contact)
    number = _NUMBER.fullmatch(text.translate(_IGNORED))
    if number is None:
        raise BadPhone(
            "$.phone", f"a phone number has {DIGITS_MIN} to {DIGITS_MAX} digits, with or without + before them"
        )
    return Recipient(number[1], number[1] + PHONE_DOMAIN)


def bare_jid(text: str) -> str | None:
    """The JID of a person or a group without its `:device`, or None for anything else (a status, a newsletter)."""
    found = _JID.fullmatch(text)
    return None if found is None else found[1] + found[2]
