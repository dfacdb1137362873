"""Scripted, frozen and traced modules, and modules that do more than set a flag."""

from __future__ import annotations

import tempfile

import pytest
import torch
from any_models import CLASSES, MEL, ONLY_ASK, RATE, Around, clip, cnn, options_of
from torch import nn

from audioxai_utils import AudioClassifier, LogMel, explain

pytestmark = pytest.mark.usefixtures("same_weights")


def saved(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        torch.jit.save(module, file.name)
        return torch.jit.load(file.name)


FROZEN = r"copied in float64 \(frozen ScriptModule\); pass check_gradient=False, or a method that needs no gradient"
NO_GRADIENT = "do not depend on its input by a gradient; methods that only ask.*: .*lime"
SCRIPTED = {  # how it is made, and why it has no proved gradient
    "frozen": (lambda net, db: torch.jit.freeze(torch.jit.script(net)), FROZEN),
    "frozen, in training": (lambda net, db: torch.jit.freeze(torch.jit.script(net)).train(), FROZEN),
    "frozen, saved": (lambda net, db: saved(torch.jit.freeze(torch.jit.script(net))), FROZEN),
    "frozen trace": (lambda net, db: torch.jit.freeze(torch.jit.trace(net, db)), FROZEN),
    "frozen, in a module": (lambda net, db: Around(torch.jit.freeze(torch.jit.script(net))), FROZEN),
    "optimised": (lambda net, db: torch.jit.optimize_for_inference(torch.jit.script(net)), NO_GRADIENT),
    "optimised, in a module": (
        lambda net, db: Around(torch.jit.optimize_for_inference(torch.jit.script(net))),
        NO_GRADIENT,
    ),
    "traced": (lambda net, db: torch.jit.trace(net, db), None),
}


def pooled() -> nn.Sequential:
    """A network whose every layer can be optimised for inference."""
    first, last = list(cnn())[:7], nn.Linear(8, 3)
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).eval()


@pytest.mark.parametrize("kind", SCRIPTED)
def test_scripted_modules_of_every_kind(kind):
    """All methods that only ask work and find what they find of the module itself; others say what to do."""
    make, words = SCRIPTED[kind]
    net, db = pooled(), LogMel(**MEL).spectrogram().decibels(clip()[None].float())
    with torch.no_grad():
        both = [
            AudioClassifier(each, CLASSES, input=LogMel(**MEL), head="softmax")
            for each in (net, make(net, db))
        ]
    for method in sorted(ONLY_ASK):
        plain, scripted = (
            explain(each, clip(), RATE, method=method, target=1, **options_of(each, method)).attribution
            for each in both
        )
        torch.testing.assert_close(scripted, plain, rtol=1e-3, atol=1e-3 * float(plain.abs().max()))
    with pytest.raises(ValueError, match="looks at the model's layers, which it does not show") as raised:
        explain(both[1], clip(), RATE, method="gradcam")
    assert "\n" not in str(raised.value)
    if words is None:
        assert explain(both[1], clip(), RATE, method="saliency").attribution.any()
        return
    with pytest.raises(ValueError, match=words) as raised:
        explain(both[1], clip(), RATE, method="saliency")
    assert "\n" not in str(raised.value)
    if words == NO_GRADIENT:
        with pytest.raises(ValueError, match=words):
            explain(both[1], clip(), RATE, method="saliency", check_gradient=False)
    else:
        found = explain(both[1], clip(), RATE, method="saliency", check_gradient=False, target=1)
        expected = explain(both[0], clip(), RATE, method="saliency", target=1)
        torch.testing.assert_close(found.attribution, expected.attribution, rtol=1e-3, atol=1e-7)


class OneClip(nn.Module):
    """Its trace holds the number of clips of its example."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, db):
        return self.head(self.conv(db).mean((2, 3)).view(int(db.shape[0]), 4))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    "make, words",
    [
        (
            lambda db: torch.jit.optimize_for_inference(torch.jit.script(cnn().eval())),
            r"does not take \(1, 1, 32, 51\) in torch.float32: .* give the module that it was made of",
        ),
        (
            lambda db: torch.jit.freeze(torch.jit.script(pooled().double())),
            r"does not take \(1, 1, 32, 51\) in torch.float32: .* give the module that it was made of",
        ),
        (
            lambda db: torch.jit.trace(OneClip(), db),
            r"does not take \(2, 1, 32, 51\) in torch.float32: .* give the module that it was made of",
        ),
        (
            lambda db: torch.jit.trace(cnn().train(), torch.cat([db, 2 * db]), check_trace=False),
            r"change with the others of its batch.*call .eval\(\) on the module before",
        ),
        (
            lambda db: torch.jit.trace(nn.Sequential(nn.Dropout(0.5), pooled()), db, check_trace=False),
            r"or by chance: it was made in training mode; call .eval\(\) on the module before",
        ),
    ],
    ids=["optimised pool", "frozen float64", "fixed batch", "traced in training", "traced dropout"],
)
def test_scripted_modules_that_cannot_answer_say_so_in_one_line(make, words):
    db = LogMel(**MEL).spectrogram().decibels(clip()[None].float())
    classifier = AudioClassifier(make(db), CLASSES, input=LogMel(**MEL), head="softmax")
    for method in ("lime", "saliency", "gradcam"):
        with pytest.raises(ValueError, match=words) as raised:
            explain(classifier, clip(), RATE, method=method)
        assert "\n" not in str(raised.value)


def test_modules_that_do_more_than_set_a_flag_in_train_are_not_asked_to():
    """A net that merges weights when it is put into evaluation mode, and an exported program, which refuses
    to be.
    """

    class Merging(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.merged = cnn(), 0

        def train(self, mode=True):
            self.merged += not mode
            return super().train(mode)

        def forward(self, db):
            return self.net(db)

    merging = Merging()
    explain(
        AudioClassifier(merging, CLASSES, input=LogMel(**MEL), head="softmax"),
        clip(),
        RATE,
        method="saliency",
    )
    assert merging.merged == 0 and merging.training
    db = LogMel(**MEL).spectrogram().decibels(clip()[None].float())
    shapes = {0: torch.export.Dim("batch", min=1, max=256)}
    exported = torch.export.export(cnn().eval(), (torch.cat([db, db]),), dynamic_shapes=(shapes,)).module()
    classifier = AudioClassifier(exported, CLASSES, input=LogMel(**MEL), head="softmax")
    assert explain(classifier, clip(), RATE, method="lime", n_samples=8).attribution.any()


def test_the_package_shows_its_names_and_stays_light():
    import subprocess
    import sys

    import audioxai_utils

    assert {"explain", "AudioClassifier", "LogMel", "METHODS", "build_masks", "best_masks"} <= set(
        dir(audioxai_utils)
    )
    code = "import sys, audioxai_utils as a; dir(a); print({'torch', 'numpy', 'pandas'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
    )
