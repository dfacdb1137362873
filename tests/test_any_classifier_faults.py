"""The silent faults of classifiers and networks, one by one: asked about, refused or put right."""

from __future__ import annotations

import copy

import any_models
import pytest
import torch
from any_models import CLASSES, MEL, RATE, Around, Gated, clip, cnn, options_of
from torch import nn

from audioxai_utils import AudioClassifier, LogMel, apply_mask, explain
from audioxai_utils.attributions import METHODS
from audioxai_utils.attributions.exact import exact_deep_shap
from audioxai_utils.attributions.feature_maps import axes_by_change
from audioxai_utils.models.cnn14 import Cnn14

pytestmark = pytest.mark.usefixtures("same_weights")


def test_one_logit_is_asked_about_and_then_explained():
    net = cnn(1)
    with pytest.raises(ValueError, match="returns one column: say what they are with head='binary'"):
        explain(AudioClassifier(net, input=LogMel(**MEL)), clip(), RATE, method="saliency")
    classifier = AudioClassifier(net, ["siren"], input=LogMel(**MEL), head="binary")
    found = explain(classifier, clip(), RATE, method="saliency", target="siren")
    db = found.batch.db.clone().requires_grad_()
    logit = net.eval()(db)
    expected = torch.autograd.grad(logit.sum(), db)[0]
    torch.testing.assert_close(found.attribution, expected)
    torch.testing.assert_close(found.probabilities, torch.cat([-logit[0], logit[0]]).sigmoid().detach())
    other = explain(classifier, clip(), RATE, method="saliency", target="not siren")
    torch.testing.assert_close(other.attribution, -expected)


def test_scores_in_the_unit_interval_get_no_second_softmax():
    """ "Dog" .60 next to "Speech" .88 stays .60."""
    p = torch.full((1, 527), 1e-4)
    p[0, 0], p[0, 1] = 0.88, 0.60
    net = Around(nn.Identity(), lambda db: p.expand(len(db), -1) + 0 * db.mean((2, 3)))
    with pytest.raises(ValueError, match=r"returns outputs in \[0, 1\]: say what they are with head="):
        explain(AudioClassifier(net, input=LogMel(**MEL)), clip(), RATE, method="lime", n_samples=4)
    names = ["Speech", "Dog", *map(str, range(525))]
    classifier = AudioClassifier(net, names, input=LogMel(**MEL), head="probabilities")
    found = explain(classifier, clip(), RATE, target="Dog", method="lime", n_samples=4, masks=["bin"])
    assert found.scores.loc["bin", "p_clip"] == pytest.approx(0.60)
    assert found.scores.loc["bin", "AI"] == 0 and found.scores.loc["bin", "FidIn"] == 1  # .60 is above .5


def test_a_declared_softmax_of_probabilities_is_refused_and_a_sigmoid_of_scores_is_told():
    net = Around(cnn(), lambda y: y.softmax(1))
    with pytest.raises(ValueError, match="these are probabilities already; give head='probabilities'"):
        AudioClassifier(net, input=LogMel(**MEL), head="softmax").scores(clip()[None])
    with pytest.warns(UserWarning, match="head='probabilities' for scores"):
        AudioClassifier(net, input=LogMel(**MEL), head="sigmoid").scores(clip()[None])


@pytest.mark.parametrize(
    "kind, words",
    [
        ("tuple", "got a tuple of 2, so output=0 and on: say where with output="),
        ("dict", "got a dict with the keys 'clipwise', 'other': say where with output="),
        (".logits", "got a Reply, which has .logits: say where with output="),
    ],
)
def test_outputs_that_are_no_tensor_are_asked_about(kind, words):
    classifier = AudioClassifier(any_models.make(kind).net, CLASSES, input=LogMel(**MEL))
    with pytest.raises(ValueError, match=words):
        explain(classifier, clip(), RATE)


@pytest.mark.parametrize("around", [nn.DataParallel, Around, lambda net: Around(nn.Sequential(net))])
def test_a_wrapper_does_not_turn_grad_cam(around):
    """Cnn14's maps are (time, frequency); what is put around it does not change that."""
    net = any_models.make("wrapper").net.net
    plain = AudioClassifier(net, CLASSES, input=LogMel(**MEL))
    wrapped = AudioClassifier(around(net), CLASSES, input=LogMel(**MEL))
    maps = [explain(each, clip(2.0), RATE, check_gradient=False).attribution for each in (plain, wrapped)]
    torch.testing.assert_close(*maps, rtol=0, atol=0)
    assert METHODS["gradcam"](Around(net), plain.pictures(clip(2.0)[None]), torch.tensor([1])).any()


