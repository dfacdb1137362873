"""Shares of a condition's clips: together the whole, whichever clips are loaded with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_study
import torch

from audioxai_utils import constants
from audioxai_utils.run import command_line, graph, progress, shards, slurm, workflow
from audioxai_utils.study import pipeline, study
from audioxai_utils.audio.noise import mix_stems
from audioxai_utils.numerics import one_thread

CONDITION = ("mel_db", "white")
METHODS = ["saliency"]
PROTOCOLS = ["paper"]


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Six test clips, the second unreadable, scored two at a time."""
    monkeypatch.setattr(pipeline, "SCORE_BLOCK", 2)
    monkeypatch.setitem(constants.PROFILES, "smoke", dataclasses.replace(constants.PROFILES["smoke"], n_clips=6))
    made, load = tiny_study.make(tmp_path, takes="AB"), study.load_waveforms
    unusable = study.choose(made.data.split("test"), 6)["clip"][1]

    def load_waveforms(frame, sample_rate, dtype):
        waveforms, problems = load(frame, sample_rate, dtype)
        waveforms[(frame["clip"] == unusable).to_numpy(copy=True)] = float("nan")
        return waveforms, [*problems, *frame["clip"][frame["clip"] == unusable]]

    monkeypatch.setattr(study, "load_waveforms", load_waveforms)
    return made


def values_of(settings: study.Settings) -> dict:
    """Parameters as a job gets them."""
    condition = dict(zip(("spectrogram_type", "noise_scenario"), CONDITION))
    return dataclasses.asdict(settings) | condition | {"methods": " ".join(METHODS), "protocol": PROTOCOLS[0]}


def whole(settings: study.Settings) -> tuple[pd.DataFrame, list[torch.Tensor], list[bool]]:
    """(scores, attributions, which clips had to be computed) as the notebooks of a condition make them."""
    classifier, clips = study.load_classifier(settings, "mel_db"), study.explained_clips(settings, 32000, CONDITION[1])
    rows = [row for method in METHODS for row in pipeline.attribute(settings, classifier, clips, CONDITION, method)]
    scores = pd.concat(pipeline.score(settings, classifier, clips, CONDITION, METHODS, PROTOCOLS))
    maps = [pipeline.load_attributions(settings, clips, CONDITION, method)[0] for method in METHODS]
    return scores.drop(columns="seconds"), maps, [row["computed"] for row in rows]


@pytest.mark.parametrize("n", [2, 3, 7])
def test_shards_together_are_the_whole(settings, n, tmp_path, monkeypatch):
    scores, maps, computed = whole(settings)
    assert computed == [True] * 5 and scores["clip"].nunique() == 5

    other = dataclasses.replace(settings, results_dir=str(tmp_path / "sharded"))
    study.save_classifier(other, study.load_classifier(settings, "mel_db").model, "mel_db",
                          {"best_epoch": 1, "gradient_error": 1e-9})
    made = []
    for i in range(n):
        for method in METHODS:
            shards.attribute(values_of(other) | {"method": method}, (i, n))
        made.append(len(list((tmp_path / "sharded").rglob("*.npz"))))
    assert made[-1] == 5 and (n == 7 or made == sorted(set(made)))  # each did some, if there are enough
    for i in range(n):
        shards.score(values_of(other), (i, n))
    monkeypatch.setattr(pipeline, "_attributed", None)  # merging computes nothing
    monkeypatch.setattr(pipeline, "_score_block", None)
    theirs, their_maps, computed = whole(other)
    assert not any(computed)
    pd.testing.assert_frame_equal(theirs, scores, check_exact=True)
    assert all(torch.equal(*pair) for pair in zip(their_maps, maps))


def test_a_block_is_scored_anew_when_what_it_follows_from_has_changed(settings):
    scores = whole(settings)[0]
    folder = settings.results / "scores" / "blocks" / "mel_db" / "white"
    first, *others = sorted(folder.iterdir())
    before = {path: path.stat().st_mtime_ns for path in others}
    clip = study.explained_clips(settings, 32000, CONDITION[1]).frame["clip"][0]
    path = pipeline.attribution_folder(settings, *CONDITION, "saliency") / f"{clip}.npz"
    record = dict(np.load(path))
    np.savez(path, **record | {"attribution": -record["attribution"]})
    changed = whole(settings)[0]
    assert not first.exists() and len(list(folder.iterdir())) == 3
    assert {path: path.stat().st_mtime_ns for path in others} == before
    rows = (scores["clip"] == clip) & (scores["method"] == "saliency") & (scores["control"] == "")
    assert not np.allclose(changed.loc[rows, "FidIn"], scores.loc[rows, "FidIn"]) or not np.allclose(
        changed.loc[rows, "area"], scores.loc[rows, "area"]
    )
    pd.testing.assert_frame_equal(changed[scores["clip"] != clip], scores[scores["clip"] != clip])


