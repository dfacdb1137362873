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

from audioxai_utils import files
from audioxai_utils.run import graph, progress, records, workflow
from audioxai_utils.run.command_line import parse
from audioxai_utils.study import settings as settings_module
from audioxai_utils.study.settings import Settings
from audioxai_utils.study.sources import parameter_defaults

SMALL = ("--spectrogram", "mel_db", "--scenario", "clean,white", "--method", "lime", "--method", "saliency")
STEPS = {
    "01_data_and_noise",
    "02_fine_tuning-mel_db",
    "05_metrics_and_tables",
    "06_listening_gallery",
    "00_report",
    *(
        f"{notebook}-mel_db-{s}"
        for notebook in ("03_attributions", "04_mask_study")
        for s in ("clean", "white")
    ),
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
def study(finished, tmp_path, monkeypatch):
    """A copy of the finished results, to be changed; the repository is put back afterwards."""
    repository, results, _ = finished
    monkeypatch.setattr(graph, "NOTEBOOKS", repository / "notebooks")
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
    record = json.loads((results / "steps/03_attributions-mel_db-white.json").read_text())
    assert record["parameters"] == {"spectrogram_type": "mel_db", "noise_scenario": "white"}
    assert record["depends_on"]["conditions"] == [["mel_db", "white"]]
    assert record["depends_on"]["methods"] == ["saliency", "lime"] and "protocol" not in record["depends_on"]
    kept = Settings.read(results)
    assert (kept.protocol, kept.explained_by, kept.device) == (
        "both",
        ("saliency", "lime"),
        workflow.resolved_device("auto"),
    )
    assert kept.conditions == (("mel_db", "clean"), ("mel_db", "white"))
    lines = [line.split() for line in printed.splitlines()]
    ended = [words[1 : words.index("done")] for words in lines if "done" in words]
    assert {"-".join(words) for words in ended} == STEPS and ended[-1] == ["00_report"]
    assert {words[0] for words in ended[:2]} == {"01_data_and_noise", "02_fine_tuning"}  # side by side
    assert ["9/9", "00_report", "done", "in", "0.1", "s"] in lines
    assert "9 steps to do" in printed and "finished in" in printed


def test_what_most_waits_for_goes_first_and_what_waits_for_nothing_fills_the_gaps():
    notebooks = [*graph.MAIN, *graph.LONG, "07_audit"]
    ranks = [graph.Graph.priority(notebook) for notebook in (*notebooks, graph.ALONE[0])]
    assert ranks == sorted(set(ranks), reverse=True)
    assert {graph.Graph.priority(notebook) for notebook in graph.ALONE} == {0}


def test_the_latest_run_is_the_one_that_notebooks_open(finished):
    repository, results, _ = finished
    assert (repository / "results" / settings_module.LATEST).read_text() == f"{results}\n"


def test_a_second_run_does_nothing(study):
    repository, results = study
    before = {path: path.stat().st_mtime_ns for path in (results / "steps").iterdir()}
    done = toy_study.run(repository, results, *SMALL)
    assert done.returncode == 0 and "nothing to do" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (results / "steps").iterdir()}


def test_a_changed_parameter_reruns_what_depends_on_it(study):
    assert planned(*study, "--seed", "7") == STEPS - {"01_data_and_noise"}
    assert planned(*study, "--protocol", "paper") == {
        name for name in STEPS if name.startswith(("04", "05", "06", "00"))
    }
    assert planned(*study, "--clips", "3") == {name for name in STEPS if not name.startswith(("01", "02"))}
    assert planned(*study, "--cores", "1") == planned(*study, "--shards", "1") == set()


def test_a_plan_says_why(study):
    repository, results = study
    (repository / "audioxai_utils" / "used.py").write_text("value = 7\n")
    (results / "steps" / "01_data_and_noise.json").unlink()
    done = toy_study.run(repository, results, *SMALL, "--protocol", "paper", "--dry-run")
    why = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[:-1])
    assert (
        why["01_data_and_noise"] == "not done yet"
        and why["03_attributions-mel_db-clean"] == "changed: used.py"
    )
    assert why["04_mask_study-mel_db-clean"] == "changed: protocol"


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
    assert toy_study.run(repository, results, *SMALL).returncode == 0
    assert not list(results.rglob(f"{files.PARTIAL}*"))


def test_lost_and_damaged_results_are_remade(study):
    repository, results = study
    for folder in ("report", "attributions/mel_db/clean"):
        shutil.rmtree(results / folder)
    for path in ("scores/mel_db/white.parquet", "steps/05_metrics_and_tables.json"):
        (results / path).write_text("half")
    done = toy_study.run(repository, results, *SMALL)
    assert done.returncode == 0 and "6/6" in done.stdout and "finished in" in done.stdout, (
        done.stdout + done.stderr
    )
    assert (results / "report/index.html").is_file() and (
        results / "attributions/mel_db/clean/lime/a.npz"
    ).is_file()
    assert lost(results) == planned(repository, results) == set()


