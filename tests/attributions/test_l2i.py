"""L2I against its equations by hand, and on sounds whose parts are known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from audioxai_utils.attributions import METHODS, decoder_training
from audioxai_utils.attributions.interpreter import (
    Interpreter,
    InterpreterRecipe,
    interpreter_loss,
    learn_dictionary,
    load_interpreter,
    magnitude,
)
from audioxai_utils.audio.spectrograms import get_spectrogram

RECIPE = InterpreterRecipe(epochs=30, batch_size=8, n_components=4, mixed=0.0, noise=0.1, learning_rate=1e-2)


class TwoBands(nn.Module):
    """Class 1 where bins 16 to 23 are louder than bins 4 to 11; both also hold what speaks for neither."""

    def __init__(self):
        super().__init__()
        self.look = nn.Conv2d(1, 1, 1, bias=False).double()
        nn.init.ones_(self.look.weight)

    def forward(self, db):
        level = (self.look(db)[:, 0] + 60) / 10
        low, high = level[:, 4:12].mean((1, 2)), level[:, 16:24].mean((1, 2))
        return torch.stack([low - high, high - low], 1)


def clips(n, seed):
    """A band of the class with a rhythm, and bins 28 to 31 with another one, in dB."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, n)
    db = np.full((n, 1, 32, 40), -60.0)
    for clip, label in enumerate(labels):
        on = generator.random(40) < 0.6
        band = slice(16, 24) if label else slice(4, 12)
        db[clip, 0, band] = np.where(on, 20.0, -60.0)
        db[clip, 0, 28:] = np.where(generator.random(40) < 0.5, 20.0, -60.0)
    return torch.from_numpy(db), torch.from_numpy(labels)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    path = tmp_path_factory.mktemp("l2i") / "interpreter.pt"
    found = decoder_training.train_decoder(TwoBands(), clips(40, 0)[0], RECIPE, seed=1)
    decoder_training.save_decoder(found, path)
    return found, path


def test_the_interpreter_learns_what_the_classifier_says_and_what_the_clip_is(fitted):
    db, labels = clips(20, 7)
    interpreter, layers = load_interpreter(fitted[1], db)
    losses = fitted[0].losses
    assert losses[-1] < 0.5 * losses[0] and layers == ["look"]
    with torch.no_grad():
        h, z = interpreter([TwoBands().look(db)], 40)
        said = interpreter.classify(z).argmax(1)
        error = (magnitude(db[:, 0]) - interpreter.dictionary @ h).square().mean()
    assert float((said == labels).double().mean()) >= 0.95
    assert float(error) < 0.3 * float(magnitude(db).var())


def test_the_class_s_band_is_relevant_and_the_other_sound_is_not_kept(fitted):
    db, labels = clips(12, 3)
    found = METHODS["l2i"](TwoBands(), db, labels, decoder=fitted[1])
    assert found.abs().max() <= 1
    inside, bystander = [], []
    for clip, label in enumerate(labels.tolist()):
        own, other = (slice(16, 24), slice(4, 12)) if label else (slice(4, 12), slice(16, 24))
        loud = db[clip, 0] > 0
        inside.append(float(found[clip, 0][own][loud[own]].mean()))
        bystander.append(float(found[clip, 0, 28:][loud[28:]].mean()))
        assert found[clip, 0, other].mean() < inside[-1]
    assert np.mean(inside) > 0.8 and np.mean(inside) > 2 * np.mean(np.abs(bystander))
    against = METHODS["l2i"](TwoBands(), db, 1 - labels, decoder=fitted[1])
    assert (against[labels == 1, 0, 16:24].mean() < 0) and (against[labels == 0, 0, 4:12].mean() < 0)


def test_a_bin_is_the_relevance_of_the_components_by_their_share_of_it(fitted):
    """Equations by hand, component after component."""
    db, labels = clips(2, 9)
    interpreter, _ = load_interpreter(fitted[1], db)
    with torch.no_grad():
        h, z = interpreter([TwoBands().look(db)], 40)
    w, theta = interpreter.dictionary, interpreter.classify.weight
    theta = theta - theta.mean(0)
    for clip, label in enumerate(labels.tolist()):
        r = z[clip] * theta[label]
        r = r / r.abs().max()
        parts = [torch.outer(w[:, k], h[clip, k]) for k in range(w.shape[1])]
        expected = sum(r[k] * parts[k] for k in range(len(parts))) / sum(parts)
        found = METHODS["l2i"](TwoBands(), db[clip : clip + 1], labels[clip : clip + 1], decoder=fitted[1])
        torch.testing.assert_close(found[0, 0], expected)


