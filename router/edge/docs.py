"""Docs: Swagger UI and Redoc, served from files that ship with the package, so they work without any network.

Owns the two pages, their Content-Security-Policy and the vendored assets. An asset's URL holds its hash, so browsers
keep it for ever; what is vendored is stored compressed and read when somebody first asks for it.
"""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

import msgspec
from msgspec import Struct

from router.edge.errors import NotFound
from router.edge.usecase import Reply

ASSETS = "/assets"
SPEC = "/openapi.json"

_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
_ASSET_HEADERS = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
_PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_CSP = (
    "default-src 'none'; script-src 'self'; img-src 'self' data:; font-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
)
_STRICT_STYLE = "style-src 'self'"
_WRITTEN_STYLE = "style-src 'self' 'unsafe-inline'"
"""Redoc writes its styles into the page while it runs."""
_ZERO = re.compile(r"q=0(\.0*)?")


class VendoredFile(Struct, frozen=True, kw_only=True):
    """One line of the manifest. `sha256` is that of the file as its makers published it, before compression."""

    package: str
    version: str
    source: str
    file: str
    sha256: str
    licence: str


class Manifest(Struct, frozen=True):
    """What was taken from elsewhere, with its licence."""

    about: str
    files: tuple[VendoredFile, ...]


class Docs:
    """The two pages and everything they load."""

    def __init__(self) -> None:
        self._own: dict[str, Reply] = {}
        self._vendored: dict[str, Traversable] = {}
        self._read: dict[str, bytes] = {}
        vendored = {each.source: self._add_vendored(each) for each in manifest().files if each.file.endswith(".gz")}
        self._swagger = _page(
            "swagger.html",
            _STRICT_STYLE,
            bundle=vendored["swagger-ui-bundle.js"],
            theme=vendored["swagger-ui.css"],
            start=self._add_own("swagger.js", spec=SPEC),
        )
        self._redoc = _page(
            "redoc.html",
            _WRITTEN_STYLE,
            theme=self._add_own("redoc.css"),
            start=self._add_own("redoc.js", spec=SPEC, bundle=vendored["bundles/redoc.standalone.js"]),
        )

    def swagger(self) -> Reply:
        """The page for trying requests out."""
        return self._swagger

    def redoc(self) -> Reply:
        """The page for reading."""
        return self._redoc

    async def asset(self, name: str, accept_encoding: str) -> Reply:
        """A script or style sheet; compressed unless the client cannot take that. Raises `NotFound`."""
        if own := self._own.get(name):
            return own
        path = self._vendored.get(name)
        if path is None:
            raise NotFound("there is no such asset")
        headers = {**_ASSET_HEADERS, "Content-Type": _TYPES[PurePosixPath(name).suffix], "Vary": "Accept-Encoding"}
        if name not in self._read:
            self._read[name] = await asyncio.to_thread(path.read_bytes)
        body = self._read[name]
        if takes_gzip(accept_encoding):
            return Reply(200, body, {**headers, "Content-Encoding": "gzip"})
        return Reply(200, await asyncio.to_thread(gzip.decompress, body), headers)

    def _add_vendored(self, vendored: VendoredFile) -> str:
        source = PurePosixPath(vendored.source)
        name = f"{source.stem}-{vendored.version}-{vendored.sha256[:12]}{source.suffix}"
        self._vendored[name] = static() / "vendor" / vendored.file
        return f"{ASSETS}/{name}"

    def _add_own(self, file: str, **values: str) -> str:
        body = _filled(file, values)
        source = PurePosixPath(file)
        name = f"{source.stem}-{sha256(body).hexdigest()[:12]}{source.suffix}"
        self._own[name] = Reply(200, body, {**_ASSET_HEADERS, "Content-Type": _TYPES[source.suffix]})
        return f"{ASSETS}/{name}"


def static() -> Traversable:
    """Where the pages and assets are, in a checkout as in an installed package."""
    return files("router.edge") / "static"


def manifest() -> Manifest:
    """What is vendored."""
    return msgspec.json.decode((static() / "vendor" / "MANIFEST.json").read_bytes(), type=Manifest)


def takes_gzip(accept_encoding: str) -> bool:
    """Whether an `Accept-Encoding` header allows gzip (RFC 9110, 12.5.3)."""
    weights: dict[str, str] = {}
    for part in accept_encoding.lower().split(","):
        coding, _, weight = part.partition(";")
        weights[coding.strip()] = weight.strip()
    return _ZERO.fullmatch(weights.get("gzip", weights.get("*", "q=0"))) is None


def _page(file: str, style_rule: str, **values: str) -> Reply:
    return Reply(200, _filled(file, values), {**_PAGE_HEADERS, "Content-Security-Policy": _CSP + style_rule})


def _filled(file: str, values: Mapping[str, str]) -> bytes:
    text = (static() / file).read_text("utf-8")
    for name, value in values.items():
        text = text.replace(f"[[{name}]]", value)
    return text.encode()