def test_every_row_belongs_to_one_shard_and_blocks_stay_together():
    for n, count, block in ((400, 7, 8), (5, 3, 1), (3, 8, 2), (0, 2, 8)):
        parts = [study.shard_places(n, (i, count), block) for i in range(count)]
        assert sorted(np.concatenate(parts)) == list(range(n))
        assert max(map(len, parts)) - min(map(len, parts)) <= block
        owner = {row: i for i, part in enumerate(parts) for row in part}
        assert all(owner[row] == owner[row // block * block] for row in owner)
    with pytest.raises(ValueError, match=r"shard must be \(number from 0, count\)"):
        study.shard_places(5, (3, 3))


def test_a_shard_reads_its_own_clips_alone(settings, monkeypatch):
    read = []
    load = study.load_waveforms
    def noted(frame, sample_rate, dtype):
        read.append(list(frame["clip"]))
        return load(frame, sample_rate, dtype)

    monkeypatch.setattr(study, "load_waveforms", noted)
    every = study.explained_clips(settings, 32000, CONDITION[1])
    own = study.explained_clips(settings, 32000, CONDITION[1], (1, 3))
    assert len(read[0]) == 6 and read[1] == [read[0][1], read[0][4]]
    assert list(every.places) == [0, 2, 3, 4, 5] and list(own.places) == [4] and len(own.problems) == 1
    assert torch.equal(own.waveforms[0], every.waveforms[3])
    blocks = {number: list(block.places) for number, block in every.blocks(2)}
    assert blocks == {0: [0], 1: [2, 3], 2: [4, 5]}


def test_a_mixture_does_not_hang_on_threads_in_one_thread():
    generator = torch.Generator().manual_seed(0)
    clips, noise = (torch.randn(shape, generator=generator) for shape in ((3, 160000), (160000,)))
    threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 2, 4):
            torch.set_num_threads(n)
            with one_thread():
                found += [mix_stems(clips[:1], noise)[0][0], mix_stems(clips, noise)[0][0]]
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found)


@pytest.mark.parametrize("text", ["0of2", "3of2", "2", "of", "-1of2", "1of2of3"])
def test_what_is_no_shard_is_refused(text):
    assert shards.shard_of("2of8") == (1, 8)
    with pytest.raises(ValueError, match="shard must be like 2of8"):
        shards.shard_of(text)


# The graph


def test_the_graph_has_the_shards_of_each_condition_and_no_more_without():
    alone, shared = (graph.Study(workflow.settings_of(command_line.parse(words))) for words in ([], ["--shards", "3"]))
    assert alone.merged("04_mask_study", spectrogram_type="mel_db", noise_scenario="white") == []
    assert shared.merged("03_attributions", spectrogram_type="mel_db", noise_scenario="white", method="lime") == [
        f"steps/03_attributions-mel_db-white-lime-{i}of3.json" for i in (1, 2, 3)
    ]
    more = set(shared.steps()) - set(alone.steps())
    assert len(more) == 3 * 5 * (4 + 1) and all(name.endswith("of3") for name in more)
    words = [one.arguments("03_attributions", shard="1of3", method="lime") for one in (alone, shared)]
    assert words[0] == words[1] == alone.arguments("03_attributions", method="lime")
    assert [shared.threads(n) for n in (0, 1)] == [1, 1]


def test_the_number_of_clips_reaches_the_notebooks_that_explain_and_the_shards(monkeypatch):
    few, plain = (graph.Study(workflow.settings_of(command_line.parse(words))) for words in (["--clips", "5"], []))
    for path in graph.NOTEBOOKS.glob("*.ipynb"):
        explains = path.stem[:2] in ("03", "04", "06", "07", "08", "10", "11")
        assert ("-p n_clips 5" in few.arguments(path.stem)) == explains and "n_clips" not in plain.arguments(path.stem)
    monkeypatch.setattr("audioxai_utils.study.study.load_classifier", lambda *_: None)
    values = {name: "" for name in graph.PARAMETERS} | {"profile": "smoke", "dataset": "generated", "seed": 1, "device": "cpu"}
    settings, _, _ = shards._condition(values | {"results_dir": "", "spectrogram_type": "mel_db", "noise_scenario": "clean", "n_clips": 5})
    assert settings.n_clips == 5


