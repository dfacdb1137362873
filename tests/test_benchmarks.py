"""The benchmarks run, leave their tables, and the report shows them; what they measure is never tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from audioxai_utils import AudioClassifier, LogMel
from audioxai_utils.constants import MASK_NAMES
from audioxai_utils.gallery import speed
from audioxai_utils.gallery.report import build
from audioxai_utils.models.cnn14 import Cnn14
from audioxai_utils.run.manifest import hardware

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
ABOUT = {
    "setting": "mel_db, 2 < 3 clips",
    "hardware": {"processor": "A & B", "cores": 2, "memory_bytes": 2**34, "gpus": []},
    "vector_units": "AVX2",
    "device": "cpu",
    "threads": 1,
    "torch": "2.0",
    "date": "2026-01-02T03:04:05+00:00",
    "commit": {"id": "0123456789abcdef", "dirty": False},
}


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


def run(script: str, *words) -> subprocess.CompletedProcess:
    line = [sys.executable, "-P", BENCHMARKS / script, *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=500, check=False)


def test_growth_leaves_its_points_and_their_fit_with_the_machine(tmp_path):
    others = ("--samples", "--width", "--background", 2)
    done = run("growth.py", "--clips", 1, 2, *others, "--threads", 1, "--results", tmp_path)
    assert done.returncode == 0, done.stderr
    points, fits = (
        pd.read_csv(tmp_path / "benchmarks" / f"{name}.csv") for name in ("growth", "growth_fits")
    )
    asked = [("clips", 1, "lime"), ("clips", 2, "lime"), ("clips", 1, "shap"), ("clips", 2, "shap")]
    assert list(zip(points["grows"], points["size"], points["method"])) == [*asked, ("background", 2, "shap")]
    assert (points[["s/clip", "CPU s/clip", "s/unit"]] > 0).all(axis=None)
    assert list(zip(fits["grows"], fits["method"])) == [
        ("clips", "lime"),
        ("clips", "shap"),
        ("background", "shap"),
    ]
    assert fits["exponent"].notna().tolist() == [True, True, False]  # one point has none
    about = json.loads((tmp_path / "benchmarks" / "growth.json").read_text())
    assert about["hardware"] == hardware() and about["threads"] == 1 and about["device"] == "cpu"
    assert speed.about_words(about) in done.stdout
    assert speed.speed(SimpleNamespace(results=tmp_path)).data.count("<td>clips</td>") == 6


def test_lrp_has_its_rules_on_a_cnn14_and_is_measured_against_the_logit(benchmarks):
    """Fresh batch norms have no bias, so that relevance adds up to the logit but for the layers' own."""
    pytest.importorskip("zennit")
    import lrp

    torch.manual_seed(0)
    model = Cnn14(64, 5, 1 / 32).eval()
    db, target = torch.randn(2, 1, 64, 64) * 10 - 40, torch.tensor([1, 3])
    modular = lrp.Modular(model)
    torch.testing.assert_close(modular(db), model(db))
    for rule in lrp.RULES:
        found = lrp.lrp(modular, db, target, rule)
        assert found.shape == db.shape and found.abs().sum() > 0
        torch.testing.assert_close(
            found.sum((1, 2, 3)), model(db)[[0, 1], target].detach(), rtol=0.02, atol=0
        )


def test_lrp_without_zennit_is_refused_in_one_line(tmp_path):
    (tmp_path / "zennit.py").write_text("raise ImportError")
    line = [sys.executable, "-P", BENCHMARKS / "lrp.py"]
    paths = os.pathsep.join([str(tmp_path), str(BENCHMARKS.parent)])
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=500, check=False)
    assert done.returncode == 2
    assert "needs zennit: pip install -c constraints.txt zennit torchvision" in done.stderr


def test_the_fit_is_the_exponent(benchmarks):
    import growth

    size = np.array([10.0, 20, 40, 80])
    points = pd.DataFrame(
        {"grows": "samples", "method": "lime", "size": size, "s/unit": 3 * size**0.5, "peak MB": [5, 6, 7, 8]}
    )
    assert growth.fits(points).iloc[0].tolist() == ["samples", "lime", pytest.approx(1.5), 5, 8]


