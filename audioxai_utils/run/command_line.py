"""The command line of ``run_all.sh``: the options of `Settings` as flags, checked, then what they ask for.

A field of `Settings` is a flag; those whose values need more than their type and choices have a reader in
``READERS``. The checks need the standard library alone, so that a wrong option ends in one line before
anything is installed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .. import constants
from ..audio import inputs
from ..study.profiles import PROFILES
from ..study.settings import NOT_PRETRAINED, Settings, kind_of
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

A second run continues or does nothing; a changed option, notebook or module reruns
what depends on it, and so does a changed sound. AUDIOXAI_DATA is the folder of real sounds,
AUDIOXAI_RESULTS the folder in which each study has its own (DATASET-PROFILE).
"""


@dataclass(frozen=True)
class Command:
    """What the command line asks for: a run with these settings, or something else instead."""

    settings: Settings
    dry_run: bool = False
    test: tuple[str, ...] | None = None  # arguments for pytest; None: run the study
    check_only: bool = False


class _OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str):
        self.exit(BAD_OPTIONS, f"run_all.sh: {message} (see ./run_all.sh --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """A flag for every option of `Settings`, and those that are none; lists are repeated or have commas."""
    parser = _OneLineParser(
        prog="run_all.sh",
        description="Explain an audio classifier's decisions in pictures and sound, and score them.",
        epilog=EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for each in fields(Settings):
        parser.add_argument(flag_of(each), dest=each.name, **_how(each))
    add = parser.add_argument
    add("--dry-run", action="store_true", help="say what would run, and stop")
    add("--test", nargs=argparse.REMAINDER, metavar="ARG", help="run the tests; what follows goes to pytest")
    add("--check-only", action="store_true", help=argparse.SUPPRESS)
    return parser


def flag_of(option) -> str:
    """The flag of an option (a field of `Settings`)."""
    return option.metadata.get("flag", "--" + option.name.replace("_", "-"))


def _how(option) -> dict[str, Any]:
    """How argparse is to read an option; values come as they were written, None where none was given."""
    traits, kind = option.metadata, kind_of(option)
    help = traits["help"].replace("%", "%%")
    if option.default not in (None, False) and "default" not in help:
        help += f" (default: {option.default})"
    if kind is bool:
        return {"action": "store_true", "help": help}
    by_kind = {int: "N", float: "X"}.get(kind, "NAME")
    metavar = traits.get("metavar") or {"folder": "DIR", "file": "FILE"}.get(traits.get("is_path"), by_kind)
    how = {"metavar": metavar, "help": help}
    if kind is tuple:
        how["action"] = "append"
        how |= {"nargs": traits["nargs"]} if "nargs" in traits else {}
    return how | ({"nargs": "?", "const": traits["bare"]} if "bare" in traits else {})


def parse(arguments: Sequence[str]) -> Command:
    """Read and check the options.

    Raises
    ------
    ValueError
        For a value that is not accepted, an unreadable folder or a results folder that
        cannot be written; one line that names the option.
    SystemExit
        For unknown options (code 2) and ``--help`` (code 0).
    """
    given = vars(build_parser().parse_args(list(arguments)))
    if given["dataset"] is None and given["model"] and given["data_root"]:
        given["dataset"] = constants.OWN
    values: dict[str, Any] = {}
    for each in fields(Settings):
        word = given[each.name]
        if each.name in READERS:
            values[each.name] = READERS[each.name](word, values)
        else:
            values[each.name] = each.default if word is None else _value(each, word)
    settings = Settings(**values)
    settings.recordings()  # raises where one is missing
    test = None if given["test"] is None else tuple(given["test"])
    return Command(settings, given["dry_run"], test, given["check_only"])


# Values


def _value(option, word: Any) -> Any:
    """An option's value of what was written, by its type and its traits alone."""
    flag, traits, kind = flag_of(option), option.metadata, kind_of(option)
    if kind is bool:
        return word
    if kind is tuple:
        return _choices(flag, _words(word), traits.get("choices"))
    if kind is int:
        return _integer(flag, word, traits.get("lowest", 0), traits.get("highest", 2**63))
    if kind is float:
        try:
            return float(word)
        except ValueError:
            raise ValueError(f"{flag} must be a number; got {word!r}") from None
    if "is_path" in traits:
        return (_readable_folder if traits["is_path"] == "folder" else _readable_file)(flag, word)
    return constants.check_choice(flag, word, traits["choices"]) if traits.get("choices") else word


def _words(given: list[str]) -> list[str]:
    return [word.strip() for value in given for word in value.split(",")]


def _choices(flag: str, words: list[str], known: tuple[str, ...] | None) -> tuple[str, ...]:
    """The words, each once; where there are choices, in their order."""
    for word in words if known else ():
        constants.check_choice(flag, word, known)
    return tuple(name for name in known or dict.fromkeys(words) if name in words)


def _integer(flag: str, text: str, lowest: int, highest: int) -> int:
    if not (text.isascii() and text.isdigit() and lowest <= int(text) <= highest):
        raise ValueError(f"{flag} must be a whole number from {lowest} to {highest}; got {text!r}")
    return int(text)


# Values that need more than their type


def _methods(given: list[str] | None, values: dict) -> tuple[str, ...] | None:
    """The chosen methods; ``all`` stands for every one, ``study`` for the study's own, which are None."""
    groups = {"all": constants.known_methods(), "study": constants.STUDY_METHODS}
    groups |= {former: (name,) for former, name in constants.FORMER_NAMES.items()}
    words = [name for word in _words(given or ["study"]) for name in groups.get(word, (word,))]
    chosen = _choices("--method", words, groups["all"])
    return None if chosen == groups["study"] else chosen


def _scenarios(given: list[str] | None, values: dict) -> tuple[str, ...] | None:
    """The chosen noise scenarios: names in the study's order, then the paths of audio files."""
    if given is None:
        return None
    words, files = [], {}
    for value in given:  # a path may hold commas
        words += [value] if Path(value).expanduser().is_file() else _words([value])
    for word in words:
        if word not in constants.NOISE_SCENARIOS:
            path, name = _recording(word)
            if files.setdefault(name, path) != path:
                raise ValueError(
                    f"--scenario: {files[name]} and {path} would both be called {name}; rename one"
                )
    return (*(name for name in constants.NOISE_SCENARIOS if name in words), *files.values())


def _recording(word: str) -> tuple[str, str]:
    """Absolute path and name of a scenario given as an audio file."""
    path = Path(word).expanduser().resolve()
    name = inputs.scenario_name(str(path))
    if not word or not inputs.is_recording(str(path)):
        known = ", ".join(constants.NOISE_SCENARIOS)
        raise ValueError(
            f"--scenario must be one of {known}, or an audio file (.wav, .flac, ...); got {word!r}"
        )
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


def _data_root(given: str | None, values: dict) -> str | None:
    """The dataset's folder; None is the default one, made or downloaded where it is missing."""
    flag, generated = "--data-root", values["dataset"] == "generated"
    if given is None and not generated and os.environ.get("AUDIOXAI_DATA"):
        flag, given = "AUDIOXAI_DATA", os.environ["AUDIOXAI_DATA"]
    if given is None:
        return None
    if generated:
        return _writable_folder(flag, _absolute(flag, given))
    folder = _readable_folder(flag, given)
    if values["dataset"] == constants.OWN:
        return folder
    if not Path(folder, "meta", "esc50.csv").is_file():
        raise ValueError(f"{flag} must have the layout of ESC-50; {folder} has no meta/esc50.csv")
    return folder


def _pretrained(given: list[list[str]] | None, values: dict) -> tuple[str, ...] | None:
    """(network, file of its weights or ``download``); a network alone is downloaded; ``none`` alone."""
    if given is None:
        return None
    network, *where = given[-1]
    if (network, *where) == NOT_PRETRAINED:
        return NOT_PRETRAINED
    constants.check_choice("--pretrained", network, (*constants.PRETRAINED, *NOT_PRETRAINED))
    if len(where) > 1:
        raise ValueError(
            f"--pretrained takes a network and a file or 'download'; got {' '.join(given[-1])!r}"
        )
    profile = PROFILES[values["profile"]]
    if network == "cnn14" and profile.width != 1:
        raise ValueError(
            f"--pretrained cnn14 fits a Cnn14 of full width, that of --profile paper; {profile.name} has "
            f"1/{1 / profile.width:g} of it"
        )
    if where in ([], ["download"]):
        return network, "download"
    return network, _readable_file("--pretrained", where[0], " or 'download'")


def _model(given: str | None, values: dict) -> str | None:
    """``FILE:FUNCTION`` with the file's absolute path."""
    if given is None:
        return None
    path, _, function = given.rpartition(":")
    if not path or not function.isidentifier():
        raise ValueError(f"--model must be FILE:FUNCTION, such as my_model.py:load; got {given!r}")
    return f"{_readable_file('--model', path)}:{function}"


def _slurm_profile(given: str | None, values: dict) -> str | None:
    """Absolute path of the profile; "" for the repository's own, None without ``--slurm``."""
    if given is not None:
        given = str(_absolute("--slurm", given)) if given else ""
        slurm.check(given)
    return given


def _results_dir(given: str | None, values: dict) -> str:
    folder = Settings(values["profile"], values["dataset"], model=values["model"]).results
    return _writable_folder("--results", folder if given is None else _absolute("--results", given))


READERS = {
    "data_root": _data_root,
    "pretrained": _pretrained,
    "model": _model,
    "scenarios": _scenarios,
    "methods": _methods,
    "slurm": _slurm_profile,
    "results_dir": _results_dir,
}


# Paths


def _absolute(flag: str, path: str) -> Path:
    if not path.strip():
        raise ValueError(f"{flag} needs a path; got an empty one")
    return Path(path).expanduser().resolve()


def _readable_folder(flag: str, path: str) -> str:
    """The folder's absolute path; it must exist, be readable and hold something."""
    folder = _absolute(flag, path)
    try:
        if next(folder.iterdir(), None) is None:
            raise ValueError(f"{flag} must be a folder with files in it; {folder} is empty")
    except OSError as error:
        raise ValueError(f"{flag} must be a readable folder; {folder}: {error.strerror}") from error
    return str(folder)


def _readable_file(flag: str, path: str, or_else: str = "") -> str:
    """The file's absolute path; it must exist and be readable."""
    file = _absolute(flag, path)
    try:
        with open(file, "rb"):
            return str(file)
    except OSError as error:
        raise ValueError(f"{flag} must be a readable file{or_else}; {file}: {error.strerror}") from error


def _writable_folder(flag: str, folder: Path) -> str:
    """Check that files can be made in ``folder``, or in its nearest existing parent; make nothing."""
    existing = folder
    while not os.path.lexists(existing):
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):
            return str(folder)
    except OSError as error:
        raise ValueError(f"{flag} must be a writable folder; {existing}: {error.strerror}") from error


