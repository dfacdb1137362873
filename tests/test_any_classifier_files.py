"""Tables over clips and methods, files, and models that cannot be copied."""

from __future__ import annotations

import tempfile

import any_models
import numpy as np
import pytest
import torch
from any_models import CLASSES, MEL, RATE, clip, cnn
from torch import nn

from audioxai_utils import AudioClassifier, LogMel, explain, explain_many
from audioxai_utils.audio.reading import as_mono
from audioxai_utils.evaluation.tables import n_bins_of

pytestmark = pytest.mark.usefixtures("same_weights")


def test_a_table_over_clips_and_methods(tmp_path):
    import soundfile

    path = tmp_path / "street.wav"
    soundfile.write(path, np.stack([clip().numpy(), clip().numpy()], 1), RATE)
    classifier = any_models.make("NumPy")
    table = explain_many(
        classifier,
        {"file": path, "array": clip()},
        ["lime", "saliency"],
        masks=["bin", "topK_30"],
        method_options={"lime": {"n_samples": 8}},
    )
    assert len(table) == 2 * (2 + 1) and list(table.columns[:4]) == ["clip", "method", "target_name", "mask"]
    refused = table[table["method"] == "saliency"]
    assert refused["refused"].str.contains("methods that only ask").all() and refused["FF"].isna().all()
    lime = table[table["method"] == "lime"].set_index(["clip", "mask"])
    assert lime["seconds"].gt(0).all() and lime["refused"].eq("").all()
    picture = classifier.spectrogram(clip()[None]).db.shape[2:]  # what COMP_rel divides by
    assert lime[["n_bins", "n_frames"]].eq(list(picture)).all(axis=None)
    assert (n_bins_of(lime) == picture.numel()).all()
    assert lime.loc[("file", "bin"), "p_clip"] == pytest.approx(
        lime.loc[("array", "bin"), "p_clip"], abs=1e-3
    )


@pytest.mark.parametrize(
    "name, write, error, words",
    [
        ("gone.wav", None, FileNotFoundError, "no such file"),
        ("text.wav", b"no sound", ValueError, "not a readable audio file"),
    ],
)
def test_files_that_cannot_be_read_end_in_one_line(tmp_path, name, write, error, words):
    if write:
        (tmp_path / name).write_bytes(write)
    with pytest.raises(error, match=words) as raised:
        explain(any_models.make("softmax logits"), tmp_path / name)
    assert "\n" not in str(raised.value)


def test_sounds_that_ask_for_too_much_are_refused():
    classifier = any_models.make("softmax logits")
    with pytest.raises(ValueError, match="cannot resample its 44101 Hz to 8000 Hz"):
        explain(classifier, clip(), 44101)
    with pytest.raises(ValueError, match="waveform must last 120 s at most; got 121.0 s"):
        explain(classifier, np.zeros(121 * RATE), RATE)


@pytest.mark.parametrize(
    "given, words",
    [
        ((clip(), RATE), "got tuple: pass waveform, sample_rate"),
        (b"street.wav", "waveform must be .*; got (bytes|torch.uint8)"),
        (None, "got NoneType: soundfile.read makes such an array"),
        ({"array": clip(), "sampling_rate": RATE}, "got dict"),
    ],
    ids=["with its rate", "bytes", "none", "dict"],
)
def test_what_is_no_array_is_refused_in_one_line(given, words):
    with pytest.raises(TypeError, match=words) as told:
        as_mono(given, RATE, RATE)
    assert "\n" not in str(told.value)


def test_arrays_are_the_same_sound_however_they_lie_in_memory():
    sound = clip().numpy().astype(np.float32)
    for given in (sound[::-1][::-1], sound[::-1].copy()[::-1], sound.astype(">f4"), sound.tolist()):
        assert np.array_equal(as_mono(given, RATE, RATE).numpy(), sound)


def test_a_batch_is_not_averaged_without_a_word():
    """Ten clips were explained as their mean; the samples of one were ten thousand clips."""
    classifier, batch = any_models.make("NumPy"), np.stack([clip(seed=seed) for seed in range(10)])
    with pytest.warns(UserWarning, match="has 10 rows, which are averaged as channels of one sound; of a"):
        explain(classifier, batch, RATE, method="occlusion", masks=["bin"])
    for samples in (batch[0], torch.from_numpy(batch[0]), batch[0].tolist()):
        with pytest.raises(TypeError, match=r"got 6400 samples of one, pass \[waveform\]"):
            explain_many(classifier, samples, ["occlusion"], RATE)


