"""Optimised masks on models whose evidence is known, and what the options promise."""

from __future__ import annotations

import copy
import importlib
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from audioxai_utils.attributions import METHODS
from audioxai_utils.attributions.heard import Sounds
from audioxai_utils.audio.spectrograms import Spectrogram, get_spectrogram, kept_audio
from audioxai_utils.audit.example import PlainSpectrogram
from audioxai_utils.constants import SpectrogramParameters
from audioxai_utils.evaluation.masks import apply_mask, build_masks
from audioxai_utils.evaluation.scoring import MaskScorer
from audioxai_utils.models.cnn14 import Cnn14

extremal = importlib.import_module("audioxai_utils.attributions.extremal")
ZERO = torch.tensor([0, 0])


SIZES: list[int] = []  # spectrograms in each call of a Patch


class Patch(nn.Module):
    """Class 0 wants all of one patch loud; nothing else is looked at."""

    def __init__(self, rows: slice = slice(8, 24), columns: slice = slice(20, 52)) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        SIZES.append(len(db))
        level = db[:, 0, self.rows, self.columns].mean(dim=(1, 2))
        logit = (level + 50) * 0.3
        return torch.stack([logit, torch.zeros_like(logit), torch.zeros_like(logit) - 1], dim=1)

    def truth(self) -> torch.Tensor:
        inside = torch.zeros(32, 64, dtype=torch.bool)
        inside[self.rows, self.columns] = True
        return inside


def clips(n: int = 2, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 32, 64, generator=generator, dtype=torch.float64) * 3 - 38


def overlap(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found & truth).sum() / (found | truth).sum())


GRID = {"grid": (16, 32), "area_weight": 1.0}


@pytest.mark.parametrize("domain", ["both", "db", "power"])
def test_planted_evidence_is_found(domain):
    model = Patch()
    attribution = METHODS["extremal"](model, clips(), ZERO, domain=domain, **GRID)
    for clip in range(2):
        assert overlap(attribution[clip, 0] > 0, model.truth()) > 0.8


def test_another_patch_is_found_elsewhere():
    model = Patch(slice(16, 32), slice(0, 20))
    attribution = METHODS["extremal"](model, clips(1), ZERO[:1], **GRID)
    assert overlap(attribution[0, 0] > 0, model.truth()) > 0.8
    assert overlap(attribution[0, 0] > 0, Patch().truth()) < 0.05


def test_minmax_of_it_is_a_mask_that_keeps_the_class_and_takes_it_away():
    """Scored in decibels by the package's own masking, not by the method's."""
    model, db = Patch(), clips()
    mask = build_masks(METHODS["extremal"](model, db, ZERO, **GRID), "audited")["minmax"]
    kept, removed = (model(part).softmax(1)[:, 0] for part in apply_mask(db, mask))
    whole = model(db).softmax(1)[:, 0]
    assert bool((kept > whole - 0.05).all()) and bool((removed < 0.05).all())
    assert 0.25 < float(mask.mean()) < 0.35  # the patch is a quarter


# Area


@pytest.mark.parametrize("area", [0.05, 0.2, 0.5])
def test_area_is_met_by_the_binary_mask_and_by_the_mean_of_the_soft_one(area):
    model, db = Patch(), clips()
    db[1, ..., 40:] = -100.0  # silent bins, of which no one is better than another
    masks = build_masks(METHODS["extremal"](model, db, ZERO, area=area, n_steps=60, grid=(16, 32)), "audited")
    assert masks["bin"].sum(dim=(1, 2, 3)).tolist() == [round(area * 32 * 64)] * 2
    if area == 0.2:  # the evidence is a quarter: the mask spans 0 to 1 and minmax does not stretch it
        assert masks["minmax"].mean(dim=(1, 2, 3)).tolist() == pytest.approx([area] * 2, rel=0.05)
    inside, outside = masks["bin"][0, 0][model.truth()].mean(), masks["bin"][0, 0][~model.truth()].mean()
    assert float(inside) > 0.8 * min(1.0, area / 0.25) and float(outside) < max(
        0.03, 1.1 * (area - 0.25) / 0.75
    )


