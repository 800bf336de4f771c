"""A browser without a network, and the built book on a server of this machine."""

import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "book" / "_build" / "html"
SCREENS = ROOT / "book" / "_build" / "screens"
OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="session")
def chromium():
    """A running Chromium; tests that ask for it are skipped where there is none."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium here (Debian/Ubuntu: sudo apt-get install chromium; or name one in CHROMIUM)")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here (pip install -e '.[browser]')")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def book():
    """The address of the built book; tests that ask for it are skipped where it is not built."""
    if not (HTML / "index.html").is_file():
        pytest.skip("the book is not built (make book)")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=HTML)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Tab:
    """A page of the browser that can reach one address only, and remembers what went wrong on it."""

    def __init__(self, chromium, address, **context):
        self.address, self.faults = address, []
        self.context = chromium.new_context(**context)
        self.context.route("**/*", self._local)
        self.page = self.context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error}"))
        self.page.on("response", self._response)

    def _local(self, route):
        url = route.request.url
        if url.startswith((self.address, "data:", "blob:")):
            route.continue_()
        else:
            self.faults.append(f"asks the network for {url}")
            route.abort()

    def _console(self, message):
        if message.type == "error":
            self.faults.append(f"console: {message.text}")

    def _response(self, response):
        if response.status >= 400:
            self.faults.append(f"{response.status} for {response.url}")

    def open(self, place):
        """Go to a page of the address, and wait until its scripts have done their work."""
        self.page.goto(f"{self.address}/{place}", wait_until="load", timeout=120_000)
        self.page.wait_for_load_state("networkidle", timeout=120_000)
        self.page.wait_for_function("!window.MathJax || !MathJax.startup || MathJax.startup.promise.then(() => true)")
        return self.page


@pytest.fixture
def tab(chromium, book):
    """Make tabs on the book: ``tab()``, ``tab(color_scheme="dark", viewport=...)``."""
    opened = []

    def make(**context):
        opened.append(Tab(chromium, book, **context))
        return opened[-1]

    yield make
    for each in opened:
        each.context.close()
