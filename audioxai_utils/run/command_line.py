"""The command line of ``run_all.sh``: read and check the options, then run what they ask for.

The checks need the standard library alone, so that a wrong option ends in one line
before anything is installed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import constants
from ..audio import inputs
from . import slurm

BAD_OPTIONS, STUDY_FAILED = 2, 1  # exit codes

EPILOGUE = """\
examples:
  ./run_all.sh                                  the quick study on generated sounds
  ./run_all.sh --dataset esc10                  on real sounds (downloaded, or --data-root DIR)
  ./run_all.sh --scenario white,room --method lime   only these conditions and this method
  ./run_all.sh --scenario clean,cafe.wav        with a recording of one's own as noise
  ./run_all.sh --dry-run                        what would run now, and why
  ./run_all.sh --slurm --shards 8               on a cluster, the clips of a condition over eight jobs
  ./run_all.sh --test -k masks                  some tests (all: ./run_all.sh --test)

A second run continues or does nothing; a changed parameter, notebook or module reruns
what depends on it, and so does a changed sound. AUDIOXAI_DATA is the folder of real sounds,
AUDIOXAI_RESULTS the folder in which each study has its own (DATASET-PROFILE).
"""


@dataclass(frozen=True)
class Options:
    """What one run is asked to do; paths are absolute, ``""`` is the notebooks' own default."""

    profile: str
    dataset: str
    data_root: str
    noise_root: str
    audioset_weights: str
    device: str
    protocol: str
    seed: str
    conditions: tuple[tuple[str, str], ...]
    methods: tuple[str, ...]
    cores: int
    results_dir: Path
    dry_run: bool
    test: tuple[str, ...] | None  # arguments for pytest; None: run the study
    check_only: bool
    noise_files: dict[str, str] = field(default_factory=dict)  # scenarios given as audio files, by name
    shards: int = 1  # jobs that the clips of a condition are shared out over
    n_clips: str = ""  # test clips that are explained
    slurm: str | None = None  # folder of a profile for SLURM, "" for the repository's; None: this machine


