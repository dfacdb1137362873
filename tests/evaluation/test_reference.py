"""The published files of one clip, where they are at hand: AUDIOXAI_REFERENCE names their folder.

It holds published_*.csv and cat_mel_db_clean/ (masks, scores and kept sound of every method);
``samples/cat.wav`` is looked for beside it. None of it is part of this repository, so these
tests are not collected without it.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from audioxai_utils.audio.datasets import load_waveform
from audioxai_utils.audio.spectrograms import get_spectrogram, kept_audio
from audioxai_utils.constants import STUDY_METHODS
from audioxai_utils.evaluation import metrics, tables
from audioxai_utils.evaluation.masks import build_masks

REFERENCE = Path(os.environ.get("AUDIOXAI_REFERENCE", ""))
pytestmark = pytest.mark.skipif(
    not os.environ.get("AUDIOXAI_REFERENCE"), reason="AUDIOXAI_REFERENCE does not name the published files"
)
SHAPE = (64, 501)


def published_masks(method):
    with np.load(REFERENCE / "cat_mel_db_clean" / f"{method}_masks.npz") as content:
        masks = {name: content[name] for name in content.files if name != "shape"}
    unpack = np.unpackbits
    rows = {n: m if m.dtype == np.float32 else unpack(m)[: SHAPE[0] * SHAPE[1]] for n, m in masks.items()}
    return {
        name: torch.from_numpy(row.reshape(1, 1, *SHAPE).astype(np.float32)) for name, row in rows.items()
    }


@pytest.fixture(scope="module")
def scores():
    return pd.read_csv(REFERENCE / "cat_mel_db_clean" / "metrics.csv").set_index(["method", "mask"])


@pytest.mark.parametrize("method", STUDY_METHODS)
def test_masks_follow_from_the_stored_maps(method):
    """All that is thresholded: 10 masks a method from the published minmax and minmax_pos."""
    published = published_masks(method)
    signed, positive = build_masks(published["minmax"]), build_masks(published["minmax_pos"])
    names = [n for n in published if n == "bin" or n.startswith(("topK", "pos_thresh"))]
    assert len(names) == 10
    for name in names:
        ours = positive if "pos" in name or name == "bin" else signed
        assert int((ours[name] != published[name]).sum()) <= 1, name


@pytest.mark.parametrize("method", STUDY_METHODS)
def test_conciseness_of_all_masks(method, scores):
    for name, mask in published_masks(method).items():
        assert metrics.sparseness(mask).item() == pytest.approx(scores.SPS[method, name], abs=1e-5), name
        assert metrics.complexity(mask).item() == pytest.approx(scores.COMP[method, name], abs=1e-5), name
        assert metrics.kept_area(mask).item() == pytest.approx(scores.area[method, name], abs=1e-6), name


@pytest.mark.parametrize("method", STUDY_METHODS)
@pytest.mark.parametrize("mask", ["bin", "sigmoid"])
def test_kept_sound(method, mask):
    """At least 80 dB above its difference from the published sound."""
    spectrogram = get_spectrogram("mel_db")
    cat = next(
        path
        for folder in ("samples", "data/samples")
        for path in [REFERENCE.parent / folder / "cat.wav"]
        if path.is_file()
    )
    batch = spectrogram(load_waveform(cat, spectrogram.sample_rate)[None])
    ours = kept_audio(batch, published_masks(method)[mask], spectrogram)[0].double()
    with np.load(REFERENCE / "cat_mel_db_clean" / f"{method}_{mask}_audio.npz") as content:
        theirs = torch.from_numpy(content["waveform"]).double().flatten()
    assert 10 * torch.log10(theirs.square().sum() / (theirs - ours).square().sum()) >= 80


def test_the_rule_picks_the_published_masks():
    best = tables.best_masks(pd.read_csv(REFERENCE / "published_results.csv"))
    printed = pd.read_csv(REFERENCE / "published_tables.csv")
    keys = ["spectrogram_type", "noise_scenario", "method", "mask"]
    assert len(printed.merge(best, on=keys)) == len(printed) == 20
