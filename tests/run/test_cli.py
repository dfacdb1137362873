"""Options of run_all.sh: what is accepted, and one clear line for what is not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from audioxai_utils import constants
from audioxai_utils.run import command_line, testing, workflow
from audioxai_utils.study.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_folders_from_outside(monkeypatch):
    for name in ("AUDIOXAI_DATA", "AUDIOXAI_RESULTS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def esc(tmp_path):
    """A folder in ESC-50's layout, as far as the command line looks."""
    (tmp_path / "esc" / "meta").mkdir(parents=True)
    (tmp_path / "esc" / "meta" / "esc50.csv").write_text("filename\n")
    return tmp_path / "esc"


def parse(*words: str) -> Settings:
    return command_line.parse(words).settings


def test_defaults(tmp_path):
    command = command_line.parse([])
    found = command.settings
    assert (found.profile, found.dataset, found.protocol, found.device) == (
        "quick",
        "generated",
        "both",
        "auto",
    )
    assert found.conditions == constants.STUDY_CONDITIONS and found.explained_by == constants.STUDY_METHODS
    assert found.results == REPOSITORY / "results" / "generated-quick" and found.seed == constants.SEED
    assert {
        found.data_root,
        found.noise_root,
        found.pretrained,
        found.weights,
        found.n_clips,
        found.cores,
        found.slurm,
    } == {None}
    assert command.test is None and not command.dry_run and not command.check_only
    assert workflow.written(found, tmp_path)[1].cores == len(os.sched_getaffinity(0))
    assert found == replace(
        Settings(), results_dir=str(found.results)
    )  # what is not given is the field's default


def test_every_option_is_a_field_and_every_field_a_flag():
    known = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", command_line.build_parser().format_usage()))
    flags = {command_line.flag_of(each) for each in fields(Settings)}
    assert known - flags == {"--dry-run", "--test"} and flags < known


def test_lists_may_be_repeated_or_separated_and_keep_the_studys_order():
    found = parse("--scenario", "room,white", "--scenario", "clean", "--method", "shap, saliency")
    assert found.explained_by == ("saliency", "shap") and found.scenarios == ("clean", "white", "room")
    assert found.conditions == (
        ("stft_db", "clean"),
        ("mel_db", "clean"),
        ("mel_db", "white"),
        ("mel_db", "room"),
    )
    assert parse("--spectrogram", "stft_db").conditions == (("stft_db", "clean"),)
    assert len(parse("--full-grid").conditions) == 8
    assert parse("--full-grid", "--spectrogram", "stft_db", "--scenario", "horse").conditions == (
        ("stft_db", "horse"),
    )


def test_every_registered_method_may_be_asked_for_and_groups_stand_for_many():
    """The command line knows the methods without importing them; the registry is the judge."""
    from audioxai_utils.attributions import METHODS

    every = parse("--method", "all").explained_by
    assert every[: len(constants.STUDY_METHODS)] == constants.STUDY_METHODS and len(set(every)) == len(every)
    assert set(every) == {name for name in METHODS if METHODS[name].__module__.startswith("audioxai_utils.")}
    assert parse("--method", "study") == parse()  # and so reruns nothing
    assert parse("--method", "rise,study", "--method", "occlusion").methods == (
        *constants.STUDY_METHODS,
        "occlusion",
        "rise",
    )
    assert all(name in command_line.build_parser().format_help() for name in every)


