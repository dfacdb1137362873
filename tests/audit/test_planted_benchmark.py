"""The benchmark of planted causes as notebook 12 reads it: published, or measured by the run."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import pandas as pd
import planted_bench
import pytest
import torch

from audioxai_utils import published
from audioxai_utils.audio.spectrograms import get_spectrogram
from audioxai_utils.audit.planted import benchmark, example, prepare
from audioxai_utils.audit.planted.bench import Bench
from audioxai_utils.audit.planted.cases import Case
from audioxai_utils.audit.planted.judge import Effort, joined, judge_to
from audioxai_utils.run import machine
from audioxai_utils.run.graph import PLANTED, Graph
from audioxai_utils.study.settings import Settings

FEW = Effort(8, 2, 1, 1, ("saliency", "lime"))
TAGGER = {"dataset": "esc50", "pretrained": ("mn04", "mn04.pt")}


@pytest.fixture
def study(tmp_path):
    """What the benchmark asks of a study."""
    root, weights = tmp_path / "esc50", tmp_path / "mn04.pt"
    settings = SimpleNamespace(weights=str(weights), measures_planted=True)
    told = []
    return SimpleNamespace(
        dataset=SimpleNamespace(root=root),
        settings=settings,
        device="cpu",
        told=told,
        progress=lambda *given: told.append(given),
    )


@pytest.fixture
def one_case(monkeypatch):
    """Cases are those of a small bench; the number of times that they were made."""
    made = []

    def make_cases(esc50, weights, folder, **chosen):
        made.append(folder)
        planted_bench.bench(planted_bench.sounds()).write(folder)

    monkeypatch.setattr(prepare, "make_cases", make_cases)
    return made


def test_what_a_run_measures_is_read_as_what_is_published_and_gone_on_with(study, one_case, tmp_path, capfd):
    found = benchmark.measured(study, tmp_path, FEW)
    assert study.told == [("planted causes judged", 1, 1)] and not capfd.readouterr().out
    assert set(found.cases) == set(published.planted_cases())
    assert set(found.points) == set(published.planted_points())
    assert set(found.scores) == set(published.planted_scores())
    assert found.cases["case"].tolist() == ["cnn14_tone"] and found.cases["counts"].all()
    assert set(FEW.methods) < set(found.points["method"]) and found.points["clip"].nunique() == 2
    assert "1 cases, on CPU" in found.source
    written = (tmp_path / "parts" / "cnn14_tone.json").stat().st_mtime_ns
    again = benchmark.measured(study, tmp_path, FEW)
    pd.testing.assert_frame_equal(found.points, again.points)
    pd.testing.assert_frame_equal(again.points, joined(tmp_path / "parts", "points"))
    assert (tmp_path / "parts" / "cnn14_tone.json").stat().st_mtime_ns == written and len(one_case) == 2


def test_methods_that_failed_are_named(tmp_path):
    for name, failed in (("a", {}), ("b", {"lime": "ValueError: no"}), ("c", {"lime": "ValueError: no"})):
        (tmp_path / f"{name}.json").write_text(json.dumps({"seconds": {}, "failed": failed}))
    assert benchmark.source_of(["a"], tmp_path, "cuda") == "This run measured them: 1 cases, on CUDA."
    assert "Errors were met by lime (in 2 cases)" in benchmark.source_of(["a", "b", "c"], tmp_path, "cpu")


def test_what_was_judged_with_another_effort_is_refused(tmp_path):
    (case,) = (bench := planted_bench.bench(planted_bench.sounds())).cases
    few = Effort(8, 1, 0, 0, ("saliency",))
    assert (
        judge_to(bench, case, tmp_path, few)[1] and "there already" in judge_to(bench, case, tmp_path, few)[0]
    )
    with pytest.raises(ValueError, match="judged with another effort"):
        judge_to(bench, case, tmp_path, replace(few, n_samples=9))


def test_cases_of_other_sounds_are_not_gone_on_with(tmp_path, monkeypatch):
    planted_bench.bench(planted_bench.sounds()).write(tmp_path)
    other = planted_bench.bench(planted_bench.sounds())
    monkeypatch.setattr(prepare, "read_material", lambda *given: SimpleNamespace(bench=other))
    prepare.make_cases("esc50", "mn04.pt", tmp_path, ("cnn14",), ("tone",))  # there, and the same sounds
    other.tests["cnn14"].samples[0, 0] += 1
    with pytest.raises(ValueError, match="cases of other sounds"):
        prepare.make_cases("esc50", "mn04.pt", tmp_path, ("cnn14",), ("hum",))


def test_a_case_that_was_not_listed_is_written_over(tmp_path):
    bench = planted_bench.bench(planted_bench.sounds())
    tmp_path.joinpath("cnn14_tone.pt").write_bytes(b"half of a file")
    bench.write(tmp_path)
    state = Bench.read(tmp_path).parts["cnn14_tone"]["model"]
    assert all(torch.equal(value, bench.parts["cnn14_tone"]["model"][name]) for name, value in state.items())
    before = tmp_path.joinpath("cnn14_tone.pt").stat().st_mtime_ns
    bench.write(tmp_path)
    assert tmp_path.joinpath("cnn14_tone.pt").stat().st_mtime_ns == before


def test_a_case_that_cannot_be_judged_is_named(study, one_case, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark.command, "judge_cases", lambda *given, **more: 1)
    with pytest.raises(RuntimeError, match="1 of 1 cases could not be judged: cnn14_tone"):
        benchmark.measured(study, tmp_path, FEW)


def test_other_runs_show_what_is_published():
    found = benchmark.tables(SimpleNamespace(settings=Settings()))
    pd.testing.assert_frame_equal(found.points, published.planted_points())
    pd.testing.assert_frame_equal(found.scores, published.planted_scores())
    pd.testing.assert_frame_equal(found.cases, published.planted_cases())


def test_only_a_plant_of_a_classifier_that_is_not_there_is_made():
    cases = [Case("a", "mn04", "tone", False, 0.0), Case("b", "cnn14", "hum", False, 0.0)]
    left = prepare.jobs_left(cases, ("mn04", "cnn14"), ("tone", "hum"))
    assert left == [("mn04", "hum"), ("cnn14", "tone")]


@pytest.mark.parametrize(
    "given, measures",
    [
        ({"profile": "paper", **TAGGER}, True),
        ({"profile": "medium", **TAGGER}, False),
        ({"profile": "paper", "dataset": "esc10", "pretrained": TAGGER["pretrained"]}, False),
        ({"profile": "paper", "dataset": "esc50", "pretrained": ("cnn14", "cnn14.pt")}, False),
        ({}, False),
    ],
)
def test_the_paper_profile_measures_where_it_can_and_gets_a_gpu_and_cores_for_it(
    given, measures, monkeypatch
):
    monkeypatch.setattr(machine, "memory", lambda: 1e12)
    settings = Settings(**given)
    states = dict.fromkeys(("data", "weights", "model", "answers", "benchmarks"), "") | {"noises": {}}
    graph = Graph({**asdict(settings), "states": states}, cores=16)
    assert settings.measures_planted == measures == graph.wants_gpu(PLANTED)
    assert not graph.wants_gpu("14_other_sounds") and graph.wants_gpu("03_attributions")
    assert (graph.whole_threads(PLANTED, 16) > graph.whole_threads("14_other_sounds", 16)) == measures


def test_the_example_is_trained_once_and_read_as_it_was(tmp_path, monkeypatch):
    small = replace(example.TRAINING, epochs=1)
    made = example.generated_case("tone", -6.0, n_train=1, profile=small)
    monkeypatch.setattr(example, "generated_case", lambda plant, level_db: made)
    assert example.stored_case(folder=tmp_path) is made
    monkeypatch.setattr(example, "generated_case", None)  # it is not made again
    again = example.stored_case(folder=tmp_path)
    (case,) = again.cases
    assert str(again.cases) == str(made.cases) and again.sounds_equal(made)
    db = get_spectrogram("mel_db").decibels(again.tests["cnn14"].waveforms[:2])
    assert torch.equal(*(bench.classifier(case).model(db) for bench in (made, again)))
