"""Ruff's rules and format, as pyproject.toml states them, hold in every file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
BAR = re.compile(r"^\s*#.*[-=#*~]{3,}\s*$|^\s*# ?[-=]{2,}")


@pytest.mark.parametrize("words", [("check", "--output-format", "concise"), ("format", "--check")])
def test_ruff_finds_nothing(words):
    line = [sys.executable, "-m", "ruff", *words, "--no-cache", "."]
    found = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_parts_of_a_file_are_headed_by_words_alone():
    """A comment of one line, ``# Where things lie``, and no bar of dashes."""
    folders = [REPOSITORY / name for name in ("audioxai_utils", "tests", "benchmarks")]
    bars = [
        f"{path.relative_to(REPOSITORY)}:{number}: {line}"
        for path in sorted(path for folder in folders for path in folder.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if BAR.match(line)
    ]
    assert bars == []
