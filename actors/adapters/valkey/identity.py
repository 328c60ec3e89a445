"""Identity: what the store says it is, held against what this node wants and what it has met before.

The first node of all writes it, in one step; from then on nobody changes it. A process that has known the store never
writes it again: a store that lost it lost everything else as well, and that is for people to decide.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from actors.adapters.valkey.keys import CONFIG, FORMAT
from actors.adapters.valkey.scripts import Script
from actors.core.partition import PARTITIONS
from actors.core.refusals import CannotStart

CLUSTER_ID_BYTES = 8
SECRET_BYTES = 32
_WANTED = {"format": str(FORMAT), "partitions": str(PARTITIONS)}

Ask = Callable[..., Awaitable[Any]]
"""Runs one command and gives its raw reply."""


class StoreUnfit(CannotStart):
    """The server can be reached but must not be used; the text says why, in one line."""


class Identity:
    """The identity of the store of one node. `name` is what the node calls its cluster."""

    def __init__(self, name: str, scripts: Mapping[str, Script]) -> None:
        self._name = name
        self._scripts = scripts
        self.cluster = ""
        """Random id of the cluster, known after the first check that passed."""
        self.secret = b""
        """What the nodes of the cluster share and nobody else knows."""

    async def check(self, ask: Ask) -> None:
        """Look at the store; one that is empty is made this node's, unless it was somebody's before. Raises
        StoreUnfit."""
        found = await ask("HGETALL", CONFIG)
        if not found:
            if self.cluster:
                raise StoreUnfit(
                    f"the store is empty: it held cluster {self.cluster} ({self._name}); "
                    "give it its data back, or restart the nodes to begin anew"
                )
            await ask("EVAL", self._scripts["identity"].source, 1, CONFIG, *self._fresh())
            found = await ask("HGETALL", CONFIG)
        self._compare({field.decode(): value.decode() for field, value in found.items()})

    def _fresh(self) -> list[str]:
        made = {"cluster": secrets.token_hex(CLUSTER_ID_BYTES), "name": self._name}
        made["secret"] = secrets.token_hex(SECRET_BYTES)
        return [text for pair in (_WANTED | made).items() for text in pair]

    def _compare(self, found: Mapping[str, str]) -> None:
        for field, wanted in _WANTED.items():
            if found.get(field) != wanted:
                raise StoreUnfit(
                    f"the store holds data with {field} {found.get(field, '')}, this node wants {field} {wanted}"
                )
        name = found.get("name", "")
        if name != self._name:
            raise StoreUnfit(f"the store belongs to the cluster named {name}, this node's CLUSTER_NAME is {self._name}")
        cluster, secret = found.get("cluster", ""), _bytes_of(found.get("secret", ""))
        if not cluster or len(secret) != SECRET_BYTES:
            raise StoreUnfit(f"the store's own record ({CONFIG}) is damaged")
        if self.cluster not in ("", cluster):
            raise StoreUnfit(
                f"the store holds cluster {cluster}, this node belongs to cluster {self.cluster}; "
                "restart the node to use this store"
            )
        self.cluster, self.secret = cluster, secret


def _bytes_of(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