def test_grad_cam_looks_at_the_last_called_map_and_not_at_gates_or_unused_heads():
    net = Gated()
    assert list(net.modules())[-1] is net.unused
    classifier = AudioClassifier(net, CLASSES, input=LogMel(**MEL))
    found, named = (explain(classifier, clip(), RATE, layer=layer).attribution for layer in (None, "second"))
    assert torch.equal(found, named) and found.std() > 0


@pytest.mark.parametrize("axes", ["(B, 1, F, T)", "(B, 1, T, F)", "(B, F, T)", "(B, T, F)"])
def test_grad_cam_s_axes_are_found_by_what_changes_of_the_input_do(axes):
    """A net that squares its input shows the one loud bin where it is."""

    class Spotter(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1, bias=False)
            nn.init.ones_(self.conv.weight)

        def forward(self, x):
            total = (self.conv(x if x.ndim == 4 else x.unsqueeze(1)) / 100 + 1).square().sum((1, 2, 3))
            return torch.stack([total, -total], 1)

    classifier = AudioClassifier(Spotter(), input=LogMel(axes=axes, **MEL))
    db = torch.full((1, 1, 32, 50), -100.0)
    db[0, 0, 5, 40] = 0.0
    classifier.look(clip()[None])
    found = METHODS["gradcam"](classifier.model, db, torch.tensor([0]))
    assert divmod(int(found.argmax()), 50) == (5, 40)


def test_a_network_that_mixes_the_rows_of_a_batch_is_refused_and_its_wrapper_is_not():
    """As AmplitudeToDB(top_db=80) does on (batch, F, T): the floor hangs on the loudest clip of the batch."""

    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(32, 3)

        def forward(self, db):
            db = torch.maximum(db, db.amax() - 30)
            return self.head(db.mean((1, 3)) / 30)

    net = Mixing()
    rows = [net, lambda x: torch.cat([net(row[None]) for row in x])]
    mixed, apart = (AudioClassifier(f, CLASSES, input=LogMel(**MEL), head="softmax") for f in rows)
    with pytest.raises(ValueError, match="changes with the others in its batch"):
        explain(mixed, clip(), RATE, method="occlusion")
    assert explain(apart, clip().float(), RATE, method="occlusion", masks=["bin"]).attribution.any()
    with pytest.raises(ValueError, match="amax mixes rows"):
        exact_deep_shap(net, torch.randn(1, 1, 32, 9), torch.randn(2, 1, 32, 9), torch.tensor([0]))


def mixing(db: torch.Tensor, shared: float, per_row: float) -> torch.Tensor:
    """Scores near ``shared``; the level of the whole batch moves the first class by ``per_row`` a dB."""
    scores = db.mean((1, 3))[:, :3] / 30 + shared
    return scores + per_row * db.mean() * torch.tensor([1.0, 0, 0]).to(db)


@pytest.mark.parametrize(
    ("shared", "per_row", "refused"), [(0, 0.05, True), (3000, 0.05, True), (3000, 0, False), (0, 0, False)]
)
def test_scores_that_share_a_large_part_do_not_hide_rows_that_are_mixed(shared, per_row, refused):
    """A thousandth of 3,000 is more than what decides between the classes."""
    classifier = AudioClassifier(
        lambda db: mixing(db, shared, per_row), CLASSES, input=LogMel(**MEL), head="softmax"
    )
    if refused:
        with pytest.raises(ValueError, match="changes with the others in its batch"):
            classifier.look(clip()[None])
    else:
        classifier.look(clip()[None])
        assert len(classifier.classes) == 3


def test_an_overflow_of_the_louder_row_is_no_mixing_of_rows():
    """20 dB more are infinite to this network, and 0 times that is NaN in the other row."""
    first = []

    def net(db):
        levels = db.mean((1, 3))[:, :3]
        first.append(levels[0])
        loud = (40 * (levels - first[0])).exp()
        return torch.eye(len(loud)).to(loud) @ loud

    classifier = AudioClassifier(net, CLASSES, input=LogMel(**MEL), head="softmax")
    classifier.look(clip()[None])
    mixed = net(torch.stack([torch.zeros(1, 32, 9), torch.full((1, 32, 9), 200.0)]))
    assert len(classifier.classes) == 3 and mixed[0].isnan().all()


