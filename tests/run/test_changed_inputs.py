"""A change of what a run reads reruns what depends on it, and nothing else."""

from __future__ import annotations

import hashlib
import json

import toy_study

from audioxai_utils.run import graph
from audioxai_utils.study.settings import Settings


def test_another_choice_of_scenarios_trains_nothing_anew_for_other_spectrograms(study):
    repository, results = study
    done = toy_study.run(repository, results, "--scenario", "clean", "--method", "lime", "--dry-run")
    names = {line.split()[0] for line in done.stdout.splitlines()[:-1]}
    assert {"02_fine_tuning-stft_db", "04_mask_study-stft_db-clean"} <= names
    assert (
        "03_attributions-mel_db-clean" in names and "03_attributions-mel_db-white" not in names
    )  # no longer asked for


def test_changed_sounds_rerun_what_reads_them(study):
    repository, results = study
    csv = repository / "data" / "generated" / "meta" / "esc50.csv"
    csv.write_text("another dataset")
    assert toy_study.planned(repository, results) == toy_study.STEPS


def test_a_changed_noise_reruns_its_conditions(study, tmp_path):
    repository, results = study
    folder = tmp_path / "noises"
    folder.mkdir()
    for name, frequency in (("white", 100), ("room", 200)):
        toy_study.write_sound(folder / f"{name}.wav", frequency)
    words = ("--noise-root", str(folder))
    done = toy_study.run(repository, results, *toy_study.SMALL, *words)
    assert done.returncode == 0, done.stderr
    record = json.loads((results / "steps/02_fine_tuning-mel_db.json").read_text())
    assert record["depends_on"]["conditions"] == [["mel_db", "clean"], ["mel_db", "white"]]
    assert toy_study.planned(repository, results, *words) == set()
    toy_study.write_sound(folder / "room.wav", 300)  # not of this run
    assert toy_study.planned(repository, results, *words) == set()
    toy_study.write_sound(folder / "white.wav", 300)
    white = {name for name in toy_study.STEPS if "white" in name}
    assert white < toy_study.planned(repository, results, *words)
    (results / "models" / "mel_db.pt").touch()  # what follows from a new model is another matter
    assert "03_attributions-mel_db-clean" in toy_study.planned(repository, results, *words)


def test_replaced_weights_train_anew(study, tmp_path):
    repository, results = study
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"one")
    words = ("--profile", "paper", "--pretrained", "cnn14", str(weights))
    assert toy_study.run(repository, results, *toy_study.SMALL, *words).returncode == 0
    record = json.loads((results / "steps/02_fine_tuning-mel_db.json").read_text())
    assert record["depends_on"]["weights"] == f"sha256:{hashlib.sha256(b'one').hexdigest()}"
    assert Settings.read(results).weights == str(weights)
    weights.write_bytes(b"one")  # the same content at another time
    assert toy_study.planned(repository, results, *words) == set()
    weights.write_bytes(b"two")
    assert toy_study.planned(repository, results, *words) == toy_study.STEPS - {"01_data_and_noise"}
    configuration = json.loads((results / "settings.json").read_text())
    assert configuration["states"]["weights"] == f"sha256:{hashlib.sha256(b'one').hexdigest()}"


def test_answers_of_listeners_rerun_the_gallery_alone(study):
    repository, results = study
    (results / "listening").mkdir()
    assert toy_study.planned(repository, results) == set()
    (results / "listening" / "p1.csv").write_text("answers")
    assert toy_study.planned(repository, results) == {"06_listening_gallery", "00_report"}


def test_benchmarks_rerun_the_report_alone(study):
    repository, results = study
    (results / "benchmarks").mkdir()
    (results / "benchmarks" / "explain.csv").write_text("path\nlime")
    assert toy_study.planned(repository, results) == {"00_report"}


def test_an_audio_file_is_a_condition_of_its_own(study, tmp_path):
    repository, results = study
    sound = tmp_path / "Café 1.wav"
    toy_study.write_sound(sound, 440)
    words = ("--scenario", f"clean,{sound}", "--spectrogram", "mel_db", "--method", "lime")
    done = toy_study.run(repository, results, *words)
    assert done.returncode == 0, done.stderr
    kept = Settings.read(results)
    assert kept.scenarios == ("clean", str(sound)) and kept.noise_files == {"cafe_1": str(sound)}
    record = json.loads((results / "steps/03_attributions-mel_db-cafe_1.json").read_text())
    assert record["depends_on"]["noises"] == {"cafe_1": hashlib.sha256(sound.read_bytes()).hexdigest()[:16]}
    tables = json.loads((results / "steps/05_metrics_and_tables.json").read_text())["depends_on"]
    assert tables["conditions"] == [["mel_db", "clean"], ["mel_db", "cafe_1"]]
    steps = graph.Graph(json.loads((results / "settings.json").read_text())).steps()
    assert {path.stem for path in (results / "steps").iterdir()} >= set(steps) - set(further())
    assert [name for name in steps if name[:2] in ("03", "04")] == [
        "03_attributions-mel_db-clean",
        "03_attributions-mel_db-cafe_1",
        "04_mask_study-mel_db-clean",
        "04_mask_study-mel_db-cafe_1",
    ]
    assert toy_study.run(repository, results, *words).stdout.count("nothing to do") == 1


def further() -> list[str]:
    return [path.stem for path in graph.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb") if path.stem[:2] > "06"]


def test_a_changed_module_reruns_the_notebooks_that_import_it(study):
    repository, results = study
    (repository / "audioxai_utils" / "unused.py").write_text("value = 3\n")  # reruns nothing
    (repository / "audioxai_utils" / "used.py").write_text("value = 3\n")
    assert toy_study.planned(repository, results) == {
        name for name in toy_study.STEPS if name.startswith(("03", "04", "05", "06", "00"))
    }


def test_a_changed_notebook_reruns_and_a_new_one_joins(study):
    repository, results = study
    toy_study.write_notebook(repository / "notebooks/07_audit.ipynb", toy_study.COMMON, "1")
    toy_study.write_notebook(repository / "notebooks/10_own.ipynb", toy_study.COMMON, "1")
    toy_study.write_notebook(repository / "notebooks/06_listening_gallery.ipynb", toy_study.COMMON, "2")
    assert toy_study.planned(repository, results) == {
        "06_listening_gallery",
        "07_audit",
        "10_own",
        "00_report",
    }