def test_paths_are_made_absolute_and_kept_so(esc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").write_bytes(b"w")
    (tmp_path / "noises").mkdir()
    for name in ("white.wav", "Room-tone.flac", "horse.ogg"):
        (tmp_path / "noises" / name).touch()
    found = parse(
        "--dataset",
        "esc10",
        "--data-root",
        "esc",
        "--noise-root",
        "noises",
        "--results",
        "out/deep",
        "--profile",
        "paper",
        "--pretrained",
        "cnn14",
        "w.pth",
        "--seed",
        "7",
        "--clips",
        "80",
    )
    assert (found.data_root, found.noise_root) == (str(esc), str(tmp_path / "noises"))
    assert found.results == tmp_path / "out" / "deep" and not (tmp_path / "out").exists()
    assert found.pretrained == ("cnn14", str(tmp_path / "w.pth")) and found.weights == str(tmp_path / "w.pth")
    assert (found.seed, found.n_clips, found.network) == (7, 80, "cnn14")
    for words in (("mn04",), ("mn04", "download")):  # of any profile
        assert parse("--pretrained", *words).pretrained == ("mn04", "download")
    found.write()
    assert Settings.read(tmp_path / "out" / "deep") == found


def test_folders_from_the_environment(esc, tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIOXAI_DATA", str(esc))
    monkeypatch.setenv("AUDIOXAI_RESULTS", str(tmp_path / "out"))
    found = parse("--dataset", "esc10")
    assert (found.data_root, found.results) == (str(esc), tmp_path / "out" / "esc10-quick")
    assert parse("--profile", "smoke").results == tmp_path / "out" / "generated-smoke"  # side by side
    assert parse("--results", str(tmp_path / "x")).results == tmp_path / "x"
    assert parse().data_root is None  # the generated set has its own place


def test_an_audio_file_is_a_noise_scenario(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("Café, noon.WAV", "rain.ogg"):
        (tmp_path / name).touch()
    found = parse("--scenario", "Café, noon.WAV", "--scenario", "rain.ogg,clean,rain.ogg")
    files = {"cafe_noon": str(tmp_path / "Café, noon.WAV"), "rain": str(tmp_path / "rain.ogg")}
    assert found.noise_files == files and found.scenarios == ("clean", *files.values())
    assert found.conditions == (
        ("stft_db", "clean"),
        ("mel_db", "clean"),
        ("mel_db", "cafe_noon"),
        ("mel_db", "rain"),
    )
    assert parse("--scenario", "rain.ogg").conditions == (("mel_db", "rain"),)
    assert parse("--scenario", "rain.ogg", "--full-grid").conditions == (
        ("stft_db", "rain"),
        ("mel_db", "rain"),
    )


def test_only_the_chosen_noises_need_a_recording(tmp_path):
    (tmp_path / "white.wav").touch()
    found = parse("--noise-root", str(tmp_path), "--scenario", "white,clean")
    assert found.noise_root == str(tmp_path) and len(found.conditions) == 3
    assert parse("--noise-root", str(tmp_path), "--scenario", "clean").conditions[0] == ("stft_db", "clean")


def test_the_help_says_what_the_seed_governs(capsys):
    with pytest.raises(SystemExit):
        command_line.parse(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "seed of initial weights and training;" in printed
        and "are fixed (default: 42)" in printed
        and "AUDIOXAI_RESULTS the folder in which" in printed
    )


def test_what_follows_test_goes_to_pytest():
    assert command_line.parse(["--test"]).test == ()
    assert command_line.parse(["--cores", "1", "--test", "-k", "masks", "--help", "-x"]).test == (
        "-k",
        "masks",
        "--help",
        "-x",
    )


@pytest.mark.parametrize(
    ("words", "cores", "expected"),
    [
        ((), 2, ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", "tests"]),
        ((), 64, ["-n", "4", "--dist", "loadfile", "--no-loadscope-reorder", "tests"]),
        ((), 1, ["tests"]),
        (("-k", "masks"), 2, ["-k", "masks", "tests"]),
        (("tests/run/test_cli.py::test_defaults", "-x"), 2, ["tests/run/test_cli.py::test_defaults", "-x"]),
    ],
)
def test_all_tests_are_shared_out_over_cores_and_some_are_not(monkeypatch, words, cores, expected):
    ran = []
    monkeypatch.setattr(
        testing.subprocess,
        "run",
        lambda line, env, **_: ran.append((line, env)) or subprocess.CompletedProcess(line, 5),
    )
    assert command_line.main(["--cores", str(cores), "--test", *words]) == 5
    ((line, env),) = ran
    assert line == [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *expected]
    assert "-n" not in expected or env["OMP_NUM_THREADS"] == "1"


BAD = [
    (["--profil", "quick"], "unrecognized arguments: --profil quick"),
    (["--prof", "quick"], "unrecognized arguments"),
    (["quick"], "unrecognized arguments: quick"),
    (["--profile"], "argument --profile: expected one argument"),
    (["--profile", "fast"], "--profile must be one of smoke, quick, medium, paper; got 'fast'"),
    (["--dataset", "esc"], "--dataset must be one of generated, esc10, esc50, own; got 'esc'"),
    (["--device", "gpu"], "--device must be one of cpu, cuda, auto; got 'gpu'"),
    (["--protocol", "new"], "--protocol must be one of paper, audited, both; got 'new'"),
    (["--method", "lime,magic"], "--method must be one of saliency, gradcam, lime, shap, audiolime, "),
    (
        ["--scenario", "clean,"],
        "--scenario must be one of clean, white, room, horse, or an audio file (.wav, .flac, ...); got ''",
    ),
    (
        ["--scenario", "rain"],
        "--scenario must be one of clean, white, room, horse, or an audio file (.wav, .flac, ...); got 'rain'",
    ),
    (
        ["--scenario", "file"],
        "--scenario must be one of clean, white, room, horse, or an audio file (.wav, .flac, ...); got 'file'",
    ),
    (["--scenario", "rain.wav"], "--scenario rain.wav: no such file"),
    (
        ["--scenario", "White.wav"],
        "--scenario White.wav: would be called white like one of the study's own; rename the file",
    ),
    (
        ["--scenario", "+++.wav"],
        "--scenario +++.wav: has no letter or digit to be called by; rename the file",
    ),
    (
        ["--scenario", "a b.wav,a_b.wav"],
        "--scenario: TMP/a b.wav and TMP/a_b.wav would both be called a_b; rename one",
    ),
    (
        ["--spectrogram", "stft_db", "--scenario", "a b.wav"],
        "--spectrogram and --scenario leave no condition of profile quick",
    ),
    (
        ["--noise-root", "noises"],
        "--noise-root TMP/noises: expected one audio file with 'room' in its name; found none",
    ),
    (
        ["--noise-root", "noises", "--scenario", "horse"],
        "--noise-root TMP/noises: expected one audio file with 'horse' in its name; found horse.flac, horse.wav",
    ),
    (
        ["--pretrained", "cnn14"],
        "--pretrained cnn14 fits a Cnn14 of full width, that of --profile paper; quick has 1/16",
    ),
    (["--profile", "smoke", "--pretrained", "cnn14", "file"], "--pretrained cnn14 fits a Cnn14 of full"),
    (["--pretrained", "vgg"], "--pretrained must be one of mn04, cnn14, none; got 'vgg'"),
    (
        ["--pretrained", "mn04", "a", "b"],
        "--pretrained takes a network and a file or 'download'; got 'mn04 a",
    ),
    (["--spectrogram", "cqt_db"], "--spectrogram must be one of stft_db, mel_db; got 'cqt_db'"),
    (
        ["--spectrogram", "stft_db", "--scenario", "horse"],
        "--spectrogram and --scenario leave no condition of profile quick",
    ),
    (["--cores", "0"], "--cores must be a whole number from 1 to 4096; got '0'"),
    (["--cores", "two"], "--cores must be a whole number from 1 to 4096; got 'two'"),
    (["--seed", "-1"], "--seed must be a whole number from 0 to 4294967295; got '-1'"),
    (["--seed", "1.5"], "--seed must be a whole number"),
    (["--clips", "0"], "--clips must be a whole number from 1 to 1000000; got '0'"),
    (
        ["--dataset", "esc50", "--data-root", "missing"],
        "--data-root must be a readable folder; TMP/missing: No such file",
    ),
    (
        ["--dataset", "esc50", "--data-root", "empty"],
        "--data-root must be a folder with files in it; TMP/empty is empty",
    ),
    (
        ["--dataset", "esc50", "--data-root", "full"],
        "--data-root must have the layout of ESC-50; TMP/full has no meta/",
    ),
    (["--noise-root", "file"], "--noise-root must be a readable folder; TMP/file: Not a directory"),
    (["--noise-root", ""], "--noise-root needs a path; got an empty one"),
    (
        ["--profile", "paper", "--pretrained", "cnn14", "missing"],
        "--pretrained must be a readable file or 'download'; TMP/missing: No such",
    ),
    (["--results", "file"], "--results must be a writable folder; TMP/file: Not a directory"),
    (["--results", "file/below"], "--results must be a writable folder; TMP/file: Not a directory"),
    (["--results", "/proc/none"], "--results must be a writable folder; /proc"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_options_end_in_one_line_before_any_work(words, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").touch()
    (tmp_path / "noises").mkdir()
    for name in (
        "file",
        "White.wav",
        "+++.wav",
        "a b.wav",
        "a_b.wav",
        *(f"noises/{n}.wav" for n in ("white", "horse")),
    ):
        (tmp_path / name).touch()
    (tmp_path / "noises" / "horse.flac").touch()
    before = sorted(tmp_path.rglob("*"))
    try:
        code = command_line.main(words)
    except SystemExit as stop:
        code = stop.code
    printed = capfd.readouterr()
    assert code == command_line.BAD_OPTIONS and printed.out == ""
    assert printed.err.startswith("run_all.sh: " + message.replace("TMP", str(tmp_path)))
    assert printed.err.count("\n") == 1 and sorted(tmp_path.rglob("*")) == before


def test_cuda_is_refused_without_a_device(monkeypatch, capsys):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command_line.main(["--device", "cuda"]) == command_line.BAD_OPTIONS
    assert capsys.readouterr().err == (
        "run_all.sh: --device cuda needs a CUDA device, and torch sees none; use --device cpu\n"
    )


# run_all.sh itself, in a folder without an environment


@pytest.fixture
def clone(tmp_path):
    """What of the repository the set-up reads."""
    folder = tmp_path / "clone"
    for name in ("run_all.sh", "constraints.txt", "pyproject.toml"):
        folder.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, folder / name)
    shutil.copytree(
        REPOSITORY / "audioxai_utils", folder / "audioxai_utils", ignore=shutil.ignore_patterns("__pycache__")
    )
    return folder


def run_all(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess:
    env = os.environ | {"AUDIOXAI_PYTHON": sys.executable} | variables
    return subprocess.run(
        ["bash", folder / "run_all.sh", *words],
        cwd=folder.parent,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_options_are_checked_before_anything_is_installed(clone):
    done = run_all(clone, "--profile", "fast")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "run_all.sh: --profile must be one of smoke, quick, medium, paper; got 'fast'\n"
    help_text = run_all(clone, "--help")
    assert help_text.returncode == 0 and "--pretrained mn04|cnn14|none [PATH|download" in help_text.stdout
    assert not (clone / ".venv").exists() and not list(clone.rglob("__pycache__"))


def test_a_missing_python_is_one_line(clone):
    done = run_all(clone, AUDIOXAI_PYTHON="/no/such/python")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        "run_all.sh: needs Python 3.11 or later, and found none (looked for: /no/such/python)"
    )


def fake_python(clone: Path, body: str) -> str:
    """A Python that the set-up finds: the real one, but for what ``body`` does first."""
    script = clone.parent / "python"
    script.write_text(f'#!/bin/bash\n{body}\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return str(script)


def test_a_python_without_venv_is_one_line(clone):
    python = fake_python(clone, '[[ "$*" == *ensurepip* ]] && exit 1')
    done = run_all(clone, AUDIOXAI_PYTHON=python)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "has no venv or ensurepip; on Debian or Ubuntu: apt install python3-venv" in done.stderr
    assert not (clone / ".venv").exists()


def test_a_failed_installation_names_reason_and_log_and_is_redone(clone):
    # An environment whose pip cannot find anything: the set-up stops, and starts afresh the next time.
    body = """if [[ "$1 $2" == "-m venv" ]]; then
    mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; touch "$3/bin/made-$RANDOM"; exit 0; fi
if [[ "$2 $3" == "pip install" ]]; then echo "ERROR: No matching distribution found for torch==2.11.0" >&2; exit 1; fi"""
    python = fake_python(clone, body)
    for _ in range(2):
        done = run_all(clone, AUDIOXAI_PYTHON=python)
        assert done.returncode == 1
        _, reason, log = done.stderr.strip().splitlines()
        assert reason == "run_all.sh: set-up failed: ERROR: No matching distribution found for torch==2.11.0"
        assert str(clone / ".venv" / "audioxai-install.log") in log
        assert (clone / ".venv" / "audioxai-install.log").read_text().endswith("torch==2.11.0\n")
        assert len(list((clone / ".venv" / "bin").glob("made-*"))) == 1  # made anew, not mended
    assert not (clone / ".venv" / "audioxai-complete").exists()


def test_a_finished_set_up_goes_straight_to_work(clone):
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "python").write_text('#!/bin/bash\necho "$PYTHONPATH: $*"\n')
    (clone / ".venv" / "bin" / "python").chmod(0o755)
    pins = subprocess.run(
        "cat constraints.txt pyproject.toml | cksum",
        shell=True,
        cwd=clone,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (clone / ".venv" / "audioxai-complete").write_text(f"{clone}\n{pins}")
    done = run_all(clone, "--dry-run", AUDIOXAI_PYTHON="/no/such/python")
    assert (done.returncode, done.stdout) == (
        0,
        f"{clone}: -P -m audioxai_utils.run.command_line --dry-run\n",
    )
    with open(clone / "constraints.txt", "a", encoding="utf-8") as file:
        file.write("new==1\n")
    assert run_all(clone, "--dry-run", AUDIOXAI_PYTHON="/no/such/python").returncode == 2  # set up again
