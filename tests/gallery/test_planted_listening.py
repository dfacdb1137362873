"""The blind page of planted causes: what it plays, what can be answered, and what is made of the answers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import planted_bench
import pytest
import soundfile

from audioxai_utils.audit.planted.cases import Case
from audioxai_utils.audit.planted.plants import PLANTS
from audioxai_utils.gallery import planted_listening
from audioxai_utils.gallery.html import read_script_data
from audioxai_utils.gallery.listening import COLUMNS
from audioxai_utils.gallery.listening_page import DATA_NAME


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    planted_bench.bench(planted_bench.sounds()).write(folder / "cases")
    given = [str(folder / "cases"), str(folder / "page"), "--methods", "saliency", "--clips", "2"]
    assert planted_listening.main(given) == 0
    text = (folder / "page" / "assets" / "listening-data.js").read_text(encoding="utf-8")
    return folder / "page", read_script_data(DATA_NAME, text)


def test_every_method_and_control_is_played_and_names_nothing(made):
    folder, data = made
    trials = pd.DataFrame(data["trials"])
    assert set(trials["method"]) == {"original", "saliency", "oracle", "random"}
    assert (trials["category"] == "a high tone").all() and trials["clip"].nunique() == 2
    assert all((folder / "assets" / file).is_file() for file in trials["file"])
    page = (folder / "listening.html").read_text(encoding="utf-8")
    assert "tone" not in page and "saliency" not in page.lower()


def test_all_causes_and_decoys_that_sound_can_be_answered(made):
    _, data = made
    sounding = [plant.names for plant in PLANTS.values() if not plant.absent]
    assert {name for pair in sounding for name in pair} | {planted_listening.NOTHING} == set(data["choices"])


def test_the_oracle_s_sound_is_the_tone(made):
    folder, data = made
    trials = pd.DataFrame(data["trials"])
    files = {name: trials.loc[trials["method"] == name, "file"].iloc[0] for name in ("oracle", "random")}
    shares = {}
    for name, file in files.items():
        sound, rate = soundfile.read(folder / "assets" / file)
        power = np.abs(np.fft.rfft(sound)) ** 2
        near = np.abs(np.fft.rfftfreq(len(sound), 1 / rate) - 3000) < 100
        shares[name] = power[near].sum() / power.sum()
    assert shares["oracle"] > 0.5 > 0.2 > shares["random"]


def test_what_is_missing_is_not_played():
    cases = [Case(name, "cnn14", name, False, -6.0) for name in PLANTS]
    assert [case.plant for case in planted_listening.audible(cases)] == [
        name for name in PLANTS if name != "lowpass"
    ]
    assert PLANTS["tone"].cause(False) == "a high tone" and PLANTS["tone"].cause(True) == "a low tone"


def test_answers_say_who_named_the_cause(made, tmp_path, capsys):
    _, data = made
    n, rows = len(data["choices"]) + 1, []
    for person, right in (("p1", True), ("p2", False)):
        for number, trial in enumerate(data["trials"], 1):
            heard = trial["category"] if right or trial["method"] == "oracle" else planted_listening.NOTHING
            about = {"test": data["test"], "participant": person, "seed": 1, "n_trials": len(data["trials"])}
            about |= {"trial": number, "n_choices": n, "heard": heard, "clear": 4, "plays": 1, "seconds": 2.0}
            rows.append(trial | about | {"answered": "2026-01-01T00:00:00Z"})
    pd.DataFrame(rows)[list(COLUMNS)].to_csv(tmp_path / "answers.csv", index=False)
    table = planted_listening.heard(tmp_path).set_index("method")
    assert table.loc["Oracle", "true_class"] == 1 and table.loc["Saliency", "true_class"] == 0.5
    assert planted_listening.main(["--answers", str(tmp_path)]) == 0
    assert "Oracle" in capsys.readouterr().out