def test_the_loss_is_fidelity_and_reconstruction_and_sparseness():
    db, _ = clips(3, 4)
    torch.manual_seed(0)
    w = learn_dictionary(db, 4, 0)
    torch.testing.assert_close(w.norm(dim=0), torch.ones(w.shape[1], dtype=torch.float64))
    interpreter, model = Interpreter([1], 2, w).double(), TwoBands()
    nn.init.normal_(interpreter.classify.weight)
    recipe = InterpreterRecipe(reconstruction=2.0, sparseness=0.3)
    found = interpreter_loss(interpreter, model, db, ["look"], recipe)
    h, z = interpreter([model.look(db)], 40)
    for clip in range(3):
        p = model(db)[clip].softmax(0)
        fidelity = -(p * functional.log_softmax(interpreter.classify(z[clip]), 0)).sum()
        rest = 2.0 * (magnitude(db[clip, 0]) - w @ h[clip]).square().mean() + 0.3 * h[clip].mean()
        torch.testing.assert_close(found[clip], fidelity + rest)


def test_the_sound_is_that_of_the_relevant_components(fitted, tmp_path):
    """All components kept are the clip; none is silence; the magnitude is masked, so the power by its square."""
    transform = get_spectrogram("mel_db", torch.float64)
    waveform = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.1
    batch = transform(waveform)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    quick = dataclasses.replace(RECIPE, epochs=1)
    path = tmp_path / "one.pt"
    decoder_training.save_decoder(decoder_training.train_decoder(model, batch.db, quick), path)
    given = {"decoder": path, "waveform": waveform, "spectrogram": transform}

    def sound(threshold):
        return METHODS.found("l2i", model, batch.db, torch.tensor([0]), threshold=threshold, **given).sound

    whole = transform.invert(batch.power, batch.phasor, batch.length)
    torch.testing.assert_close(sound(-2.0), whole)
    assert not sound(1.0).any() and 0 <= float(sound(0.1).square().sum()) <= 1.1 * float(whole.square().sum())


def test_other_files_are_refused(fitted, tmp_path):
    db, labels = clips(2, 1)
    with pytest.raises(FileNotFoundError, match=r"none.pt: no such file; train one with decoder_training"):
        METHODS["l2i"](TwoBands(), db, labels, decoder=tmp_path / "none.pt")
    other = decoder_training.train_decoder(TwoBands(), db, decoder_training.Recipe(epochs=1))
    decoder_training.save_decoder(other, tmp_path / "lmac.pt")
    with pytest.raises(ValueError, match="holds no interpreter"):
        METHODS["l2i"](TwoBands(), db, labels, decoder=tmp_path / "lmac.pt")
    content = torch.load(fitted[1], weights_only=True)
    torch.save(content | {"decoder": content["decoder"] | {"more": torch.ones(1)}}, tmp_path / "more.pt")
    with pytest.raises(ValueError, match=r"more.pt: is another method's; train one with decoder_training"):
        load_interpreter(tmp_path / "more.pt", db)
    with pytest.raises(ValueError, match="its spectra have 32 bins, the clips 16"):
        METHODS["l2i"](TwoBands(), db[:, :, :16], labels, decoder=fitted[1])
    with pytest.raises(ValueError, match="n_components must be 2 or more; got 1"):
        InterpreterRecipe(n_components=1)


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-200], lambda content: b"no weights", lambda content: b""]
)
def test_a_damaged_file_is_one_line_that_names_it(fitted, tmp_path, damage):
    (tmp_path / "cut.pt").write_bytes(damage(fitted[1].read_bytes()))
    with pytest.raises(ValueError, match=r"cut.pt: not a readable PyTorch checkpoint .*; train one") as found:
        load_interpreter(tmp_path / "cut.pt", clips(1, 0)[0])
    assert "\n" not in str(found.value)
