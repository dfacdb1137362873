"""Masks moved, coded and handed to another model, on toy models whose evidence is known."""

from __future__ import annotations

import dataclasses
import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from torch import nn

from audioxai_utils.audio import encoding
from audioxai_utils.audio.spectrograms import get_spectrogram
from audioxai_utils.audit import robustness
from audioxai_utils.evaluation.scoring import MaskScorer, probabilities
from audioxai_utils.models.reading import Reading

SPECTROGRAM = get_spectrogram("stft_db")


class Tones(nn.Module):
    """Class 0: the band around one tone is loud; class 1: it is not."""

    def __init__(self, hertz: float, slope: float = 0.5) -> None:
        super().__init__()
        centre = round(hertz / (16000 / 512))
        self.band, self.slope = slice(centre - 1, centre + 2), slope

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        level = db[:, 0, self.band].mean(dim=(1, 2))
        return torch.stack([self.slope * (level - 10), torch.zeros_like(level)], dim=1)


@pytest.fixture(scope="module")
def batch():
    time = torch.arange(16000) / 16000
    noise = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0)) * 0.02
    return SPECTROGRAM(0.3 * torch.sin(2 * torch.pi * 1000 * time) + noise)


def band_mask(batch, low: float, high: float) -> torch.Tensor:
    mask = torch.zeros_like(batch.db)
    mask[:, :, round(low / 31.25) : round(high / 31.25) + 1] = 1
    return mask


@pytest.mark.parametrize("shift", [(1, 0), (-1, 0), (0, 1), (0, -2), (2, -1), (0, 0)])
def test_shifts_move_and_repeat_edges(shift):
    mask = torch.arange(20.0).view(1, 1, 4, 5)
    found = robustness.shifted(mask, *shift)
    for f in range(4):
        for t in range(5):
            row, column = min(max(f - shift[0], 0), 3), min(max(t - shift[1], 0), 4)
            assert found[0, 0, f, t] == mask[0, 0, row, column]
    with pytest.raises(ValueError, match="smaller than the mask's 4 bins or frames; got 4"):
        robustness.shifted(mask, 4, 0)


def test_mp3_comes_back_in_place_and_at_its_level():
    time = np.arange(32000) / 16000
    sound = torch.from_numpy(
        np.stack([0.05 * np.sin(2 * np.pi * 700 * time) * (time < 1), np.zeros_like(time)])
    )
    found = robustness.coded(sound, 16000, compression=0.5)
    assert found.shape == sound.shape and found.dtype == sound.dtype and float(found[1].abs().max()) == 0
    error = float((found[0] - sound[0]).square().mean() / sound[0].square().mean())
    assert 0 < error < 10 ** (-20 / 10)  # one sample late would already cost 7.5 % of the energy
    stored = encoding.store(sound[0].numpy(), 16000, 0.5)
    direct, _ = soundfile.read(io.BytesIO(stored.data))
    np.testing.assert_allclose(
        found[0].numpy()[: len(direct)], direct[:32000] * 10 ** (-stored.gain / 20), atol=1e-12
    )


def test_a_wide_mask_of_the_tone_holds_and_a_narrow_one_beside_it_does_not(batch):
    model, same, other = Tones(1000), Tones(1000, slope=0.3), Tones(3000)
    scorer = MaskScorer(model, SPECTROGRAM, batch)
    masks = {"tone": band_mask(batch, 800, 1200), "above": band_mask(batch, 2000, 2400)}
    table = robustness.mask_robustness(scorer, masks, {"second": same, "deaf": other})
    assert len(table) == 2 * 2 * (2 + 4 + 1 + 2 * 2)
    tests = {"scored", "heard", "MP3", "second", "second heard", *robustness.SHIFTS}
    good = table[(table["mask"] == "tone") & table["test"].isin(tests)]
    assert (
        set(good["test"]) == tests
        and (good["FidIn"] == 1).all()
        and (good["AD"] < 1).all()
        and (good["FF"] > 0.9).all()
    )
    bad = table[(table["mask"] == "above") & table["test"].isin(tests)]
    assert (bad["FidIn"] == 0).all() and (bad["AD"] > 90).all()
    deaf = table[table["test"] == "deaf"]
    assert (
        not deaf["agrees"].any()
        and table[table["test"] != "deaf"].query("test != 'deaf heard'")["agrees"].all()
    )
    means = robustness.summarised(table)
    unasked = means["test"].str.startswith("deaf")
    assert (means.loc[~unasked, "n_clips"] == 2).all()
    assert (means.loc[unasked, "n_clips"] == 0).all() and means.loc[unasked, "FidIn"].isna().all()
    assert means.set_index(["mask", "test"]).loc[("tone", "MP3"), "FidIn"] == 1


