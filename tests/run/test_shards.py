"""Shares of a condition's clips: together the whole, whichever clips are loaded with them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_study
import torch

from audioxai_utils.audio.noise import mix_stems
from audioxai_utils.numerics import one_thread
from audioxai_utils.run import command_line, graph, progress, shards, slurm, workflow
from audioxai_utils.study import attribute, clips, profiles, score
from audioxai_utils.study.study import Study

PAIR = ("mel_db", "white")


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Six test clips, the second unreadable, scored two at a time, by one method and protocol."""
    monkeypatch.setattr(score, "BLOCK", 2)
    monkeypatch.setitem(
        profiles.PROFILES, "smoke", dataclasses.replace(profiles.PROFILES["smoke"], n_clips=6)
    )
    made, load = tiny_study.make(tmp_path, takes="AB"), clips.load_waveforms
    unusable = clips.choose(made.dataset.split("test"), 6)["clip"][1]

    def load_waveforms(frame, *how):
        waveforms, problems = load(frame, *how)
        waveforms[(frame["clip"] == unusable).to_numpy(copy=True)] = float("nan")
        return waveforms, [*problems, *frame["clip"][frame["clip"] == unusable]]

    monkeypatch.setattr(clips, "load_waveforms", load_waveforms)
    return Study(dataclasses.replace(made.settings, methods=("saliency",), protocol="paper"))


def elsewhere(study: Study, folder: Path) -> Study:
    """The same study in another folder, with the same classifier."""
    other = Study(dataclasses.replace(study.settings, results_dir=str(folder)))
    other.save_classifier(
        study.classifier("mel_db").model, "mel_db", {"best_epoch": 1, "gradient_error": 1e-9}
    )
    return other


def whole(study: Study) -> tuple[pd.DataFrame, torch.Tensor]:
    """(scores, attributions) as the notebooks of a condition make them."""
    condition = study.condition(*PAIR)
    condition.explained("saliency")
    return condition.score_all().drop(columns="seconds"), condition.attributions("saliency")


@pytest.mark.parametrize("n", [2, 3, 7])
def test_shards_together_are_the_whole(study, n, tmp_path, monkeypatch):
    scores, maps = whole(study)
    assert scores["clip"].nunique() == len(maps) == 5

    other, made = elsewhere(study, tmp_path / "sharded"), []
    for i in range(n):
        shards.attribute(other.condition(*PAIR), (i, n))
        made.append(len(list((tmp_path / "sharded").rglob("*.npz"))))
    assert made[-1] == 5 and (n == 7 or made == sorted(set(made)))  # each did some, if there are enough
    for i in range(n):
        shards.score(other.condition(*PAIR), (i, n))
    monkeypatch.setattr(attribute, "attributed", None)  # merging computes nothing
    monkeypatch.setattr(score, "_scored", None)
    theirs, their_maps = whole(other)
    pd.testing.assert_frame_equal(theirs, scores, check_exact=True)
    assert torch.equal(their_maps, maps)


def test_a_block_is_scored_anew_when_what_it_follows_from_has_changed(study):
    scores, _ = whole(study)
    folder = study.results / "scores" / "blocks" / "mel_db" / "white"
    first, *others = sorted(folder.iterdir())
    before = {path: path.stat().st_mtime_ns for path in others}
    condition = study.condition(*PAIR)
    clip = condition.clips.frame["clip"][0]
    path = condition.attribution_folder("saliency") / f"{clip}.npz"
    record = dict(np.load(path))
    np.savez(path, **record | {"attribution": -record["attribution"]})
    changed, _ = whole(study)
    assert not first.exists() and len(list(folder.iterdir())) == 3
    assert {path: path.stat().st_mtime_ns for path in others} == before
    rows = (scores["clip"] == clip) & (scores["method"] == "saliency") & (scores["control"] == "")
    assert not np.allclose(changed.loc[rows, "FidIn"], scores.loc[rows, "FidIn"]) or not np.allclose(
        changed.loc[rows, "area"], scores.loc[rows, "area"]
    )
    pd.testing.assert_frame_equal(changed[scores["clip"] != clip], scores[scores["clip"] != clip])