def test_steps_that_use_no_gpu_are_given_the_cpu():
    study_ = graph.Study(workflow.settings_of(command_line.parse(["--device", "cuda"])))
    for path in graph.NOTEBOOKS.glob("*.ipynb"):
        device = "cpu" if path.stem[:2] in ("01", "05", "09") else "cuda"
        assert f"-p device {device}" in study_.arguments(path.stem)


def test_a_gpu_is_asked_of_slurm_for_each_job(monkeypatch):
    monkeypatch.setattr(slurm, "check", lambda profile: None)
    monkeypatch.setattr(graph, "n_gpus", lambda: 0)  # where the run is started
    for device, share in (("cuda", 1), ("cpu", 0)):
        options = command_line.parse(["--slurm", "--device", device, "--cores", "6"])
        study_ = graph.Study(workflow.settings_of(options))
        assert study_.gpu_share() == share and [study_.threads(n) for n in (1, 99)] == [6, 6]
    here = graph.Study(workflow.settings_of(command_line.parse(["--device", "cuda"])))
    assert here.gpu_share() == 0 and here.slurm_cores == 0


def test_options_for_slurm_are_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(slurm.shutil, "which", lambda program: f"/usr/bin/{program}" if program != "scancel" else None)
    assert command_line.main(["--slurm"]) == command_line.BAD_OPTIONS
    assert "--slurm needs SLURM's scancel, and found none" in capsys.readouterr().err
    monkeypatch.setattr(slurm.shutil, "which", lambda program: f"/usr/bin/{program}")
    assert command_line.main(["--slurm", str(tmp_path)]) == command_line.BAD_OPTIONS
    assert f"--slurm must be a folder with Snakemake's config.yaml; {tmp_path} is none" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("jobs: 1\n")
    options = command_line.parse(["--slurm", str(tmp_path)])
    assert (options.slurm, options.cores, options.shards) == (str(tmp_path), slurm.CORES, 1)
    assert command_line.parse(["--slurm", "--cores", "9"]).slurm == "" and command_line.parse([]).slurm is None
    assert command_line.main(["--shards", "0"]) == command_line.BAD_OPTIONS
    assert "--shards must be a whole number from 1 to 10000; got '0'" in capsys.readouterr().err
    command = workflow.snakemake_command(options, tmp_path, tmp_path / "config.json")
    assert command[command.index("--workflow-profile") + 1] == str(tmp_path) and "--cores" not in command
    assert (Path(command[command.index("--profile") + 1]) / "config.yaml").is_file()


# What jobs elsewhere say


def test_lines_of_growing_logs_are_told_once_and_whole(tmp_path):
    logs, log = progress._GrowingLogs(tmp_path), tmp_path / "rule" / "1.log"
    log.parent.mkdir()
    assert list(logs.new_lines()) == []
    log.write_text("[Sat Nov 21 10:00:00 2026]\nrule x:\n[03 lime] started\n[03 lime] at li")
    assert list(logs.new_lines()) == ["[03 lime] started\n"]
    with open(log, "a", encoding="utf-8") as file:
        file.write("me: 1/2\n[03 lime] FAILED after 1 s: ValueError: no\n")
    assert list(logs.new_lines()) == ["[03 lime] at lime: 1/2\n", "[03 lime] FAILED after 1 s: ValueError: no\n"]
    assert list(logs.new_lines()) == []


def test_a_step_that_is_tried_again_counts_once(tmp_path):
    import io

    told = progress.Progress(tmp_path / "log", io.StringIO())
    told.plan(1)
    for line in ("[a] started", "[a] FAILED after 1 s: E", "[a] started", "[a] done in 1 s"):
        told.step_line(line)
    assert "1/1  a  done" in told.stream.getvalue().splitlines()[-1] and not told.running


def test_jobs_are_those_of_the_folder(tmp_path, monkeypatch):
    assert slurm.job_prefix(tmp_path) == slurm.job_prefix(Path(str(tmp_path))) != slurm.job_prefix(tmp_path / "a")
    prefix, calls = slurm.job_prefix(tmp_path), []

    def answer(command, **options):
        calls.append(command[0])
        text = f"7 {prefix}_1\n8 another\n" if calls.count("squeue") < 2 else "8 another\n"
        return slurm.subprocess.CompletedProcess(command, 0, text, "")

    monkeypatch.setattr(slurm.subprocess, "run", answer)
    assert slurm.cancel(prefix) == ["7"] and calls == ["squeue", "scancel", "squeue"]
    assert slurm.cancel(prefix) == []
    monkeypatch.setattr(slurm.subprocess, "run", lambda command, **options: (_ for _ in ()).throw(OSError("gone")))
    with pytest.raises(BlockingIOError, match="an earlier run on .* may still work on it: squeue does not say"):
        with slurm.jobs_end_with(tmp_path):
            pass