class _OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str):
        self.exit(BAD_OPTIONS, f"run_all.sh: {message} (see ./run_all.sh --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Every option of ``run_all.sh``; lists may be repeated or separated by commas."""
    parser = _OneLineParser(
        prog="run_all.sh",
        description="Explain an audio classifier's decisions in pictures and in sound, and score the explanations.",
        epilog=EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--profile", default="quick", metavar="NAME", help="smoke (a minute or two), quick (default) or paper")
    add("--dataset", default="generated", metavar="NAME", help="generated (default), esc10 or esc50")
    add("--data-root", metavar="DIR", help="folder of the dataset, in the layout of ESC-50")
    add("--noise-root", metavar="DIR", help="folder of noise recordings (default: generated noises)")
    add("--audioset-weights", metavar="PATH|download",
        help="PANNs' Cnn14 weights, for the paper profile (default: train from scratch)")
    add("--device", default="auto", metavar="NAME", help="cpu, cuda or auto (default)")
    add("--spectrogram", action="append", metavar="NAME", help="only: " + ", ".join(constants.SPECTROGRAM_TYPES))
    add("--scenario", action="append", metavar="NAME|FILE",
        help="only: " + ", ".join(constants.NOISE_SCENARIOS) + "; or any audio file, as noise of a mel_db condition")
    add("--method", action="append", metavar="NAME",
        help="only: " + ", ".join(constants.known_methods()) + "; all for every one (default: the study's own, "
        + ", ".join(constants.STUDY_METHODS) + ")")
    add("--protocol", default="both", metavar="NAME", help="paper, audited or both (default)")
    add("--clips", metavar="N", help="test clips to explain, spread over the classes (default: the profile's, smoke 2, "
        "quick 20, paper all)")
    add("--full-grid", action="store_true", help="every noise scenario for every spectrogram type")
    add("--seed", metavar="N", help=f"seed of initial weights and training (default: {constants.SEED}); the seeds of "
        "generated sounds, LIME, controls and bootstrap are fixed")
    add("--cores", metavar="N", help="processor cores shared by everything that runs (default: all); with --slurm, "
        f"those of each job (default: {slurm.CORES})")
    add("--shards", default="1", metavar="N", help="share the clips of each condition out over N jobs (default: 1)")
    add("--slurm", nargs="?", const="", metavar="PROFILE",
        help="run every step as a SLURM job; PROFILE is a folder with a config.yaml of Snakemake")
    add("--results", metavar="DIR", help="folder of the results (default: results/DATASET-PROFILE)")
    add("--dry-run", action="store_true", help="say what would run, and stop")
    add("--test", nargs=argparse.REMAINDER, metavar="ARG", help="run the tests; what follows goes to pytest")
    add("--check-only", action="store_true", help=argparse.SUPPRESS)
    return parser


def parse(arguments: Sequence[str]) -> Options:
    """Read and check the options.

    Raises
    ------
    ValueError
        For a value that is not accepted, an unreadable folder or a results folder that
        cannot be written; one line that names the option.
    SystemExit
        For unknown options (code 2) and ``--help`` (code 0).
    """
    given = build_parser().parse_args(list(arguments))
    constants.check_choice("--profile", given.profile, tuple(constants.PROFILES))
    constants.check_choice("--dataset", given.dataset, constants.DATASETS)
    constants.check_choice("--device", given.device, ("cpu", "cuda", "auto"))
    constants.check_choice("--protocol", given.protocol, (*constants.PROTOCOLS, "both"))
    noise_root = "" if given.noise_root is None else _readable_folder("--noise-root", given.noise_root)
    scenarios, noise_files = _scenarios(given.scenario)
    conditions = _conditions(given, scenarios, noise_files)
    inputs.recordings((scenario for _, scenario in conditions), noise_root, noise_files, "--noise-root")
    return Options(
        profile=given.profile,
        dataset=given.dataset,
        data_root=_data_root(given.data_root, given.dataset),
        noise_root=noise_root,
        audioset_weights=_weights(given.audioset_weights, constants.PROFILES[given.profile]),
        device="" if given.device == "auto" else given.device,
        protocol=given.protocol,
        seed="" if given.seed is None else str(_integer("--seed", given.seed, 0, 2**32 - 1)),
        conditions=conditions,
        methods=_methods(given.method),
        cores=_cores(given),
        results_dir=_results_dir(given),
        dry_run=given.dry_run,
        test=None if given.test is None else tuple(given.test),
        check_only=given.check_only,
        noise_files=noise_files,
        shards=_integer("--shards", given.shards, 1, 10000),
        n_clips="" if given.clips is None else str(_integer("--clips", given.clips, 1, 10**6)),
        slurm=_slurm_profile(given.slurm),
    )


def _integer(option: str, text: str, lowest: int, highest: int) -> int:
    if not (text.isascii() and text.isdigit() and lowest <= int(text) <= highest):
        raise ValueError(f"{option} must be a whole number from {lowest} to {highest}; got {text!r}")
    return int(text)


def _cores(given: argparse.Namespace) -> int:
    if given.cores is not None:
        return _integer("--cores", given.cores, 1, 4096)
    return len(os.sched_getaffinity(0)) if given.slurm is None else slurm.CORES


def _results_dir(given: argparse.Namespace) -> Path:
    default = constants.default_results_dir(given.profile, given.dataset)
    return _writable_folder("--results", default if given.results is None else _absolute(given.results, "--results"))


def _slurm_profile(given: str | None) -> str | None:
    """Absolute path of the profile; "" for the repository's own, None without ``--slurm``."""
    if given is None:
        return None
    profile = str(_absolute(given, "--slurm")) if given else ""
    slurm.check(profile)
    return profile


def _choices(option: str, given: list[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """The chosen names in the study's order; all of them when the option was not given."""
    if given is None:
        return known
    names = [name.strip() for value in given for name in value.split(",")]
    for name in names:
        constants.check_choice(option, name, known)
    return tuple(name for name in known if name in names)


def _methods(given: list[str] | None) -> tuple[str, ...]:
    """The chosen methods, the study's own first; ``all`` and ``study`` stand for every one and for its own."""
    groups = {"all": constants.known_methods(), "study": constants.STUDY_METHODS}
    if given is None:
        return constants.STUDY_METHODS
    names = [name for value in given for name in value.split(",")]
    return _choices("--method", [part for name in names for part in groups.get(name.strip(), (name,))], groups["all"])


def _scenarios(given: list[str] | None) -> tuple[tuple[str, ...], dict[str, str]]:
    """The chosen noise scenarios, and the audio files among them by the names they go by."""
    if given is None:
        return constants.NOISE_SCENARIOS, {}
    words, files = [], {}
    for value in given:  # a path may hold commas
        words += [value] if Path(value).expanduser().is_file() else [word.strip() for word in value.split(",")]
    for word in words:
        if word not in constants.NOISE_SCENARIOS:
            path, name = _recording(word)
            if files.setdefault(name, path) != path:
                raise ValueError(f"--scenario: {files[name]} and {path} would both be called {name}; rename one")
    return (*(name for name in constants.NOISE_SCENARIOS if name in words), *files), files


def _recording(word: str) -> tuple[str, str]:
    """Absolute path and name of a scenario given as an audio file."""
    path = Path(word).expanduser().resolve()
    name = inputs.scenario_name(str(path))
    if not word or not inputs.is_recording(str(path)):
        known = ", ".join(constants.NOISE_SCENARIOS)
        raise ValueError(f"--scenario must be one of {known}, or an audio file (.wav, .flac, ...); got {word!r}")
    if not path.is_file():
        raise ValueError(f"--scenario {word}: no such file")
    if not name or name in constants.NOISE_SCENARIOS:
        said = "has no letter or digit to be called by"
        said = f"would be called {name} like one of the study's own" if name else said
        raise ValueError(f"--scenario {word}: {said}; rename the file")
    try:
        with open(path, "rb"):
            return str(path), name
    except OSError as error:
        raise ValueError(f"--scenario {word}: {error.strerror}") from error


def _conditions(given: argparse.Namespace, scenarios: tuple[str, ...], noise_files: dict) -> tuple[tuple[str, str], ...]:
    """Conditions of the profile in the chosen scenarios; a recording's own is mel_db, with --full-grid every one."""
    kinds = _choices("--spectrogram", given.spectrogram, constants.SPECTROGRAM_TYPES)
    of_files = constants.SPECTROGRAM_TYPES if given.full_grid else ("mel_db",)
    conditions = constants.conditions(given.profile, given.full_grid)
    conditions += tuple((kind, name) for kind in of_files for name in noise_files)
    chosen = tuple(condition for condition in conditions if condition[0] in kinds and condition[1] in scenarios)
    if not chosen:
        available = ", ".join(" ".join(condition) for condition in conditions)
        raise ValueError(
            f"--spectrogram and --scenario leave no condition of profile {given.profile}; it has {available} "
            "(--full-grid adds the rest)"
        )
    return chosen


def _absolute(path: str, option: str) -> Path:
    if not path.strip():
        raise ValueError(f"{option} needs a path; got an empty one")
    return Path(path).expanduser().resolve()


def _readable_folder(option: str, path: str | Path) -> str:
    """The folder's absolute path; it must exist, be readable and hold something."""
    folder = _absolute(str(path), option)
    try:
        if next(folder.iterdir(), None) is None:
            raise ValueError(f"{option} must be a folder with files in it; {folder} is empty")
    except OSError as error:
        raise ValueError(f"{option} must be a readable folder; {folder}: {error.strerror}") from error
    return str(folder)


def _data_root(path: str | None, dataset: str) -> str:
    """The dataset's folder; ``""`` is the default one, made or downloaded where it is missing."""
    option = "--data-root"
    if path is None and dataset != "generated" and os.environ.get("AUDIOXAI_DATA"):
        option, path = "AUDIOXAI_DATA", os.environ["AUDIOXAI_DATA"]
    if path is None:
        return ""
    if dataset == "generated":
        return str(_writable_folder(option, _absolute(path, option)))
    folder = _readable_folder(option, path)
    if not Path(folder, "meta", "esc50.csv").is_file():
        raise ValueError(f"{option} must have the layout of ESC-50; {folder} has no meta/esc50.csv")
    return folder


def _weights(path: str | None, profile: constants.Profile) -> str:
    if path is None:
        return ""
    if profile.width != 1:
        raise ValueError(
            f"--audioset-weights fit a Cnn14 of full width, that of --profile paper; {profile.name} has "
            f"1/{1 / profile.width:g} of it"
        )
    if path == "download":
        return path
    file = _absolute(path, "--audioset-weights")
    try:
        with open(file, "rb"):
            return str(file)
    except OSError as error:
        raise ValueError(
            f"--audioset-weights must be a readable file or 'download'; {file}: {error.strerror}"
        ) from error


def _writable_folder(option: str, folder: Path) -> Path:
    """Check that files can be made in ``folder``, or in its nearest existing parent; make nothing."""
    existing = folder
    while not os.path.lexists(existing):
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):
            return folder
    except OSError as error:
        raise ValueError(f"{option} must be a writable folder; {existing}: {error.strerror}") from error


def check_cuda(device: str) -> None:
    """Raise a ValueError when CUDA was asked for and torch sees none."""
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ValueError("--device cuda needs a CUDA device, and torch sees none; use --device cpu")


def run_tests(arguments: Sequence[str]) -> int:
    """Run pytest on ``tests/``; its closing line is the last one printed."""
    from .workflow import environment

    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *(arguments or ["tests"])]
    if arguments and not any(Path(constants.REPOSITORY, word.split("::")[0]).exists() for word in arguments):
        command.append("tests")
    return subprocess.run(command, cwd=constants.REPOSITORY, env=environment(), check=False).returncode


def run_study(options: Options) -> int:
    """Prepare and run the study; what cannot be prepared is one line."""
    from .preparation import NotPrepared, prepare
    from .workflow import run

    try:
        options = prepare(options)
    except NotPrepared as error:
        print(f"run_all.sh: {error}", file=sys.stderr)
        return STUDY_FAILED
    return run(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks; return the exit code."""
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        if options.check_only:
            return 0
        if options.test is not None:
            return run_tests(options.test)
        if options.slurm is None:  # else it is asked of the node that a job runs on
            check_cuda(options.device)
        return run_study(options)
    except (ValueError, BlockingIOError) as error:
        print(f"run_all.sh: {error}", file=sys.stderr)
        return BAD_OPTIONS
    except KeyboardInterrupt:
        print("run_all.sh: interrupted; the same command continues", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