def test_every_row_belongs_to_one_shard_and_blocks_stay_together():
    for n, count, block in ((400, 7, 8), (5, 3, 1), (3, 8, 2), (0, 2, 8)):
        parts = [clips.shard_rows(n, (i, count), block) for i in range(count)]
        assert sorted(np.concatenate(parts)) == list(range(n))
        assert max(map(len, parts)) - min(map(len, parts)) <= block
        owner = {row: i for i, part in enumerate(parts) for row in part}
        assert all(owner[row] == owner[row // block * block] for row in owner)
    with pytest.raises(ValueError, match=r"shard must be \(number from 0, count\)"):
        clips.shard_rows(5, (3, 3))


def test_a_shard_reads_its_own_clips_alone(study, monkeypatch):
    read, load = [], clips.load_waveforms

    def noted(frame, *how):
        read.append(list(frame["clip"]))
        return load(frame, *how)

    monkeypatch.setattr(clips, "load_waveforms", noted)
    every = study.condition(*PAIR).clips
    own = study.condition(*PAIR).shard((1, 3)).clips
    assert len(read[0]) == 6 and read[1] == [read[0][1], read[0][4]]
    assert list(every.rows) == [0, 2, 3, 4, 5] and list(own.rows) == [4] and len(own.problems) == 1
    assert torch.equal(own.waveforms[0], every.waveforms[3])
    blocks = {number: list(block.rows) for number, block in every.blocks(2)}
    assert blocks == {0: [0], 1: [2, 3], 2: [4, 5]}


def test_a_mixture_does_not_depend_on_threads_in_one_thread():
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


@pytest.fixture
def graph_of(tmp_path):
    """The graph of a command line."""

    def of(*words: str) -> graph.Graph:
        return workflow.written(command_line.parse([*words, "--results", str(tmp_path)]).settings, tmp_path)[
            1
        ]

    return of


def test_the_graph_has_the_shards_of_each_condition_and_no_more_without(graph_of):
    alone, shared = graph_of("--cores", "1"), graph_of("--shards", "3", "--cores", "1")
    assert alone.shards_of("04_mask_study")(PAIR) == []
    assert shared.shards_of("03_attributions")(PAIR) == [
        f"steps/03_attributions-mel_db-white-{i}of3.json" for i in (1, 2, 3)
    ]
    more = set(shared.steps()) - set(alone.steps())
    assert len(more) == 3 * 5 * 2 and all(name.endswith("of3") for name in more)
    step = graph.Step("03_attributions", *PAIR)
    assert (
        alone.depends_on(step)
        == shared.depends_on(step)
        == shared.depends_on(dataclasses.replace(step, shard="1of3"))
    )
    assert [shared.threads(n) for n in (0, 1)] == [1, 1]


def test_the_number_of_clips_reaches_the_steps_that_explain_and_their_shards(graph_of, tmp_path):
    found = graph_of("--clips", "5", "--shards", "2")
    for step in found.steps().values():
        assert found.depends_on(step).get("n_clips") == (None if step.notebook[:2] in ("01", "02") else 5)
    study = Study(command_line.parse(["--clips", "5", "--results", str(tmp_path)]).settings)
    assert (
        study.settings.sizes.n_clips == json.loads((tmp_path / "settings.json").read_text())["n_clips"] == 5
    )


def test_a_gpu_is_asked_of_slurm_for_each_job(graph_of, monkeypatch):
    monkeypatch.setattr(slurm, "check", lambda profile: None)
    monkeypatch.setattr(graph.machine, "gpus", list)  # where the run is started
    for device, share in (("cuda", 1), ("cpu", 0)):
        found = graph_of("--slurm", "--device", device, "--cores", "6")
        assert found.gpu_share() == share and [found.threads(n) for n in (1, 99)] == [6, 6]
    here = graph_of("--device", "cuda")
    assert here.gpu_share() == 0 and here.job_cores == 0


def test_options_for_slurm_are_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        slurm.shutil, "which", lambda program: f"/usr/bin/{program}" if program != "scancel" else None
    )
    assert command_line.main(["--slurm"]) == command_line.BAD_OPTIONS
    assert "--slurm needs SLURM's scancel, and found none" in capsys.readouterr().err
    monkeypatch.setattr(slurm.shutil, "which", lambda program: f"/usr/bin/{program}")
    assert command_line.main(["--slurm", str(tmp_path)]) == command_line.BAD_OPTIONS
    assert (
        f"--slurm must be a folder with Snakemake's config.yaml; {tmp_path} is none"
        in capsys.readouterr().err
    )
    (tmp_path / "config.yaml").write_text("jobs: 1\n")
    asked = command_line.parse(["--slurm", str(tmp_path), "--device", "cpu"]).settings
    assert (asked.slurm, slurm.job_cores(asked), asked.shards) == (str(tmp_path), slurm.CORES, 1)
    own = command_line.parse(["--slurm", "--cores", "9"]).settings
    assert (own.slurm, slurm.job_cores(own)) == ("", 9) and command_line.parse([]).settings.slurm is None
    assert command_line.main(["--shards", "0"]) == command_line.BAD_OPTIONS
    assert "--shards must be a whole number from 1 to 10000; got '0'" in capsys.readouterr().err
    path, found = workflow.written(asked, tmp_path / "results")
    command = workflow.snakemake_command(found, tmp_path, path, [])
    assert command[command.index("--workflow-profile") + 1] == str(tmp_path) and "--cores" not in command
    assert (Path(command[command.index("--profile") + 1]) / "config.yaml").is_file()


# What jobs elsewhere say


def test_events_are_read_once_and_whole(tmp_path):
    events, path = progress.Events(tmp_path), tmp_path / "03.jsonl"
    assert list(events.new()) == []
    path.write_text('{"is": "started"}\n{"is": "a')
    assert [event["is"] for event in events.new()] == ["started"]
    with open(path, "a", encoding="utf-8") as file:
        file.write('t"}\n{"is": "done"}\n')
    assert [event["is"] for event in events.new()] == ["at", "done"]
    assert list(events.new()) == []


def test_a_step_that_is_tried_again_counts_once(tmp_path):
    import io

    told = progress.Progress(tmp_path, tmp_path / "log", io.StringIO())
    told.take({"step": "snakemake", "is": "plan", "total": 1})
    for what in ("started", "failed", "started", "done"):
        told.take({"step": "a", "is": what, "text": f"{what} after 1 s"})
    assert (
        "1/1  a  done" in told.stream.getvalue().splitlines()[-1] and not told.running and not told.failures
    )


def test_jobs_are_those_of_the_folder(tmp_path, monkeypatch):
    assert (
        slurm.job_prefix(tmp_path)
        == slurm.job_prefix(Path(str(tmp_path)))
        != slurm.job_prefix(tmp_path / "a")
    )
    prefix, calls = slurm.job_prefix(tmp_path), []

    def answer(command, **options):
        calls.append(command[0])
        text = f"7 {prefix}_1\n8 another\n" if calls.count("squeue") < 2 else "8 another\n"
        return slurm.subprocess.CompletedProcess(command, 0, text, "")

    monkeypatch.setattr(slurm.subprocess, "run", answer)
    assert slurm.cancel(prefix) == ["7"] and calls == ["squeue", "scancel", "squeue"]
    assert slurm.cancel(prefix) == []
    monkeypatch.setattr(
        slurm.subprocess, "run", lambda command, **options: (_ for _ in ()).throw(OSError("gone"))
    )
    with (
        pytest.raises(
            BlockingIOError, match="an earlier run on .* may still work on it: squeue does not say"
        ),
        slurm.jobs_end_with(tmp_path),
    ):
        pass
