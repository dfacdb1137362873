"""The sweep over clip-to-noise ratios against the study's own ratio, and against a mixture made by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from audioxai_utils import constants
from audioxai_utils.attributions import METHODS
from audioxai_utils.audit import noise_sweep
from audioxai_utils.figures import noise_levels


def best_frame(mask="topK_30"):
    row = {"protocol": "audited", "spectrogram_type": "mel_db", "noise_scenario": "clean"}
    row |= {"method": "saliency", "mask": mask}
    return pd.DataFrame([row, row | {"protocol": "paper", "mask": "bin"}])


def test_the_sweep_at_the_studys_ratio_is_the_study(condition):
    """Accuracy as notebook 02 has it, and FF as the masks of explained clips score by themselves."""
    from audioxai_utils.evaluation.masks import apply_mask, build_masks

    ratios = (constants.STUDY_SNR_DB,)
    found = noise_sweep.snr_sweep(condition, ("clean", "white"), best_frame(), ("saliency",), ratios)
    rows = found.set_index(["noise_scenario", "metric"])
    for scenario in ("clean", "white"):
        here, model = condition.study.condition("mel_db", scenario), condition.classifier.model
        expected, _ = here.accuracy()
        assert rows.loc[(scenario, "accuracy"), "mean"] == pytest.approx(expected)
        db = here.spectrograms
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


def test_a_method_that_wants_the_sound_is_given_each_mixtures(condition, own_method):
    given = []

    def again(model, db, target, *, waveform, spectrogram):
        given.append(float((spectrogram(waveform).db - db).abs().max()))
        return db

    own_method("again", again)
    noise_sweep.snr_sweep(condition, ("white",), best_frame().assign(method="again"), snr_db=(-6.0, 3.0))
    assert len(given) >= 3 and max(given) < 1e-3


def test_without_a_method_the_sweep_is_of_accuracy_alone(condition):
    found = noise_sweep.snr_sweep(condition, ("white",), best_frame(), (), (3.0,))
    assert set(found["metric"]) == {"accuracy"} and len(noise_levels.snr_sweep(found).axes) == 1


def test_the_sweep_mixes_at_the_ratio_it_names(condition):
    clips = condition.clips
    noise = noise_sweep.load_noise("white", 32000)
    for snr in (-6.0, 12.0):
        part, other = noise_sweep.alpha_for_snr(snr), 1 - noise_sweep.alpha_for_snr(snr)
        clip = clips.waveforms.double()
        mixture = part * clip / clip.square().mean(1, keepdim=True).sqrt()
        mixture = mixture + other * noise / noise.square().mean().sqrt()
        mixture = mixture / mixture.abs().amax(1, keepdim=True)
        expected, found = condition.spectrogram(mixture).db, noise_sweep._mixed(clips, noise, snr)
        torch.testing.assert_close(condition.decibels(found), expected, atol=0.05, rtol=0)
        assert 20 * np.log10(part / other) == pytest.approx(snr)


def test_the_scenarios_own_mask_goes_before_the_clean_one():
    best = pd.concat([best_frame(), best_frame("bin").assign(noise_scenario="white")])
    assert noise_sweep._best_mask(best, "mel_db", "white", "saliency") == "bin"
    assert noise_sweep._best_mask(best, "mel_db", "horse", "saliency") == "topK_30"
    with pytest.raises(ValueError, match="best holds no audited mask of lime for mel_db"):
        noise_sweep._best_mask(best, "mel_db", "white", "lime")


def test_the_profile_says_how_much_is_swept_and_the_study_which_scenarios(condition, monkeypatch):
    asked = []
    monkeypatch.setattr(
        noise_sweep, "_mixtures", lambda *given: asked.append(given[1:]) or [("clean", float("inf"), None)]
    )
    found = noise_sweep.snr_sweep(condition, best=best_frame())
    assert asked == [(list(constants.NOISE_SCENARIOS), (-6.0, 3.0, 12.0))]
    assert (found.loc[found["metric"] == "FF", "n"] == min(3, len(condition.clips))).all()
    noisy = condition.study.condition("mel_db", "white")
    with pytest.raises(ValueError, match="must be a clean one.*got mel, white noise"):
        noise_sweep.snr_sweep(noisy)


def test_the_summary_goes_from_the_loudest_noise_to_the_softest():
    rows = [{"noise_scenario": "clean", "snr_db": np.inf, "metric": "accuracy", "mean": 80.0}]
    rows += [
        {"noise_scenario": "white", "snr_db": snr, "metric": metric, "mean": value}
        for snr, pair in ((12.0, (70.0, 0.75)), (-6.0, (20.0, 0.25)))
        for metric, value in zip(("accuracy", "FidIn"), pair)
    ]
    text = noise_sweep.summary(pd.DataFrame(rows))
    assert text.startswith("Accuracy is 80 % on the clean clips.")
    assert (
        "- white noise: 20 % at -6 dB, 70 % at +12 dB; "
        "the best masks keep the class on 25 % and 75 % of the clips." in text
    )


def test_the_figure_draws_what_the_table_holds():
    band = {"noise_scenario": "white", "low": 0.1, "high": 0.9}
    rows = [
        {**band, "snr_db": snr, "method": m, "metric": k, "mean": 0.5 + snr / 100}
        for snr in (-6.0, 3.0)
        for m, k in (("", "accuracy"), ("saliency", "FidIn"))
    ]
    figure = noise_levels.snr_sweep(pd.DataFrame(rows))
    assert len(figure.axes) == 2
    drawn = figure.axes[1].get_lines()[0]
    np.testing.assert_allclose(
        [drawn.get_xdata().astype(float), drawn.get_ydata().astype(float)], [[-6, 3], [0.44, 0.53]]
    )
    assert figure.axes[1].get_lines()[1].get_xdata()[0] == pytest.approx(3.5218, abs=1e-4)


def test_clips_without_a_known_class_have_no_accuracy_in_words():
    names = {"metric": "accuracy", "mean": float("nan"), "method": "", "mask": ""}
    rows = [{"noise_scenario": "clean", "snr_db": float("inf")}]
    rows += [{"noise_scenario": "white", "snr_db": snr} for snr in (-6.0, 12.0)]
    text = noise_sweep.summary(pd.DataFrame([row | names for row in rows]))
    assert "nan" not in text and "not known" in text and "from -6 to +12 dB" in text
