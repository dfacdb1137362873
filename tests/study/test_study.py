"""Reading a study's checkpoint back: the same model, or one line that names the file."""

import pandas as pd
import pytest
import tiny_study
import torch

from audioxai_utils.study import study


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tiny_study.make(tmp_path_factory.mktemp("study"))


@pytest.fixture
def damaged(trained, tmp_path):
    """(settings, write): ``write`` puts content or bytes where the mel checkpoint is expected."""
    settings = study.Settings("smoke", "esc50", trained.data_root, "", str(tmp_path), 3, "cpu")
    good = study.checkpoint_path(trained, "mel_db")
    path = study.checkpoint_path(settings, "mel_db")
    path.parent.mkdir()

    def write(change):
        content = torch.load(good, weights_only=True)
        changed = change(content)
        torch.save(changed, path)

    return settings, path, good, write


def assert_refused(settings, path, words, spectrogram_type="mel_db"):
    with pytest.raises(ValueError, match=words) as error:
        study.load_classifier(settings, spectrogram_type)
    told = str(error.value)
    assert told.startswith(f"{path}: ") and "\n" not in told and len(told) < len(str(path)) + 260


def test_the_saved_model_comes_back_bit_for_bit(trained):
    found = study.load_classifier(trained, "mel_db")
    assert found.classes == tiny_study.CATEGORIES and found.info["best_epoch"] == 1 and not found.model.training
    assert found.dtype == trained.dtype
    model = study.new_model(trained, found.spectrogram)  # the seed gives the same weights
    db = 20 * torch.randn(2, 1, 64, 40, dtype=trained.dtype, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(found.model(db), model.eval()(db))


def test_missing_and_surplus_tensors_are_named(damaged):
    settings, path, _, write = damaged
    write(lambda c: c | {"model": {k: v for k, v in c["model"].items() if k != "conv_block3.conv1.weight"}})
    assert_refused(settings, path, r"does not fit the model \(.*conv_block3\.conv1\.weight.*run notebook 02")
    write(lambda c: c | {"model": c["model"] | {"conv_block7.weight": torch.ones(2)}})
    assert_refused(settings, path, r"conv_block7\.weight")
    write(lambda c: c | {"model": {}})
    assert_refused(settings, path, "does not fit the model")


@pytest.mark.parametrize("change, words", [
    (lambda c: c | {"model": c["model"] | {"head.weight": torch.ones(3, 9)}}, r"head\.weight"),
    (lambda c: c | {"width": 2 * c["width"]}, "does not fit the model"),
    (lambda c: c | {"width": "wide"}, "does not fit the model"),
    (lambda c: c | {"model": [1, 2]}, "does not fit the model"),
    (lambda c: c | {"n_bins": 257}, "trained on 257 bins, mel_db has 64"),
    (lambda c: {"model": c["model"]}, "lacks classes, info, n_bins"),
    (lambda c: [c["model"]], "holds a list"),
])
def test_what_does_not_fit_is_one_line(damaged, change, words):
    settings, path, _, write = damaged
    write(change)
    assert_refused(settings, path, words)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_one_line(damaged, share):
    settings, path, good, _ = damaged
    data = good.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert_refused(settings, path, "not a readable PyTorch checkpoint")


def test_a_checkpoint_of_another_spectrogram_is_refused(damaged):
    settings, path, good, _ = damaged
    path = study.checkpoint_path(settings, "stft_db")
    path.write_bytes(good.read_bytes())
    assert_refused(settings, path, "trained on 64 bins, stft_db has 257", "stft_db")


def test_a_file_that_runs_code_is_not_run(damaged, tmp_path):
    """``weights_only`` refuses a pickle that would call a function."""
    import pickle

    settings, path, _, _ = damaged
    marker = tmp_path / "ran"

    class Call:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    path.write_bytes(pickle.dumps({"model": Call()}, protocol=2))
    assert_refused(settings, path, "not a readable PyTorch checkpoint")
    assert not marker.exists()


def test_chosen_clips_are_spread_evenly_and_keep_their_order():
    frame = pd.DataFrame({"clip": list("abcdefgh"), "label": [0, 0, 0, 0, 1, 1, 2, 2]})
    assert study.choose(frame, 5)["clip"].tolist() == ["a", "b", "e", "f", "g"]
    assert study.choose(frame, None).equals(frame) and study.choose(frame, 99).equals(frame)
    counts = study.choose(frame, 6)["label"].value_counts().to_dict()
    assert counts == {0: 2, 1: 2, 2: 2}


def test_both_protocols_are_two():
    assert study.protocols("both") == ["paper", "audited"] and study.protocols("paper") == ["paper"]
    with pytest.raises(ValueError, match="protocol must be one of paper, audited, both"):
        study.protocols("all")
