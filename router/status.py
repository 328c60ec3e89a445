"""Status: what a node says of itself: connected, ready, and why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from actors.inventory_home import InventoryHome
from actors.ownership import Ownership
from router.__about__ import __version__
from router.settings import Settings

ECHO_AGE_S_MAX = 3.0


class Server(Protocol):
    """What the store is; `unsafe` names the settings of it that can lose what was acknowledged."""

    @property
    def unsafe(self) -> Sequence[str]: ...


class StoreView(Protocol):
    """What must be known of the store."""

    @property
    def connected(self) -> bool: ...
    @property
    def usable(self) -> bool: ...
    @property
    def unfit(self) -> Exception | None: ...
    @property
    def server(self) -> Server | None: ...
    @property
    def refusal(self) -> str: ...


class CacheView(Protocol):
    """What must be known of the cache's store."""

    @property
    def connected(self) -> bool: ...


class Status:
    """Implements the operations' NodeStatus. `echo_age_s`: how long ago something published came back; `ear_age_s`: the
    same of a message that took the way of all channels."""

    def __init__(
        self,
        settings: Settings,
        store: StoreView,
        cache: CacheView,
        ownership: Ownership,
        echo_age_s: Callable[[], float],
        ear_age_s: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._store = store
        self._ownership = ownership
        self._echo_age_s = echo_age_s
        self._ear_age_s = ear_age_s
        self.inventory: InventoryHome | None = None
        """Set once by the composition root."""
        self.port = settings.ports[0]
        self.started = False
        self.draining = False

    @property
    def service(self) -> str:
        """The setting APP_NAME."""
        return self._settings.app_name

    @property
    def version(self) -> str:
        """The package's version."""
        return __version__

    @property
    def node(self) -> str:
        """The setting NODE_ID."""
        return self._settings.node_id

    def store_connected(self) -> bool:
        """Whether the store answers now."""
        return self._store.connected

    def cache_connected(self) -> bool | None:
        """Whether the cache's own store answers now; None when the cache lives in the store."""
        return None if self._settings.cache_url is None else self._cache.connected

    def postgres(self) -> Literal["connected", "away", "unused"]:
        """Whether the inventory's database answers; unused while nobody has asked for the inventory."""
        if self.inventory is None or not self.inventory.wanted:
            return "unused"
        home = self.inventory
        return "away" if home.why_away or home.gone or home.opened is None else "connected"

    def not_ready_reasons(self) -> Sequence[str]:
        """Why the node can't do its work now; empty when it can."""
        reasons = []
        if self.draining:
            reasons.append("stopping")
        if not self.started:
            reasons.append("starting")
        if not self._store.usable:
            reasons.append(str(self._store.unfit or "the store is away"))
        elif self.started and self._ownership.beat_late():
            reasons.append("its signs of life do not reach the store in time")
        if self._store.refusal:
            reasons.append(f"the store refuses to write: {self._store.refusal}")
        echo_age_s = self._echo_age_s()
        if echo_age_s > ECHO_AGE_S_MAX:
            reasons.append(f"publish/subscribe does not echo ({echo_age_s:.0f} s)")
        ear_age_s = self._ear_age_s()
        if ear_age_s > ECHO_AGE_S_MAX:
            reasons.append(f"what is published on channels is not heard ({ear_age_s:.0f} s)")
        server = self._store.server
        if server is not None and not self._settings.allow_unsafe_store:
            reasons.extend(f"{unsafe} (ALLOW_UNSAFE_STORE=yes accepts that)" for unsafe in server.unsafe)
        return reasons
