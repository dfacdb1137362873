"""L-MAC-TD against its equations by hand, on sounds whose parts are known, through explain and the study."""

from __future__ import annotations

import dataclasses
import math

import any_models
import numpy as np
import pytest
import torch
from any_models import CLASSES, RATE, clip
from torch import nn

from audioxai_utils import AudioClassifier, explain
from audioxai_utils.attributions import METHODS, decoder_training
from audioxai_utils.attributions.lmac_td import as_heard
from audioxai_utils.attributions.sound_decoder import (
    SoundDecoder,
    SoundRecipe,
    augmented_sound,
    load_sound_decoder,
    new_sound_decoder,
    rows_of_bins,
    sound_features,
    sound_layers,
    sound_loss,
)
from audioxai_utils.audio.spectrograms import get_spectrogram
from audioxai_utils.models.scores import FromWaveform
from audioxai_utils.models.virtual_inspection import inspection

N = 4096  # samples of a clip at 16 kHz
RECIPE = SoundRecipe(
    epochs=40, batch_size=8, learning_rate=0.01, mixed=0.0, noise=0.1, second=0.0, n_fft=128, area_weight=3.0
)


class Pitches(nn.Module):
    """Class 1 where the bins around 4 kHz are louder than those around 1 kHz; others are not looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(1, 1, 1, bias=False).double()
        nn.init.ones_(self.look.weight)

    def forward(self, db):
        level = self.look((db + 60) / 20)[:, 0]  # (n, 257, T), 31.25 Hz a bin
        low, high = level[:, 28:37].mean((1, 2)), level[:, 124:133].mean((1, 2))
        return 4 * torch.stack([low - high, high - low], 1)


def sounds(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A tone of the class, 1 or 4 kHz, and one of 6.5 kHz that nobody listens to, (n, N), and the classes."""
    generator = torch.Generator().manual_seed(seed)
    t, labels = torch.arange(N, dtype=torch.float64) / 16000, torch.arange(n) % 2
    tone = torch.sin(2 * math.pi * t * torch.where(labels == 1, 4000.0, 1000.0)[:, None])
    soft = 0.01 * torch.randn(n, N, generator=generator, dtype=torch.float64)
    return 0.3 * tone + 0.3 * torch.sin(2 * math.pi * 6500 * t) + soft, labels


def heard() -> FromWaveform:
    return FromWaveform(get_spectrogram("stft_db", torch.float64), Pitches())


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    path = tmp_path_factory.mktemp("td") / "decoder.pt"
    found = decoder_training.train_decoder(heard(), sounds(16, 0)[0], RECIPE)
    decoder_training.save_decoder(found, path)
    return found, path


def band_energy(waveform: torch.Tensor, hertz: float) -> torch.Tensor:
    """Energy (n,) within 300 Hz of a frequency."""
    spectrum = torch.fft.rfft(waveform).abs().square()
    near = (torch.fft.rfftfreq(N, 1 / 16000) - hertz).abs() < 300
    return spectrum[:, near].sum(1)


def explained(path, waveform, labels, **options):
    transform = get_spectrogram("stft_db", torch.float64)
    given = {"waveform": waveform, "spectrogram": transform, "decoder": path}
    return METHODS.found("lmac_td", Pitches(), transform(waveform).db, labels, **given, **options)


def test_the_tone_that_speaks_is_kept_and_the_other_one_is_not(fitted):
    waveform, labels = sounds(6, 9)
    found = explained(fitted[1], waveform, labels)
    own = torch.where(labels == 1, band_energy(found.sound, 4000), band_energy(found.sound, 1000))
    there = torch.where(labels == 1, band_energy(waveform, 4000), band_energy(waveform, 1000))
    assert float((own / there).min()) > 0.8
    assert float((band_energy(found.sound, 6500) / band_energy(waveform, 6500)).max()) < 0.1
    assert heard()(found.sound).argmax(1).equal(labels)
    losses = fitted[0].losses
    assert len(losses) == RECIPE.epochs and losses[-1] < 0.2 * losses[0]


def test_the_sound_is_the_mask_on_the_waveform_s_own_stft(fitted):
    """By hand: torch's STFT times the decoder's mask, and the map from the picture of what is kept."""
    waveform, labels = sounds(3, 5)
    found = explained(fitted[1], waveform, labels, batch_size=2)
    decoder, layers = load_sound_decoder(fitted[1], waveform)
    assert layers == ["on_picture.look"]
    window, hear = torch.hann_window(128, dtype=torch.float64), heard()
    stft = torch.stft(waveform, 128, 32, window=window, return_complex=True)
    maps = hear.on_picture.look((hear.spectrogram(waveform).db + 60) / 20)
    logits = nn.functional.interpolate(decoder([maps], labels), stft.shape[1:], mode="bilinear")
    expected = torch.istft(stft * logits.sigmoid()[:, 0], 128, 32, window=window, length=N)
    torch.testing.assert_close(found.sound, expected)
    share = hear.spectrogram(expected).power / hear.spectrogram(waveform).power
    torch.testing.assert_close(found.attribution, share.clamp(0, 1).sqrt() - 0.5, rtol=1e-6, atol=1e-8)


