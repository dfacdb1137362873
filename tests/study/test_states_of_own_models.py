"""What a run takes for another classifier of a user's: other weights wherever they hide, classes, rate, function."""

import textwrap

import numpy as np
import pytest
import soundfile
import torch
from own_study import own_settings

from audioxai_utils.study import classifiers, own_model
from audioxai_utils.study.own_model import answers, load_own, own_digest
from audioxai_utils.study.study import Study

MODELS = """
    import pathlib
    import numpy as np
    import torch
    from torch import nn
    import audioxai_utils as ax

    SEED = int(pathlib.Path("seed.txt").read_text())

    class Waves(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(SEED)
            self.conv, self.head = nn.Conv1d(1, 4, 64, 32), nn.Linear(4, 3)

        def forward(self, waveform):
            return self.head(self.conv(waveform[:, None]).abs().mean(2))

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(1.0 + SEED))

        def forward(self, waveform):
            return waveform * self.gain

    class Session:
        class Port:
            name, type, shape = "x", "tensor(float)", [1, 8000]

        def get_inputs(self):
            return [self.Port]

        get_outputs = get_inputs

        def run(self, names, given):
            found = np.random.default_rng(SEED).standard_normal((8000, 3))
            return [(given["x"] @ found).astype("float32")]

    def plain():
        return ax.AudioClassifier(Waves(), None, 8000, input="(B, N)")

    def function():
        weights = np.random.default_rng(SEED).standard_normal((4, 3))
        def ask(waveform):
            bands = np.abs(np.fft.rfft(waveform.numpy()))[:, :400].reshape(len(waveform), 4, -1).mean(2)
            return bands @ weights
        return ax.AudioClassifier(ask, ["a", "b", "c"], 8000, head="softmax")

    def session():
        return ax.AudioClassifier(Session(), ["a", "b", "c"], 8000, head="softmax")

    def frozen():
        return ax.AudioClassifier(torch.jit.freeze(torch.jit.script(Waves().eval())), ["a", "b", "c"], 8000, input="(B, N)")

    def quantised():
        torch.manual_seed(SEED)
        net = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8000, 3)).eval(), {nn.Linear})
        return ax.AudioClassifier(net, ["a", "b", "c"], 8000, input="(B, N)")

    def named():
        torch.manual_seed(0)
        return ax.AudioClassifier(nn.Linear(8000, 3), [["a", "b", "c"], ["b", "a", "c"]][SEED], 8000, input="(B, N)")

    def rated():
        torch.manual_seed(0)
        return ax.AudioClassifier(nn.AdaptiveAvgPool1d(3), None, 8000 * (1 + SEED), input="(B, N)")

    def in_front():
        torch.manual_seed(0)
        return ax.AudioClassifier(nn.AdaptiveAvgPool1d(3), None, 8000, input=Scaled())

    def short():
        weights = np.random.default_rng(SEED).standard_normal((6000, 3))
        return ax.AudioClassifier(lambda x: x.numpy() @ weights, None, 8000, head="softmax")
"""
CHANGED = ("plain", "function", "session", "frozen", "quantised", "named", "rated", "in_front")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*deprecated.*")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_model.py").write_text(textwrap.dedent(MODELS))
    (tmp_path / "seed.txt").write_text("0")
    for i in range(6):
        sound = 0.3 * np.random.default_rng(i).standard_normal(6000)
        (tmp_path / "clips").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "clips" / f"{i}.wav", sound, 8000)
    return tmp_path


def digest_of(folder, name: str, seed: int = 0) -> str:
    (folder / "seed.txt").write_text(str(seed))
    spec = f"{folder / 'my_model.py'}:{name}"
    return own_digest(spec, load_own(spec))


def study_of(folder, name: str, methods=("lime",)) -> Study:
    own = {"methods": methods, "scenarios": ("clean",), "n_clips": 2}
    settings = own_settings(folder, f"my_model.py:{name}", **own)
    settings.write(states={})
    return Study(settings)


@pytest.mark.parametrize("name", CHANGED)
def test_a_classifier_with_anything_else_in_it_is_another_one(folder, name):
    before = digest_of(folder, name)
    assert digest_of(folder, name) == before  # the same one made again
    assert digest_of(folder, name, seed=1) != before