def test_a_silent_clip_is_refused_wherever_it_stands():
    """After the first clip, whose gradient is proved, it was scored: FidIn 1, of nothing."""
    classifier, clips = any_models.make("waveform (B, N)"), {"sound": clip(), "silent": 0 * clip()}
    for order in (["sound", "silent"], ["silent", "sound"]):
        given = {name: clips[name] for name in order}
        table = explain_many(classifier, given, ["saliency"], RATE, masks=["bin"]).set_index("clip")
        assert table.loc["sound", "refused"] == "" and "waveform is silent" in table.loc["silent", "refused"]


def test_whatever_a_function_raises_is_a_line_of_the_table():
    """A KeyError ended the table."""
    net = any_models.make("NumPy").net
    classifier = any_models.described(lambda db: {51: net(db)}[db.shape[3]], head="softmax")
    clips = {"whole": clip(), "half": clip(0.5)}
    table = explain_many(classifier, clips, ["occlusion"], RATE, masks=["bin"]).set_index("clip")["refused"]
    assert table["whole"] == "" and table["half"].endswith(
        "(1, 1, 32, 32): KeyError 32; see the axes and the length that it was made for"
    )


def test_a_method_s_own_options_come_before_those_of_all():
    classifier, given = any_models.make("softmax logits"), {"saliency": {"check_gradient": False}}
    table = explain_many(classifier, [clip()], ["saliency"], RATE, masks=["bin"], method_options=given)
    assert table["refused"].eq("").all() and table["FF"].notna().all()


def test_an_error_in_the_middle_of_a_method_is_a_line_of_the_table():
    """One of a class of its own, when more pictures are asked about, ended it."""
    net = any_models.make("NumPy").net
    classifier = any_models.described(lambda db: {1: net, 2: net}[len(db)](db), head="softmax")
    table = explain_many(classifier, [clip()], ["occlusion", "segments"], RATE, masks=["bin"])
    assert table["refused"].str.match(r"KeyError \d+$").all() and list(table["method"]) == [
        "occlusion",
        "segments",
    ]


def test_what_an_onnx_session_does_not_take_is_said_in_one_line():
    """The runtime's own errors are many lines, and of no class that a table of clips knew."""
    pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    net = any_models.make("ONNX").net
    classifier = AudioClassifier(net, CLASSES, input=LogMel(**MEL | {"n_mels": 40}), head="softmax")
    with pytest.raises(
        ValueError, match=r"does not take \(2, 1, 40, 51\), its input is \[2, 1, 32, "
    ) as told:
        explain(classifier, clip(), RATE, method="occlusion")
    assert "\n" not in str(told.value)


def test_a_model_that_cannot_be_copied_is_asked_and_its_gradient_not_taken_for_proved():
    import threading

    class Locked(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.lock = cnn(), threading.Lock()

        def forward(self, db):
            with self.lock:
                return self.net(db)

    classifier = AudioClassifier(Locked(), CLASSES, input=LogMel(**MEL), head="softmax")
    assert explain(classifier, clip(), RATE, method="lime", n_samples=8).attribution.any()
    with pytest.raises(ValueError, match="cannot be copied in float64 .* pass check_gradient=False"):
        explain(classifier, clip(), RATE, method="saliency")
    assert explain(classifier, clip(), RATE, method="saliency", check_gradient=False).attribution.any()


@pytest.mark.parametrize(
    "what", ["open file", "generator", "socket", "refuses"], ids=lambda what: what.replace(" ", "_")
)
def test_whatever_a_model_holds_it_can_be_asked(what):
    import socket

    class Refuses:
        def __deepcopy__(self, memo):
            raise RuntimeError("no\ncopy of this")

    makes = {
        "open file": tempfile.TemporaryFile,
        "generator": lambda: iter(clip()),
        "socket": socket.socket,
    }

    class Holding(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.held = cnn(), makes.get(what, Refuses)()

        def forward(self, db):
            return self.net(db)

    model = Holding()
    classifier = AudioClassifier(model, CLASSES, input=LogMel(**MEL), head="softmax")
    assert explain(classifier, clip(), RATE, method="lime", n_samples=8).attribution.any()
    if what != "generator":  # an iterator of an array can be copied
        with pytest.raises(
            ValueError, match="cannot be copied in float64 .* pass check_gradient=False"
        ) as told:
            explain(classifier, clip(), RATE, method="saliency")
        assert "\n" not in str(told.value)
    getattr(model.held, "close", str)()