def test_the_loss_is_what_the_classifier_hears():
    """-log p(kept) - log(1 - p(removed)) + area + variation by hand; kept and removed add up to the clip."""
    recipe = dataclasses.replace(RECIPE, area_weight=2.0, smoothness=0.5)
    hear, (waveform, _) = heard(), sounds(3, 3)
    torch.manual_seed(0)
    decoder = SoundDecoder([1], 2, 257, 256).double()
    loss = sound_loss(decoder, hear, waveform, ["on_picture.look"], recipe, torch.Generator())
    window = torch.hann_window(256, dtype=torch.float64)
    stft = torch.stft(waveform, 256, 64, window=window, return_complex=True)
    with torch.no_grad():
        target = hear(waveform).argmax(1)
        coarse = decoder([hear.on_picture.look((hear.spectrogram(waveform).db + 60) / 20)], target)
        mask = nn.functional.interpolate(coarse, stft.shape[1:], mode="bilinear").sigmoid()
        parts = [stft * m[:, 0] for m in (mask, 1 - mask)]
        kept, removed = (torch.istft(part, 256, 64, window=window, length=N) for part in parts)
        torch.testing.assert_close(kept + removed, waveform)
        p_kept, p_removed = (hear(each).softmax(1)[range(3), target] for each in (kept, removed))
        cells = coarse.sigmoid()[:, 0].numpy()
        steps = np.abs(np.diff(cells, axis=1)).sum((1, 2)) + np.abs(np.diff(cells, axis=2)).sum((1, 2))
    expected = -p_kept.log() - (1 - p_removed).log() + 2 * mask.mean((1, 2, 3))
    expected += torch.from_numpy(0.5 * steps / cells[0].size)
    torch.testing.assert_close(loss.detach(), expected)


def test_its_gradient_is_that_of_central_differences():
    hear, (waveform, _) = heard(), sounds(2, 4)
    torch.manual_seed(1)
    decoder = SoundDecoder([1], 2, 257, 256).double()

    def loss() -> torch.Tensor:
        return sound_loss(decoder, hear, waveform, ["on_picture.look"], RECIPE, torch.Generator()).sum()

    loss().backward()
    for parameter in (decoder.head.bias, decoder.takes[0].weight, decoder.refines[0].weight):
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)).to(parameter)
        slope, step = float((parameter.grad * direction).sum()), 1e-7
        with torch.no_grad():
            parameter.add_(step * direction)
            above = float(loss())
            parameter.sub_(2 * step * direction)
            below = float(loss())
            parameter.add_(step * direction)
        assert slope == pytest.approx((above - below) / (2 * step), rel=1e-6) and abs(slope) > 0.1


def test_clips_are_shifted_mixed_and_noised_as_the_recipe_says():
    stft, waveform = SoundDecoder([1], 2, 4, 256).double().stft, sounds(60, 1)[0]

    def drawn(**changes):
        recipe = SoundRecipe(**{"mixed": 0.0, "noise": 0.0, "n_fft": 256, **changes})
        return augmented_sound(waveform, recipe, torch.Generator().manual_seed(5), stft)

    shifted = drawn()
    spectra = [torch.fft.rfft(each).abs() for each in (waveform, shifted)]
    torch.testing.assert_close(*spectra, rtol=1e-6, atol=1e-6)  # what a circular shift leaves as it is
    assert not torch.allclose(shifted, waveform)
    other = drawn(mixed=0.5) - shifted
    mixed = other.square().mean(1) > 1e-6
    assert 0.3 < float(mixed.double().mean()) < 0.7
    level = 10 * (other.square().mean(1) / waveform.square().mean(1).mean())[mixed].log10()
    assert float(level.max()) < 0.5 and float(level.min()) > -10.5
    rise = 10 * (stft(drawn(noise=3.0)).power / stft(shifted).power).log10()
    assert 1 < float(rise.std()) < 6


def test_bins_know_the_rows_of_the_picture_that_they_lie_in():
    mel = get_spectrogram("mel_db")
    place = rows_of_bins(mel, 64, 1024)
    assert len(place) == 513 and (place.diff() >= 0).all()
    at = torch.tensor(
        [(mel.frequencies[20] / 16000 * 512).round(), (mel.frequencies[50] / 16000 * 512).round()]
    )
    torch.testing.assert_close(
        place[at.long()], torch.tensor([20.0, 50.0], dtype=place.dtype), atol=1.0, rtol=0
    )
    even = rows_of_bins(None, 4, 8)
    torch.testing.assert_close(even, torch.tensor([0.0, 0.5, 1.5, 2.5, 3.0], dtype=even.dtype))
    torch.manual_seed(0)
    decoder = new_sound_decoder(heard(), sounds(1, 0)[0], ["on_picture.look"], RECIPE)
    weight = decoder.head.weight.view(65, decoder.width, 257).abs().sum(1)  # (bins, rows)
    assert abs(int(weight[32].argmax()) - 128) <= 1


