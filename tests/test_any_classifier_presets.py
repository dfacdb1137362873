"""Decoders, presets and published weights."""

from __future__ import annotations

from pathlib import Path

import any_models
import pytest
import torch
from any_models import CLASSES, MEL, RATE, clip, cnn, options_of
from torch import nn

from audioxai_utils import AudioClassifier, LogMel, apply_mask, explain
from audioxai_utils.models.cnn14 import Cnn14

pytestmark = pytest.mark.usefixtures("same_weights")


@pytest.mark.parametrize("axes", ["(B, 1, F, T)", "(B, 1, T, F)"])
def test_a_decoder_reads_a_network_inside_its_adapter(axes, tmp_path):
    from audioxai_utils.attributions import decoder_training

    classifier = AudioClassifier(cnn(), CLASSES, input=LogMel(axes=axes, **MEL), head="softmax")
    pictures = classifier.pictures(torch.stack([clip(seed=s) for s in range(4)]))
    classifier.look(clip()[None])
    fitted = decoder_training.train_decoder(classifier.model, pictures, decoder_training.Recipe(epochs=1))
    assert fitted.layers[0].startswith("net.")
    decoder_training.save_decoder(fitted, tmp_path / "decoder.pt")
    found = explain(classifier, clip(), RATE, method="lmac", decoder=tmp_path / "decoder.pt", masks=["bin"])
    assert found.attribution.any()


def test_a_decoder_of_a_black_box_is_refused(tmp_path):
    with pytest.raises(ValueError, match="lmac looks at the model's layers, which it does not show"):
        explain(any_models.make("NumPy"), clip(), RATE, method="lmac", decoder=tmp_path / "none.pt")


class PatchTransformer(nn.Module):
    """AST in small: (B, 1024, 128) in patches of 16 x 16 with a step of 10, two special tokens."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 16, stride=10)
        self.special = nn.Parameter(torch.randn(1, 2, 16))
        self.position = nn.Parameter(torch.randn(1, 2 + 12 * 101, 16) / 4)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, features):
        x = self.patches(features.unsqueeze(1).transpose(2, 3)).flatten(2).transpose(1, 2)
        x = torch.cat([self.special.expand(len(x), -1, -1), x], 1) + self.position
        return any_models.Reply(self.head(self.norm(self.layer(x))[:, :2].mean(1)))


class Wav2Vec(nn.Module):
    """wav2vec2 in small: strided convolutions of (B, N), a transformer layer, a mean over time."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(1, 16, 10, stride=5), nn.Conv1d(16, 16, 8, stride=64)
        self.layer, self.head = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), nn.Linear(16, 3)

    def forward(self, waveform):
        x = nn.functional.gelu(self.conv2(nn.functional.gelu(self.conv1(waveform.unsqueeze(1)))))
        return any_models.Reply(self.head(self.layer(x.transpose(1, 2)).mean(1)))


def preset(name: str) -> AudioClassifier:
    return {
        "panns": lambda: AudioClassifier(Transposing(), CLASSES, input="panns", head="softmax"),
        "efficientat": lambda: AudioClassifier(efficientat(), CLASSES, input="efficientat", head="sigmoid"),
        "ast": lambda: AudioClassifier(
            PatchTransformer(), CLASSES, input="ast", output=".logits", head="softmax"
        ),
        "wav2vec2": lambda: AudioClassifier(Wav2Vec(), CLASSES, 16000, "wav2vec2", ".logits", head="softmax"),
    }[name]()


def efficientat() -> nn.Module:
    """A narrow net with the statistics of its own activations, without which untrained layers fade out."""
    from audioxai_utils.models.efficientat import EfficientAT

    net = EfficientAT(3, 0.1)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all that was seen
    net.train()(torch.randn(8, 1, 128, 100))
    return net


class Transposing(nn.Module):
    """PANNs' order of axes, (B, 1, T, F), before our Cnn14."""

    def __init__(self):
        super().__init__()
        self.net = Cnn14(64, 3, 1 / 32)

    def forward(self, x):
        return self.net(x.transpose(2, 3))


@pytest.mark.parametrize("method", ["saliency", "gradcam", "lime", "occlusion", "shap"])
@pytest.mark.parametrize("name", ["panns", "efficientat", "ast", "wav2vec2"])
def test_presets_explain_networks_of_their_shapes(name, method):
    classifier = preset(name)
    sound, options = clip(2.0), options_of(classifier, method)
    if "background" in options:
        options["background"] = classifier.pictures(torch.stack([noisy(classifier, s) for s in (1, 2)]))
    if name == "wav2vec2" and method == "gradcam":
        with pytest.raises(ValueError, match="feature_axes="):
            explain(classifier, sound, RATE, method=method)
        options["feature_axes"] = ("time",)
    found = explain(classifier, sound, RATE, method=method, target=1, masks=["bin"], **options)
    assert found.attribution.any() and found.scores.notna().all(axis=None)


def noisy(classifier: AudioClassifier, seed: int) -> torch.Tensor:
    n = 2 * classifier.sample_rate
    return 0.1 * torch.randn(n, generator=torch.Generator().manual_seed(seed))


SHARED = Path(__file__).resolve().parents[2] / "shared" / "models" / "efficientat_mn04"


@pytest.mark.skipif(
    not (SHARED / "mn04_as_mAP_432.pt").is_file(), reason="the published weights are not here"
)
def test_a_published_tagger_as_a_spectrogram_model_and_as_a_waveform_model():
    """The same probabilities both ways, a proved gradient, and a mask that scores as its sound does."""
    from audioxai_utils.models.efficientat import load_efficientat, read_audioset_labels
    from audioxai_utils.models.efficientat_frontend import EfficientATMel

    net = load_efficientat(SHARED / "mn04_as_mAP_432.pt")
    labels = read_audioset_labels(SHARED / "class_labels_indices.csv")
    t = torch.arange(2 * 32000) / 32000
    beep = 0.3 * torch.sin(2 * torch.pi * 1000 * t) * (t % 0.5 < 0.25) + 0.003 * noisy_like(t)
    mel = AudioClassifier(net, labels, 32000, input=LogMel.efficientat(), head="sigmoid")
    wave = AudioClassifier(nn.Sequential(EfficientATMel(), net), labels, 32000, head="sigmoid")
    torch.testing.assert_close(
        mel.probabilities(beep[None]), wave.probabilities(beep[None]), rtol=0, atol=1e-4
    )
    found = explain(mel, beep, 32000, method="gradcam", masks=["topK_50"])
    assert found.target_name == "Dial tone" and mel.floor == pytest.approx(-50)
    heard = explain(wave, beep, 32000, method="saliency", target=found.target_name, masks=["topK_30"])
    bound = wave.bound(beep[None])
    with torch.no_grad():
        logits = bound.model(bound.batch.db)
        kept = bound.model(apply_mask(bound.batch.db, heard.masks["topK_30"], -100.0)[0]).sigmoid()[
            0, heard.target
        ]
    assert float((logits - wave.scores(beep[None])).abs().max()) <= 1e-3
    assert heard.scores.loc["topK_30", "p_kept"] == pytest.approx(float(kept), abs=5e-4)


def noisy_like(t: torch.Tensor) -> torch.Tensor:
    return torch.randn(t.shape, generator=torch.Generator().manual_seed(0))