def test_a_mask_of_single_bins_does_not_survive_a_shift():
    """Evidence of one bin, kept alone: moved by a bin it is gone, and the table says so."""

    class OneBin(nn.Module):
        def forward(self, db):
            level = db[:, 0, 32].mean(dim=1)
            return torch.stack([0.5 * (level + 20), torch.zeros_like(level)], dim=1)

    time = torch.arange(16000) / 16000
    batch = SPECTROGRAM(0.3 * torch.sin(2 * torch.pi * 1000 * time)[None])
    mask = torch.zeros_like(batch.db)
    mask[:, :, 32] = 1
    table = robustness.mask_robustness(MaskScorer(OneBin(), SPECTROGRAM, batch), {"bin": mask}).set_index(
        "test"
    )
    assert table.loc["scored", "FidIn"] == 1
    assert table.loc["bin up", "FidIn"] == table.loc["bin down", "FidIn"] == 0
    assert table.loc["frame later", "FidIn"] == 1


def test_transfer_is_scored_against_the_second_model_itself(batch):
    """By hand: FF and AD from that model's own probabilities of clip, kept and removed part."""
    second = Tones(1000, slope=0.05)
    mask = 0.5 * band_mask(batch, 900, 1100) + 0.25
    table = robustness.mask_robustness(
        MaskScorer(Tones(1000), SPECTROGRAM, batch), {"m": mask}, {"second": second}
    )
    rows = table[table["test"] == "second"].sort_values("index")
    db = batch.db
    whole, kept, removed = (
        probabilities(second, part)[:, 0]
        for part in (db, (db + 100) * mask - 100, (db + 100) * (1 - mask) - 100)
    )
    np.testing.assert_allclose(rows["FF"], (whole - removed).numpy(), atol=1e-5)
    np.testing.assert_allclose(rows["AD"], (100 * (whole - kept).clamp_min(0) / whole).numpy(), atol=1e-3)


def test_the_heat_map_and_the_summary_hold_the_means(batch):
    from audioxai_utils.figures import localisation as figures

    bands = {"lime + bin": band_mask(batch, 2000, 2400), "shap + bin": band_mask(batch, 800, 1200)}
    masks = {"the whole clip": torch.ones_like(batch.db), **bands}
    table = robustness.mask_robustness(
        MaskScorer(Tones(1000), SPECTROGRAM, batch), masks, {"deaf": Tones(3000)}
    )
    means = robustness.summarised(table)
    ax = figures.robustness(means).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "the whole clip",
        "LIME + bin",
        "SHAP + bin",
    ]
    assert [text.get_text() for text in ax.texts] == [f"{value:.2f}" for value in means["FidIn"].dropna()]
    lines = robustness.summary(table, "deaf").splitlines()
    assert lines[0].startswith(
        "- Elsewhere, the best masks: the class is kept on 50 % of the clips as scored, 50 % as heard"
    )
    assert (
        lines[1].startswith("- Elsewhere, the whole clip: the class is kept on 100 %")
        and "n/a in the deaf (n/a heard)" in lines[1]
    )
    assert lines[2] == "- The deaf is asked where it predicts the explained class: on 0 % of the clips."


