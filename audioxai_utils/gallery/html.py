"""The frame of every HTML page (own stylesheet, no network) and folders that appear whole or not at all."""

from __future__ import annotations

import html
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import Template

from ..figures.style import template
from ..files import PARTIAL, to_disk

# What a page may run: its own script files, and nothing that stands in its text, whoever wrote it.
SCRIPTS, NO_SCRIPTS = "script-src 'self' file:", "script-src 'none'"
MISSING = '<p class="missing">Not computed in this run.</p>'


@contextmanager
def whole_directory(directory: str | Path) -> Iterator[Path]:
    """Give an empty folder beside ``directory``; it takes that place when the block ends well.

    After an error ``directory`` is as it was.
    """
    directory = Path(directory).resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=directory.parent, prefix=PARTIAL))
    old = temporary.with_name(temporary.name + "-old")
    try:
        os.chmod(temporary, 0o755)
        yield temporary
        to_disk(temporary)
        if directory.exists():
            os.replace(directory, old)
        os.replace(temporary, directory)
    finally:
        if old.exists() and not directory.exists():
            os.replace(old, directory)
        for left in (temporary, old):
            shutil.rmtree(left, ignore_errors=True)


def escape(text) -> str:
    """Text as HTML shows it."""
    return html.escape(str(text), quote=True)


def navigation(links: Sequence[tuple[str, str]], current: str = "") -> str:
    """A navigation bar of (address, words); ``current`` is the address of the page itself."""
    items = []
    for address, words in links:
        here = ' aria-current="page"' if address == current else ""
        items.append(f'<li><a href="{escape(address)}"{here}>{escape(words)}</a></li>')
    return f'<nav aria-label="Report"><ul>{"".join(items)}</ul></nav>' if items else ""


def page(
    title: str, body: str, assets: str = "assets", navigation: str = "", head: str = "", scripts: str = ""
) -> str:
    """A whole HTML page around ``body`` (HTML), with the shared stylesheet of the ``assets`` folder."""
    return Template(template("page.html")).substitute(
        title=escape(title),
        body=body,
        assets=escape(assets),
        navigation=navigation,
        head=head,
        scripts=scripts,
        policy=f"{SCRIPTS if scripts else NO_SCRIPTS}; object-src 'none'; base-uri 'none'",
    )


def write_stylesheet(assets: Path) -> None:
    """Copy the shared stylesheet into a page's assets."""
    assets.mkdir(parents=True, exist_ok=True)
    (assets / "style.css").write_text(template("style.css"), encoding="utf-8")


def script_data(name: str, data) -> str:
    """A script that gives a page its data as ``window.<name>`` (a page opened from a folder may not
    fetch).
    """
    return f"window.{name}={json.dumps(data, separators=(',', ':'), allow_nan=False)};\n"


def read_script_data(name: str, text: str):
    """What `script_data` wrote."""
    return json.loads(text.removeprefix(f"window.{name}=").rstrip().removesuffix(";"))


def readable_size(n_bytes: float) -> str:
    """Bytes in words, such as ``3.2 MB``."""
    for unit in ("B", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} GB"
