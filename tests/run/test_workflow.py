"""The study's graph: what runs, what reruns, what a failure leaves, who holds the folder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_study

from audioxai_utils import constants
from audioxai_utils.run import graph, progress, workflow
from audioxai_utils.run.command_line import parse
from audioxai_utils.study.sources import parameter_defaults

SMALL = ("--spectrogram", "mel_db", "--scenario", "clean,white", "--method", "lime", "--method", "saliency")
STEPS = {
    "01_data_and_noise", "02_fine_tuning-mel_db", "05_metrics_and_tables", "06_listening_gallery", "report",
    *(f"03_attributions-mel_db-{s}-{m}" for s in ("clean", "white") for m in ("lime", "saliency")),
    *(f"04_mask_study-mel_db-{s}" for s in ("clean", "white")),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A toy study that has run once: (repository, results, what it printed)."""
    repository = toy_study.make(tmp_path_factory.mktemp("graph") / "repository", fast=True)
    results = repository.parent / "results"
    done = toy_study.run(repository, results, *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    return repository, results, done.stdout


@pytest.fixture
def study(finished, tmp_path):
    """A copy of the finished results, to be changed; the repository is put back afterwards."""
    repository, results, _ = finished
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    copy = tmp_path / "results"
    shutil.copytree(results, copy, copy_function=shutil.copy2)
    yield repository, copy
    for path in repository.rglob("*.ipynb"):
        if path not in before:
            path.unlink()
    for path, content in before.items():
        if path.read_bytes() != content:
            path.write_bytes(content)


def planned(repository: Path, results: Path, *words: str) -> set[str]:
    done = toy_study.run(repository, results, *SMALL, "--dry-run", *words)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert f"{len(lines) - 1} steps to do" in lines[-1]
    return {line.split()[0] for line in lines[:-1]}


def test_all_steps_run_in_order_with_their_parameters(finished):
    _, results, printed = finished
    assert {path.stem for path in (results / "steps").glob("*.json")} == STEPS
    record = json.loads((results / "steps/03_attributions-mel_db-white-lime.json").read_text())
    assert record["parameters"] == {
        "profile": "quick", "dataset": "generated", "seed": "42", "device": workflow.resolved_device(""),
        "spectrogram_type": "mel_db", "noise_scenario": "white", "method": "lime",
    }
    tables = json.loads((results / "steps/05_metrics_and_tables.json").read_text())["parameters"]
    assert (tables["protocol"], tables["methods"], tables["conditions"]) == (
        "both", "saliency lime", "mel_db/clean mel_db/white",
    )
    lines = [line.split() for line in printed.splitlines()]
    ended = [words[1] for words in lines if len(words) > 2 and words[2] == "done"]
    assert set(ended) == STEPS and ended[-1] == "report"
    assert set(ended[:2]) == {"01_data_and_noise", "02_fine_tuning-mel_db"}  # side by side
    assert ["11/11", "report", "done", "in", "0.1", "s"] in lines
    assert "11 steps to do" in printed and "finished in" in printed


def test_a_second_run_does_nothing(study):
    repository, results = study
    before = {path: path.stat().st_mtime_ns for path in (results / "steps").iterdir()}
    done = toy_study.run(repository, results, *SMALL)
    assert done.returncode == 0 and "nothing to do" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (results / "steps").iterdir()}


def test_a_changed_parameter_reruns_what_depends_on_it(study):
    assert planned(*study, "--seed", "7") == STEPS
    assert planned(*study, "--protocol", "paper") == {
        name for name in STEPS if name.startswith(("04", "05", "06", "report"))
    }


def test_another_choice_of_scenarios_trains_nothing_anew_for_other_spectrograms(study):
    repository, results = study
    done = toy_study.run(repository, results, "--scenario", "clean", "--method", "lime", "--dry-run")
    names = {line.split()[0] for line in done.stdout.splitlines()[:-1]}
    assert {"02_fine_tuning-stft_db", "04_mask_study-stft_db-clean"} <= names
    assert "03_attributions-mel_db-clean-saliency" not in names  # no longer asked for


def test_changed_sounds_rerun_what_reads_them(study):
    repository, results = study
    csv = repository / "data" / "generated" / "meta" / "esc50.csv"
    csv.write_text("another dataset")
    assert planned(repository, results) == STEPS


def test_a_changed_noise_reruns_its_conditions(study, tmp_path):
    repository, results = study
    folder = tmp_path / "noises"
    folder.mkdir()
    for name, frequency in (("white", 100), ("room", 200)):
        toy_study.write_sound(folder / f"{name}.wav", frequency)
    words = ("--noise-root", str(folder))
    done = toy_study.run(repository, results, *SMALL, *words)
    assert done.returncode == 0, done.stderr
    record = json.loads((results / "steps/02_fine_tuning-mel_db.json").read_text())
    assert record["parameters"]["conditions"] == "mel_db/clean mel_db/white"
    assert planned(repository, results, *words) == set()
    toy_study.write_sound(folder / "room.wav", 300)  # not of this run
    assert planned(repository, results, *words) == set()
    toy_study.write_sound(folder / "white.wav", 300)
    white = {name for name in STEPS if "white" in name}
    assert white < planned(repository, results, *words)
    (results / "models" / "mel_db.pt").touch()  # what follows from a new model is another matter
    assert "03_attributions-mel_db-clean-lime" in planned(repository, results, *words)


