"""A user's own classifier and sounds through the study: pictures, waveforms and black boxes, whatever the folder."""

import textwrap

import numpy as np
import pytest
import soundfile
import torch
from own_study import own_settings

from audioxai_utils.audio.own_data import LONGEST, labelled, load_own_dataset
from audioxai_utils.run import command_line
from audioxai_utils.study.own_model import load_own
from audioxai_utils.study.study import Study

RATE, SECONDS = 8000, 0.75
REFUSED = {  # a 1-D convolution has no map in time and frequency, a black box no gradient
    "pictures": set(),
    "waves": {"gradcam"},
    "box": {"saliency", "gradcam", "shap"},
}
MODELS = """
    import torch
    from torch import nn
    import audioxai_utils as ax

    class Waves(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv1d(1, 4, 64, 32), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
            self.head = nn.Linear(4, 3)

        def forward(self, waveform):
            return self.head(self.layers(waveform))

    def pictures():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        mel = ax.LogMel(sample_rate=8000, n_fft=256, hop_length=128, n_mels=16, offset=1e-5)
        return ax.AudioClassifier(net, ["Low", "High", "other"], input=mel, head="sigmoid")

    def waves():
        torch.manual_seed(0)
        return ax.AudioClassifier(Waves(), ["low", "high", "other"], 8000, input="waveform")

    def box():
        def loudness(waveform):
            p = waveform.square().mean(1, keepdim=True).clamp(0, 1)
            return torch.cat([p, 1 - p], 1)
        return ax.AudioClassifier(loudness, ["low", "high"], 8000, head="probabilities")

    def wrong():
        return Waves()

    def broken():
        raise KeyError("no weights")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for each class; one of them has no name that a model knows."""
    place = tmp_path_factory.mktemp("own")
    (place / "my_model.py").write_text(textwrap.dedent(MODELS))
    rng, times = np.random.default_rng(0), np.arange(int(RATE * SECONDS)) / RATE
    for category, frequency in (("low", 300), ("high", 2500), ("what is this", 900)):
        for i in range(6):
            sound = np.sin(2 * np.pi * (frequency + 20 * i) * times) + 0.05 * rng.standard_normal(len(times))
            path = place / "clips" / category / f"{i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.3 * sound, RATE)
    return place


def study_of(folder, tmp_path, name: str, **options) -> Study:
    settings = own_settings(folder, f"my_model.py:{name}", results_dir=str(tmp_path / name), **options)
    settings.write(states={})
    return Study(settings)


def inspected(study: Study):
    """The study after what notebook 02 does."""
    study.save_own({"gradient_error": 0.0, "training_mean": [0.0]})
    return study.refusals()


@pytest.mark.parametrize("name", ["pictures", "waves", "box"])
def test_it_is_explained_scored_and_heard_at_its_own_rate_and_length(folder, tmp_path, name):
    methods = ("saliency", "gradcam", "lime", "shap", "occlusion")
    study = study_of(folder, tmp_path, name, methods=methods, n_clips=3, scenarios=("clean", "white"))
    refused = inspected(study)
    assert set(refused) == REFUSED[name]
    condition = study.condition("own", "white")
    assert condition.classifier.sample_rate == RATE and condition.clips.waveforms.shape == (3, RATE * SECONDS)
    assert condition.usable_methods == tuple(method for method in methods if method not in refused)
    for method in condition.usable_methods:
        values = condition.attribute(method)
        assert values.shape == condition.spectrograms.shape and values.isfinite().all() and values.any()
    scores = condition.score_all()
    assert set(scores["method"]) - {""} == set(condition.usable_methods)
    whole = scores[(scores["control"] == "all_ones") & (scores["protocol"] == "audited")]
    # the whole sound is the sound
    np.testing.assert_allclose(whole["p_kept"], whole["p_clip"], atol=2e-3 if name != "pictures" else 1e-6)
    direct = study.own_model.probabilities(condition.clips.waveforms)
    torch.testing.assert_close(condition.probabilities, direct)


@pytest.mark.parametrize("name", ["waves", "box"])
def test_what_is_scored_of_a_model_of_waveforms_is_what_is_heard(folder, tmp_path, name):
    study = study_of(folder, tmp_path, name, methods=("lime",), n_clips=2, scenarios=("clean",))
    inspected(study)
    condition = study.condition("own")
    condition.attribute("lime")
    scores = condition.score_all().query("protocol == 'audited' and control == ''")
    np.testing.assert_allclose(scores["FF"], scores["FF_heard"], atol=1e-6)


