"""LIME over parts that overlap, its sounds, and surrogates over segments, against known parts and libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from test_attributions_more import TARGET, clips, relative, trained_looking
from torch import nn

from audioxai_utils import AudioClassifier, LogMel, explain
from audioxai_utils.attributions import METHODS, Found, register
from audioxai_utils.attributions import components as parts
from audioxai_utils.attributions.segments import windows_hidden
from audioxai_utils.audio.spectrograms import get_spectrogram
from audioxai_utils.models.reading import Reading

RATE = 8000


class Power(nn.Module):
    """The probability of class 1 is the power of given bins over a constant: linear in every component."""

    def __init__(self, bins, scale):
        super().__init__()
        self.bins, self.scale, self.reading = bins, scale, Reading("probabilities")

    def forward(self, db):
        p = (10 ** (db[:, 0] / 10))[:, self.bins].sum((1, 2)) / self.scale
        return torch.stack([1 - p, p], 1)


@pytest.mark.parametrize("components, grid", [("time", "time"), ("frequency", "frequency")])
def test_components_that_do_not_overlap_are_slime_s_segments(components, grid):
    """And slime's are the lime library's, see its own test."""
    model, db, options = trained_looking(), clips(2, seed=1), {"n_samples": 25, "seed": 3}
    found = METHODS["coughlime"](model, db, TARGET, components=components, n_components=4, **options)
    size = {"n_time": 4, "n_frequency": 4, "fill": -100.0}
    assert relative(found, METHODS["slime"](model, db, TARGET, grid=grid, **size, **options)) < 1e-6


def test_a_neighbour_has_the_power_of_the_components_that_it_shows():
    """By hand, one neighbour after the other, in power."""
    model, db = trained_looking(), clips(1, seed=2)
    shares, visible = parts.nmf_shares(db[0], 3, 0), parts.drawn(6, 3, 1)
    found = parts.classified(model.eval(), db[0], shares, visible, 2, -90.0, 4)
    assert visible[0].all() and not visible.all()
    for row, p in zip(visible, found):
        power = sum(10 ** (db[0] / 10) * shares[k] * row[k] for k in range(3))
        hidden = sum(1e-9 * shares[k] * (not row[k]) for k in range(3))
        with torch.no_grad():
            expected = model(10 * (power + hidden).log10()[None]).softmax(1)[0, 2]
        assert float(p) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize(
    "shares_of", [lambda c: parts.nmf_shares(c, 4, 0), lambda c: parts.hpss_shares(c, 9)]
)
def test_shares_are_the_whole(shares_of):
    shares = shares_of(clips(1, seed=5)[0])
    assert (shares >= 0).all() and shares.std() > 0
    torch.testing.assert_close(shares.sum(0), torch.ones(32, 64, dtype=torch.float64))


def test_a_factorisation_finds_two_sounds_that_overlap_in_time():
    """Two spectra with their own rhythm; the model hears one; its component gets the weight, and its bins."""
    envelope = [0.5 + 0.5 * np.sin(np.arange(64) / 5), 0.5 + 0.5 * np.cos(np.arange(64) / 2)]
    spectra = [np.isin(np.arange(32), (4, 9)), np.isin(np.arange(32), (9, 20))]
    magnitude = sum(np.outer(s, e) for s, e in zip(spectra, envelope)) + 1e-4
    db = torch.from_numpy(20 * np.log10(magnitude))[None, None]
    model = Power([20], float((10 ** (db[0, 0, 20] / 10)).sum()))
    found = METHODS["coughlime"](
        model, db, torch.tensor([1]), components="nmf", n_components=2, n_samples=200
    )
    share = torch.from_numpy(np.outer(spectra[1], envelope[1]) / magnitude)
    assert float(found[0, 0, 20].mean()) > 10 * float(found[0, 0, 4].abs().mean())
    both = torch.stack([found[0, 0, 9], share[9]])  # in the bin that they share, it follows the second one
    assert float(torch.corrcoef(both)[0, 1]) > 0.95


def test_loudness_slices_are_cut_at_the_quietest_moments():
    level = torch.tensor([-20.0] * 20 + [-60.0] * 6 + [-10.0] * 18 + [-50.0] * 6 + [-15.0] * 14)
    clip = (level + torch.linspace(0, 1e-6, 64)).expand(1, 8, 64).double()
    segments = parts.loudness_slices(clip, 5)
    cuts = np.flatnonzero(np.diff(segments[0]))
    assert (segments == segments[0]).all() and segments.max() == 2
    assert 20 <= cuts[0] < 26 and 44 <= cuts[1] < 50
    assert (
        parts.loudness_slices(clip, 2).max() == 1
        and 20 <= np.diff(parts.loudness_slices(clip, 2)[0]).argmax() < 26
    )


# Sources that are given


class Bands(nn.Module):
    """Class 1 is heard by the level above 1.5 kHz."""

    def forward(self, db):
        level = db[:, 0, 24:].logsumexp((1, 2)) / 20
        return torch.stack([-level, level], 1)


def tones():
    time = torch.arange(RATE) / RATE
    return 0.3 * torch.sin(2 * torch.pi * 500 * time), 0.2 * torch.sin(2 * torch.pi * 2500 * time) * (
        time > 0.5
    )


def separator(waveform):
    low, high = tones()
    return torch.stack([low, high]).to(waveform)


def detector(front=None):
    return AudioClassifier(
        Bands(), ["low", "high"], input=LogMel(RATE, n_fft=256, hop_length=128, n_mels=32), head="softmax"
    )


def test_a_separator_s_source_is_weighed_kept_as_it_sounds_and_scored_heard():
    low, high = tones()
    found = explain(
        detector(),
        low + high,
        RATE,
        target="high",
        method="audiolime",
        separator=separator,
        n_time=2,
        n_kept=1,
        n_samples=64,
        masks=["bin"],
    )
    late = found.attribution[0, 0, :, -20:]
    loudest = [
        int(found.batch.power[0, 0, part, -20:].sum(1).argmax()) for part in (slice(16), slice(16, 32))
    ]
    assert (
        late[16 + loudest[1]].mean() > 5 * late[loudest[0]].abs().mean()
        and late[16 + loudest[1]].mean() > 0.2
    )
    expected = torch.where(torch.arange(RATE) >= RATE // 2, high, 0.0)
    torch.testing.assert_close(found.sound, expected, rtol=0, atol=0)  # not a masked spectrogram
    (row,) = found.sound_scores.to_dict("records")
    classifier = detector()
    kept, removed = (classifier.probabilities(x[None])[0, 1] for x in (expected, low + high - expected))
    assert row["p_kept"] == pytest.approx(float(kept), abs=1e-6)
    assert row["p_removed"] == pytest.approx(float(removed), abs=1e-6)
    assert row["FF"] == pytest.approx(float(found.probabilities[1] - removed), abs=1e-6)


def test_a_model_of_waveforms_gets_the_same_sources():
    class Energy(nn.Module):
        def forward(self, x):
            high = (x[:, 1:] - x[:, :-1]).square().mean(1)  # rises with frequency
            return torch.stack([0.02 - high, high], 1) * 100

    low, high = tones()
    classifier = AudioClassifier(Energy(), ["low", "high"], RATE, input="(B, N)", head="softmax")
    found = explain(
        classifier, low + high, target="high", method="audiolime", separator=separator, n_time=2, n_kept=1,
        n_samples=64, masks=["bin"],
    )  # fmt: skip
    torch.testing.assert_close(found.sound, torch.where(torch.arange(RATE) >= RATE // 2, high, 0.0))
    p = classifier.probabilities(found.sound[None])[0, 1]
    assert float(found.sound_scores["p_kept"].iloc[0]) == pytest.approx(float(p))


def test_what_rings_and_what_strikes_are_kept_by_their_share_of_the_power():
    """All parts kept are the clip itself."""
    transform = get_spectrogram("stft_db", torch.float64)
    waveform = torch.randn(1, 8000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.1
    db = transform(waveform).db
    given = {"waveform": waveform, "spectrogram": transform, "n_samples": 40, "n_time": 1}
    model = Power(slice(None), float((10 ** (db / 10)).sum()))  # every part speaks for it
    found = METHODS.found("audiolime", model, db, torch.tensor([1]), n_kept=2, **given)
    torch.testing.assert_close(found.sound, waveform, rtol=0, atol=1e-6)
    one = METHODS.found("audiolime", model, db, torch.tensor([1]), n_kept=1, **given)
    assert 0 < float(one.sound.square().sum()) < float(waveform.square().sum())
    without = METHODS.found("audiolime", model, db, torch.tensor([1]), n_samples=40, n_time=1)
    assert without.sound is None and torch.equal(without.attribution, found.attribution)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda w: w, r"separator must return finite sources \(n, 8000\); got \(8000,\)"),
        (lambda w: torch.stack([w, w])[:, :-1], r"got \(2, 7999\)"),
        (lambda w: torch.stack([w, w / 0]), "finite sources"),
    ],
)
def test_what_is_no_source_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        explain(detector(), sum(tones()), RATE, method="audiolime", separator=wrong, n_samples=4)


def test_a_sound_of_another_shape_is_refused_and_one_function_is_enough():
    @register("keeps_itself")
    def keeps_itself(model, db, target, *, waveform=None, cut: int = 0):
        return Found(db - db.mean(), None if waveform is None else waveform[:, cut:][cut:])

    try:
        low, high = tones()
        found = explain(detector(), low + high, RATE, method="keeps_itself", masks=["bin"])
        assert torch.equal(found.sound, low + high) and found.sound_scores["FF"].notna().all()
        assert torch.is_tensor(METHODS["keeps_itself"](Bands(), found.batch.db, torch.tensor([0])))
        with pytest.raises(ValueError, match=r"keeps_itself must keep finite sounds \(1, samples\)"):
            explain(detector(), low + high, RATE, method="keeps_itself", cut=1)
    finally:
        del METHODS._functions["keeps_itself"], METHODS._traits["keeps_itself"]


# Segments


class Events(nn.Module):
    """Log-odds that are known: 3 where a click is in frames 12 to 15, 2 for one in frames 40 to 43, minus 1."""

    reading = Reading("binary")

    def forward(self, db):
        first, second = (db[:, 0, :, at].amax((1, 2)) > -50 for at in (slice(12, 16), slice(40, 44)))
        z = 3.0 * first + 2.0 * second - 1.0
        return torch.stack([-z, z], 1).to(db)


class Either(nn.Module):
    """One of two clicks is enough."""

    reading = Reading("binary")

    def forward(self, db):
        first, second = (db[:, 0, :, at].amax((1, 2)) > -50 for at in (slice(12, 16), slice(40, 44)))
        z = 6.0 * (first | second) - 3.0
        return torch.stack([-z, z], 1).to(db)


def test_linear_weights_are_the_log_odds_of_the_segments():
    db = torch.full((1, 1, 8, 64), -60.0, dtype=torch.float64)
    db[..., [13, 41]] = 0.0
    found = METHODS["segments"](Events(), db, torch.tensor([1]), n_segments=16, window=1)[0, 0, 0, ::4]
    expected = torch.zeros(16, dtype=torch.float64)
    expected[3], expected[10] = 3.0, 2.0
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)
    against = METHODS["segments"](Events(), db, torch.tensor([0]), n_segments=16, window=1)
    torch.testing.assert_close(against[0, 0, 0, ::4], -found, rtol=0, atol=1e-9)


def test_a_forest_is_scikit_learn_s_on_the_same_neighbours_with_a_sign():
    from sklearn.ensemble import RandomForestRegressor

    db = torch.full((1, 1, 8, 64), -60.0, dtype=torch.float64)
    db[..., [13, 41]] = 0.0
    found = METHODS["segments"](
        Either(), db, torch.tensor([0]), n_segments=16, surrogate="forest", n_samples=300, seed=4
    )[0, 0, 0, ::4]
    visible = windows_hidden(300, 16, 3, 0.3, 4)
    heard = visible[:, 3] | visible[:, 10]
    p = torch.sigmoid(torch.from_numpy(np.where(heard, -3.0, 3.0))).numpy()  # of the other class
    z = np.log(p / (1 - p))
    forest = RandomForestRegressor(100, random_state=4).fit(visible.astype(float), z)
    np.testing.assert_allclose(np.abs(found.numpy()), forest.feature_importances_, atol=1e-9)
    assert found[3] < 0 and found[10] < 0 and float(found[[3, 10]].abs().sum()) > 0.6


def test_a_segment_is_a_tenth_of_a_second():
    low, high = tones()
    found = explain(
        detector(), low + high, RATE, target="high", method="segments", n_samples=200, masks=["bin"]
    )
    steps = found.attribution[0, 0, 0].diff().nonzero().numel()
    assert steps == 9 and (found.attribution == found.attribution[:, :, :1]).all()
    assert float(found.attribution[..., 32:].mean()) > float(found.attribution[..., :31].abs().mean())


@pytest.mark.parametrize("n, window, share", [(50, 3, 0.3), (5, 2, 0.1), (1, 3, 0.5)])
def test_windows_of_neighbours_are_hidden_together(n, window, share):
    visible = windows_hidden(400, n, window, share, 0)
    assert visible[0].all() and not visible[1:].all(1).any()
    hidden = (~visible[1:]).sum(1)
    assert hidden.max() <= window * max(1, round(share * n / window))
    if n == 50:
        runs = [
            len(run) for row in visible[1:20] for run in "".join("x" if not v else " " for v in row).split()
        ]
        assert np.median(runs) >= window and math.isclose(hidden.mean() / n, share, abs_tol=0.08)