def test_replaced_weights_train_anew(study, tmp_path):
    repository, results = study
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"one")
    words = ("--profile", "paper", "--audioset-weights", str(weights))
    assert toy_study.run(repository, results, *SMALL, *words).returncode == 0
    record = json.loads((results / "steps/02_fine_tuning-mel_db.json").read_text())
    assert record["parameters"]["audioset_weights"] == str(weights)
    weights.write_bytes(b"one")  # the same content at another time
    assert planned(repository, results, *words) == set()
    weights.write_bytes(b"two")
    assert planned(repository, results, *words) == STEPS - {"01_data_and_noise"}
    configuration = json.loads((results / "config.json").read_text())
    assert configuration["states"]["audioset_weights"] == f"md5:{hashlib.md5(b'one').hexdigest()}"


def test_answers_of_listeners_rerun_the_gallery_alone(study):
    repository, results = study
    (results / "listening").mkdir()
    assert planned(repository, results) == set()
    (results / "listening" / "p1.csv").write_text("answers")
    assert planned(repository, results) == {"06_listening_gallery", "report"}


def test_benchmarks_rerun_the_report_alone(study):
    repository, results = study
    (results / "benchmarks").mkdir()
    (results / "benchmarks" / "explain.csv").write_text("path\nlime")
    assert planned(repository, results) == {"report"}


def test_an_audio_file_is_a_condition_of_its_own(study, tmp_path):
    repository, results = study
    sound = tmp_path / "Café 1.wav"
    toy_study.write_sound(sound, 440)
    words = ("--scenario", f"clean,{sound}", "--spectrogram", "mel_db", "--method", "lime")
    done = toy_study.run(repository, results, *words)
    assert done.returncode == 0, done.stderr
    record = json.loads((results / "steps/03_attributions-mel_db-cafe_1-lime.json").read_text())
    assert record["parameters"]["noise_scenario"] == str(sound)  # the notebook gets the path
    tables = json.loads((results / "steps/05_metrics_and_tables.json").read_text())["parameters"]
    assert tables["conditions"] == "mel_db/clean mel_db/cafe_1"
    assert json.loads((results / "config.json").read_text())["noise_files"] == {"cafe_1": str(sound)}
    assert graph.study_of(results).steps() == [
        "01_data_and_noise", "02_fine_tuning-mel_db", "03_attributions-mel_db-clean-lime",
        "03_attributions-mel_db-cafe_1-lime", "04_mask_study-mel_db-clean", "04_mask_study-mel_db-cafe_1",
        "05_metrics_and_tables", "06_listening_gallery", *graph.study_of(results).further(), "report",
    ]
    assert toy_study.run(repository, results, *words).stdout.count("nothing to do") == 1


def test_a_changed_module_reruns_the_notebooks_that_import_it(study):
    repository, results = study
    (repository / "audioxai_utils" / "unused.py").write_text("value = 3\n")  # reruns nothing
    (repository / "audioxai_utils" / "used.py").write_text("value = 3\n")
    assert planned(repository, results) == {
        name for name in STEPS if name.startswith(("03", "04", "05", "06", "report"))
    }


def test_a_changed_notebook_reruns_and_a_new_one_joins(study):
    repository, results = study
    toy_study.write_notebook(repository / "notebooks/07_audit.ipynb", toy_study.COMMON, "1")
    toy_study.write_notebook(repository / "notebooks/10_own.ipynb", toy_study.COMMON, "1")
    toy_study.write_notebook(repository / "notebooks/06_listening_gallery.ipynb", toy_study.COMMON, "2")
    assert planned(repository, results) == {"06_listening_gallery", "07_audit", "10_own", "report"}


def test_a_failure_ends_the_run_with_its_error_while_siblings_finish(study):
    repository, results = study
    shutil.rmtree(results)
    (results / "fail").mkdir(parents=True)
    (results / "fail" / "03_attributions-mel_db-clean-lime").touch()
    done = toy_study.run(repository, results, *SMALL)
    assert done.returncode == 1
    assert (results / "steps/04_mask_study-mel_db-white.json").is_file()
    assert not (results / "steps/04_mask_study-mel_db-clean.json").exists()
    *_, told, where = done.stderr.strip().splitlines()
    assert told.strip() == "03_attributions-mel_db-clean-lime: ValueError: as asked"
    assert where.strip() == "notebooks/03_attributions-mel_db-clean-lime.ipynb"
    (results / "fail" / "03_attributions-mel_db-clean-lime").unlink()
    assert planned(repository, results) == {
        "03_attributions-mel_db-clean-lime", "04_mask_study-mel_db-clean", "05_metrics_and_tables",
        "06_listening_gallery", "report",
    }


