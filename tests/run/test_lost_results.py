"""What is lost, damaged or half made of a run is missed, and remade."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import toy_study

from audioxai_utils import files
from audioxai_utils.run import graph, records


def lost(results: Path) -> set[str]:
    found = records.lost(results, graph.Graph(json.loads((results / "settings.json").read_text())))
    return {Path(record).stem for record in found}


@pytest.mark.parametrize(
    ("path", "of"),
    [
        ("scores/mel_db/white.parquet", {"04_mask_study-mel_db-white"}),
        ("report", {"00_report"}),
        ("manifest.json", {"00_report"}),
        ("models/mel_db.pt", {"02_fine_tuning-mel_db"}),
        ("attributions/mel_db/clean", {"03_attributions-mel_db-clean"}),
        ("attributions", {"03_attributions-mel_db-clean", "03_attributions-mel_db-white"}),
        ("figures", {"05_metrics_and_tables"}),
        ("gallery", {"06_listening_gallery"}),
        ("notebooks/05_metrics_and_tables.ipynb", {"05_metrics_and_tables"}),
    ],
)
def test_every_kind_of_lost_result_is_missed(study, path, of):
    _, results = study
    assert lost(results) == set()
    shutil.rmtree(results / path) if (results / path).is_dir() else (results / path).unlink()
    assert of <= lost(results) <= of | {"02_fine_tuning-mel_db"}  # which may have run beside 01


@pytest.mark.parametrize(("later", "of"), [(False, {"01", "02"}), (True, {"01"})])
def test_a_table_made_while_two_steps_ran_is_missed_by_both(study, later, of):
    """Whose it is, no file says. 02 has started before the table was written, or after."""
    _, results = study
    written = (results / "tables/data.csv").stat().st_mtime
    for step, started in (
        (graph.Step("01_data_and_noise"), written - 1),
        (graph.Step("02_fine_tuning", "mel_db"), written + (1 if later else -1)),
    ):
        records.write_step(results, step, started=started, cpu_seconds=0.1, peak_memory=1, threads=1)
    assert lost(results) == set()
    (results / "tables/data.csv").unlink()
    assert {name[:2] for name in lost(results)} == of


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize(
    "path",
    [
        "scores/mel_db/white.parquet",
        "models/mel_db.pt",
        "attributions/mel_db/clean/lime/a.npz",
        "tables/data.csv",
        "figures/means.png",
        "gallery/index.html",
        "report/index.html",
    ],
)
def test_every_kind_of_damaged_result_is_missed(study, path, half):
    """Half a file, and a bit of it; the bit also where the file's time says nothing and a run has failed."""
    _, results = study
    whole, about = (results / path).read_bytes(), (results / path).stat()
    damaged = whole[: len(whole) // 2] if half else bytes([whole[0] ^ 1]) + whole[1:]
    (results / path).write_bytes(damaged)
    os.utime(results / path, (time.time() + 9, time.time() + 9))
    assert lost(results)
    os.utime(results / path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert bool(lost(results)) == half
    (results / "steps" / "01_data_and_noise.json").unlink()
    assert lost(results) or path == "tables/data.csv"
    (results / path).write_bytes(whole)  # the same at another time
    os.utime(results / path, (time.time() + 9, time.time() + 9))
    assert lost(results) == set()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"seconds": 1', '{"step": 1}', "\0" * 9])
def test_a_damaged_record_is_missed(study, text):
    _, results = study
    (results / "steps/05_metrics_and_tables.json").write_text(text)
    assert lost(results) == {"05_metrics_and_tables"}


def test_a_table_of_two_steps_is_whole_as_either_left_it(study):
    _, results = study
    path, table = results / "steps/02_fine_tuning-mel_db.json", results / "tables/data.csv"
    record = json.loads(path.read_text())
    record["files"]["tables/data.csv"] = "7 0000000000000000"  # as it was while 01 had not ended
    del record["digest"]
    files.write_json(path, record | {"digest": records._digest(record)})
    assert lost(results) == set()
    table.write_text("half")
    assert lost(results) == {"01_data_and_noise", "02_fine_tuning-mel_db"}


def test_what_a_killed_run_left_half_made_is_swept(study):
    repository, results = study
    for folder in (results, results / "tables", results / "attributions/mel_db/clean/lime"):
        (folder / f"{files.PARTIAL}x.npz").write_text("half")
    assert toy_study.run(repository, results, *toy_study.SMALL).returncode == 0
    assert not list(results.rglob(f"{files.PARTIAL}*"))


def test_lost_and_damaged_results_are_remade(study):
    repository, results = study
    for folder in ("report", "attributions/mel_db/clean"):
        shutil.rmtree(results / folder)
    for path in ("scores/mel_db/white.parquet", "steps/05_metrics_and_tables.json"):
        (results / path).write_text("half")
    done = toy_study.run(repository, results, *toy_study.SMALL)
    assert done.returncode == 0 and "6/6" in done.stdout and "finished in" in done.stdout, (
        done.stdout + done.stderr
    )
    assert (results / "report/index.html").is_file() and (
        results / "attributions/mel_db/clean/lime/a.npz"
    ).is_file()
    assert lost(results) == toy_study.planned(repository, results) == set()
