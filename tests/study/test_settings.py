"""Every option once: checked when made, written and read back; which run a notebook means."""

import dataclasses
import json
import shutil

import pandas as pd
import pytest
import torch

from audioxai_utils import constants, open_study
from audioxai_utils.study import profiles, settings
from audioxai_utils.study.settings import Settings
from audioxai_utils.study.study import Study


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"profile": "fast"}, ValueError, "profile must be one of smoke, quick, medium, paper"),
        ({"dataset": "urbansound"}, ValueError, "dataset must be"),
        ({"n_clips": 0}, ValueError, "n_clips must be a whole number from 1 to 1000000; got 0"),
        ({"n_clips": 2.5}, TypeError, "n_clips must be of type int; got 2.5"),
        ({"full_grid": 1}, TypeError, "full_grid must be of type bool"),
        ({"seed": -1}, ValueError, "seed must be a whole number from 0"),
        ({"methods": ("magic",)}, ValueError, "methods must be one of saliency"),
        ({"protocol": "all"}, ValueError, "protocol must be one of paper, audited, both"),
    ],
)
def test_what_an_option_does_not_take_is_refused(changes, error, words):
    with pytest.raises(error, match=words):
        Settings(**changes)


def test_options_come_back_from_their_file(tmp_path):
    made = Settings("smoke", methods=["lime"], scenarios=("white",), n_clips=7, results_dir=str(tmp_path))
    made.write(started="now")
    assert Settings.read(tmp_path) == made and made.methods == ("lime",)
    assert json.loads((tmp_path / settings.FILE).read_text())["started"] == "now"


def test_a_run_is_where_its_folder_is(tmp_path):
    """A copy, or a folder that was moved, neither reads nor changes what lies at its former place."""
    Settings("smoke", results_dir=str(tmp_path / "first")).write()
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    study = open_study(tmp_path / "copy")
    study.save("accuracy", pd.DataFrame({"n": [1]}))
    assert study.results == tmp_path / "copy" and (tmp_path / "copy" / "tables" / "accuracy.csv").is_file()
    assert not (tmp_path / "first" / "tables").exists()


@pytest.mark.parametrize("text", ["", "[1]", '{"profile": "fast"}', '{"n_clips": "three"}'])
def test_a_damaged_file_is_one_line(tmp_path, text):
    (tmp_path / settings.FILE).write_text(text)
    with pytest.raises(
        ValueError, match=r"settings\.json must hold a run's settings .*delete it and run again"
    ) as error:
        Settings.read(tmp_path)
    assert "\n" not in str(error.value)


def test_sizes_protocols_and_methods_follow_from_the_options():
    assert Settings("smoke", n_clips=5).sizes.n_clips == 5
    assert Settings("smoke").sizes == profiles.PROFILES["smoke"]
    assert Settings().protocols == ("paper", "audited") and Settings(protocol="paper").protocols == ("paper",)
    assert Settings().explained_by == constants.STUDY_METHODS
    assert Settings(methods=("rise",)).explained_by == ("rise",)


def test_conditions_are_those_of_the_profile_less_what_is_not_wanted():
    assert Settings("smoke").conditions == (("mel_db", "clean"), ("mel_db", "white"))
    assert Settings(scenarios=("clean",)).conditions == (("stft_db", "clean"), ("mel_db", "clean"))
    assert Settings(spectrograms=("stft_db",), full_grid=True).conditions == tuple(
        ("stft_db", name) for name in constants.NOISE_SCENARIOS
    )
    own = Settings(scenarios=("clean", "/there/street noise.wav"))
    assert own.conditions[-1] == ("mel_db", next(iter(own.noise_files)))
    with pytest.raises(
        ValueError, match="leave no condition of profile smoke; it has mel_db clean, mel_db white"
    ):
        print(Settings("smoke", spectrograms=("stft_db",)).conditions)


def test_an_option_says_from_which_notebook_on_it_matters():
    numbers = {each.name: each.metadata["since"] for each in dataclasses.fields(Settings)}
    assert numbers["seed"] == "02" and numbers["protocol"] == "04" and numbers["cores"] == ""
    made = Settings(seed=3)
    assert set(made.since("01")) == {"profile", "dataset", "data_root", "noise_root"}
    assert (
        made.since("03")["seed"] == 3
        and "protocol" not in made.since("03")
        and "cores" not in made.since("11")
    )