def test_a_broken_notebook_is_one_line(study):
    repository, results = study
    (repository / "notebooks/05_metrics_and_tables.ipynb").write_text("{}")
    done = toy_study.run(repository, results, *SMALL)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "05_metrics_and_tables.ipynb must be a notebook" in done.stderr


def test_the_same_failure_is_told_once(study):
    repository, results = study
    shutil.rmtree(results)
    (results / "fail").mkdir(parents=True)
    for name in ("01_data_and_noise", "02_fine_tuning-mel_db"):
        (results / "fail" / name).touch()
    done = toy_study.run(repository, results, *SMALL)
    assert done.returncode == 1 and done.stderr.count("ValueError: as asked") == 1
    assert "  02_fine_tuning-mel_db: the same" in done.stderr.splitlines()


def test_two_runs_do_not_share_a_folder(study):
    repository, results = study
    with workflow.locked(results):
        done = toy_study.run(repository, results, *SMALL)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "another run (process" in done.stderr and str(results) in done.stderr
    with workflow.locked(results):  # free again
        pass


def test_the_lock_is_free_after_a_kill(tmp_path):
    code = "import sys, time; from pathlib import Path; from audioxai_utils.run.workflow import locked\n"
    code += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    line, env = toy_study.command(toy_study.REPOSITORY, tmp_path)
    holder = subprocess.Popen([line[0], "-c", code, tmp_path], env=env, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BlockingIOError, match=f"process {holder.pid}"), workflow.locked(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with workflow.locked(tmp_path):
        pass


def test_threads_are_shared_out():
    settings = workflow.settings_of(parse(["--full-grid"]))
    study = graph.Study(settings, cores=16)
    assert len(study.conditions) == 8
    assert [study.threads(n) for n in (1, 2, 3, 16, 32)] == [16, 8, 5, 1, 1]


def test_the_device_is_the_one_that_torch_takes():
    import torch

    assert workflow.resolved_device("") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert workflow.resolved_device("cpu") == "cpu"
    settings = workflow.settings_of(parse(["--seed", "7"]))
    assert (settings["seed"], settings["device"]) == ("7", workflow.resolved_device(""))


def test_notebooks_have_the_seed_of_the_command_line():
    for notebook in graph.NOTEBOOKS.glob("*.ipynb"):
        assert parameter_defaults(notebook)["seed"] == constants.SEED, notebook.name


def test_the_heartbeat_says_how_far_the_running_steps_are(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "HEARTBEAT", 0.5)
    script = "import time\nfor n in range(1, 16):\n    print(f'[03 lime] at lime: {n}/15', flush=True)\n    time.sleep(0.1)"
    script = f"print('[03 lime] started')\n{script}\nprint('[03 lime] done in 1.5 s')"
    stream = io.StringIO()
    code = progress.Progress(tmp_path / "log", stream).follow([sys.executable, "-c", script], dict(os.environ))
    lines = [line.split() for line in stream.getvalue().splitlines()]
    assert code == 0 and lines[0] == ["03", "lime", "started"] and lines[-1][1:4] == ["03", "lime", "done"]
    beats = [line for line in lines if line[:3] == ["03", "lime", "for"]]
    assert beats and all(line[5] == "lime:" and line[6].endswith("/15") for line in beats)
    assert sum("at" in line for line in lines) == 0  # kept for the heartbeat, not printed by themselves
    assert (tmp_path / "log").read_text().count("] at lime:") == 15


def test_nothing_is_written_to_the_home():
    home = str(Path.home())
    env = workflow.environment()
    places = [env[name] for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "MPLCONFIGDIR",
                                     "JUPYTER_RUNTIME_DIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME")]
    venv = Path(workflow.sys.prefix)
    assert all(Path(place).is_relative_to(venv) or not place.startswith(home) for place in places)


def test_a_step_keeps_the_memory_of_large_tensors_unless_the_user_says_otherwise(monkeypatch):
    code = "block = bytearray(1 << 26)\nprint(next(line for line in open('/proc/self/maps') if '[heap]' in line))"

    def heap():
        said = subprocess.run([sys.executable, "-c", code], env=workflow.environment(), capture_output=True, text=True)
        first, last = said.stdout.split()[0].split("-")
        return int(last, 16) - int(first, 16)

    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert heap() > 1 << 26  # taken from the heap, which is kept, and not mapped for this block alone
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.mmap_max=65536")
    assert heap() < 1 << 26


def test_a_bound_command_ends_with_its_parent():
    code = "import subprocess, time; from audioxai_utils.run.watch import bound\n"
    code += "print(subprocess.Popen(bound(['sleep', '60'])).pid, flush=True); time.sleep(60)"
    line, env = toy_study.command(toy_study.REPOSITORY, Path("."))
    parent = subprocess.Popen([line[0], "-c", code], env=env, stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    time.sleep(0.5)
    assert toy_study.alive(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert toy_study.wait_for(lambda: not toy_study.alive(child), 5)
