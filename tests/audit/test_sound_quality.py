"""Quality of kept sounds beside their faithfulness: smoothing, the table, its means and its figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tiny_study
import torch
from scipy.ndimage import gaussian_filter

from audioxai_utils.audit import sound_quality
from audioxai_utils.evaluation.controls import si_sdr
from audioxai_utils.evaluation.masks import build_masks
from audioxai_utils.evaluation.quality import musical_noise, speech_quality
from audioxai_utils.figures.sound_quality import faithfulness_against_quality

MASKS = ["topK_30_pos", "minmax_pos"]


@pytest.fixture(scope="module")
def condition(tmp_path_factory):
    study = tiny_study.make(tmp_path_factory.mktemp("tiny"), seconds=0.7)
    found = study.condition("mel_db", "white")
    found.attribute("saliency")
    return found


@pytest.fixture(scope="module")
def table(condition):
    return sound_quality.quality(condition, ["saliency"], MASKS, n_clips=2)


def test_smoothing_is_scipy_s_gaussian():
    mask = (
        torch.rand(2, 1, 20, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64) > 0.7
    ).double()
    found = sound_quality.smoothed(mask, (1.0, 2.5))
    for clip in range(2):
        sigma = {"sigma": (1.0, 2.5), "mode": "nearest", "radius": (3, 8)}
        np.testing.assert_allclose(
            found[clip, 0], gaussian_filter(mask[clip, 0].numpy(), **sigma), atol=1e-12
        )
    assert (sound_quality.smoothed(torch.ones(1, 1, 8, 8)) - 1).abs().max() < 1e-6


def test_a_row_is_what_is_heard_of_one_mask(condition, table):
    """By hand: the sound of one mask of one clip, its faithfulness by the classifier, its quality by the measures."""
    part = condition.first(2)
    assert len(table) == 2 * (1 + len(MASKS) + 1) and table.notna().all(axis=None)
    attribution = part.attributions("saliency").to(part.spectrograms)
    mask = sound_quality.smoothed(build_masks(attribution, "audited", MASKS)["topK_30_pos"])
    transform, like = part.spectrogram, part.spectrograms
    waveform = part.clips.waveforms.to(like)
    batch = transform(waveform)
    kept = transform.invert(batch.power * mask, batch.phasor, batch.length)
    with torch.no_grad():
        p = [part.classifier.model.eval()(transform(sound).db).softmax(1) for sound in (waveform, kept)]
    rows = table[table["mask"] == "topK_30_pos smoothed"]
    whole, own = (each.gather(1, p[0].argmax(1)[:, None])[:, 0].numpy() for each in p)
    drop = 100 * np.maximum(0, whole - own) / whole
    np.testing.assert_allclose(rows["AD_heard"], drop, atol=1e-3)
    np.testing.assert_allclose(rows["si_sdr"], si_sdr(kept, part.clips.stems[0].to(like)), atol=1e-3)
    np.testing.assert_allclose(rows["musical_noise"], musical_noise(kept, waveform, 32000), atol=1e-6)


def test_means_and_gains_are_over_clips(table):
    found = sound_quality.means(table).set_index(["method", "mask"])
    gains = sound_quality.smoothing_gains(table).set_index(["mask", "measure"])
    for mask in ("topK_30_pos", "topK_30_pos smoothed"):
        own = table[table["mask"] == mask]
        row = found.loc["saliency", mask]
        assert row["n"] == 2 and row["lsd"] == pytest.approx(own["lsd"].mean())
        assert row["lsd_low"] <= row["lsd"] <= row["lsd_high"]
    plain, soft = (
        table.loc[table["mask"] == name, "lsd"].to_numpy() for name in ("topK_30_pos", "topK_30_pos smoothed")
    )
    assert gains.loc[("topK_30_pos", "lsd"), "difference"] == pytest.approx((soft - plain).mean())
    assert set(gains.index.get_level_values("mask")) == {"topK_30_pos"}  # soft masks need none
    assert found.loc[("all", "all"), "area"] == 1 and found.loc[("all", "all"), "AD_heard"] < 1  # %


def test_the_figure_has_a_point_a_mask_and_the_better_side_on_the_right(table):
    means = sound_quality.means(table)
    figure = faithfulness_against_quality(means)
    left, right = figure.axes
    assert "SI-SDR" in left.get_xlabel() and "musical noise" in right.get_xlabel()
    assert not left.xaxis_inverted() and right.xaxis_inverted()
    points = [
        line
        for line in right.get_lines()
        if line.get_marker() == "o" and len(line.get_xdata()) and line.get_color() != "#555555"
    ]
    drawn = sorted(x for line in points for x in np.asarray(line.get_xdata()))
    np.testing.assert_allclose(drawn, sorted(means.loc[means["method"] == "saliency", "musical_noise"]))


def test_the_summary_reads_its_numbers_from_the_tables(table):
    means = sound_quality.means(table)
    text = sound_quality.summary(means, sound_quality.smoothing_gains(table))
    best = means[means["method"] == "saliency"]["si_sdr"].max()
    assert text.startswith("- mel, white noise: Saliency + ") and f"({best:.1f} dB SI-SDR)" in text
    unknown = means.drop(columns=[name for name in means if name.startswith("si_sdr")])
    assert sound_quality.measure_of(unknown) == "musical_noise"
    assert "nats of musical noise" in sound_quality.summary(unknown, pd.DataFrame())
    kept = sound_quality.summary(means.assign(FidIn_heard=1.0), pd.DataFrame())
    assert "kept classes: none, one of the two is constant." in kept and "nan" not in kept


def test_speech_is_measured_where_it_is_asked_for(condition):
    """Against the stem, as the measure itself finds it."""
    table = sound_quality.quality(condition, ["saliency"], ["minmax_pos"], n_clips=1, speech=True)
    kept = table.set_index("mask")["stoi"]
    part = condition.first(1)
    scorer, like = part.scorer(), part.spectrograms
    mask = build_masks(part.attributions("saliency").to(like), "audited", ["minmax_pos"])["minmax_pos"]
    stem = part.clips.stems[0].to(like)
    expected = speech_quality(scorer.sounds(mask)[0], stem, 32000)["stoi"]
    assert kept["minmax_pos"] == pytest.approx(float(expected)) and abs(kept["minmax_pos"]) < 0.999
    means = sound_quality.means(table).set_index("mask")
    assert means.loc["all", "stoi"] == pytest.approx(kept["all"])


def test_a_silent_kept_sound_counts_as_one_that_has_nothing_of_its_source():
    """A mask that is silent on nine clips of ten is not judged by the tenth; a silent source is no measure."""
    rows = [
        {
            "spectrogram_type": "mel_db",
            "noise_scenario": "white",
            "clip": f"c{clip}",
            "method": method,
            "mask": mask,
        }
        | {"si_sdr": value, "FidIn_heard": 0.0, "FF_heard": 0.0, "AD_heard": 0.0, "area": 0.1}
        for method, mask, values in (
            ("all", "all", [0.0] * 9 + [np.nan]),
            ("lime", "bin", [10.0] + [np.nan] * 9),
            ("lime", "topK_50", [5.0] * 9 + [np.nan]),
        )
        for clip, value in enumerate(values)
    ]
    means = sound_quality.means(pd.DataFrame(rows)).set_index("mask")["si_sdr"]
    assert means["bin"] == pytest.approx((10 + 8 * sound_quality.LEAST_SI_SDR) / 9)
    assert means["topK_50"] == 5 and means["all"] == 0
