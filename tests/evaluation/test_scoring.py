"""Scores of masks against a direct computation, mask by mask and clip by clip."""

import pytest
import torch
from torch import nn

from audioxai_utils.audio.spectrograms import get_spectrogram, kept_audio, removed_audio
from audioxai_utils.evaluation.masks import apply_mask, build_masks
from audioxai_utils.evaluation.metrics import faithfulness
from audioxai_utils.evaluation.scoring import MaskScorer, probabilities, score_masks


class Counting(nn.Module):
    """A small linear classifier that counts the spectrograms it saw."""

    def __init__(self, n_bins):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(n_bins, 3).double()
        self.dropout, self.seen = nn.Dropout(0.5), 0

    def forward(self, db):
        self.seen += len(db)
        return self.dropout(self.linear(db.mean(3).squeeze(1) / 20))


@pytest.fixture
def case():
    spectrogram = get_spectrogram("stft_db")
    torch.manual_seed(1)
    batch = spectrogram(torch.randn(3, 4000, dtype=torch.float64))
    return Counting(257).eval(), spectrogram, batch, torch.randn(batch.db.shape, dtype=torch.float64)


@pytest.mark.parametrize("protocol", ["paper", "audited"])
def test_scores_equal_a_direct_computation(case, protocol):
    model, spectrogram, batch, attribution = case
    masks = build_masks(attribution, protocol)
    scores = score_masks(MaskScorer(model, spectrogram, batch), masks, protocol, heard=True).set_index(
        ["mask", "index"]
    )
    with torch.no_grad():
        for name in ("bin", "minmax"):
            for i in range(3):
                mask, one = masks[name][i : i + 1], batch[i : i + 1]
                p, kept, removed = (model(db).softmax(1) for db in (one.db, *apply_mask(one.db, mask)))
                sounds = (spectrogram(f(one, mask, spectrogram)).db for f in (kept_audio, removed_audio))
                expected = faithfulness(p, kept, removed, protocol)
                heard = faithfulness(p, *(model(db).softmax(1) for db in sounds), protocol)
                for metric in expected:
                    assert scores.loc[(name, i), metric] == pytest.approx(expected[metric].item(), abs=1e-9)
                    assert scores.loc[(name, i), f"{metric}_heard"] == pytest.approx(
                        heard[metric].item(), abs=1e-7
                    )
                assert scores.loc[(name, i), "p_kept"] == pytest.approx(kept[0, p.argmax()].item())


def test_equal_masks_are_classified_once(case):
    model, spectrogram, batch, attribution = case
    scorer, mask = MaskScorer(model, spectrogram, batch), (attribution > 0).double()
    scorer(mask)
    seen = model.seen
    scorer(mask.clone())
    assert model.seen == seen
    changed = mask.clone()
    changed[1, 0, 5, 5] = 1 - changed[1, 0, 5, 5]
    assert not torch.equal(scorer(changed)[0][1], scorer(mask)[0][1])
    assert model.seen == seen + 6


@pytest.mark.parametrize(
    "mask",
    [
        torch.full((3, 1, 257, 63), 1.5),
        -torch.ones(3, 1, 257, 63),
        torch.full((3, 1, 257, 63), 255, dtype=torch.uint8),
    ],
)
def test_a_mask_outside_of_0_and_1_is_refused_by_its_name(case, mask):
    model, spectrogram, batch, _ = case
    mask = mask[..., : batch.db.shape[3]]
    with pytest.raises(ValueError, match=r"mask 'own' must lie in \[0, 1\]"):
        score_masks(MaskScorer(model, spectrogram, batch), {"own": mask})


def test_what_is_heard_is_not_mixed_up_with_what_is_scored(case):
    model, spectrogram, batch, attribution = case
    scorer, mask = MaskScorer(model, spectrogram, batch), torch.sigmoid(attribution)
    assert not torch.allclose(scorer(mask)[0], scorer(mask, heard=True)[0])


def test_probabilities_use_evaluation_mode_and_put_it_back(case):
    model, _, batch, _ = case
    model.train()
    first = probabilities(model, batch.db)
    assert model.training
    torch.testing.assert_close(first, probabilities(model, batch.db, chunk=2))
    torch.testing.assert_close(first.sum(1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize(
    "output, got", [(lambda db: {"logits": db}, "dict"), (lambda db: db, r"\(3, 1, 257, 16\)")]
)
def test_a_model_without_logits_is_refused(case, output, got):
    class Wrong(nn.Module):
        def forward(self, db):
            return output(db)

    with pytest.raises(ValueError, match=f"logits .batch, classes.; got {got}"):
        probabilities(Wrong(), case[2].db)


def test_given_classes_are_scored(case):
    """Two of three clips scored on a class that is not the predicted one."""
    model, spectrogram, batch, attribution = case
    predicted = MaskScorer(model, spectrogram, batch).target
    target = (predicted + torch.tensor([0, 1, 2])) % 3
    mask = torch.sigmoid(attribution)
    scores = score_masks(MaskScorer(model, spectrogram, batch, target), {"m": mask})
    with torch.no_grad():
        for i, c in enumerate(target.tolist()):
            whole, removed = (
                model(db[i : i + 1]).softmax(1)[0, c].item()
                for db in (batch.db, apply_mask(batch.db, mask)[1])
            )
            assert scores.loc[i, "target"] == c
            assert scores.loc[i, "FF"] == pytest.approx(whole - removed, abs=1e-12)
