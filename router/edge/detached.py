"""Detached: connections that stop being HTTP: the handshake, the taking over of the transport, and incoming frames.

After its answer's head such a connection costs no task, no timer and no HTTP parser: aiohttp's part of it is let go as
if it had ended, and the transport speaks to a protocol of ours. Beside `edge.server` the only file that knows how
aiohttp 3.14 is made inside. Invariant: bytes that came with the request reach the new protocol first, and once.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from hashlib import sha1
from typing import Any, Protocol, cast

from aiohttp import HttpVersion11, WebSocketError, WSMsgType, hdrs, web
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from aiohttp.helpers import rfc822_formatted_time

from router.edge.answer import SERVER, X_REQUEST_ID
from router.edge.errors import BadInput, Problem
from router.edge.handlers import REQUEST_ID

_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16
_VERSION = "13"
_INTERNAL_ERROR = 1011


class Taker(Protocol):
    """What takes a connection over: a protocol of ours. `connection_made` is called first."""

    def connection_made(self, transport: asyncio.Transport, /) -> None: ...
    def data_received(self, data: bytes, /) -> None: ...
    def eof_received(self) -> bool | None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, exc: BaseException | None, /) -> None: ...


class Receiver(Protocol):
    """Told what a frame parser finds: a whole message or a control frame, or that nothing can follow (a close code)."""

    def received(self, kind: WSMsgType, payload: Any, /) -> None: ...
    def broken(self, code: int, error: Exception, /) -> None: ...


class Detached(web.StreamResponse):
    """Stands for an answer whose head was written by hand."""

    def __init__(self, status: int) -> None:
        super().__init__(status=status)
        self._eof_sent = True  # aiohttp writes nothing more, and `prepared` says that it was sent


def detach(request: web.Request, taker: Taker, status: int, head: bytes) -> Detached:
    """Write the head of an answer, and hand the connection over for good."""
    handler = cast(Any, request.protocol)
    transport: asyncio.Transport | None = handler.transport
    if transport is None or transport.is_closing():
        return Detached(status)
    tail, handler._message_tail = handler._message_tail, b""
    paused, unread = handler._paused, handler._reading_paused or handler._buffer_paused
    transport.set_protocol(cast(asyncio.BaseProtocol, taker))
    handler.transport = None  # else its end would be the transport's
    handler.connection_lost(None)
    transport.write(head)
    taker.connection_made(transport)
    if paused:
        taker.pause_writing()
    if unread:
        transport.resume_reading()
    if tail:
        taker.data_received(tail)
    return Detached(status)


def head_of(request: web.Request, status_line: str, *lines: str) -> bytes:
    """The head of an answer, as it is written. `lines` are "Name: value"."""
    common = (
        f"Date: {rfc822_formatted_time()}",
        f"Server: {SERVER}",
        f"{X_REQUEST_ID}: {request[REQUEST_ID]}",
    )
    return "\r\n".join((f"HTTP/1.1 {status_line}", *lines, *common, "", "")).encode("ascii")


def upgrade_head(request: web.Request, subprotocol: str = "") -> bytes:
    """The head that makes a connection a WebSocket, without extensions. Raises 426 and 400."""
    headers = request.headers
    wanted = {part.strip().lower() for part in headers.get(hdrs.UPGRADE, "").split(",")}
    if "websocket" not in wanted or not request._message.upgrade or request.version < HttpVersion11:
        raise Problem(426, "this is for WebSockets", headers={"Upgrade": "websocket", "Connection": "Upgrade"})
    if headers.get(hdrs.SEC_WEBSOCKET_VERSION, "").strip() != _VERSION:
        raise Problem(426, f"only version {_VERSION} of WebSockets", headers={"Sec-WebSocket-Version": _VERSION})
    if headers.get(hdrs.CONTENT_LENGTH, "0") != "0" or hdrs.TRANSFER_ENCODING in headers:
        raise BadInput("body", "a handshake has none: what follows it are frames")
    key = headers.get(hdrs.SEC_WEBSOCKET_KEY, "").strip()
    if not _is_key(key):
        raise BadInput("Sec-WebSocket-Key", f"must be {_KEY_BYTES} bytes in base64")
    accept = base64.b64encode(sha1(key.encode() + _ACCEPT, usedforsecurity=False).digest()).decode()
    lines = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}"]
    if subprotocol:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    return head_of(request, "101 Switching Protocols", *lines)


def subprotocols(request: web.Request) -> list[str]:
    """What the client offers, the best first."""
    offered = ",".join(request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, ()))
    return [part.strip() for part in offered.split(",") if part.strip()]


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        return False


class Inbox(WebSocketDataQueue):
    """Hands messages on as they are parsed, without keeping any. One serves all connections of a loop: `receiver` is
    whose bytes are being parsed."""

    receiver: Receiver

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(cast(Any, None), 1, loop=loop)

    def feed_data(self, data: Any, size: int) -> None:
        """A message is complete."""
        self.receiver.received(data[0], data[1])

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        """The bytes are no frames, or the receiver has raised."""
        error = exc if isinstance(exc, Exception) else RuntimeError(exc)
        self.receiver.broken(error.code if isinstance(error, WebSocketError) else _INTERNAL_ERROR, error)


def frame_parser(inbox: Inbox, message_bytes_max: int) -> WebSocketReader:
    """A parser for one connection. Text is not decoded: bytes that are no UTF-8 are the receiver's to answer."""
    return WebSocketReader(inbox, message_bytes_max, compress=False, decode_text=False)
