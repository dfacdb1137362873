"""The rooms of the package as pyproject.toml draws them: imports only downward, few files flat, none too
long.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "audioxai_utils"
MOST_FLAT, MOST_LINES = 8, 400


def test_rooms_import_only_downward_and_in_no_circle():
    linter = Path(sys.executable).with_name("lint-imports")
    line = [linter, "--no-cache", "--no-logo", "pyproject.toml"]
    found = subprocess.run(
        line,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_folder_is_a_room_that_the_linter_sees():
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [folder.name for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_few_modules_lie_flat():
    flat = [path.name for path in PACKAGE.glob("*.py")]
    assert len(flat) <= MOST_FLAT, flat


def test_no_file_is_too_long_to_read():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path.relative_to(PACKAGE)): n for path, n in lengths.items() if n > MOST_LINES} == {}
