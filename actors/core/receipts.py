"""Receipts: how far a message that we sent has come on WhatsApp. Never goes backwards.

Receipts arrive late, twice and out of order. Source: the facts about Evolution, sections 2.2 (the enumeration ERROR 0,
PENDING 1, SERVER_ACK 2, DELIVERY_ACK 3, READ 4, PLAYED 5) and 2.4 (what versions made of an unknown one).
"""

from __future__ import annotations

from typing import Literal

Receipt = Literal["error", "server_ack", "delivered", "read"]
"""A task's `delivery`, from the least to the most."""

_RANK: dict[Receipt, int] = {"error": 0, "server_ack": 1, "delivered": 2, "read": 3}
_MEANING: dict[str | int, Receipt] = {
    "ERROR": "error",
    "SERVER_ACK": "server_ack",
    "DELIVERY_ACK": "delivered",
    "READ": "read",
    "PLAYED": "read",
    0: "error",
    2: "server_ack",
    3: "delivered",
    4: "read",
    5: "read",
}


def receipt_of(status: object) -> Receipt | None:
    """What a status means, as a name or a number; None for PENDING, which says nothing new, and for anything unknown.

    DELETED is unknown, too: 2.3.5 and 2.3.6 wrote it for every status they did not know.
    """
    if isinstance(status, bool) or not isinstance(status, str | int):
        return None
    return _MEANING.get(status)


def forward(known: Receipt | None, told: Receipt) -> Receipt:
    """What is known after a receipt. An error counts only while nothing better is known, as in WhatsApp's own order."""
    return told if known is None or _RANK[told] > _RANK[known] else known
