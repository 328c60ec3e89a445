"""Numbers: from what a client writes to the JID that Evolution sends to, by the rules of its `createJid`.

Pure. The JID may differ from the number: a client correlates by `key.id`, never by number.
"""

from __future__ import annotations

import hashlib
import re

USER, GROUP, LID, BROADCAST = "@s.whatsapp.net", "@g.us", "@lid", "@broadcast"

_DEVICE = re.compile(r":\d+")
_BRAZIL = re.compile(r"55(\d{2})\d(\d{8})")
GROUP_DIGITS_MIN = 18
DASHED_GROUP_MIN = 24
MEXICO_OR_ARGENTINA = ("52", "54")
WITH_MOBILE_DIGIT = 13
"""How long a Mexican or Argentinian number is with the 1 or 9 that WhatsApp leaves out."""
SHORT_FROM_AREA = 31
"""Brazilian area codes from here on have WhatsApp accounts without the 9 in front of mobile numbers."""
MOBILE_FROM = 7


def jid_of(number: str) -> str:
    """The JID that a send to `number` goes to."""
    number = _DEVICE.sub("", number, count=1)
    if any(kind in number for kind in (USER, GROUP, LID, BROADCAST)):
        return number
    number = re.sub(r"[\s+()]", "", number).partition(":")[0].partition("@")[0]
    if "-" in number and len(number) >= DASHED_GROUP_MIN:
        return re.sub(r"[^\d-]", "", number) + GROUP
    digits = re.sub(r"\D", "", number)
    if len(digits) >= GROUP_DIGITS_MIN:
        return digits + GROUP
    return _as_registered(digits) + USER


def lid_of(jid: str) -> str:
    """The hidden identity of a contact: always the same for one JID, and nothing tells the number from it."""
    digest = hashlib.sha256(jid.encode()).digest()
    return f"{10**14 + int.from_bytes(digest[:6]) % (9 * 10**14)}{LID}"


def is_group(jid: str) -> bool:
    """Whether the JID names a group."""
    return jid.endswith(GROUP)


def is_lid(jid: str) -> bool:
    """Whether the JID is a hidden identity."""
    return jid.endswith(LID)


def _as_registered(digits: str) -> str:
    if digits.startswith(MEXICO_OR_ARGENTINA) and len(digits) == WITH_MOBILE_DIGIT:
        return digits[:2] + digits[3:]
    brazilian = _BRAZIL.fullmatch(digits)
    if brazilian is None:
        return digits
    area, subscriber = brazilian.groups()
    if int(subscriber[0]) < MOBILE_FROM or int(area) < SHORT_FROM_AREA:
        return digits
    return f"55{area}{subscriber}"