def test_a_run_without_its_report_never_says_finished(study):
    repository, results = study
    (repository / "audioxai_utils/run/notebook.py").write_text(
        toy_study.FAST_RUNNER.replace("report/index.html", "report/none")
    )
    shutil.rmtree(results)
    done = toy_study.run(repository, results, *SMALL)
    assert done.returncode == 1 and "finished" not in done.stdout and "did not finish" in done.stderr


def test_settings_of_snakemake_from_outside_change_nothing(study, tmp_path, monkeypatch):
    repository, results = study
    shutil.rmtree(results)
    for place in (
        tmp_path / "profile",
        results / "profiles" / "default",
        repository / "notebooks" / "profiles" / "default",
    ):
        place.mkdir(parents=True)
        (place / "config.yaml").write_text("until: [fine_tuning]\n")
    monkeypatch.setenv("SNAKEMAKE_PROFILE", str(tmp_path / "profile"))
    done = toy_study.run(repository, results, *SMALL)
    shutil.rmtree(repository / "notebooks" / "profiles")
    assert done.returncode == 0 and "9/9" in done.stdout, done.stdout + done.stderr


def test_braces_and_blanks_in_paths(finished, tmp_path):
    repository = tmp_path / "a 'c'" / "repository d"
    shutil.copytree(finished[0], repository)
    results = tmp_path / "a{b} {{c}} d"
    done = toy_study.run(repository, results, *SMALL, "--shards", "1")
    assert done.returncode == 0 and (results / "report/index.html").is_file(), done.stdout + done.stderr
    assert planned(repository, results) == set()


def test_an_added_option_is_one_field(finished, tmp_path):
    """It reaches the command line, settings.json, notebooks, what reruns, and the jobs of SLURM."""
    repository = tmp_path / "repository"
    shutil.copytree(finished[0], repository)
    path, results = repository / "audioxai_utils/study/settings.py", tmp_path / "results"
    source = path.read_text()
    field = '    flavour: str = option("plain", "how it tastes", since="05", choices=("plain", "salty"))\n'
    path.write_text(source.replace("    full_grid: bool", f"{field}    full_grid: bool"))
    assert path.read_text() != source
    told = toy_study.run(repository, results, "--help").stdout
    assert "--flavour NAME" in told and "how it tastes (default: plain)" in " ".join(told.split())
    done = toy_study.run(repository, results, "--flavour", "sour")
    assert (
        done.returncode == 2
        and done.stderr == "run_all.sh: --flavour must be one of plain, salty; got 'sour'\n"
    )
    assert toy_study.run(repository, results, *SMALL, "--flavour", "salty").returncode == 0
    assert json.loads((results / "settings.json").read_text())["flavour"] == "salty"
    code = "from audioxai_utils import open_study; print(open_study().settings.flavour)"
    line, env = toy_study.command(repository, results)
    env |= {"AUDIOXAI_RUN": str(results)}
    assert (
        subprocess.run(
            [line[0], "-P", "-c", code], env=env, capture_output=True, text=True, check=True
        ).stdout
        == "salty\n"
    )
    since_05 = {"05_metrics_and_tables", "06_listening_gallery", "00_report"}
    assert (
        planned(repository, results) == since_05
        and planned(repository, results, "--flavour", "salty") == set()
    )
    code = "import json, sys; from audioxai_utils.run import slurm; slurm.check = lambda profile: None\n"
    code += "from audioxai_utils.run import command_line, workflow; from pathlib import Path\n"
    code += "settings = command_line.parse(['--slurm', '--flavour', 'salty', '--results', sys.argv[1]]).settings\n"
    code += "path, graph = workflow.written(settings, Path(sys.argv[1]))\n"
    code += "command = workflow.snakemake_command(graph, Path(sys.argv[1]), path, [])\n"
    code += "assert command[command.index('--executor') + 1] == 'slurm' and command[command.index('--configfile') + 1] == str(path)\n"
    code += "print(json.loads(path.read_text())['flavour'])"
    jobs = subprocess.run(
        [line[0], "-P", "-c", code, tmp_path / "jobs"], env=env, capture_output=True, text=True, check=True
    )
    assert jobs.stdout == "salty\n"


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
    assert record["depends_on"]["conditions"] == [["mel_db", "clean"], ["mel_db", "white"]]
    assert planned(repository, results, *words) == set()
    toy_study.write_sound(folder / "room.wav", 300)  # not of this run
    assert planned(repository, results, *words) == set()
    toy_study.write_sound(folder / "white.wav", 300)
    white = {name for name in STEPS if "white" in name}
    assert white < planned(repository, results, *words)
    (results / "models" / "mel_db.pt").touch()  # what follows from a new model is another matter
    assert "03_attributions-mel_db-clean" in planned(repository, results, *words)