def test_a_measurement_has_the_memory_settings_of_the_studys_steps(benchmarks, monkeypatch):
    import measuring

    for name, value in measuring.environment().items():
        monkeypatch.setenv(name, value)  # so that it is put back
    monkeypatch.delenv("GLIBC_TUNABLES")
    assert (
        measuring.in_fresh_process(os.getenv, "GLIBC_TUNABLES") == measuring.environment()["GLIBC_TUNABLES"]
    )


def test_what_all_runs_can_be_given_to_each(benchmarks, tmp_path):
    import importlib

    scripts = importlib.import_module("all").COMMANDS
    for script, *words in scripts:
        parse = importlib.import_module(script.removesuffix(".py")).parse
        assert parse([*words, "--threads", "1", "--results", str(tmp_path)]).results == tmp_path
    assert [script for script, *_ in scripts] == ["explain.py", "scores.py", "growth.py"]


def test_a_results_folder_that_is_not_there_is_said_at_once(tmp_path):
    done = run("all.py", "--results", tmp_path / "none")
    assert done.returncode == 2 and "no such folder; give the results folder of a run" in done.stderr
    assert not (tmp_path / "none").exists()


def test_the_report_shows_what_was_measured_where(tmp_path):
    study = SimpleNamespace(results=tmp_path)
    assert "None was run" in speed.speed(study).data
    folder = tmp_path / speed.FOLDER
    folder.mkdir()
    tables = {"explain": {"path": ["lime <fast>"], "s/clip": [1.23456]}, "growth": {"grows": ["clips"]}}
    for name, table in tables.items():
        pd.DataFrame(table).to_csv(folder / f"{name}.csv", index=False)
        (folder / f"{name}.json").write_text(json.dumps(ABOUT))
    part = speed.speed(study).data
    assert "lime &lt;fast&gt;" in part and "1.235" in part and "Quantus" not in part
    words = "2 &lt; 3 clips; A &amp; B, 2 cores, AVX2, 16 GiB, device cpu, 1 thread, torch 2.0, 2026-01-02"
    words += ", commit 012"
    assert part.count(words) == 2
    assert part.index("Speed, explain") < part.index("Speed, growth")
    build(tmp_path)
    assert (tmp_path / "report" / "benchmarks" / "explain.csv").is_file()


OWN = """
    import torch
    from torch import nn
    import audioxai_utils as ax

    def load():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        mel = ax.LogMel(sample_rate=8000, n_fft=256, hop_length=128, n_mels=16, offset=1e-5)
        return ax.AudioClassifier(net, ["low", "high", "other"], input=mel, head="sigmoid")
"""


@pytest.fixture
def own(tmp_path):
    """Words of methods.py for a small model and two clips, one of them in a folder."""
    (tmp_path / "own.py").write_text(textwrap.dedent(OWN))
    (tmp_path / "clips" / "in").mkdir(parents=True)
    for i, name in enumerate(("0.wav", "in/1.wav")):
        sound = np.random.default_rng(i).standard_normal(4000) * 0.1
        soundfile.write(tmp_path / "clips" / name, sound, 8000)
    words = [f"{tmp_path / 'own.py'}:load", tmp_path / "clips", "--keep", tmp_path / "parts"]
    return [*map(str, words), "--results", str(tmp_path), "--threads", "1"]


def test_every_method_is_tried_on_one_s_own_model_and_goes_on_where_it_stopped(own, tmp_path):
    methods = ("--methods", "saliency", "shap", "lmac", "lmac_td", "l2i", "occlusion")
    done = run("methods.py", *own, *methods)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "benchmarks" / "methods.csv", index_col="method")
    assert sorted(table.index) == sorted(methods[1:])
    works = table.loc[["saliency", "shap", "occlusion"]]
    assert (works["clips"] == 2).all() and works[["cpu s a clip", "FF_heard"]].notna().all(axis=None)
    assert works["refused"].isna().all() and set(works["mask"]) <= set(MASK_NAMES)
    assert table["refused"].str.contains("needs decoder=")[["lmac", "lmac_td", "l2i"]].all()
    kept = {str(path.relative_to(tmp_path / "parts")) for path in (tmp_path / "parts").rglob("*.parquet")}
    assert kept == {f"{method}/{name}.parquet" for method in works.index for name in ("0.wav", "in/1.wav")}
    again = run("methods.py", *own, *methods)
    assert "saliency 0.wav:" in done.stdout and "saliency" not in again.stdout.partition("AudioClassifier")[0]
    assert "lmac 0.wav:" in again.stdout  # a refusal is asked for again
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "benchmarks" / "methods.csv", index_col="method"), table
    )


