"""Every option of a run, once.

A field of `Settings` is an option: the command line (``run/command_line.py``), the file in the results
folder, the notebooks (``open_study(results_dir).settings``) and SLURM jobs follow from it. ``None`` always
means "not given".

This module imports the standard library alone, so that a wrong option ends in one line before anything is
installed.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .. import constants
from ..audio import inputs
from . import profiles

NOT_PRETRAINED = ("none",)  # `Settings.pretrained` where no pretrained network is wanted
FILE = "settings.json"  # in the results folder
LATEST = "latest"  # beside the results folders: the path of the one that was run last


def option(default: Any, help: str, *, since: str = "", **traits: Any) -> Any:
    """A field of `Settings`.

    Parameters
    ----------
    default
        What holds where the option is not given.
    help : str
        One line for ``--help``.
    since : str
        Number of the first notebook that depends on it: a change reruns that one and those after it. "" is an
        option of running alone, which changes no result.
    **traits
        ``flag`` (default: the field's name with dashes), ``metavar``, ``choices``, ``lowest`` and ``highest``
        (of whole numbers), ``is_path`` ("folder", "file"), ``bare`` (value where the flag stands alone).
    """
    return field(default=default, metadata={"help": help, "since": since, **traits})


@dataclass(frozen=True)
class Settings:
    """One run's choices, checked when made; paths are absolute.

    Attributes are described where they are defined, by their ``help``.
    """

    profile: str = option(
        "quick",
        "smoke (two minutes), quick, medium (100 clips) or paper",
        since="01",
        choices=tuple(profiles.PROFILES),
    )
    dataset: str = option(
        "generated", "generated, esc10, esc50, or own (with --model)", since="01", choices=constants.DATASETS
    )
    data_root: str | None = option(
        None,
        "folder of the dataset, in the layout of ESC-50; for --model also a folder for each class, or one of "
        "unlabelled sounds",
        since="01",
        is_path="folder",
    )
    noise_root: str | None = option(
        None, "folder of noise recordings (default: generated noises)", since="01", is_path="folder"
    )
    pretrained: tuple[str, ...] | None = option(
        None,
        "start from AudioSet weights, of a file or downloaded: mn04 (EfficientAT, with a linear probe) or "
        "cnn14 (PANNs, full width, for the paper profile); none: a Cnn14 from scratch, the default but for "
        "quick and medium on ESC-10 or ESC-50 where mn04 was downloaded before",
        since="02",
        metavar=("mn04|cnn14|none", "PATH|download"),
        nargs="+",
    )
    fitting: str = option(
        "probe",
        "what is fitted of the pretrained mn04: probe, a linear head on its features (seconds), or whole, "
        "the network too, from that head on (minutes)",
        since="02",
        choices=("probe", "whole"),
    )
    model: str | None = option(
        None,
        "a classifier of one's own, which is not trained: a function that returns an AudioClassifier",
        since="02",
        metavar="FILE:FUNCTION",
    )
    device: str = option("auto", "cpu, cuda or auto", since="02", choices=("cpu", "cuda", "auto"))
    spectrograms: tuple[str, ...] | None = option(
        None,
        "only: " + ", ".join(constants.SPECTROGRAM_TYPES),
        flag="--spectrogram",
        choices=constants.SPECTROGRAM_TYPES,
    )
    scenarios: tuple[str, ...] | None = option(
        None,
        "only: " + ", ".join(constants.NOISE_SCENARIOS) + "; or any audio file, as noise of mel_db",
        flag="--scenario",
        metavar="NAME|FILE",
    )
    methods: tuple[str, ...] | None = option(
        None,
        "only: "
        + ", ".join(constants.known_methods())
        + "; all for every one (default: the study's own, "
        + ", ".join(constants.STUDY_METHODS)
        + ")",
        since="03",
        flag="--method",
        choices=constants.known_methods(),
    )
    protocol: str = option(
        "both", "paper, audited or both", since="04", choices=(*constants.PROTOCOLS, "both")
    )
    n_clips: int | None = option(
        None,
        "test clips to explain, spread over the classes (default: "
        + ", ".join(f"{profile.name} {profile.n_clips or 'all'}" for profile in profiles.PROFILES.values())
        + ")",
        since="03",
        flag="--clips",
        lowest=1,
        highest=10**6,
    )
    full_grid: bool = option(False, "every noise scenario for every spectrogram type")
    seed: int = option(
        constants.SEED,
        "seed of initial weights and training; the seeds of generated sounds, LIME, controls and "
        "bootstrap are fixed",
        since="02",
        lowest=0,
        highest=2**32 - 1,
    )
    cores: int | None = option(
        None,
        "processor cores shared by everything that runs (default: all); with --slurm, those of each job "
        "(default: 4)",
        lowest=1,
        highest=4096,
    )
    shards: int = option(1, "share the clips of each condition out over N jobs", lowest=1, highest=10000)
    slurm: str | None = option(
        None,
        "run every step as a SLURM job; PROFILE is a folder with a config.yaml of Snakemake",
        metavar="PROFILE",
        bare="",
    )
    results_dir: str | None = option(
        None, "folder of the results (default: results/DATASET-PROFILE)", flag="--results", metavar="DIR"
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, list):
                object.__setattr__(self, each.name, tuple(value))
            if value is not None:
                check_value(each, getattr(self, each.name), each.name)
        if self.model and self.weights:
            raise ValueError("--model brings its own network; leave --pretrained out")
        if self.fitting == "whole" and self.network != constants.TAGGER:
            raise ValueError("--fitting whole is for the pretrained mn04; give --pretrained mn04 too")
        if self.dataset == constants.OWN and not self.model:
            raise ValueError("--dataset own is for a classifier that is trained already; give --model")

    @property
    def sizes(self) -> profiles.Profile:
        """Sizes of the profile, with the asked number of clips."""
        sizes = profiles.PROFILES[self.profile]
        return sizes if self.n_clips is None else replace(sizes, n_clips=self.n_clips)

    @property
    def results(self) -> Path:
        """Folder of the results."""
        if self.results_dir is not None:
            return Path(self.results_dir)
        return profiles.default_results_dir(self.profile, self.dataset)

    @property
    def network(self) -> str:
        """Name of the classifier's network: ``cnn14``, the one that ``pretrained`` names, or ``own``."""
        if self.model:
            return constants.OWN
        return self.pretrained[0] if self.weights else "cnn14"

    @property
    def measures_planted(self) -> bool:
        """Whether notebook 12 measures its tables of planted causes itself: it has what they are made of."""
        return self.sizes.planted and self.dataset == "esc50" and self.network == constants.TAGGER

    @property
    def weights(self) -> str | None:
        """File of the pretrained weights, ``download`` where they are still to be fetched; None where there
        are none.
        """
        return self.pretrained[1] if self.pretrained and self.pretrained != NOT_PRETRAINED else None

    @property
    def explained_by(self) -> tuple[str, ...]:
        """Names of the methods that run, the study's own first."""
        return constants.STUDY_METHODS if self.methods is None else self.methods

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols that masks are scored by."""
        return constants.PROTOCOLS if self.protocol == "both" else (self.protocol,)

    @property
    def noise_files(self) -> dict[str, str]:
        """Name -> path of the scenarios that are given as audio files."""
        return {
            inputs.scenario_name(name): name for name in self.scenarios or () if inputs.is_recording(name)
        }

    def recordings(self) -> dict[str, Path]:
        """Noise scenario -> audio file of those of the run that are recordings; generated ones are left out.

        Errors are those of `match_noise`.
        """
        found, files = {}, self.noise_files
        for name in dict.fromkeys(scenario for _, scenario in self.conditions):
            if name in files:
                found[name] = Path(files[name])
            elif name in inputs.NOISE_KEYWORDS and self.noise_root:
                found[name] = inputs.match_noise(name, self.noise_root, "--noise-root")
        return found

    @property
    def spectrogram_types(self) -> tuple[str, ...]:
        """Those that a run can have: the study's, or the one of a classifier of one's own."""
        return (constants.OWN,) if self.model else constants.SPECTROGRAM_TYPES

    @property
    def conditions(self) -> tuple[tuple[str, str], ...]:
        """(spectrogram type, noise scenario) pairs of the run; scenarios by name.

        A recording of one's own is mixed into mel_db clips, with ``full_grid`` into all.

        Raises
        ------
        ValueError
            ``spectrograms`` and ``scenarios`` leave none.
        """
        of_files = self.spectrogram_types if self.full_grid or self.model else ("mel_db",)
        available = profiles.conditions(self.profile, self.full_grid)
        if self.model:
            available = tuple((constants.OWN, name) for name in dict.fromkeys(name for _, name in available))
        available += tuple((kind, name) for kind in of_files for name in self.noise_files)
        names = None if self.scenarios is None else {inputs.scenario_name(name) for name in self.scenarios}
        chosen = tuple(
            (kind, name)
            for kind, name in available
            if kind in (self.spectrograms or self.spectrogram_types) and (names is None or name in names)
        )
        if not chosen:
            known = ", ".join(" ".join(condition) for condition in available)
            raise ValueError(
                f"--spectrogram and --scenario leave no condition of profile {self.profile}; it has {known} "
                "(--full-grid adds the rest)"
            )
        return chosen

    def since(self, number: str) -> dict[str, Any]:
        """The options on which notebook ``number`` ("03") depends, those of earlier ones included."""
        names = [each.name for each in fields(self) if "" < each.metadata["since"] <= number]
        found = {name: getattr(self, name) for name in names}
        if found.get("pretrained") == NOT_PRETRAINED:  # the same Cnn14 as without the option
            found["pretrained"] = None
        return found

    def write(self, folder: Path | None = None, **more: Any) -> Path:
        """Write the options, and whatever else a run keeps beside them, as ``settings.json`` of the results
        folder.
        """
        from ..files import write_json

        path = (folder or self.results) / FILE
        write_json(path, asdict(self) | {"results_dir": str(self.results)} | more)
        return path

    @classmethod
    def read(cls, results_dir: str | Path) -> Settings:
        """The options of a results folder, which is where it is, wherever it was made.

        Raises
        ------
        FileNotFoundError
            No run was started there.
        ValueError
            The file is damaged, or of another version.
        """
        path = Path(results_dir) / FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no run was started in this folder; start one with ./run_all.sh --results"
            )
        try:
            stored = cls.of(json.loads(path.read_text(encoding="utf-8")))
            return replace(stored, results_dir=os.path.abspath(results_dir))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} must hold a run's settings ({error}); delete it and run again"
            ) from error

    @classmethod
    def of(cls, record: dict[str, Any]) -> Settings:
        """The options among what ``settings.json`` holds."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in record.items() if name in known})

    def owns(self, name: str) -> bool:
        """Whether a table or figure of this name is of this run, and of no other in the folder.

        A name that ends in a spectrogram type, a condition (and method), or the number of a condition's table
        (``training_mel_db``, ``masks_mel_db_white_lime``, ``front_paper_V``) belongs to that; what names none
        of them is of the whole study.
        """
        for condition, number in constants.TABLE_NUMBERS.items():
            if name.endswith(f"_{number}") and condition not in self.conditions:
                return False
        for kind in (*constants.SPECTROGRAM_TYPES, constants.OWN):
            _, found, rest = f"_{name}_".partition(f"_{kind}_")
            if found and not self._owns_rest(kind, rest.rstrip("_")):
                return False
        return True

    def _owns_rest(self, kind: str, rest: str) -> bool:
        """Whether what follows a spectrogram type in a name is one of its conditions here, and a method of
        it.
        """
        own = [scenario for each, scenario in self.conditions if each == kind]
        if not rest:
            return bool(own)
        scenarios = [scenario for scenario in own if f"{rest}_".startswith(f"{scenario}_")]
        method = rest.removeprefix(max(scenarios, key=len, default="")).strip("_")
        return bool(scenarios) and (method not in constants.known_methods() or method in self.explained_by)


def kind_of(option) -> type:
    """What an option (a field of `Settings`) takes: ``tuple`` (of words), ``bool``, ``int``, ``float`` or
    ``str``.
    """
    return next(kind for kind in (tuple, bool, int, float, str) if option.type.startswith(kind.__name__))


def check_value(option, value: Any, name: str) -> None:
    """Raise a ValueError or TypeError unless ``value`` is what an option (a field of `Settings`) takes."""
    kind, traits = kind_of(option), option.metadata
    if kind is tuple:
        for word in value:
            if traits.get("choices"):
                constants.check_choice(name, word, traits["choices"])
        return
    if type(value) is not kind:
        raise TypeError(f"{name} must be of type {kind.__name__}; got {value!r}")
    if traits.get("choices"):
        constants.check_choice(name, value, traits["choices"])
    if "lowest" in traits and not traits["lowest"] <= value <= traits["highest"]:
        raise ValueError(
            f"{name} must be a whole number from {traits['lowest']} to {traits['highest']}; got {value}"
        )


def remember_latest(results: Path) -> None:
    """Note which run was the last, for notebooks that are opened without saying which.

    Where the default parent of results cannot be written, nothing is noted: the run itself may lie elsewhere.
    """
    from ..files import atomic_path

    with suppress(OSError), atomic_path(profiles.default_results_dir("", "").parent / LATEST) as path:
        path.write_text(f"{results}\n", encoding="utf-8")


def latest_results() -> Path | None:
    """Results folder of the run that was started last; None where there is none any more."""
    path = profiles.default_results_dir("", "").parent / LATEST
    if not path.is_file():
        return None
    folder = Path(path.read_text(encoding="utf-8").strip())
    return folder if (folder / FILE).is_file() else None


def results_of(results_dir: str | Path | None) -> Path | None:
    """The folder that ``results_dir`` means: itself, else ``AUDIOXAI_RUN``, else the latest run."""
    named = results_dir or os.environ.get("AUDIOXAI_RUN")
    return Path(named).expanduser().resolve() if named else latest_results()