def test_grad_cam_of_a_network_without_any_map_is_refused_in_words():
    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(32, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, frames):
            return self.head(self.lstm(frames)[0].mean(1))

    classifier = AudioClassifier(Sequence(), CLASSES, input=LogMel(axes="(B, T, F)", **MEL), head="softmax")
    with pytest.raises(ValueError, match="no convolution with a map larger than 1 x 1 .* name a layer with"):
        explain(classifier, clip(), RATE, method="gradcam")
    named = explain(classifier, clip(), RATE, method="gradcam", layer="lstm", masks=["bin"])
    assert named.attribution.any() and torch.equal(named.attribution[..., 0, :], named.attribution[..., 9, :])


@pytest.mark.parametrize("turned", [False, True])
def test_grad_cam_s_axes_of_cells_that_hear_the_whole_clip(turned):
    """As in a ResNet on a short clip: no half of the clip leans anywhere, but a longer one has more cells."""
    wide = nn.Conv2d(1, 4, (65, 65), 16, 32, bias=False)
    nn.init.ones_(wide.weight)

    def activation(db):
        return wide(db.transpose(2, 3) if turned else db) ** 2

    found = axes_by_change(activation, torch.zeros(1, 1, 64, 64))
    assert found == (("time", "frequency") if turned else ("frequency", "time"))


def test_grad_cam_s_axes_that_cannot_be_told_are_asked_about():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

        def forward(self, db):
            mixed = db.mean((2, 3), keepdim=True).expand(-1, -1, 16, 16)  # neither changes nor length tell
            return self.head(self.conv(mixed / 50).square().mean((2, 3)))

    classifier = AudioClassifier(Mixed(), input=LogMel(**MEL), head="softmax")
    with pytest.raises(ValueError, match=r'cannot be told .* give feature_axes=\("frequency", "time"\)'):
        explain(classifier, clip(), RATE)
    assert explain(classifier, clip(), RATE, feature_axes=("frequency", "time")).attribution.any()