def test_decoders_of_pictures_and_of_sounds_are_trained_for_one_s_own_model(benchmarks, own, tmp_path):
    import methods

    threads = torch.get_num_threads()
    methods.main([*own, "--epochs", "1", "--methods", "lmac", "lmac_td"])
    torch.set_num_threads(threads)
    table = pd.read_csv(tmp_path / "benchmarks" / "methods.csv", index_col="method")
    assert table["refused"].isna().all() and (table["clips"] == 2).all()
    assert table["FF_heard"].notna().all()
    assert all((tmp_path / "parts" / f"{method}.decoder").is_file() for method in ("lmac", "lmac_td"))


def test_a_network_that_no_decoder_can_read_is_refused_and_another_mistake_is_not(
    benchmarks, own, monkeypatch
):
    import methods

    arguments = methods.new_parser().parse_args([*own, "--epochs", "1"])
    arguments.background = arguments.clips
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3))
    front = LogMel(sample_rate=8000, n_fft=256, hop_length=128, n_mels=16)
    for classifier, words in (
        (AudioClassifier(flat, input=front), "returns maps"),
        (AudioClassifier(lambda db: db.mean((2, 3)), input=front), "needs a network's weights"),
        (AudioClassifier(torch.nn.Linear(4000, 3), sample_rate=8000), "needs a decoder of pictures"),
    ):
        options = methods.Options(classifier, arguments)
        assert words in options.refusal("lmac") and options.refusal("saliency") == ""
    classifier = methods.load_own(arguments.model)
    options = methods.Options(classifier, arguments)
    assert options.refusal("lmac") == options.refusal("lmac_td") == ""
    monkeypatch.setattr(options, "trained_on", lambda recipe: (classifier.model, options.waveforms()))
    with pytest.raises(RuntimeError, match="input to conv2d"):
        methods.explained(classifier, options, "lmac", "0.wav", arguments.clips / "0.wav")


def test_parts_of_another_run_are_not_taken(benchmarks, own, tmp_path, capsys):
    import methods

    first = ["--methods", "saliency"]
    methods.main([*own, *first])
    for words, differs in (
        (["--samples", "7"], "samples 200, not 7"),
        (["--protocol", "paper"], "protocol audited, not paper"),
        (["--background", str(tmp_path / "clips" / "in")], "background "),
    ):
        with pytest.raises(SystemExit) as end:
            methods.main([*own, *first, *words])
        said = capsys.readouterr().err
        assert end.value.code == 2 and f"its parts are of {differs}" in said and "give a new folder" in said
    (tmp_path / "own.py").write_text(textwrap.dedent(OWN).replace("manual_seed(0)", "manual_seed(1)"))
    with pytest.raises(SystemExit):
        methods.main([*own, *first])
    assert "its parts are of digest of the model" in capsys.readouterr().err
    (tmp_path / "parts" / "about.json").unlink()
    with pytest.raises(SystemExit):
        methods.main([*own, *first])
    assert "holds something, but no about.json" in capsys.readouterr().err
    methods.main([*own, *first, "--keep", str(tmp_path / "other")])


def test_sounds_are_those_that_a_folder_of_recordings_has(benchmarks, own, tmp_path, capsys):
    import methods

    (tmp_path / "clips" / "2.m4a").touch()
    assert list(methods.sounds(tmp_path / "clips")) == ["0.wav", "2.m4a", "in/1.wav"]
    for words in ([*own, "--background", str(tmp_path / "none")], [own[0], str(tmp_path / "none"), *own[2:]]):
        with pytest.raises(SystemExit) as end:
            methods.main(words)
        assert end.value.code == 2 and "none: no such folder" in capsys.readouterr().err
    assert not (tmp_path / "parts").exists()
