"""The HTTP edge: what every request passes on its way in and out.

Owns request ids, the rendering of failures, request metrics and the drain flag. Never decides anything about a
resource. `Edge.handle` runs on every request, so it does nothing that only some need: a success is logged at DEBUG
only, and only if asked for; meters are looked up once per route.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain, count
from secrets import token_hex
from time import monotonic, perf_counter

from aiohttp import hdrs, web
from msgspec import Struct
from multidict import istr
from structlog.typing import FilteringBoundLogger

from router.edge.answer import SERVER, X_REQUEST_ID, JsonAnswer
from router.edge.errors import KNOWN_FAILURES, BadInput, KnownFailure, NotFound, Problem, TooLarge, problem_of, render
from router.edge.handlers import REQUEST_ID, Handler, Hot, hot_of, path_of, response_of
from router.edge.metrics import Metrics, RouteMeters
from router.edge.places import Places
from router.edge.usecase import Reply

REQUEST_ID_CHARACTERS_MAX = 128
TRY_LATER_LOG_EVERY_S = 1.0
UNFORESEEN = "something went wrong here; the request id finds it in the log"
UNMATCHED = "unmatched"
"""The route label of requests that met no route: their paths are the caller's and must not become labels."""

_EXPECT = istr("Expect")
_X_REQUEST_ID = istr(X_REQUEST_ID)
_KEPT_HEADERS = (hdrs.ALLOW, hdrs.RETRY_AFTER, hdrs.WWW_AUTHENTICATE)
_METHODS = frozenset(hdrs.METH_ALL)
_ERROR = 400
_INTERNAL = 500
_TRY_LATER = 503

Failure = KnownFailure | web.HTTPException | web.RequestPayloadError
_FAILURES = (*KNOWN_FAILURES, web.HTTPException, web.RequestPayloadError)


class Place(Struct, frozen=True):
    """Where a request of the fast lane leads: what runs there, and what the path says."""

    hot: Hot
    params: Mapping[str, str]
    path: str
    method: str
    template: str
    meters: RouteMeters

    def facts(self, status: int, request_id: str) -> dict[str, object]:
        """For the log."""
        return _facts(self.method, self.template, status, request_id)


