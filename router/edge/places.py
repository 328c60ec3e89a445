"""Places: where a path leads, remembered, because to resolve one again costs a tenth of a whole request.

Owns two memories of what aiohttp has resolved: fixed paths, and routes that are a fixed prefix and one last segment.
Gives only what aiohttp would give. Only what was registered is kept, so what callers make up takes no room.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from aiohttp import web
from msgspec import Struct

_PLAIN = re.compile(r"[A-Za-z0-9_.:@~-]+", re.ASCII).fullmatch
"""A segment that means itself: nothing in it is decoded, and none of it is a query or a fragment."""


RECENT_MAX, RECENT_LENGTH_MAX = 1024, 256
"""Keyed paths that are remembered as they are: what callers make up takes no more room than that."""


class _Keyed(Struct, frozen=True):
    """A route whose path is a prefix and one parameter. `claimed` paths below the prefix lead elsewhere."""

    route: web.AbstractRoute
    pattern: re.Pattern[str]
    apps: tuple[web.Application, ...]
    claimed: frozenset[str]


class Places:
    """The memories of one application."""

    def __init__(self) -> None:
        self._fixed: dict[tuple[str, str], web.UrlMappingMatchInfo] = {}
        self._keyed: dict[tuple[str, str], _Keyed] = {}
        self._recent: dict[tuple[str, str], web.UrlMappingMatchInfo] = {}

    def find(self, method: str, raw_path: str) -> web.UrlMappingMatchInfo | None:
        """Where a request leads, if that is known."""
        place = (method, raw_path)
        found = self._fixed.get(place)  # may be empty, which is no None
        if found is None:
            found = self._recent.get(place)
        if found is not None:
            return found
        prefix, _, name = raw_path.rpartition("/")
        keyed = self._keyed.get((method, prefix))
        if keyed is None or raw_path in keyed.claimed or _PLAIN(name) is None:
            return None
        parameters = keyed.pattern.fullmatch(raw_path)
        if parameters is None:
            return None
        match = web.UrlMappingMatchInfo(parameters.groupdict(), keyed.route)
        for app in keyed.apps:
            match.add_app(app)
        if len(raw_path) <= RECENT_LENGTH_MAX:
            if len(self._recent) >= RECENT_MAX:
                self._recent.clear()
            self._recent[place] = match
        return match

    def learn(self, method: str, raw_path: str, match: web.UrlMappingMatchInfo) -> None:
        """Take note of where aiohttp found that a request leads."""
        resource = match.route.resource
        if isinstance(resource, web.PlainResource):
            if resource.canonical == raw_path:
                self._fixed[method, raw_path] = match
        elif isinstance(resource, web.DynamicResource):
            prefix, _, last = resource.canonical.rpartition("/")
            if "{" not in prefix and _is_parameter(last) and (method, prefix) not in self._keyed:
                self._keyed_route(method, prefix, resource, match)

    def _keyed_route(
        self, method: str, prefix: str, resource: web.DynamicResource, match: web.UrlMappingMatchInfo
    ) -> None:
        resources = list(match.apps[0].router.resources())
        if not _first_of_its_shape(resource, prefix, resources):
            return
        pattern = resource.get_info()["pattern"]
        claimed = frozenset(_indexed_at(each) for each in resources)
        self._keyed[method, prefix] = _Keyed(match.route, pattern, tuple(reversed(match.apps)), claimed)


def _is_parameter(segment: str) -> bool:
    return segment.startswith("{") and segment.endswith("}") and segment.count("{") == 1


def _indexed_at(resource: web.AbstractResource) -> str:
    """The path at which aiohttp looks for a resource: all of a fixed one, else what comes before its parameters."""
    path = resource.canonical
    if "{" in path:
        path = path.partition("{")[0].rpartition("/")[0]
    return path.rstrip("/") or "/"


def _first_of_its_shape(resource: web.AbstractResource, prefix: str, resources: Iterable[web.AbstractResource]) -> bool:
    """Whether of all that aiohttp tries at this prefix no earlier one could match a single segment."""
    for earlier in resources:
        if earlier is resource:
            return True
        if isinstance(earlier, web.PlainResource):
            continue  # it matches nothing but its own path, which is claimed
        if _indexed_at(earlier) == (prefix or "/") and "/" not in earlier.canonical[len(prefix) + 1 :]:
            return False
    return False