def test_the_second_classifier_is_another_and_best_masks_are_those_of_the_table(condition):
    second, run = robustness.second_classifier(condition)
    assert len(run.history) == condition.study.settings.sizes.epochs // 3
    own = condition.study.new_model("mel_db").state_dict()
    assert not torch.equal(run.model.state_dict()["head.weight"], own["head.weight"])
    torch.testing.assert_close(
        probabilities(second, condition.spectrograms),
        probabilities(run.model, condition.spectrograms),
        atol=1e-6,
        rtol=0,
    )
    condition.attribute("saliency")
    row = {
        "protocol": "audited",
        "spectrogram_type": "mel_db",
        "noise_scenario": "clean",
        "method": "saliency",
    }
    best = pd.DataFrame(
        [
            row | {"mask": "topK_5"},
            row | {"protocol": "paper", "mask": "bin"},
            row | {"noise_scenario": "white", "mask": "bin"},
        ]
    )
    masks = robustness.best_masks(condition, best)
    assert list(masks) == ["the whole clip", "saliency + topK_5"] and masks["the whole clip"].min() == 1
    values = condition.attributions("saliency")
    for mask, attribution in zip(masks["saliency + topK_5"], values):
        kept = attribution[mask == 1]
        assert len(kept) == round(0.05 * attribution.numel()) and kept.min() >= attribution[mask == 0].max()


@pytest.mark.parametrize(
    ("given", "width", "rate", "epochs", "loaded"),
    [
        ({"profile": "paper", "pretrained": ("mn04", "file.pt")}, 1 / 8, 3e-3, 16, []),
        ({"profile": "paper"}, 1, 7.5e-4, 16, []),
        ({"profile": "paper", "pretrained": ("cnn14", "file.pth")}, 1, 1e-4, 6, ["file.pth"]),
        ({"profile": "quick", "pretrained": ("mn04", "file.pt")}, 1 / 16, 3e-3, 16, []),
    ],
)
def test_the_second_classifier_is_trained_as_its_weights_ask(
    condition, monkeypatch, given, width, rate, epochs, loaded
):
    """The recipe for AudioSet's weights goes on from what is learnt; at full width it would take hours."""
    seen = {}

    def train(model, train, validation, sizes, seed, device):
        seen.update(width=model.width, rate=sizes.learning_rate, epochs=sizes.epochs)
        return SimpleNamespace(model=model.eval(), history=None)

    files = []
    monkeypatch.setattr(robustness, "load_panns_weights", lambda model, path: files.append(path))
    monkeypatch.setattr(robustness.training, "train_classifier", train)
    settings = dataclasses.replace(condition.study.settings, **given)
    study = SimpleNamespace(
        settings=settings,
        split=condition.study.split,
        dataset=condition.study.dataset,
        dtype=torch.float32,
        device="cpu",
    )
    of_it = SimpleNamespace(
        study=study, spectrogram_type="mel_db", spectrograms=condition.spectrograms.float()
    )
    robustness.second_classifier(of_it)
    assert seen == {"width": width, "rate": rate, "epochs": epochs} and files == loaded


def test_a_model_of_independent_labels_is_read_by_its_threshold(batch):
    """Two labels are heard at once: the weaker one is kept although it is never the most probable."""

    class Both(nn.Module):
        reading = Reading("sigmoid", threshold=0.5)

        def forward(self, db):
            return torch.tensor([[3.0, 1.0]]).expand(len(db), 2)

    scorer = MaskScorer(Both(), SPECTROGRAM, batch, torch.ones(len(batch), dtype=torch.long))
    table = robustness.mask_robustness(scorer, {"all": torch.ones_like(batch.db)})
    assert (table["FidIn"] == 1).all()
    exclusive = MaskScorer(Both(), SPECTROGRAM, batch, torch.ones(len(batch), dtype=torch.long))
    exclusive.reading = Reading("softmax")
    assert (robustness.mask_robustness(exclusive, {"all": torch.ones_like(batch.db)})["FidIn"] == 0).all()
