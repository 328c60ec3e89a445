"""The docs pages in a real browser: they show every operation and ask nobody else for anything."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import ClientSession
from yarl import URL

from tests.support.edge import EdgeServer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--proxy-server=http://127.0.0.1:9",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--enable-logging=stderr",
    "--virtual-time-budget=20000",
    "--dump-dom",
)
PATHS = ("/health", "/livez", "/readyz", "/metrics", "/openapi.json")
CONSOLE = re.compile(r":CONSOLE[:(].*")
KNOWN_REFUSAL = "Loading the image 'https://cdn.redoc.ly/redoc/logo-mini-full.svg' violates"
"""Redoc always tries for its maker's logo; the page's policy refuses before anything leaves the browser."""

# In CI a missing browser is a failure, not a skip.
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("CI", "").lower() != "true", reason="no chromium on this machine"
)


@pytest.fixture(name="server")
async def fixture_server() -> AsyncIterator[EdgeServer]:
    """A running server."""
    async with EdgeServer(access_log=True) as server:
        yield server


class Visit(msgspec.Struct):
    """What came of opening a page: its final DOM, what it said on the console, and the URLs that it asked for."""

    dom: str
    console: list[str]
    asked: set[str]


async def visit(url: URL, profile: Path) -> Visit:
    """Open a page and let it settle. The browser has no way out: whatever is not local meets a dead proxy."""
    assert CHROMIUM is not None, "CI needs a chromium"
    network_log = profile / "network.json"
    browser = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *FLAGS,
        f"--user-data-dir={profile}",
        f"--log-net-log={network_log}",
        str(url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(50):
            dom, said = await browser.communicate()
    finally:
        if browser.returncode is None:
            browser.kill()
            await browser.wait()
    events = [event.get("params", {}) for event in msgspec.json.decode(network_log.read_bytes())["events"]]
    # The browser also calls home for itself; what a page asks for has the page's origin as its initiator.
    asked = {event["url"] for event in events if "url" in event and event.get("initiator") == str(url.origin())}
    return Visit(dom.decode(), CONSOLE.findall(said.decode()), asked)


@needs_chromium
@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_a_page_shows_the_operations_offline(server: EdgeServer, page: str, tmp_path: Path) -> None:
    """Everything it loads comes from here, its policy holds, and it draws what the document says."""
    url = server.make_url(page)
    seen = await visit(url, tmp_path)
    text = re.sub(r"<[^>]*>|\u200b|&ZeroWidthSpace;", "", seen.dom)
    assert [path for path in PATHS if path not in text] == []
    assert str(url.with_path("/openapi.json")) in seen.asked
    assert [asked for asked in seen.asked if not asked.startswith((f"{url.origin()}/", "data:"))] == []
    complaints = [line for line in seen.console if re.search(r"error|refused|violates|failed", line, re.IGNORECASE)]
    assert [line for line in complaints if KNOWN_REFUSAL not in line] == []
    asked_here = {event["route"]: event["status"] for event in server.events() if event["event"] == "request answered"}
    assert asked_here == {page: 200, "/assets/{name}": 200, "/openapi.json": 200}


async def test_assets_are_for_ever_and_unknown_ones_are_not(server: EdgeServer) -> None:
    """A name that holds its hash never changes its content."""
    async with ClientSession(server.make_url("/")) as client:
        async with client.get("/docs") as response:
            page = await response.text()
            assert "script-src 'self'" in response.headers["Content-Security-Policy"]
            assert "unsafe-inline" not in response.headers["Content-Security-Policy"]
        names = re.findall(r'(?:src|href)="(/assets/[^"]+)"', page)
        assert len(names) == 3
        for name in names:
            async with client.get(name) as response:
                assert response.status == 200
                assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
                assert len(await response.read()) > 100
        for unknown in ("/assets/nope.js", "/assets/..%2F..%2Fhttp.py", "/assets/MANIFEST.json"):
            async with client.get(unknown) as response:
                assert (response.status, response.content_type) == (404, "application/problem+json")
