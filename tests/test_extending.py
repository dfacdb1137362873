"""The page on extending the package: every block of code on it runs, in the order in which it is read."""

import re
from pathlib import Path

import pytest

from audioxai_utils.attributions import METHODS
from audioxai_utils.evaluation import masks, metrics

PAGE = Path(__file__).resolve().parents[1] / "audioxai_utils" / "EXTENDING.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.S | re.M)


@pytest.fixture
def registries_put_back():
    """What the page registers is gone afterwards."""
    tables = (METHODS._functions, masks.MASKS, metrics.METRICS)
    before = [dict(table) for table in tables]
    yield
    for table, content in zip(tables, before):
        table.clear()
        table.update(content)


def test_every_block_runs(tmp_path, monkeypatch, registries_put_back):
    monkeypatch.chdir(tmp_path)
    text, scope = PAGE.read_text(encoding="utf-8"), {}
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) == text.count("```python") >= 6
    for found in blocks:
        line = text.count("\n", 0, found.start(1))
        exec(
            compile("\n" * line + found[1], str(PAGE), "exec"), scope
        )  # so that an error names the page's line
    assert (
        {"input_times_gradient"} <= set(METHODS)
        and "above_mean" in masks.MASKS
        and "margin" in metrics.METRICS
    )


def test_what_the_page_registers_does_not_stay():
    assert (
        "input_times_gradient" not in METHODS
        and "above_mean" not in masks.MASKS
        and "margin" not in metrics.METRICS
    )


def test_files_and_tests_that_the_page_names_are_there():
    text, root = PAGE.read_text(encoding="utf-8"), PAGE.parents[1]
    for name in re.findall(r"`(tests/\w+\.py)`", text):
        assert (root / name).is_file(), name
    assert "audioxai_utils/EXTENDING.md" in (root / "README.md").read_text(encoding="utf-8")
