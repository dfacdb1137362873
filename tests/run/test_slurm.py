"""The graph on a real SLURM of one machine: shards equal the whole, lost jobs are retried, none is left
behind.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pipeline_study
import pytest
import toy_study

from audioxai_utils.run import machine, slurm, workflow

SCRIPT = Path(__file__).with_name("slurm_cluster.sh")
CONFIGURATION = Path("/etc/slurm/slurm.conf")
PROFILE = """\
slurm-status-command: squeue
slurm-no-account: true
slurm-init-seconds-before-status-checks: 2
latency-wait: 10
default-resources:
  mem_mb: 1500
  runtime: 30
"""
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
MISSING = [name for name in PROGRAMS if not shutil.which(name, path="/usr/sbin:/usr/bin")]
pytestmark = [
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        bool(MISSING), reason=f"no {', '.join(MISSING)}; on Debian: apt-get install slurm-wlm munge"
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a SLURM cluster"),
    pytest.mark.skipif(
        CONFIGURATION.exists() and "tests/slurm_cluster.sh" not in CONFIGURATION.read_text(),
        reason=f"{CONFIGURATION} is another cluster's",
    ),
]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Started as by a user on whose path no daemon is."""
    subprocess.run([SCRIPT, "start"], check=True, timeout=120, env=os.environ | {"PATH": "/usr/bin:/bin"})
    yield
    subprocess.run([SCRIPT, "stop"], check=True, timeout=120)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(repository, options of a run on SLURM, its folder); 02 says what variables reached its job."""
    folder = tmp_path_factory.mktemp("slurm")
    repository, words = pipeline_study.make(folder)
    (folder / "profile").mkdir()
    (folder / "profile" / "config.yaml").write_text(PROFILE)
    path = repository / "notebooks" / "01_data_and_noise.ipynb"
    source = "import json, os\nfrom pathlib import Path\n"
    source += "Path(results_dir, 'environment.json').write_text(json.dumps(dict(os.environ)))"
    toy_study.write_notebook(path, toy_study.COMMON, source)
    return repository, (*words, "--slurm", str(folder / "profile"), "--cores", "1"), folder


def jobs(state: str = "RUNNING") -> dict[str, str]:
    """Comment (rule and wildcards) of each job in a state, by its id."""
    done = subprocess.run(
        ["squeue", "-h", "-t", state, "-o", "%i %k"], capture_output=True, text=True, check=True
    )
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())


def processes(text: str, repository: Path | None = None) -> list[int]:
    """Living processes with this in their command line; of one repository alone, where it is given."""
    found, package = [], b"" if repository is None else f"\0PYTHONPATH={repository}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            variables = b"\0" + (entry / "environ").read_bytes()
        except OSError:
            continue
        if text in words and package in variables and toy_study.alive(int(entry.name)):
            found.append(int(entry.name))
    return found


def start(repository: Path, results: Path, words: tuple[str, ...]) -> subprocess.Popen:
    line, env = toy_study.command(repository, results, *words)
    return subprocess.Popen(
        line, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def of_rule(rule: str) -> list[str]:
    return [number for number, comment in jobs().items() if comment.startswith(f"rule_{rule}_wildcards")]


def test_shards_on_slurm_equal_the_whole_here_though_jobs_are_killed(study):
    repository, words, folder = study
    local = tuple(word for word in words if word not in ("--slurm", str(folder / "profile")))
    whole = toy_study.run(repository, folder / "whole", *local)
    assert whole.returncode == 0, whole.stdout + whole.stderr

    run = start(repository, folder / "results", (*words, "--shards", "2"))
    try:
        assert toy_study.wait_for(lambda: of_rule("attributions_shard"), 240), jobs()
        subprocess.run(["scancel", of_rule("attributions_shard")[0]], check=True)
        shards = lambda: processes("-m audioxai_utils.run.shards 04_mask_study", repository)
        assert toy_study.wait_for(shards, 400), jobs()
        for pid in shards():
            os.kill(pid, signal.SIGKILL)
        printed, _ = run.communicate(timeout=600)
    finally:
        run.kill()
    assert run.returncode == 0, printed
    pipeline_study.assert_same_numbers(folder / "results", folder / "whole")
    (log,) = (folder / "results" / "logs").glob("run-*.log")
    said = log.read_text()
    assert said.count("SLURM status is: 'CANCELLED'") == 1 and said.count("SLURM status is: 'FAILED'") >= 1
    assert said.count("Trying to restart job") >= 2
    assert "11/11  00_report  done in" in printed and "04_mask_study mel_db white 2of2  done in" in printed
    assert not jobs("PENDING,RUNNING,COMPLETING")


def test_the_environment_of_the_run_reaches_its_jobs(study):
    folder = study[2]
    seen = json.loads((folder / "results" / "environment.json").read_text())
    names = (
        "PYTHONHASHSEED",
        "IPYTHONDIR",
        "JUPYTER_RUNTIME_DIR",
        "MPLCONFIGDIR",
        "NUMBA_CACHE_DIR",
        "XDG_CACHE_HOME",
    )
    ours = workflow.environment()
    assert {name: seen.get(name) for name in names} == {name: ours[name] for name in names}
    assert seen["PYTHONPATH"].split(os.pathsep)[0] == str(study[0]) and "SLURM_JOB_ID" in seen
    assert ours["PATH"].split(os.pathsep)[0] in seen["PATH"].split(os.pathsep)
    assert seen["OMP_NUM_THREADS"] == "1"


@pytest.mark.skipif(bool(machine.gpus()), reason="there is a GPU, which this cluster knows by name alone")
def test_each_computing_job_asks_for_one_gpu(study, tmp_path):
    """The cluster has one by name; without CUDA the job then fails, which is told as any failure is."""
    repository, words, _ = study
    profile = tmp_path / "profile"
    profile.mkdir()
    (profile / "config.yaml").write_text(f"{PROFILE}retries: 0\n")
    words = [
        {"cpu": "cuda", words[words.index("--slurm") + 1]: str(profile)}.get(word, word) for word in words
    ]
    done = toy_study.run(repository, tmp_path / "results", *words)
    assert done.returncode == 1
    command = ["squeue", "-h", "-t", "all", "-O", "Name:90,Comment:90,tres-per-job:20"]
    about = subprocess.run(command, capture_output=True, text=True, check=True)
    prefix = slurm.job_prefix(tmp_path / "results")
    lines = [line.split() for line in about.stdout.splitlines() if line.startswith(prefix)]
    assert {rule: gpus for _, rule, gpus in lines} == {
        "rule_data_and_noise": "N/A",
        "rule_fine_tuning_wildcards_mel_db": "gres:gpu:1",
    }
    assert "02_fine_tuning-mel_db: " in done.stderr and "finds no CUDA" in done.stderr


def test_no_job_outlives_its_run_or_meets_the_next(study, tmp_path):
    repository, words, _ = study
    results = tmp_path / "results"
    results.mkdir()
    (results / "slow").touch()
    prefix = slurm.job_prefix(results)
    steps = lambda: processes(f"{repository}/notebooks/03_attributions.ipynb")

    first = start(repository, results, words)
    assert toy_study.wait_for(steps, 240), first.communicate()
    first.kill()
    first.communicate()
    left = slurm.jobs(prefix)
    assert left  # nobody could cancel them

    second = start(repository, results, words)
    try:
        assert f"left behind: SLURM jobs {', '.join(left)}\n" in second.stdout.readline()
        assert not set(left) & set(slurm.jobs(prefix))
        assert toy_study.wait_for(steps, 240)
        second.terminate()
        printed, _ = second.communicate(timeout=120)
    finally:
        second.kill()
    assert second.returncode == 130 and "interrupted; the same command continues" in printed
    assert not slurm.jobs(prefix)
    assert toy_study.wait_for(lambda: not steps() and not processes(str(results)), 15), processes(
        str(results)
    )