def test_a_class_is_known_by_its_name_and_what_has_none_is_not_called_wrong(folder, tmp_path):
    study = study_of(folder, tmp_path, "pictures", methods=("saliency",), scenarios=("clean",))
    inspected(study)
    assert study.dataset.classes == ("Low", "High", "other")
    labels = study.dataset.clips.groupby("category")["label"].first()
    assert labels.to_dict() == {"low": 0, "high": 1, "what is this": -1}
    accuracy, frame = study.condition("own").accuracy()
    known = frame[frame["label"] >= 0]
    assert accuracy == 100 * (known["label"] == known["predicted"]).mean() and len(known) < len(frame)
    condition = study.condition("own")
    condition.attribute("saliency")
    correct = condition.score_all().groupby("category")["correct"].first()
    assert correct.isna().to_dict() == {"high": False, "low": False, "what is this": True}


def test_a_plain_folder_is_explained_for_what_the_model_predicts(folder, tmp_path):
    sounds = sorted((folder / "clips" / "low").glob("*.wav"))[:3]
    (tmp_path / "plain").mkdir()
    for sound in sounds:
        (tmp_path / "plain" / sound.name).write_bytes(sound.read_bytes())
    dataset = labelled(load_own_dataset(tmp_path / "plain"), ("low", "high"))
    assert (dataset.clips["label"] == -1).all() and len(dataset.split("test")) == 3
    assert len(dataset.split("train")) == 3  # the only references that there are
    soundfile.write(tmp_path / "plain" / "long.wav", np.zeros(int(RATE * (LONGEST + 1))) + 0.1, RATE)
    (tmp_path / "plain" / "broken.wav").write_bytes(b"RIFF")
    dataset = load_own_dataset(tmp_path / "plain")
    assert dataset.seconds == LONGEST and len(dataset.clips) == 4
    assert any("longer than 30 s" in line for line in dataset.problems)
    assert any("broken.wav" in line for line in dataset.problems)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong", "must return an AudioClassifier; got Waves"),
        ("broken", "KeyError: 'no weights'"),
        ("missing", "AttributeError"),
    ],
)
def test_what_is_no_classifier_is_one_line(folder, name, message):
    with pytest.raises(ValueError, match=message) as error:
        load_own(f"{folder / 'my_model.py'}:{name}")
    assert "\n" not in str(error.value) and "my_model.py" in str(error.value)


def test_the_command_line(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--model", f"{folder / 'my_model.py'}:waves", "--data-root", str(folder / "clips")]
    settings = command_line.parse(words).settings
    assert (settings.dataset, settings.network) == ("own", "own") and settings.results.name == "own-quick"
    assert settings.conditions == tuple(("own", name) for name in ("clean", "white", "room", "horse"))
    for bad, message in (
        (["--model", "my_model.py"], "--model must be FILE:FUNCTION"),
        (["--model", "none.py:load"], "--model must be a readable file"),
        (["--dataset", "own", "--data-root", str(folder / "clips")], "give --model"),
        ([*words, "--pretrained", "mn04"], "leave --pretrained out"),
    ):
        with pytest.raises(ValueError, match=message):
            command_line.parse(bad)


def test_the_threshold_of_a_detector_decides_what_is_explained_and_scored(folder, tmp_path):
    """Its sounds have p from .02 to .045: by the larger of p and 1 - p all were none of the label."""
    text = textwrap.dedent("""
        import audioxai_utils as ax

        def level(waveform):
            return waveform.square().mean(1, keepdim=True).clamp(0, 1)

        def detector():
            return ax.AudioClassifier(level, ["loud"], 8000, head="probabilities", threshold=0.03)
    """)
    place = tmp_path / "detector"
    for number, share in enumerate((0.04, 0.09)):  # of the clip; its peak becomes 1
        path = place / "clips" / "loud" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.sin(np.arange(6000)) * (np.arange(6000) < 6000 * share), RATE)
    (place / "my_model.py").write_text(text)
    study = study_of(place, tmp_path, "detector", methods=("occlusion",), n_clips=2, scenarios=("clean",))
    inspected(study)
    condition = study.condition("own", "clean")
    p = condition.probabilities[:, 1]
    assert p.tolist() == pytest.approx([0.02, 0.045], abs=1e-3) and condition.targets.tolist() == [0, 1]
    condition.attribute("occlusion")
    stored = [
        np.load(file)["target"] for file in sorted(condition.attribution_folder("occlusion").glob("*.npz"))
    ]
    assert [int(target) for target in stored] == [0, 1]
    scores = condition.score_all()
    assert set(zip(scores["clip"].str[-1], scores["target"])) == {("0", 0), ("1", 1)}
    _, frame = condition.accuracy()
    assert frame["predicted"].tolist() == [0, 1] and frame["p"].tolist() == pytest.approx(
        [0.98, 0.045], abs=1e-3
    )