def test_the_maps_that_are_read_are_those_of_the_part_with_most_of_them():
    classifier = any_models.make("softmax logits")
    classifier.look(clip()[None])
    own = classifier.on_waveform.eval()
    assert sound_layers(own, classifier.samples(clip()[None])) == [
        f"on_picture.net.{i}" for i in (0, 3, 6, 7)
    ]
    wave = any_models.make("waveform (B, 1, N)")
    wave.look(clip()[None])
    layers = sound_layers(wave.on_waveform, wave.samples(clip()[None]))
    assert layers == ["net.layers.0", "net.layers.2"]
    maps = sound_features(wave.on_waveform, wave.samples(clip()[None]), layers)[1]
    assert [m.shape[1:3] for m in maps] == [(8, 1), (8, 1)]
    with pytest.raises(ValueError, match=r"model must have a module that returns maps .* or an nn.Conv1d"):
        sound_layers(nn.Linear(N, 2).double(), sounds(1, 0)[0])


TRAINS = [
    "softmax logits", "one logit", "probabilities", "multi-label logits", "tuple", "waveform (B, N)",
    "waveform (B, 1, N)", "(B, F, T)", "(B, 1, T, F)", "wrapper", "squeeze-excitation", "GRU", "attention",
    "own front end",
]  # fmt: skip


@pytest.mark.parametrize("kind", TRAINS)
def test_models_of_pictures_and_of_waveforms_are_explained_and_what_is_kept_is_scored_heard(kind, tmp_path):
    classifier, waveforms = any_models.make(kind), torch.stack([clip(seed=s) for s in range(4)])
    classifier.look(clip()[None])
    quick = SoundRecipe(epochs=2, batch_size=4, n_fft=256)
    fitted = decoder_training.train_decoder(classifier.on_waveform, classifier.samples(waveforms), quick)
    decoder_training.save_decoder(fitted, tmp_path / "decoder.pt")
    options = {"method": "lmac_td", "decoder": tmp_path / "decoder.pt", "masks": ["topK_30"], "target": 1}
    found = explain(classifier, clip(), RATE, **options)
    assert found.attribution.any() and found.sound.shape == found.waveform.shape and found.sound.any()
    kept = classifier.probabilities(found.sound[None])[0, 1]
    assert float(found.sound_scores["p_kept"].iloc[0]) == pytest.approx(float(kept), abs=1e-5)
    if not classifier.takes_waveform:
        mel = explain(classifier, clip(), RATE, domain="heard", inspect_as="mel", **options)
        torch.testing.assert_close(mel.sound, found.sound)
        assert mel.attribution.shape[2] == inspection("mel", RATE).n_bins


def test_black_boxes_and_other_files_are_refused_in_one_line(fitted, tmp_path):
    box = any_models.make("NumPy")
    with pytest.raises(ValueError, match="lmac_td looks at the model's layers, which it does not show"):
        explain(box, clip(), RATE, method="lmac_td", decoder=fitted[1])
    waveform, labels = sounds(2, 1)
    with pytest.raises(FileNotFoundError, match="no such file; train one with decoder_training"):
        explained(tmp_path / "none.pt", waveform, labels)
    pictures = get_spectrogram("stft_db", torch.float64)(waveform).db
    other = decoder_training.train_decoder(Pitches(), pictures, decoder_training.Recipe(epochs=1))
    decoder_training.save_decoder(other, tmp_path / "lmac.pt")
    with pytest.raises(ValueError, match="holds no decoder of sounds; train one with"):
        explained(tmp_path / "lmac.pt", waveform, labels)
    with pytest.raises(ValueError, match="is another method's; train one with"):
        METHODS["lmac"](Pitches(), pictures, labels, decoder=fitted[1])
    with pytest.raises(ValueError, match="n_fft must be a multiple of 4"):
        SoundRecipe(n_fft=30)
    with pytest.raises(ValueError, match="guide must be 0"):
        SoundRecipe(guide=1.0)


def test_what_is_heard_of_a_model_is_itself_behind_a_picture_of_sounds():
    wave = AudioClassifier(any_models.WaveNet(), CLASSES, RATE, head="softmax")
    bound = wave.bound(clip()[None])
    assert as_heard(bound.model, bound.spectrogram) is bound.model.on_waveform
    transform = get_spectrogram("stft_db", torch.float64)
    waveform = sounds(1, 0)[0]
    torch.testing.assert_close(as_heard(Pitches(), transform)(waveform), Pitches()(transform(waveform).db))
