"""Browser: a real Chromium without a window, and a web page of the test's own for it to open.

The page runs a script that ends with `report(value)`; what it reports is what the test gets.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from tests.support.child import Child

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PAGE = """<!doctype html><meta charset="utf-8"><script>
const report = (value) => fetch("/report", {method: "POST", body: JSON.stringify(value)});
addEventListener("error", (event) => report({error: String(event.message)}));
addEventListener("unhandledrejection", (event) => report({error: String(event.reason)}));
%s
</script>"""


def chromium() -> str:
    """Where it is. Skips the test where it is not, but on the build machine."""
    found = shutil.which("chromium")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is not installed")
        pytest.skip("chromium is not installed")
    return found


class Page:
    """A page's origin, its script, which may be set until it is opened, and what that has reported."""

    def __init__(self) -> None:
        self.script = ""
        self.reports: list[Any] = []
        self.origin = ""

    async def show(self, _request: web.Request) -> web.Response:
        """The page."""
        return web.Response(text=PAGE % self.script, content_type="text/html")

    async def take(self, request: web.Request) -> web.Response:
        """A report."""
        self.reports.append(msgspec.json.decode(await request.read()))
        return web.Response()


@asynccontextmanager
async def serving(page: Page) -> AsyncIterator[Page]:
    """The page at an origin of its own."""
    app = web.Application()
    app.router.add_get("/", page.show)
    app.router.add_post("/report", page.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    page.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield page
    finally:
        await runner.cleanup()


@asynccontextmanager
async def opened(page: Page, directory: Path) -> AsyncIterator[Child]:
    """The page in a browser, until the block ends."""
    profile = directory / "profile"
    argv = [chromium(), *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-port=0", f"{page.origin}/"]
    with Child(argv, directory / "chromium") as child:
        yield child