def test_replaced_weights_train_anew(study, tmp_path):
    repository, results = study
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"one")
    words = ("--profile", "paper", "--pretrained", "cnn14", str(weights))
    assert toy_study.run(repository, results, *SMALL, *words).returncode == 0
    record = json.loads((results / "steps/02_fine_tuning-mel_db.json").read_text())
    assert record["depends_on"]["weights"] == f"sha256:{hashlib.sha256(b'one').hexdigest()}"
    assert Settings.read(results).weights == str(weights)
    weights.write_bytes(b"one")  # the same content at another time
    assert planned(repository, results, *words) == set()
    weights.write_bytes(b"two")
    assert planned(repository, results, *words) == STEPS - {"01_data_and_noise"}
    configuration = json.loads((results / "settings.json").read_text())
    assert configuration["states"]["weights"] == f"sha256:{hashlib.sha256(b'one').hexdigest()}"


def test_answers_of_listeners_rerun_the_gallery_alone(study):
    repository, results = study
    (results / "listening").mkdir()
    assert planned(repository, results) == set()
    (results / "listening" / "p1.csv").write_text("answers")
    assert planned(repository, results) == {"06_listening_gallery", "00_report"}


def test_benchmarks_rerun_the_report_alone(study):
    repository, results = study
    (results / "benchmarks").mkdir()
    (results / "benchmarks" / "explain.csv").write_text("path\nlime")
    assert planned(repository, results) == {"00_report"}


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
    assert planned(repository, results) == {
        name for name in STEPS if name.startswith(("03", "04", "05", "06", "00"))
    }


def test_a_changed_notebook_reruns_and_a_new_one_joins(study):
    repository, results = study
    toy_study.write_notebook(repository / "notebooks/07_audit.ipynb", toy_study.COMMON, "1")
    toy_study.write_notebook(repository / "notebooks/10_own.ipynb", toy_study.COMMON, "1")
    toy_study.write_notebook(repository / "notebooks/06_listening_gallery.ipynb", toy_study.COMMON, "2")
    assert planned(repository, results) == {"06_listening_gallery", "07_audit", "10_own", "00_report"}