def test_another_function_of_the_same_file_is_another_classifier(folder):
    (folder / "my_model.py").write_text(textwrap.dedent(MODELS) + "\n\nother = plain\n")
    assert digest_of(folder, "plain") != digest_of(folder, "other")


def test_a_module_beside_the_file_is_part_of_it_and_one_that_is_not_imported_is_not(folder):
    code = textwrap.dedent(MODELS) + "\n\nfrom states_net import parts\n"
    (folder / "my_model.py").write_text(code)
    (folder / "states_net").mkdir()
    (folder / "states_net" / "__init__.py").write_text("")
    (folder / "states_net" / "parts.py").write_text("from . import deep\n")
    (folder / "states_net" / "deep.py").write_text("A = 1\n")
    before = digest_of(folder, "plain")
    (folder / "train.py").write_text("A = 1\n")
    assert digest_of(folder, "plain") == before
    (folder / "states_net" / "deep.py").write_text("A = 2\n")
    assert digest_of(folder, "plain") != before


def test_the_digest_leaves_the_classifier_and_the_random_numbers_as_they_were(folder):
    spec = f"{folder / 'my_model.py'}:plain"
    classifier, state = load_own(spec), torch.random.get_rng_state()
    own_digest(spec, classifier)
    assert (classifier.head, classifier.classes) == (None, None)
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(ValueError, match="not known yet"):
        classifier.reading()


def test_rounding_does_not_make_another_classifier_and_stored_answers_decide(folder, monkeypatch):
    study = study_of(folder, "function")
    path = study.save_own({"gradient_error": 0.0})
    before = study.classifier("own").digest
    scores = type(study.own_model).scores
    monkeypatch.setattr(type(study.own_model), "scores", lambda self, x: scores(self, x) * (1 + 1e-3))
    given = (path, study.own_model, study.settings.model)
    assert classifiers.own_classifier(*given).digest == before
    study.save_own({"gradient_error": 0.0})
    assert study.classifier("own").digest == before
    monkeypatch.setattr(type(study.own_model), "scores", lambda self, x: scores(self, x) ** 2)
    with pytest.raises(ValueError, match="is of another classifier"):
        classifiers.own_classifier(*given)


def test_threads_give_the_same_answers(folder):
    classifier = load_own(f"{folder / 'my_model.py'}:plain")
    before, n = answers(classifier), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(answers(classifier), before)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(n)


def test_a_length_that_is_taken_is_found_and_the_clips_own_is_tried(folder):
    classifier = load_own(f"{folder / 'my_model.py'}:short")
    assert answers(classifier).shape == (0, 0) and answers(classifier, 0.75).shape == (2, 3)
    digests = []
    for seed in (0, 1):
        (folder / "seed.txt").write_text(str(seed))
        (folder / "results" / "models" / "own.pt").unlink(missing_ok=True)
        digests.append(study_of(folder, "short").classifier("own").digest)
    assert digests[0] != digests[1]


def test_hidden_weights_that_changed_are_not_explained_by_what_is_stored(folder):
    study_of(folder, "function").save_own({"gradient_error": 0.0})
    assert study_of(folder, "function").classifier("own").info
    (folder / "seed.txt").write_text("1")
    with pytest.raises(ValueError, match="is of another classifier"):
        study_of(folder, "function").classifier("own")


def test_a_lazy_network_has_a_digest():
    assert own_model.weights_digest(torch.nn.LazyLinear(3))


def test_a_relative_path_with_a_folder_is_found(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    spec = f"{folder.name}/my_model.py:plain"
    assert own_digest(spec, load_own(spec)) == digest_of(folder, "plain")
    with pytest.raises(ValueError, match=f"no file {folder.name}/none.py"):
        load_own(f"{folder.name}/none.py:plain")


def test_what_a_new_classifier_refuses_is_not_scored_because_an_old_one_left_a_folder(folder):
    study = study_of(folder, "function", ("saliency", "lime"))
    study.save_own({"gradient_error": 0.0, "training_mean": [0.0]})
    assert set(study.refusals()) == {"saliency"}
    condition = study.condition("own")
    condition.attribution_folder("saliency").mkdir(parents=True)
    condition.attribute("lime")
    assert condition.methods == ["lime"]
    assert set(condition.score_all()["method"]) == {"", "lime"}