def test_cut_breaks_ties_and_keeps_the_order():
    mask = torch.tensor([0.2, 0.7, 0.7, 0.7, 0.1, 0.9], dtype=torch.float64).view(1, 1, 2, 3)
    found = extremal.cut(mask, 0.5).flatten()
    assert (found > 0).tolist() == [False, True, True, False, False, True]
    assert found.argsort().tolist()[:2] == [4, 0] and int(found.argmax()) == 5
    assert (found - mask.flatten()).tolist() == pytest.approx([-0.7] * 6)
    assert (extremal.cut(torch.full((1, 1, 2, 5), 0.3), 0.4) > 0).sum() == 4


def test_with_mean_shifts_every_logit_alike():
    logits = torch.randn(3, 1, 8, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4 + 2
    found = extremal.with_mean(logits, 0.15)
    assert found.mean(dim=(1, 2, 3)).tolist() == pytest.approx([0.15] * 3, rel=1e-6)
    shift = (found / (1 - found)).log() - logits
    assert bool((shift.amax(dim=(1, 2, 3)) - shift.amin(dim=(1, 2, 3)) < 1e-6).all())


def test_a_larger_weight_gives_a_smaller_mask():
    areas = []
    for weight in (0.2, 5.0):
        attribution = METHODS["extremal"](Patch(), clips(1), ZERO[:1], grid=(16, 32), area_weight=weight)
        areas.append(float((attribution + 0.5).mean()))
    assert areas[1] < 0.8 * areas[0]


# The objective


@pytest.mark.parametrize("domain", ["db", "power"])
def test_objective_bin_by_bin(domain):
    model, db, target = Patch(), clips(), torch.tensor([0, 1])
    mask = torch.rand(db.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = extremal.objective(model, db, target, mask, domain)
    for clip in range(2):
        parts = []
        for m in (mask[clip, 0].numpy(), 1 - mask[clip, 0].numpy()):
            x = db[clip, 0].numpy()
            masked = (
                (x + 100) * m - 100
                if domain == "db"
                else 10 * np.log10(np.maximum(10 ** (x / 10) * m, 1e-10))
            )
            logits = model(torch.from_numpy(masked)[None, None])[0].numpy()
            parts.append(np.exp(logits)[target[clip]] / np.exp(logits).sum())
        assert float(found[clip]) == pytest.approx(-math.log(parts[0]) - math.log(1 - parts[1]), rel=1e-9)


def test_penalty_by_hand():
    plan = extremal.Plan("db", (2, 2), None, 1, 1, 0.1, 3.0, 2.0, 0, 0.0, 0)
    coarse = torch.tensor([0.0, 1.0, -1.0, 2.0], dtype=torch.float64).view(1, 1, 2, 2)
    a, b, c, d = (1 / (1 + math.exp(-value)) for value in (0.0, 1.0, -1.0, 2.0))
    variation = (abs(a - b) + abs(c - d) + abs(a - c) + abs(b - d)) / 4
    mask = torch.full((1, 1, 4, 4), 0.25, dtype=torch.float64)
    assert float(extremal.penalty(mask, coarse, plan, None)) == pytest.approx(3 * 0.25 + 2 * variation)
    assert float(extremal.penalty(mask, coarse, plan, 0.2)) == pytest.approx(300 * 0.05**2 + 2 * variation)


def test_jitter_shifts_and_repeats_edges():
    plan = extremal.Plan("db", (2, 2), None, 1, 1, 0.1, 3.0, 2.0, 2, 0.5, 0)
    values = torch.arange(20.0).view(1, 1, 4, 5)
    seen, noises = set(), []
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        draw = extremal.Draw(values, plan, generator)
        f, t = (shift - 2 for shift in draw.shifts)
        rows, columns = (np.clip(np.arange(n) + s, 0, n - 1) for n, s in ((4, f), (5, t)))
        assert torch.equal(draw.shift(values)[0, 0], values[0, 0][rows][:, columns])
        seen.add((f, t))
        noises.append(draw.noise)
    assert seen == {(f, t) for f in range(-2, 3) for t in range(-2, 3)}
    assert float(torch.cat(noises).std()) == pytest.approx(0.5, rel=0.05)


# What is heard

TINY = {"name": "tiny", "sample_rate": 8000, "n_fft": 64, "hop_length": 32}
STFT = Spectrogram(SpectrogramParameters(**TINY))
MEL = Spectrogram(SpectrogramParameters(**TINY, n_mels=12, f_min=200.0, f_max=3000.0), torch.float64)


def noises(n: int = 2, samples: int = 2400) -> torch.Tensor:
    """White noise (n, samples), silent for a while."""
    waveform = torch.randn(n, samples, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 0.1
    waveform[:, 600:900] = 0
    return waveform


class Band(nn.Module):
    """Class 0 wants a band loud for a while; nothing else is looked at."""

    def __init__(self, db: torch.Tensor) -> None:
        super().__init__()
        self.least = self.level(db).amin() - 10

    @staticmethod
    def level(db: torch.Tensor) -> torch.Tensor:
        return db[:, 0, 3:7, 40:65].mean(dim=(1, 2))

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        SIZES.append(len(db))
        logit = (self.level(db) - self.least) * 0.5
        return torch.stack([logit, torch.zeros_like(logit)], dim=1)


@pytest.mark.parametrize("spectrogram", [STFT, MEL, PlainSpectrogram()], ids=["stft", "mel", "plain"])
def test_gradient_of_what_is_heard_is_that_of_central_differences(spectrogram):
    """In some directions, of clips that are silent for a while; the classifier looks at every bin."""
    waveform = noises(samples=2400 if spectrogram in (STFT, MEL) else 6000)
    db = spectrogram(waveform).db
    generator = torch.Generator().manual_seed(0)
    weights = (
        torch.randn(3, db[0].numel(), generator=generator, dtype=torch.float64) / db[0].numel() ** 0.5 / 10
    )
    model = lambda x: (x.flatten(1) / 10).tanh() @ weights.T
    sounds, target = Sounds.of(waveform, spectrogram, db), torch.tensor([2, 0])
    coarse = torch.randn(2, 1, 6, 8, generator=generator, dtype=torch.float64).requires_grad_()

    def loss(coarse: torch.Tensor) -> torch.Tensor:
        return extremal.objective(
            model, db, target, extremal.upsampled(coarse, db).sigmoid(), "heard", sounds
        ).sum()

    gradient = torch.autograd.grad(loss(coarse), coarse)[0]
    assert torch.isfinite(gradient).all() and float(gradient.norm()) > 1e-3
    for _ in range(4):
        way = torch.randn(coarse.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            slope = (loss(coarse + 1e-6 * way) - loss(coarse - 1e-6 * way)) / 2e-6
        assert float((gradient * way).sum()) == pytest.approx(float(slope), rel=1e-4, abs=1e-5)


def test_a_mask_of_0_and_1_has_a_gradient_too():
    waveform = noises(1)
    for spectrogram in (MEL, STFT):
        db = spectrogram(waveform).db
        mask = (
            (torch.arange(db.shape[2])[:, None] % 2).expand(db.shape[2:])[None, None].to(db).requires_grad_()
        )
        Sounds.of(waveform, spectrogram, db).masked(db, mask).sum().backward()
        assert torch.isfinite(mask.grad).all()


def test_masked_sounds_are_those_that_are_scored():
    batch = MEL(noises())
    mask = torch.rand(batch.db.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    sounds = Sounds.of(noises(), MEL, batch.db)
    found = sounds.masked(batch.db, mask)
    torch.testing.assert_close(found, MEL.decibels(kept_audio(batch, mask, MEL)), rtol=0, atol=1e-2)
    torch.testing.assert_close(sounds[1:].masked(batch.db[1:], mask[1:]), found[1:])


def test_the_heard_objective_ends_lower_when_it_is_the_one_asked_for():
    waveform, options = noises(), {"grid": (12, 32), "area_weight": 0.5}
    batch = MEL(waveform)
    model, given = Band(batch.db), {"waveform": waveform, "spectrogram": MEL}
    sounds, scorer = Sounds.of(waveform, MEL, batch.db), MaskScorer(Band(batch.db), MEL, batch)
    found = {}
    for domain in ("db", "heard"):
        mask = METHODS["extremal"](model, batch.db, ZERO, domain=domain, **given, **options) + 0.5
        loss = extremal.objective(model, batch.db, ZERO, mask, "heard", sounds)
        kept, removed = (p[:, 0] for p in scorer(mask, heard=True))
        found[domain] = (loss, kept, removed)
    assert bool((found["heard"][0] < found["db"][0]).all())
    assert bool((found["heard"][1] > found["db"][1] - 0.02).all())  # FidIn and AD
    assert bool((found["heard"][1] > 0.9).all() and (found["heard"][2] < found["db"][2]).all())


def test_heard_clips_do_not_depend_on_their_batch_and_memory_is_bounded():
    waveform = noises(3)
    db = MEL(waveform).db
    options = {"domain": "heard", "spectrogram": MEL, "n_steps": 12, "grid": (6, 8)}
    together = METHODS["extremal"](
        Band(db), db, torch.zeros(3, dtype=torch.long), waveform=waveform, **options
    )
    SIZES.clear()
    alone = METHODS["extremal"](
        Band(db), db, torch.zeros(3, dtype=torch.long), waveform=waveform, batch_size=1, **options
    )
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-7)
    assert max(SIZES) == 2


def test_waveforms_that_are_not_the_clips_are_refused():
    waveform = noises()
    db, options = MEL(waveform).db, {"domain": "heard", "spectrogram": MEL, "n_steps": 1}
    with pytest.raises(ValueError, match=r"waveform must be \(2, samples\), one per clip; got \(1, 2400\)"):
        METHODS["extremal"](Band(db), db, ZERO, waveform=waveform[:1], **options)
    for other in (waveform.flip(0), waveform[:, :-320]):
        with pytest.raises(ValueError, match=r"db must be spectrogram\(waveform\).db"):
            METHODS["extremal"](Band(db), db, ZERO, waveform=other, **options)


# The contract


@pytest.fixture(scope="module")
def cnn14() -> Cnn14:
    torch.manual_seed(0)
    model = Cnn14(32, 4, 1 / 32).double()
    model.bn0.running_mean.fill_(-40.0)
    model.bn0.running_var.fill_(100.0)
    return model


SHORT = {"n_steps": 12, "grid": (8, 16)}


def test_a_clip_does_not_depend_on_its_batch_and_seeds_fix_it(cnn14):
    db, target = clips(3), torch.tensor([1, 3, 0])
    together = METHODS["extremal"](cnn14, db, target, **SHORT)
    assert torch.equal(together, METHODS["extremal"](cnn14, db, target, **SHORT))
    assert torch.allclose(together, METHODS["extremal"](cnn14, db, target, batch_size=1, **SHORT), atol=1e-7)
    other = METHODS["extremal"](cnn14, db, target, seed=1, **SHORT)
    assert float((together - other).abs().max()) > 1e-4


def test_a_clip_that_is_done_stops_and_the_others_go_on():
    SIZES.clear()
    model, db = Patch(), clips(2)
    db[1] = -100.0  # a silent clip: no mask changes it, so none is better after the first but the smallest
    options = {**GRID, "area_weight": 0.0, "smoothness": 0.0, "noise": 0.0, "jitter": 0, "n_steps": 80}
    together = METHODS["extremal"](model, db, ZERO, **options)
    sizes = list(SIZES)
    alone = METHODS["extremal"](Patch(), db[:1], ZERO[:1], **options)
    assert torch.allclose(together[:1], alone, atol=1e-9)
    assert 4 in sizes and sizes[-1] == 2  # two parts of two clips, in the end of one


def test_memory_is_bounded_by_the_batch_size():
    SIZES.clear()
    METHODS["extremal"](Patch(), clips(5), torch.zeros(5, dtype=torch.long), batch_size=2, n_steps=3)
    assert max(SIZES) == 4


def state_of(model: nn.Module) -> list:
    return [
        (name, m.training, sorted(m.__dict__), len(m._forward_hooks), len(m._backward_hooks))
        for name, m in model.named_modules()
    ] + [(name, p.requires_grad, p.grad) for name, p in model.named_parameters()]


class Breaks(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("broken on purpose")


def test_model_clips_and_random_state_are_left_as_they_were(cnn14):
    given, db = copy.deepcopy(cnn14).train(), clips(1).requires_grad_()
    given.fc1.weight.requires_grad_(False)
    before, weights, random = state_of(given), copy.deepcopy(given.state_dict()), torch.get_rng_state()
    with torch.inference_mode():
        METHODS["extremal"](given, db, ZERO[:1], **SHORT)
    assert state_of(given) == before and db.grad is None and torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(weights[key], value) for key, value in given.state_dict().items())
    given.dropouts[7] = Breaks()
    before = state_of(given)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        METHODS["extremal"](given, db, ZERO[:1], **SHORT)
    assert state_of(given) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"domain": "sound"}, "domain must be one of both, db, power, heard; got 'sound'"),
        ({"domain": "heard"}, "domain 'heard' needs waveform=, the clips' own; got none"),
        ({"domain": "heard", "waveform": torch.zeros(1, 900)}, "domain 'heard' needs spectrogram="),
        ({"area": 0}, "area must be None or a share between 0 and 1; got 0"),
        ({"area": 1.5}, "area must be None or a share between 0 and 1"),
        ({"grid": (0, 8)}, "grid must be"),
        ({"grid": (8, 8, 8)}, "grid must be"),
        ({"n_steps": 0}, "n_steps must be 1 or more"),
        ({"patience": 0}, "patience must be 1 or more"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"noise": -1.0}, "noise must be 0 or more"),
        ({"jitter": -1}, "jitter must be 0 or more"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        METHODS["extremal"](Patch(), clips(1), ZERO[:1], **options)
    assert "\n" not in str(caught.value)


def test_a_class_out_of_range_is_refused():
    with pytest.raises(ValueError, match="target must be below 3"):
        METHODS["extremal"](Patch(), clips(1), torch.tensor([3]), **SHORT)


def test_a_model_of_one_class_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(32 * 64, 1)).double()
    with pytest.raises(ValueError, match="two classes or more"):
        METHODS["extremal"](model, clips(1), ZERO[:1], **SHORT)


def test_masking_power_is_close_to_the_sound_that_is_heard():
    """Against inversion and re-analysis of a real waveform by the package, for a smooth mask."""
    spectrogram = get_spectrogram("stft_db")
    generator = torch.Generator().manual_seed(0)
    batch = spectrogram(torch.randn(1, 16000, generator=generator) * 0.1)
    coarse = torch.randn(1, 1, 16, 8, generator=generator) * 3
    mask = functional.interpolate(coarse, batch.db.shape[2:], mode="bilinear", align_corners=False).sigmoid()
    heard = spectrogram.decibels(kept_audio(batch, mask, spectrogram))
    assert float((extremal.masked_power(batch.db, mask) - heard).abs().mean()) < 1.5
    assert float((extremal.masked_db(batch.db, mask) - heard).abs().mean()) > 15
