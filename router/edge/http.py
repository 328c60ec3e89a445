"""The HTTP edge: what every request passes on its way in and out.

Owns request ids, the rendering of failures, request metrics and the drain flag. Never decides anything about a
resource. `Edge.handle` runs on every request, so it does nothing that only some need: a success is logged at DEBUG
only, and only if asked for; meters are looked up once per route.
"""

from __future__ import annotations

from itertools import count
from secrets import token_hex
from time import monotonic, perf_counter

from aiohttp import hdrs, web
from multidict import istr
from structlog.typing import FilteringBoundLogger

from router.edge.answer import SERVER, X_REQUEST_ID, JsonAnswer
from router.edge.errors import KNOWN_FAILURES, BadInput, KnownFailure, NotFound, Problem, TooLarge, problem_of, render
from router.edge.handlers import REQUEST_ID, Handler, path_of, response_of
from router.edge.metrics import Metrics, RouteMeters
from router.edge.places import Places

REQUEST_ID_CHARACTERS_MAX = 128
TRY_LATER_LOG_EVERY_S = 1.0
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


class Edge:
    """What all requests of a node share. Set `draining` and every answer closes its connection."""

    def __init__(self, metrics: Metrics, log: FilteringBoundLogger, *, access_log: bool = False) -> None:
        self.draining = False
        self._metrics = metrics
        self._log = log
        self._access_log = access_log
        self._routes: dict[web.AbstractRoute, RouteMeters] = {}
        self._unmatched: dict[str, RouteMeters] = {}
        self._places = Places()
        self._id_prefix = f"req_{token_hex(6)}"
        self._next_id = count(1).__next__
        self._try_later_logged_at = float("-inf")
        self._try_later_unlogged = 0

    async def handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Give the request its id, run it, render a known failure, count it.

        An exception that nobody foresaw passes through: `edge.server` has aiohttp's own last resort answer it.
        """
        started = perf_counter()
        request_id = request.headers.get(_X_REQUEST_ID)
        if not (
            request_id
            and len(request_id) <= REQUEST_ID_CHARACTERS_MAX
            and request_id.isascii()
            and request_id.isprintable()
        ):
            request_id = f"{self._id_prefix}{self._next_id():08x}"
        request[REQUEST_ID] = request_id
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
        meters.count(response.status)
        if not response.prepared:  # else it was a stream, and has been sent
            meters.time(perf_counter() - started)
            self._finish(response, request_id)
        if self._access_log:
            self._log.debug("request answered", **self._facts(request, response.status))
        return response

    def unforeseen(self, request: web.BaseRequest, status: int, error: BaseException | None) -> web.Response:
        """The answer when a handler crashed (500) or the request was no HTTP (400); the connection closes after it."""
        if status >= _INTERNAL:
            self._log.error("request failed", exc_info=error, **self._facts(request, status))
            problem = Problem(status, "something went wrong here; the request id finds it in the log")
        else:
            problem = Problem(status, "this is not a well-formed HTTP request")
        request_id = request.get(REQUEST_ID) or f"{self._id_prefix}{self._next_id():08x}"
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
            self._log_failure(request, problem, failure)
        if request.writer.output_size > 0:
            raise ConnectionError("a stream broke off") from failure  # no second answer into the middle of the first
        return response_of(render(problem, path=path_of(request), request_id=request_id))

    def _log_failure(self, request: web.Request, problem: Problem, failure: BaseException) -> None:
        if problem.status != _TRY_LATER:
            self._log.error("request failed", exc_info=failure, **self._facts(request, problem.status))
            return
        # While the store is away every request ends here: one line a second says so and how many it stands for.
        self._try_later_unlogged += 1
        now = monotonic()
        if now - self._try_later_logged_at >= TRY_LATER_LOG_EVERY_S:
            self._try_later_logged_at = now
            facts = self._facts(request, problem.status)
            self._log.warning(
                "requests put off",
                cause=type(failure).__name__,
                reason=str(failure),
                count=self._try_later_unlogged,
                **facts,
            )
            self._try_later_unlogged = 0

    def _facts(self, request: web.BaseRequest, status: int) -> dict[str, object]:
        return {
            "method": _method(request),
            "route": _template(request),
            "status": status,
            "request_id": request.get(REQUEST_ID, ""),
        }

    def _meters(self, request: web.BaseRequest) -> RouteMeters:
        match = _match(request)
        if match is not None:
            route = match.route
            meters = self._routes.get(route)
            if meters is None:
                meters = self._routes[route] = self._metrics.route(_method(request), _template(request))
            return meters
        method = _method(request)
        meters = self._unmatched.get(method)
        if meters is None:
            meters = self._unmatched[method] = self._metrics.route(method, UNMATCHED)
        return meters


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
    resource = match.route.resource if match is not None else None
    return UNMATCHED if resource is None else resource.canonical


def _match(request: web.BaseRequest) -> web.UrlMappingMatchInfo | None:
    """The route a request met, if any."""
    # The public property insists that there is one; a request that is no HTTP has none.
    match: web.UrlMappingMatchInfo | None = getattr(request, "_match_info", None)
    return match if match is not None and match.http_exception is None else None
