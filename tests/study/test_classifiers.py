"""Reading a study's checkpoint back: the same model, or one line that names the file."""

import dataclasses

import pytest
import tiny_study
import torch

from audioxai_utils.study.study import Study


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tiny_study.make(tmp_path_factory.mktemp("study"))


@pytest.fixture
def damaged(trained, tmp_path):
    """(study, path, good, write): ``write`` puts changed content where the mel checkpoint is expected."""
    study = Study(dataclasses.replace(trained.settings, results_dir=str(tmp_path)))
    good, path = trained.checkpoint("mel_db"), study.checkpoint("mel_db")
    path.parent.mkdir()

    def write(change):
        torch.save(change(torch.load(good, weights_only=True)), path)

    return study, path, good, write


def assert_refused(study, path, words, spectrogram_type="mel_db"):
    with pytest.raises(ValueError, match=words) as error:
        study.classifier(spectrogram_type)
    line = str(error.value)
    assert line.startswith(f"{path}: ") and "\n" not in line and len(line) < len(str(path)) + 260


def test_the_saved_model_comes_back_bit_for_bit(trained):
    found = trained.classifier("mel_db")
    assert (
        found.classes == tiny_study.CATEGORIES and found.info["best_epoch"] == 1 and not found.model.training
    )
    assert found.dtype == trained.dtype and found.sample_rate == 32000
    model = trained.new_model("mel_db")  # the seed gives the same weights
    db = 20 * torch.randn(2, 1, 64, 40, dtype=trained.dtype, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(found.model(db), model.eval()(db))


def test_a_classifier_is_loaded_once_and_anew_when_it_was_saved_again(tmp_path):
    study = tiny_study.make(tmp_path)
    first = study.classifier("mel_db")
    assert study.classifier("mel_db") is first
    study.save_classifier(
        study.new_model("mel_db", seed=9), "mel_db", {"best_epoch": 2, "gradient_error": 1e-9}
    )
    assert (
        study.classifier("mel_db").info["best_epoch"] == 2
        and study.classifier("mel_db").digest != first.digest
    )


def test_the_copy_for_inference_says_the_same(trained):
    found = trained.classifier("mel_db")
    db = 20 * torch.randn(2, 1, 64, 40, dtype=trained.dtype, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(found.fused(db), found.model(db), rtol=1e-9, atol=1e-9)


def test_a_checkpoint_without_a_training_mean_says_so(trained):
    with pytest.raises(ValueError, match="no training mean; run notebook 02_fine_tuning again"):
        print(trained.classifier("mel_db").training_mean)


def test_another_results_folder_has_no_checkpoint_and_other_classes_are_refused(damaged):
    study, path, _, write = damaged
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        study.classifier("mel_db")
    write(lambda content: content | {"classes": ["a", "b", "c"]})
    assert_refused(study, path, "trained on other classes")


def test_missing_and_surplus_tensors_are_named(damaged):
    study, path, _, write = damaged
    write(lambda c: c | {"model": {k: v for k, v in c["model"].items() if k != "conv_block3.conv1.weight"}})
    assert_refused(study, path, r"does not fit the model \(.*conv_block3\.conv1\.weight.*run notebook 02")
    write(lambda c: c | {"model": c["model"] | {"conv_block7.weight": torch.ones(2)}})
    assert_refused(study, path, r"conv_block7\.weight")
    write(lambda c: c | {"model": {}})
    assert_refused(study, path, "does not fit the model")


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c | {"model": c["model"] | {"head.weight": torch.ones(3, 9)}}, r"head\.weight"),
        (lambda c: c | {"width": 2 * c["width"]}, "does not fit the model"),
        (lambda c: c | {"width": "wide"}, "does not fit the model"),
        (lambda c: c | {"model": [1, 2]}, "does not fit the model"),
        (lambda c: c | {"n_bins": 257}, "trained on 257 bins, mel_db has 64"),
        (lambda c: {"model": c["model"]}, "lacks classes, info, n_bins"),
        (lambda c: [c["model"]], "holds a list"),
    ],
)
def test_what_does_not_fit_is_one_line(damaged, change, words):
    study, path, _, write = damaged
    write(change)
    assert_refused(study, path, words)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_one_line(damaged, share):
    study, path, good, _ = damaged
    data = good.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert_refused(study, path, "not a readable PyTorch checkpoint")


def test_a_checkpoint_of_another_spectrogram_is_refused(damaged):
    study, path, good, _ = damaged
    path = study.checkpoint("stft_db")
    path.write_bytes(good.read_bytes())
    assert_refused(study, path, "trained on 64 bins, stft_db has 257", "stft_db")


def test_a_file_that_runs_code_is_not_run(damaged, tmp_path):
    """``weights_only`` refuses a pickle that would call a function."""
    import pickle

    study, path, _, _ = damaged
    marker = tmp_path / "ran"

    class Call:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    path.write_bytes(pickle.dumps({"model": Call()}, protocol=2))
    assert_refused(study, path, "not a readable PyTorch checkpoint")
    assert not marker.exists()


def test_a_model_that_is_trained_again_to_the_same_weights_is_the_same_one(tmp_path):
    """Notebook 02 run by hand writes the checkpoint anew; what was explained before still belongs to it."""
    study = tiny_study.make(tmp_path)
    first = study.classifier("mel_db")
    study.save_classifier(first.model, "mel_db", first.info | {"gradient_error": 2e-9})
    again = study.classifier("mel_db")
    assert again is not first and again.info != first.info and again.digest == first.digest