# Which run is opened


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Results lie in a folder of the test; no run is named."""
    monkeypatch.setenv("AUDIOXAI_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("AUDIOXAI_RUN", raising=False)
    return tmp_path


def written(folder, **options):
    made = Settings(results_dir=str(folder), **options)
    made.write()
    return folder


def test_without_a_run_the_quick_study_on_generated_sounds_is_opened(elsewhere):
    opened = open_study("")
    assert opened.settings == Settings() and opened.results == elsewhere / "results" / "generated-quick"


def test_a_named_run_goes_before_the_environment_s_and_that_before_the_latest(elsewhere, monkeypatch):
    named, environment, latest = (
        written(elsewhere / name, n_clips=n) for n, name in enumerate("abc", start=1)
    )
    settings.remember_latest(latest)
    assert open_study().settings.n_clips == 3
    monkeypatch.setenv("AUDIOXAI_RUN", str(environment))
    assert open_study("").settings.n_clips == 2
    assert open_study(named).settings.n_clips == 1


def test_a_latest_run_that_is_gone_is_passed_over_and_a_named_one_is_refused(elsewhere):
    latest = written(elsewhere / "gone")
    settings.remember_latest(latest)
    (latest / settings.FILE).unlink()
    assert open_study("").settings == Settings()
    with pytest.raises(FileNotFoundError, match="no run was started in this folder"):
        open_study(latest)


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="PyTorch finds no CUDA"):
        print(Study(Settings(device="cuda")).device)
    assert Study(Settings(device="auto")).device == "cpu"


def test_the_main_condition_is_clean_mel_where_it_is_there():
    assert Study(Settings()).main_condition.pair == ("mel_db", "clean")
    assert Study(Settings(scenarios=("room",))).main_condition.pair == ("mel_db", "room")
    assert Study(Settings(spectrograms=("stft_db",))).main_condition.pair == ("stft_db", "clean")
    assert Study(Settings()).noise_scenarios == ["clean", "white", "room", "horse"]
    assert Study(Settings()).spectrogram_types == ["stft_db", "mel_db"]


def test_a_run_goes_on_where_the_latest_cannot_be_noted(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("AUDIOXAI_RESULTS", str(tmp_path / "file" / "results"))
    settings.remember_latest(tmp_path)
    assert settings.latest_results() is None


def test_a_network_from_scratch_is_the_same_whether_it_is_asked_for_or_not():
    asked = Settings(pretrained=("none",))
    assert (asked.network, asked.weights) == ("cnn14", None)
    assert asked.since("03") == Settings().since("03") != Settings(pretrained=("mn04", "/w.pt")).since("03")


@pytest.mark.parametrize("given", [{}, {"pretrained": ("cnn14", "/w.pt")}, {"pretrained": ("none",)}])
def test_only_the_tagger_is_fitted_as_a_whole(given):
    with pytest.raises(ValueError, match="--fitting whole is for the pretrained mn04"):
        Settings(fitting="whole", **given)
    assert Settings(fitting="whole", pretrained=("mn04", "/w.pt")).fitting == "whole"


def test_drawn_weights_are_not_trained_by_the_recipe_for_audiosets():
    """That one goes on from what is learnt already; and a wide network wants smaller steps."""
    paper = profiles.drawn(profiles.PROFILES["paper"])
    assert (paper.width, paper.n_clips, paper.lime_samples) == (1.0, None, 1000)
    assert (paper.schedule, paper.epochs, paper.dropout, paper.learning_rate) == ("one_cycle", 50, 0, 7.5e-4)
    narrow = profiles.drawn(dataclasses.replace(profiles.PROFILES["paper"], width=1 / 8))
    assert narrow.learning_rate == 3e-3
    for name in ("smoke", "quick", "medium"):
        assert profiles.drawn(profiles.PROFILES[name]) is profiles.PROFILES[name]
    wide = dataclasses.replace(profiles.PROFILES["medium"], width=1.0)
    assert profiles.drawn(wide).learning_rate == 7.5e-4


@pytest.mark.parametrize("weights", [None, ("cnn14", "file.pth")])
def test_which_recipe_the_paper_profile_takes(weights, tmp_path):
    study = Study(Settings("paper", pretrained=weights, results_dir=str(tmp_path)))
    published = profiles.PROFILES["paper"]
    assert study.training == (published if weights else profiles.drawn(published))
