"""Ruff's rules and format, as pyproject.toml states them, hold in every file."""

from __future__ import annotations

import ast
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


ONE_MEANING = (
    "METHODS",
    "METRICS",
    "MASKS",
    "CONTROLS",
    "CONDITION",
    "FROM_SCRATCH",
    "STUDY_METHODS",
    "PROFILES",
)
SAYS_NOTHING = ("told", "sent", "places")


def _modules():
    """(path, syntax tree) of every file of the package and the benchmarks."""
    for folder in ("audioxai_utils", "benchmarks"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            yield path.relative_to(REPOSITORY), ast.parse(path.read_text(encoding="utf-8"))


def _assigned(statement: ast.stmt) -> list[str]:
    targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def test_a_name_of_the_whole_project_means_one_thing():
    """Whoever reads ``METHODS`` in one file and knows it from another reads it rightly."""
    found = {name: [] for name in ONE_MEANING}
    for path, tree in _modules():
        for statement in tree.body:
            for name in _assigned(statement):
                found.get(name, []).append(str(path))
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}
    assert all(found[name] for name in ("METHODS", "METRICS", "MASKS", "PROFILES"))


def test_no_name_says_nothing():
    found = [
        f"{path}:{node.lineno} {name}"
        for path, tree in _modules()
        for node in ast.walk(tree)
        for name in (getattr(node, "id", ""), getattr(node, "name", ""), getattr(node, "arg", ""))
        if name in SAYS_NOTHING
    ]
    assert found == []
