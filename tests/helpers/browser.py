"""A real Chromium without a network for the tests of pages; tests are skipped where there is none."""

from __future__ import annotations

import importlib.util
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = next(
    (path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None
)
WIDTHS = (360, 768, 1280, 1920)

LIBRARIES = all(importlib.util.find_spec(name) for name in ("playwright", "axe_playwright_python"))
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or not LIBRARIES,
    reason="no Chromium here (apt-get install chromium; pip install playwright axe-playwright-python)",
)


@contextmanager
def chromium():
    """A running browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """One page of one folder, opened from file:// with the network off; collects what goes wrong.

    With the address of a ``server`` on this machine, its pages can be opened too. A page's policy of what
    may run is kept by ``bypass_csp=False``; then no string of a test can be evaluated again and again
    (``wait_for_function``).
    """

    def __init__(self, browser, width: int = 1280, height: int = 900, server: str = "", **options):
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            offline=not server,
            **({"bypass_csp": True} | options),
        )
        inside = ("file:", "data:", "blob:", *([server] if server else []))
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.outside: list[str] = []
        self.page.on(
            "console",
            lambda message: (
                self.faults.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on(
            "request",
            lambda request: self.outside.append(request.url) if not request.url.startswith(inside) else None,
        )

    def open(self, path: Path, fragment: str = ""):
        """Go to a file; returns playwright's page."""
        self.page.goto(Path(path).resolve().as_uri() + fragment)
        return self.page

    def first_paint(self) -> float:
        """Milliseconds from the start of the visit to the first contentful paint."""
        paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
        for _ in range(600):
            if (found := self.page.evaluate(paint)) is not None:
                return found
            self.page.wait_for_timeout(50)
        raise TimeoutError(f"{self.page.url} painted nothing in 30 s")

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        return self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )

    def serious_faults(self) -> list[str]:
        """axe-core's serious and critical findings, as ``rule: element``."""
        import axe_playwright_python

        script = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
        self.page.evaluate(script)
        found = self.page.evaluate("axe.run({ preload: false }).then(result => result.violations)")
        return [
            f"{rule['id']}: {rule['nodes'][0]['html'][:120]}"
            for rule in found
            if rule["impact"] in ("serious", "critical")
        ]

    def close(self) -> None:
        self.context.close()
