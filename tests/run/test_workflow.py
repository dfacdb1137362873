"""The study's graph: what runs, what reruns, what a failure leaves, who holds the folder."""

from __future__ import annotations

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
from audioxai_utils.run import graph, progress, workflow
from audioxai_utils.run.command_line import parse
from audioxai_utils.study import settings as settings_module
from audioxai_utils.study.settings import Settings
from audioxai_utils.study.sources import parameter_defaults


def test_all_steps_run_in_order_with_their_parameters(finished):
    _, results, printed = finished
    assert {path.stem for path in (results / "steps").glob("*.json")} == toy_study.STEPS
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
    assert {"-".join(words) for words in ended} == toy_study.STEPS and ended[-1] == ["00_report"]
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
    done = toy_study.run(repository, results, *toy_study.SMALL)
    assert done.returncode == 0 and "nothing to do" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (results / "steps").iterdir()}


def test_a_changed_parameter_reruns_what_depends_on_it(study):
    assert toy_study.planned(*study, "--seed", "7") == toy_study.STEPS - {"01_data_and_noise"}
    assert toy_study.planned(*study, "--protocol", "paper") == {
        name for name in toy_study.STEPS if name.startswith(("04", "05", "06", "00"))
    }
    assert toy_study.planned(*study, "--clips", "3") == {
        name for name in toy_study.STEPS if not name.startswith(("01", "02"))
    }
    assert toy_study.planned(*study, "--cores", "1") == toy_study.planned(*study, "--shards", "1") == set()


def test_a_plan_says_why(study):
    repository, results = study
    (repository / "audioxai_utils" / "used.py").write_text("value = 7\n")
    (results / "steps" / "01_data_and_noise.json").unlink()
    done = toy_study.run(repository, results, *toy_study.SMALL, "--protocol", "paper", "--dry-run")
    why = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[:-1])
    assert (
        why["01_data_and_noise"] == "not done yet"
        and why["03_attributions-mel_db-clean"] == "changed: used.py"
    )
    assert why["04_mask_study-mel_db-clean"] == "changed: protocol"


def test_a_run_without_its_report_never_says_finished(study):
    repository, results = study
    (repository / "audioxai_utils/run/notebook.py").write_text(
        toy_study.FAST_RUNNER.replace("report/index.html", "report/none")
    )
    shutil.rmtree(results)
    done = toy_study.run(repository, results, *toy_study.SMALL)
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
    done = toy_study.run(repository, results, *toy_study.SMALL)
    shutil.rmtree(repository / "notebooks" / "profiles")
    assert done.returncode == 0 and "9/9" in done.stdout, done.stdout + done.stderr


def test_braces_and_blanks_in_paths(finished, tmp_path):
    repository = tmp_path / "a 'c'" / "repository d"
    shutil.copytree(finished[0], repository)
    results = tmp_path / "a{b} {{c}} d"
    done = toy_study.run(repository, results, *toy_study.SMALL, "--shards", "1")
    assert done.returncode == 0 and (results / "report/index.html").is_file(), done.stdout + done.stderr
    assert toy_study.planned(repository, results) == set()


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
    assert toy_study.run(repository, results, *toy_study.SMALL, "--flavour", "salty").returncode == 0
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
        toy_study.planned(repository, results) == since_05
        and toy_study.planned(repository, results, "--flavour", "salty") == set()
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


def test_a_failure_ends_the_run_with_its_error_while_siblings_finish(study):
    repository, results = study
    shutil.rmtree(results)
    (results / "fail").mkdir(parents=True)
    (results / "fail" / "03_attributions-mel_db-clean").touch()
    done = toy_study.run(repository, results, *toy_study.SMALL)
    assert done.returncode == 1
    assert (results / "steps/04_mask_study-mel_db-white.json").is_file()
    assert not (results / "steps/04_mask_study-mel_db-clean.json").exists()
    *_, told, where = done.stderr.strip().splitlines()
    assert told.strip() == "03_attributions-mel_db-clean: ValueError: as asked"
    assert where.strip() == "notebooks/03_attributions-mel_db-clean.ipynb"
    (results / "fail" / "03_attributions-mel_db-clean").unlink()
    assert toy_study.planned(repository, results) == {
        "03_attributions-mel_db-clean",
        "04_mask_study-mel_db-clean",
        "05_metrics_and_tables",
        "06_listening_gallery",
        "00_report",
    }


def test_a_broken_notebook_is_one_line(study):
    repository, results = study
    (repository / "notebooks/05_metrics_and_tables.ipynb").write_text("{}")
    done = toy_study.run(repository, results, *toy_study.SMALL)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "05_metrics_and_tables.ipynb must be a notebook" in done.stderr


def test_the_same_failure_is_told_once(study):
    repository, results = study
    shutil.rmtree(results)
    (results / "fail").mkdir(parents=True)
    for name in ("01_data_and_noise", "02_fine_tuning-mel_db"):
        (results / "fail" / name).touch()
    done = toy_study.run(repository, results, *toy_study.SMALL)
    assert done.returncode == 1 and done.stderr.count("ValueError: as asked") == 1
    assert "  02_fine_tuning-mel_db: the same" in done.stderr.splitlines()


def test_two_runs_do_not_share_a_folder(study):
    repository, results = study
    with files.locked(results):
        done = toy_study.run(repository, results, *toy_study.SMALL)
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
                {"02": ["spectrogram_type"], "03": graph.CONDITION, "04": graph.CONDITION}.get(
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