# Doing it


def check_cuda(device: str) -> None:
    """Raise a ValueError when CUDA was asked for and torch sees none."""
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ValueError("--device cuda needs a CUDA device, and torch sees none; use --device cpu")


def run_study(command: Command) -> int:
    """Prepare and run the study; what cannot be prepared is one line."""
    from .preparation import NotPrepared, prepare
    from .workflow import plan, run

    try:
        settings = prepare(command.settings, command.dry_run)
        return plan(settings) if command.dry_run else run(settings)
    except NotPrepared as error:
        print(f"run_all.sh: {error}", file=sys.stderr)
        return STUDY_FAILED


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks; return the exit code."""
    try:
        command = parse(sys.argv[1:] if arguments is None else arguments)
        if command.check_only:
            return 0
        if command.test is not None:
            from .testing import run_tests

            return run_tests(command.test, command.settings.cores)
        if command.settings.slurm is None:  # else it is asked of the node that a job runs on
            check_cuda(command.settings.device)
        return run_study(command)
    except (ValueError, BlockingIOError) as error:
        print(f"run_all.sh: {error}", file=sys.stderr)
        return BAD_OPTIONS
    except OSError as error:  # a full disk, a folder that cannot be written: what was computed is on file
        place = f"{error.filename}: " if error.filename else ""
        print(f"run_all.sh: {place}{error.strerror or error}; the same command continues", file=sys.stderr)
        return STUDY_FAILED
    except KeyboardInterrupt:
        print("run_all.sh: interrupted; the same command continues", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