class Edge:
    """What all requests of a node share. Set `draining` and every answer closes its connection."""

    def __init__(self, metrics: Metrics, log: FilteringBoundLogger, *, access_log: bool = False) -> None:
        self.draining = False
        self._metrics = metrics
        self._log = log
        self.access_log = access_log
        self._routes: dict[web.AbstractRoute, RouteMeters] = {}
        self._unmatched: dict[str, RouteMeters] = {}
        self._places = Places()
        self.next_id = _ids(f"req_{token_hex(6)}")
        """Makes the id of a request that brought none."""
        self._try_later_logged_at = float("-inf")
        self._try_later_unlogged = 0

    async def handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Give the request its id, run it, render a known failure, count it.

        An exception that nobody foresaw passes through: `edge.server` has aiohttp's own last resort answer it.
        """
        started = perf_counter()
        request_id = request[REQUEST_ID] = self.request_id(request.headers.get(_X_REQUEST_ID))
        method, raw_path = request.method, request.raw_path
        match = self._places.find(method, raw_path)
        try:
            if match is not None and _EXPECT not in request.headers:
                request._match_info = match
                response = await match.handler(request)
            else:
                response = await handler(request)
                found = _match(request)
                if found is not None:
                    self._places.learn(method, raw_path, found)
        except _FAILURES as failure:
            response = self._failed(request, request_id, failure)
        meters = self._meters(request)
        if response.prepared:  # a stream, which has been sent
            meters.count(response.status)
        else:
            meters.answered(response.status, perf_counter() - started)
            self._finish(response, request_id)
        if self.access_log:
            self._log.debug("request answered", **self._facts(request, response.status))
        return response

    def request_id(self, sent: str | None) -> str:
        """The id of a request: what the caller sent, if that can be one."""
        if sent and len(sent) <= REQUEST_ID_CHARACTERS_MAX and sent.isascii() and sent.isprintable():
            return sent
        return self.next_id()

    def place(self, method: str, path: str) -> Place | None:
        """Where a path leads for the fast lane; None when that is nowhere hot, or nobody has gone there yet."""
        match = self._places.find(method, path)
        found = None if match is None else hot_of(match.handler)
        if match is None or found is None:
            return None
        meters = self._meters_of(match.route, method)
        return Place(found, dict(match), path, method, _canonical(match.route.resource), meters)

    def log_answered(self, place: Place, request_id: str, status: int) -> None:
        """Say so of an answer of the fast lane, for the access log."""
        self._log.debug("request answered", **place.facts(status, request_id))

    def failed(self, place: Place, request_id: str, failure: Exception) -> tuple[Reply, bool]:
        """The answer when a use case raised, and whether nobody foresaw that: then the connection must close."""
        foreseen = isinstance(failure, KNOWN_FAILURES)
        problem = problem_of(failure) if isinstance(failure, KNOWN_FAILURES) else Problem(_INTERNAL, UNFORESEEN)
        if problem.status >= _INTERNAL:
            self._log_failure(problem, failure, place.facts(problem.status, request_id))
        return render(problem, path=place.path, request_id=request_id), not foreseen

    def unforeseen(self, request: web.BaseRequest, status: int, error: BaseException | None) -> web.Response:
        """The answer when a handler crashed (500) or the request was no HTTP (400); the connection closes after it."""
        if status >= _INTERNAL:
            self._log.error("request failed", exc_info=error, **self._facts(request, status))
            problem = Problem(status, UNFORESEEN)
        else:
            problem = Problem(status, "this is not a well-formed HTTP request")
        request_id = request.get(REQUEST_ID) or self.next_id()
        self._meters(request).count(status)
        response = response_of(render(problem, path=path_of(request), request_id=request_id))
        self._finish(response, request_id)
        response.force_close()
        return response

    def _finish(self, response: web.StreamResponse, request_id: str) -> None:
        if isinstance(response, JsonAnswer):
            response.request_id = request_id
        else:
            headers = response.headers
            headers[_X_REQUEST_ID] = request_id
            headers[hdrs.SERVER] = SERVER  # aiohttp would name itself and its version
        if self.draining:
            response.force_close()

    def _failed(self, request: web.Request, request_id: str, failure: Failure) -> web.Response:
        if isinstance(failure, web.HTTPException) and failure.status < _ERROR:
            self._meters(request).count(failure.status)
            self._finish(failure, request_id)
            raise failure
        problem = _translated(request, failure)
        if problem.status >= _INTERNAL:
            self._log_failure(problem, failure, self._facts(request, problem.status))
        if request.writer.output_size > 0:
            raise ConnectionError("a stream broke off") from failure  # no second answer into the middle of the first
        return response_of(render(problem, path=path_of(request), request_id=request_id))

    def _log_failure(self, problem: Problem, failure: BaseException, facts: dict[str, object]) -> None:
        if problem.status != _TRY_LATER:
            self._log.error("request failed", exc_info=failure, **facts)
            return
        # While the store is away every request ends here: one line a second says so and how many it stands for.
        self._try_later_unlogged += 1
        now = monotonic()
        if now - self._try_later_logged_at >= TRY_LATER_LOG_EVERY_S:
            self._try_later_logged_at = now
            self._log.warning(
                "requests put off",
                cause=type(failure).__name__,
                reason=str(failure),
                count=self._try_later_unlogged,
                **facts,
            )
            self._try_later_unlogged = 0

    def _facts(self, request: web.BaseRequest, status: int) -> dict[str, object]:
        return _facts(_method(request), _template(request), status, request.get(REQUEST_ID, ""))

    def _meters(self, request: web.BaseRequest) -> RouteMeters:
        match = _match(request)
        if match is not None:
            return self._meters_of(match.route, _method(request))
        method = _method(request)
        meters = self._unmatched.get(method)
        if meters is None:
            meters = self._unmatched[method] = self._metrics.route(method, UNMATCHED)
        return meters

    def _meters_of(self, route: web.AbstractRoute, method: str) -> RouteMeters:
        meters = self._routes.get(route)
        if meters is None:
            meters = self._routes[route] = self._metrics.route(method, _canonical(route.resource))
        return meters


def _ids(prefix: str) -> Callable[[], str]:
    """Makes ids that begin in this way and count up. The endings are written beforehand: to write a number takes
    longer than all else about an id [measured]."""
    low = [f"{number:03x}" for number in range(1 << 12)]
    return chain.from_iterable(map(f"{prefix}{high:05x}".__add__, low) for high in count()).__next__


def _facts(method: str, route: str, status: int, request_id: str) -> dict[str, object]:
    return {"method": method, "route": route, "status": status, "request_id": request_id}


def _translated(request: web.Request, failure: Failure) -> Problem:
    match failure:
        case web.HTTPRequestEntityTooLarge():
            return TooLarge(request.client_max_size)
        case web.HTTPNotFound():
            return NotFound("there is nothing at this path")
        case web.HTTPMethodNotAllowed():
            return Problem(failure.status, "this method is not allowed here", headers=_kept(failure))
        case web.HTTPException():
            return Problem(failure.status, failure.reason.lower(), headers=_kept(failure))
        case web.RequestPayloadError():
            return BadInput("$", "the body did not arrive as its headers announced it")
        case _:
            return problem_of(failure)


def _kept(failure: web.HTTPException) -> dict[str, str]:
    return {name: failure.headers[name] for name in _KEPT_HEADERS if name in failure.headers}


def _method(request: web.BaseRequest) -> str:
    return request.method if request.method in _METHODS else "other"


def _template(request: web.BaseRequest) -> str:
    match = _match(request)
    return UNMATCHED if match is None else _canonical(match.route.resource)


def _canonical(resource: web.AbstractResource | None) -> str:
    return UNMATCHED if resource is None else resource.canonical


def _match(request: web.BaseRequest) -> web.UrlMappingMatchInfo | None:
    """The route a request met, if any."""
    # The public property insists that there is one; a request that is no HTTP has none.
    match: web.UrlMappingMatchInfo | None = getattr(request, "_match_info", None)
    return match if match is not None and match.http_exception is None else None
