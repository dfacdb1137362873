"""The sweep over clip-to-noise ratios against the study's own ratio, and against a mixture made by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from audioxai_utils import constants
from audioxai_utils.audit import noise_sweep
from audioxai_utils.figures import sanity_checks
from audioxai_utils.study import study
from audioxai_utils.attributions import METHODS


def best_frame(mask="topK_30"):
    row = {"protocol": "audited", "spectrogram_type": "mel_db", "noise_scenario": "clean"}
    row |= {"method": "saliency", "mask": mask}
    return pd.DataFrame([row, row | {"protocol": "paper", "mask": "bin"}])


def test_the_sweep_at_the_studys_ratio_is_the_study(condition):
    """Accuracy as notebook 02 has it, and FF as the masks of explained clips score by themselves."""
    from audioxai_utils.evaluation.masks import apply_mask, build_masks

    settings, classifier = condition
    ratios = (constants.STUDY_SNR_DB,)
    found = noise_sweep.snr_sweep(settings, classifier, ("clean", "white"), ratios, best_frame(), ("saliency",))
    rows = found.set_index(["noise_scenario", "metric"])
    for scenario in ("clean", "white"):
        expected, _ = study.accuracy(settings, classifier, scenario)
        assert rows.loc[(scenario, "accuracy"), "mean"] == pytest.approx(expected)
        clips, model = study.explained_clips(settings, 32000, scenario), classifier.model
        db = study.spectrograms_of(classifier, clips)
        with torch.no_grad():
            p = model(db).softmax(1)
            target = p.argmax(1)
            mask = build_masks(METHODS["saliency"](model, db, target), "audited")["topK_30"]
            kept, removed = (model(part).softmax(1) for part in apply_mask(db, mask))
        drop = [float(p[i, c] - removed[i, c]) for i, c in enumerate(target)]
        hold = [float(kept[i].argmax() == c) for i, c in enumerate(target)]
        assert rows.loc[(scenario, "FF"), "mean"] == pytest.approx(np.mean(drop), abs=1e-5)
        assert rows.loc[(scenario, "FidIn"), "mean"] == np.mean(hold)
    assert rows.loc[("clean", "FF"), "snr_db"] == np.inf and set(found["mask"]) == {"", "topK_30"}
    assert (found["low"] <= found["mean"] + 1e-12).all() and (found["mean"] <= found["high"] + 1e-12).all()


def test_a_method_that_wants_the_sound_is_given_each_mixtures(condition, monkeypatch):
    given = []

    def again(model, db, target, *, waveform, spectrogram):
        given.append(float((spectrogram(waveform).db - db).abs().max()))
        return db

    monkeypatch.setitem(METHODS._functions, "again", again)
    monkeypatch.setitem(METHODS._traits, "again", METHODS.traits("saliency"))
    noise_sweep.snr_sweep(*condition, ("white",), (-6.0, 3.0), best_frame().assign(method="again"), methods=("again",))
    assert len(given) >= 3 and max(given) < 1e-3


def test_without_a_method_the_sweep_is_of_accuracy_alone(condition):
    found = noise_sweep.snr_sweep(*condition, ("white",), (3.0,), best_frame(), methods=())
    assert set(found["metric"]) == {"accuracy"} and len(sanity_checks.snr_sweep(found).axes) == 1


def test_the_sweep_mixes_at_the_ratio_it_names(condition):
    settings, classifier = condition
    clips = study.explained_clips(settings, 32000, "clean")
    noise = noise_sweep.load_noise("white", 32000)
    for snr in (-6.0, 12.0):
        part, other = noise_sweep.alpha_for_snr(snr), 1 - noise_sweep.alpha_for_snr(snr)
        clip = clips.waveforms.double()
        mixture = part * clip / clip.square().mean(1, keepdim=True).sqrt()
        mixture = mixture + other * noise / noise.square().mean().sqrt()
        mixture = mixture / mixture.abs().amax(1, keepdim=True)
        expected = classifier.spectrogram(mixture).db
        torch.testing.assert_close(noise_sweep._decibels(classifier, noise_sweep._mixed(clips, noise, snr)), expected, atol=0.05, rtol=0)
        assert 20 * np.log10(part / other) == pytest.approx(snr)


def test_the_scenarios_own_mask_goes_before_the_clean_one():
    best = pd.concat([best_frame(), best_frame("bin").assign(noise_scenario="white")])
    assert noise_sweep._best_mask(best, "mel_db", "white", "saliency") == "bin"
    assert noise_sweep._best_mask(best, "mel_db", "horse", "saliency") == "topK_30"
    with pytest.raises(ValueError, match="best holds no audited mask of lime for mel_db"):
        noise_sweep._best_mask(best, "mel_db", "white", "lime")


def test_the_figure_draws_what_the_table_holds():
    band = {"noise_scenario": "white", "low": 0.1, "high": 0.9}
    rows = [{**band, "snr_db": snr, "method": m, "metric": k, "mean": 0.5 + snr / 100}
            for snr in (-6.0, 3.0) for m, k in (("", "accuracy"), ("saliency", "FidIn"))]
    figure = sanity_checks.snr_sweep(pd.DataFrame(rows))
    assert len(figure.axes) == 2
    drawn = figure.axes[1].get_lines()[0]
    np.testing.assert_allclose([drawn.get_xdata().astype(float), drawn.get_ydata().astype(float)], [[-6, 3], [0.44, 0.53]])
    assert figure.axes[1].get_lines()[1].get_xdata()[0] == pytest.approx(3.5218, abs=1e-4)