def test_tokens_are_put_back_on_the_grid_of_patches():
    """By hand: the first layer norm's patch tokens, weighted by their mean gradient, on 4 x 6 patches."""
    classifier = any_models.make("attention")
    net = classifier.net.eval()
    found = explain(classifier, clip(), RATE, target=2)
    held = []
    handle = net.norm1.register_forward_hook(lambda module, inputs, output: held.append(output))
    logit = net(found.batch.db)[0, 2]
    handle.remove()
    (gradient,) = torch.autograd.grad(logit, held[0])
    weights = gradient[0, 1:].mean(0)
    cam = torch.stack([(weights * token).sum() for token in held[0][0, 1:].detach()]).view(1, 1, 4, 6)
    expected = nn.functional.interpolate(cam, found.batch.db.shape[2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(found.attribution, expected)


def test_batch_norm_statistics_do_not_drift_and_frozen_modules_stay_frozen():
    net = cnn().train()
    net[2].eval()
    classifier = AudioClassifier(net, CLASSES, input=LogMel(**MEL))
    before = copy.deepcopy(net.state_dict())
    for method in ("saliency", "gradcam", "lime"):
        explain(classifier, clip(), RATE, method=method, **options_of(classifier, method))
    assert net.training and not net[2].training and net[1].training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    broken = AudioClassifier(Around(net, lambda y: y / 0), CLASSES, input=LogMel(**MEL), head="softmax")
    with pytest.raises(ValueError, match="NaN or infinite"):
        explain(broken, clip(), RATE)
    assert net.training and not net[2].training


@pytest.mark.parametrize("around", [lambda net: net, nn.DataParallel])
def test_a_foreign_model_gets_no_spectrogram_that_it_did_not_name(around):
    with pytest.raises(ValueError, match="spectrogram must be named for a"):
        explain(around(cnn()), clip(), RATE)
    own = Cnn14(257, 3, 1 / 32)
    found = explain(around(own), clip(), RATE, method="saliency", check_gradient=False, masks=["bin"])
    assert found.spectrogram.name == "stft_db" and found.sample_rate == 16000


def test_masked_parts_go_to_the_model_s_own_silence():
    """A front end that adds 1e-5 has its silence at -50 dB: an empty mask is what it makes of zeros."""
    description = LogMel(log="ln", offset=1e-5, clamped=False, **MEL)
    classifier = AudioClassifier(cnn(), CLASSES, input=description, head="softmax")
    assert classifier.floor == pytest.approx(-50)
    found = explain(classifier, clip(), RATE, method="saliency", masks=["topK_30"])
    mask = found.masks["topK_30"]
    with torch.no_grad():
        classifier.net.eval()
        kept, removed = (found_p(classifier, part) for part in apply_mask(found.batch.db, mask, -50.0))
        silent = description.spectrogram().double().decibels(0 * clip()[None])
    assert found.scores.loc["topK_30", "p_kept"] == pytest.approx(float(kept[found.target]), abs=1e-5)
    assert found.scores.loc["topK_30", "p_removed"] == pytest.approx(float(removed[found.target]), abs=1e-5)
    assert float(silent.max()) == float(silent.min()) == pytest.approx(-50)
    louder = explain(classifier, clip(), RATE, method="saliency", masks=["topK_30"], fill=-30.0)
    kept = found_p(classifier, apply_mask(found.batch.db, mask, -30.0)[0])
    assert louder.scores.loc["topK_30", "p_kept"] == pytest.approx(float(kept[found.target]), abs=1e-5)


def found_p(classifier, db):
    with torch.no_grad():
        return classifier.model(db).softmax(1)[0]


def test_levels_that_are_not_decibels_of_the_power_are_refused():
    class Natural:
        """The study's mel spectrogram in natural logarithms."""

        sample_rate = 16000

        def __init__(self, change):
            from audioxai_utils.audio.spectrograms import get_spectrogram

            self.inner, self.change = get_spectrogram("stft_db"), change

        def __call__(self, waveform):
            batch = self.inner(waveform)
            return type(batch)(self.change(batch.db), batch.power, batch.phase, batch.length)

        def invert(self, power, phase, length):
            return self.inner.invert(power, phase, length)

    sound, net = clip(2.0), Cnn14(257, 3, 1 / 32)
    for change in (lambda db: db * 0.23, lambda db: torch.maximum(db, db.max() - 60)):
        with pytest.raises(
            ValueError, match=r"db must be 10 log10\(power\) down to its floor of .* give floor="
        ):
            explain(
                AudioClassifier(net, input=Natural(change), head="softmax"),
                sound,
                16000,
                check_gradient=False,
            )
    higher = AudioClassifier(net, input=Natural(lambda db: db.clamp_min(-80)), head="softmax")
    assert higher.floor == pytest.approx(-80)  # what it makes of silence
    found = explain(higher, sound, 16000, method="saliency", check_gradient=False, masks=["bin"])
    higher.net.eval()
    kept = found_p(higher, apply_mask(found.batch.db, found.masks["bin"], -80.0)[0])
    assert found.scores.loc["bin", "p_kept"] == pytest.approx(float(kept[found.target]), abs=1e-6)


def test_what_is_optimised_as_heard_is_the_sound_of_the_batch_s_own_power():
    """Where silence is -50 dB because 1e-5 is added, the power is not 10 ** (db / 10)."""
    from audioxai_utils.attributions.heard import Sounds

    spectrogram = LogMel(log="ln", offset=1e-5, clamped=False, **MEL).spectrogram()
    batch = spectrogram(clip()[None])
    sounds = Sounds.of(clip()[None], spectrogram, batch.db)
    mask = torch.rand(batch.db.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = spectrogram.decibels(spectrogram.invert(batch.power * mask, batch.phasor, batch.length))
    torch.testing.assert_close(sounds.masked(batch.db, mask), expected, rtol=0, atol=1e-6)
    louder = spectrogram.invert(batch.power * mask * 10**0.3, batch.phasor, batch.length)
    torch.testing.assert_close(
        sounds.masked(batch.db + 3, mask), spectrogram.decibels(louder), rtol=0, atol=1e-6
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="cuDNN's recurrences are on CUDA")
def test_a_recurrence_on_cuda_has_gradients_in_evaluation_mode():
    net = any_models.make("GRU").net.cuda().train()
    classifier = AudioClassifier(net, CLASSES, input=LogMel(**MEL), head="softmax")
    found = explain(classifier, clip(), RATE, method="saliency")
    assert found.attribution.any() and net.training and net.gru.training
