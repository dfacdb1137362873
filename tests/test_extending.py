"""The pages on using and extending the package: every block of code on them runs, in the order of reading."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import registries
import soundfile
import torch
from torch import nn

from audioxai_utils import constants
from audioxai_utils.attributions import METHODS
from audioxai_utils.evaluation import masks, metrics

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE, README = REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "README.md"
PAGES = [PAGE, README, REPOSITORY / "notebooks" / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def run_blocks(page: Path, scope: dict) -> int:
    """Run every block of Python of a page in one scope; an error names the page's line."""
    text = page.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    for found in blocks:
        line = text.count("\n", 0, found.start(1))
        exec(compile("\n" * line + found[1], str(page), "exec", dont_inherit=True), scope)
    return len(blocks)


def test_every_block_runs(tmp_path, monkeypatch):
    """What the page registers is there, and nothing else; it is taken out again."""
    monkeypatch.chdir(tmp_path)
    try:
        assert run_blocks(PAGE, {"__name__": __name__}) >= 7
    finally:
        added = registries.take_back()
    assert added == ["method input_times_gradient", "mask above_mean", "metric margin"]
    assert "input_times_gradient" not in METHODS
    assert "above_mean" not in masks.MASKS and "margin" not in metrics.METRICS


@pytest.mark.parametrize("page", [README, REPOSITORY / "docs" / "own-model.md"], ids=lambda page: page.stem)
def test_the_first_example_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    pool = nn.AdaptiveAvgPool2d((4, 1))
    net = nn.Sequential(nn.Conv2d(1, 4, 5, stride=4), nn.Tanh(), pool, nn.Flatten(), nn.Linear(16, 3))
    soundfile.write("dog.wav", 0.1 * np.random.default_rng(0).standard_normal(32000), 32000)
    scope = {"net": net, "labels": ["dog", "cat", "rain"]}
    run_blocks(page, scope)
    assert torch.isfinite(scope["explanation"].kept_audio("topK_30_pos")).all()
    assert len(scope["explanation"].scores) >= len(constants.MASK_NAMES)


def test_the_readme_fits_two_screens_and_counts_the_methods():
    text = README.read_text(encoding="utf-8")
    assert 600 <= len(text.split()) <= 900
    assert len(constants.known_methods()) == 24 and "Twenty-four methods" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_what_a_page_links_to_is_there(page):
    text = page.read_text(encoding="utf-8")
    linked = [page.parent / name for name in re.findall(r"\]\(([^)#:]+)\)", text)]
    tests = [REPOSITORY / name for name in re.findall(r"`(tests/[\w/]+\.py)`", text)]
    assert [str(path) for path in linked + tests if not path.exists()] == []