def test_a_failure_ends_the_run_with_its_error_while_siblings_finish(study):
    repository, results = study
    shutil.rmtree(results)
    (results / "fail").mkdir(parents=True)
    (results / "fail" / "03_attributions-mel_db-clean").touch()
    done = toy_study.run(repository, results, *SMALL)
    assert done.returncode == 1
    assert (results / "steps/04_mask_study-mel_db-white.json").is_file()
    assert not (results / "steps/04_mask_study-mel_db-clean.json").exists()
    *_, told, where = done.stderr.strip().splitlines()
    assert told.strip() == "03_attributions-mel_db-clean: ValueError: as asked"
    assert where.strip() == "notebooks/03_attributions-mel_db-clean.ipynb"
    (results / "fail" / "03_attributions-mel_db-clean").unlink()
    assert planned(repository, results) == {
        "03_attributions-mel_db-clean",
        "04_mask_study-mel_db-clean",
        "05_metrics_and_tables",
        "06_listening_gallery",
        "00_report",
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
    with files.locked(results):
        done = toy_study.run(repository, results, *SMALL)
    assert done.returncode == 2
    assert (
        done.stderr.count("\n") == 1 and "another run (process" in done.stderr and str(results) in done.stderr
    )
    with files.locked(results, wait=False):  # free again
        pass


def test_the_lock_is_free_after_a_kill(tmp_path):
    code = "import sys, time; from pathlib import Path; from audioxai_utils.files import locked\n"
    code += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    line, env = toy_study.command(toy_study.REPOSITORY, tmp_path)
    holder = subprocess.Popen([line[0], "-c", code, tmp_path], env=env, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BlockingIOError, match=f"process {holder.pid}"), files.locked(tmp_path, wait=False):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with files.locked(tmp_path, wait=False):
        pass


def test_threads_are_shared_out(tmp_path, monkeypatch):
    monkeypatch.setattr(graph.machine, "memory", lambda: 2**40)  # else what others use here decides
    asked = parse(["--full-grid", "--cores", "16", "--results", str(tmp_path)]).settings
    found = workflow.written(asked, tmp_path)[1]
    assert len(found.conditions) == 8
    assert [found.threads(n) for n in (1, 2, 3, 16, 32)] == [16, 8, 5, 1, 1]


def test_the_device_is_the_one_that_torch_takes(tmp_path):
    import torch

    assert workflow.resolved_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert workflow.resolved_device("cpu") == "cpu"
    kept = workflow.written(Settings(seed=7, results_dir=str(tmp_path)), tmp_path)[1].settings
    assert (kept.seed, kept.device) == (7, workflow.resolved_device("auto"))


def test_notebooks_have_no_option_of_their_own():
    for notebook in graph.NOTEBOOKS.glob("*.ipynb"):
        allowed = {
            "results_dir",
            *(
                {"02": ["spectrogram_type"], "03": graph.WILDCARDS[:2], "04": graph.WILDCARDS[:2]}.get(
                    notebook.stem[:2], ()
                )
            ),
        }
        assert set(parameter_defaults(notebook)) == allowed, notebook.name


def test_the_heartbeat_says_how_far_the_running_steps_are(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "HEARTBEAT", 0.5)
    script = "import time\nfrom audioxai_utils.run.progress import tell\ntell('03-lime', 'started')\n"
    script += (
        "for n in range(1, 16):\n    tell('03-lime', 'at', text=f'at lime: {n}/15')\n    time.sleep(0.1)\n"
    )
    script += "tell('03-lime', 'done', text='done in 1.5 s')\nprint('said')"
    stream = io.StringIO()
    (tmp_path / "events").mkdir()
    follows = progress.Progress(tmp_path / "events", tmp_path / "log", stream)
    code = follows.follow(
        [sys.executable, "-c", script], os.environ | {"PYTHONPATH": str(toy_study.REPOSITORY)}
    )
    lines = [line.split() for line in stream.getvalue().splitlines()]
    assert code == 0 and lines[0] == ["03", "lime", "started"] and lines[-1][1:4] == ["03", "lime", "done"]
    beats = [line for line in lines if line[:3] == ["03", "lime", "for"]]
    assert beats and all(line[5:7] == ["at", "lime:"] and line[7].endswith("/15") for line in beats)
    assert sum("at" in line for line in lines) == len(
        beats
    )  # kept for the heartbeat, not printed by themselves
    assert (tmp_path / "log").read_text() == "said\n"


def test_nothing_is_written_to_the_home():
    home = str(Path.home())
    env = workflow.environment()
    places = [
        env[name]
        for name in (
            "IPYTHONDIR",
            "JUPYTER_DATA_DIR",
            "JUPYTER_CONFIG_DIR",
            "MPLCONFIGDIR",
            "JUPYTER_RUNTIME_DIR",
            "NUMBA_CACHE_DIR",
            "XDG_CACHE_HOME",
        )
    ]
    venv = Path(workflow.sys.prefix)
    assert all(Path(place).is_relative_to(venv) or not place.startswith(home) for place in places)


def test_settings_of_python_and_matplotlib_from_outside_change_nothing(monkeypatch, tmp_path):
    """A backend that shows no figure, warnings as errors, a start-up file that ends a kernel, a user's style."""
    (tmp_path / "start.py").write_text("raise SystemExit(3)")
    hostile = {
        "MPLBACKEND": "agg",
        "MATPLOTLIBRC": str(tmp_path),
        "PYTHONWARNINGS": "error",
        "PYTHONSTARTUP": str(tmp_path / "start.py"),
        "PYTHONINSPECT": "1",
        "PYTHONOPTIMIZE": "2",
        "PYTHONHOME": "/nowhere",
        "PYTHONUSERBASE": str(tmp_path),
        "JUPYTER_PATH": str(tmp_path),
        "JUPYTER_CONFIG_PATH": str(tmp_path),
        "IPYTHON_DIR": str(tmp_path),
    }
    before = workflow.environment()
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PATH_OF_MINE", "kept")
    env = workflow.environment()
    assert not set(hostile) & set(env) and env["PATH_OF_MINE"] == "kept"
    left = {
        name: value for name, value in env.items() if name.startswith(("PYTHON", "JUPYTER", "IPYTHON", "MPL"))
    }
    assert left == {name: before[name] for name in left if name in before} | {"PYTHONDONTWRITEBYTECODE": "1"}


def test_a_step_keeps_the_memory_of_large_tensors_unless_the_user_says_otherwise(monkeypatch):
    code = "block = bytearray(1 << 26)\nprint(next(line for line in open('/proc/self/maps') if '[heap]' in line))"

    def heap():
        said = subprocess.run(
            [sys.executable, "-c", code], env=workflow.environment(), capture_output=True, text=True
        )
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
