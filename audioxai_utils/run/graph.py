"""The study as a graph of notebooks: what each step is called, reads and is given.

``notebooks/Snakefile`` asks :class:`Study` for the names, parameters, sources and threads of
its rules.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from .. import constants
from ..study.sources import PACKAGE, module_closure, notebook_sources, parameter_defaults

NOTEBOOKS = constants.REPOSITORY / "notebooks"
JOBS_PER_GPU = 2  # notebooks at once on one GPU: LIME segments on the CPU, so one alone leaves it idle
PARAMETERS = ("profile", "dataset", "data_root", "noise_root", "seed", "device")  # of every notebook
CONDITION_PARAMETERS = ("spectrogram_type", "noise_scenario", "method")
ALONE = ("09_own_model",)  # reads nothing of the study
LONG = ("10_truth", "11_noise")  # they train or explain anew
ON_CPU = ("01_data_and_noise", "05_metrics_and_tables", *ALONE)  # they ask for no GPU
AUDITS = ("07_audit", "08_trust", "10_truth", "11_noise")


def n_gpus() -> int:
    """NVIDIA devices of this machine, without asking torch (which takes seconds)."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


class Study:
    """One run's configuration, in the words of the rules of ``notebooks/Snakefile``."""

    def __init__(self, settings: dict, cores: int = 1):
        self.settings = settings
        self.cores = cores
        self.slurm_cores = settings.get("slurm_cores", 0)  # of each job on SLURM; 0 is this machine's run
        self.shards = [f"{i}of{n}" for n in [settings.get("shards", 1)] for i in range(1, n + 1) if n > 1]
        self.conditions = [tuple(condition) for condition in settings["conditions"]]
        self.methods = list(settings["methods"])
        self.spectrogram_types = list(dict.fromkeys(kind for kind, _ in self.conditions))
        self.notebooks = NOTEBOOKS

    def sources(self, notebook: str) -> list[str]:
        """The notebook and the modules it imports: inputs of its rule."""
        return list(notebook_sources(self.notebooks / f"{notebook}.ipynb"))

    def module_sources(self, module: str) -> list[str]:
        """The module and those it imports: inputs of a rule without a notebook."""
        return [str(path) for path in module_closure({f"{PACKAGE.name}.{module}"})]

    def shard_sources(self) -> list[str]:
        """Modules that a shard's numbers follow from: inputs of its rules."""
        return self.module_sources("pipeline")

    def step(self, notebook: str, *wildcards: str) -> str:
        """Record of a finished step; ``wildcards`` are names, or values."""
        return f"steps/{self._name(notebook, wildcards)}.json"

    def executed(self, notebook: str, *wildcards: str) -> str:
        """Executed notebook of a step."""
        return f"notebooks/{self._name(notebook, wildcards)}.ipynb"

    def log(self, notebook: str, *wildcards: str) -> str:
        """What a step without an executed notebook writes to stderr."""
        return f"logs/{self._name(notebook, wildcards)}.log"

    @staticmethod
    def _name(notebook: str, wildcards: tuple[str, ...]) -> str:
        return "-".join([notebook, *(f"{{{w}}}" if w in (*CONDITION_PARAMETERS, "shard") else w for w in wildcards)])

    def attributed(self, spectrogram_type: str, noise_scenario: str) -> list[str]:
        """Records of every method's attributions of one condition."""
        return [self.step("03_attributions", spectrogram_type, noise_scenario, m) for m in self.methods]

    def merged(self, notebook: str, **wildcards: str) -> list[str]:
        """Records of the shards whose work a condition's step finds done; none where clips are not shared out."""
        values = [wildcards[name] for name in CONDITION_PARAMETERS if name in wildcards]
        return [self.step(notebook, *values, shard) for shard in self.shards]

    def scored(self) -> list[str]:
        """Records of every condition's mask study."""
        return [self.step("04_mask_study", *condition) for condition in self.conditions]

    def further(self) -> list[str]:
        """Notebooks of the whole study that come after the gallery: 07_..., 08_..., as found.

        The audits compare both protocols and at least two methods; a run with less leaves them out.
        """
        complete = self.settings["protocol"] == "both" and len(self.methods) > 1
        found = sorted(path.stem for path in self.notebooks.glob("[0-9][0-9]_*.ipynb") if path.stem[:2] > "06")
        return [stem for stem in found if complete or stem not in AUDITS]

    def tables_of(self, notebook: str) -> list[str]:
        """The record of the tables, which come before a further notebook unless it reads nothing of the study."""
        return [] if notebook in ALONE else [self.step("05_metrics_and_tables")]

    def steps(self) -> list[str]:
        """Names of all steps of this configuration, in their order."""
        names = ["01_data_and_noise"]
        names += [f"02_fine_tuning-{kind}" for kind in self.spectrogram_types]
        attributed = ["-".join(("03_attributions", *condition, method)) for condition in self.conditions for method in self.methods]
        scored = ["-".join(("04_mask_study", *condition)) for condition in self.conditions]
        for name in [*attributed, *scored]:
            names += [*(f"{name}-{shard}" for shard in self.shards), name]
        return [*names, "05_metrics_and_tables", "06_listening_gallery", *self.further(), "report"]

    def owns(self, name: str) -> bool:
        """Whether a table or figure of this name is of this configuration, and of no other run in the folder.

        A name that ends in a spectrogram type, a condition (and method), or the number of a condition's table
        (``training_mel_db``, ``masks_mel_db_white_lime``, ``front_paper_V``) belongs to that; what
        names none of them is of the whole study.
        """
        for condition, number in constants.TABLE_NUMBERS.items():
            if name.endswith(f"_{number}") and condition not in self.conditions:
                return False
        for kind in constants.SPECTROGRAM_TYPES:
            _, found, rest = f"_{name}_".partition(f"_{kind}_")
            if found and not self._owns_rest(kind, rest.rstrip("_")):
                return False
        return True

    def _owns_rest(self, kind: str, rest: str) -> bool:
        """Whether ``rest``, what follows a spectrogram type in a name, is one of its conditions here, and a method of it."""
        if not rest:
            return kind in self.spectrogram_types
        scenarios = [scenario for own, scenario in self.conditions if own == kind and f"{rest}_".startswith(f"{scenario}_")]
        method = rest.removeprefix(max(scenarios, key=len, default="")).strip("_")
        return bool(scenarios) and (method not in constants.known_methods() or method in self.methods)

    def state(self, spectrogram_type: str = "", noise_scenario: str = "", **_: str) -> str:
        """What the dataset and the noise recordings that a step reads are now; a change reruns it.

        These are the noises of the scenario, else of the spectrogram type's conditions, else of all.
        """
        conditions = [condition for condition in self.conditions if spectrogram_type in ("", condition[0])]
        scenarios = {noise_scenario} if noise_scenario else {scenario for _, scenario in conditions}
        states = self.settings["states"]
        return " ".join([states["data"], *(f"{k}={v}" for k, v in sorted(states["noises"].items()) if k in scenarios)])

    def arguments(self, notebook: str, shard: str = "", **wildcards: str) -> str:
        """The notebook's parameters for the runner's command line; a change of it reruns the step.

        Empty values are left out: the notebook's own default stands. ``audioset_weights``,
        ``protocol``, ``n_clips``, ``conditions`` ("mel_db/clean mel_db/white"; of a spectrogram type's own
        step, its own) and ``methods`` ("lime shap") go to the notebooks whose parameters condition names them.
        A scenario that was given as an audio file is handed on as that file's path. A shard has the
        parameters of its condition.
        """
        values = {name: self.settings[name] for name in PARAMETERS} | wildcards
        if "noise_scenario" in wildcards:
            scenario = wildcards["noise_scenario"]
            values["noise_scenario"] = self.settings["noise_files"].get(scenario, scenario)
        conditions = [condition for condition in self.conditions if condition[0] == wildcards.get("spectrogram_type", condition[0])]
        optional = {
            "audioset_weights": self.settings["audioset_weights"],
            "protocol": self.settings["protocol"],
            "conditions": " ".join("/".join(condition) for condition in conditions),
            "methods": " ".join(self.methods),
            "n_clips": self.settings["n_clips"],
        }
        if notebook in ON_CPU:
            values["device"] = "cpu"
        accepted = parameter_defaults(self.notebooks / f"{notebook}.ipynb")
        values |= {name: value for name, value in optional.items() if name in accepted}
        return " ".join(shlex.join(["-p", name, value]) for name, value in values.items() if value)

    def threads(self, n_jobs: int = 1) -> int:
        """Threads of each of ``n_jobs`` steps that may run at once; on SLURM each has a job of its own."""
        return self.slurm_cores or max(1, self.cores // max(1, n_jobs))

    def gpu_share(self) -> int:
        """1 where a step may take a GPU, whose steps are then limited to ``JOBS_PER_GPU``; else 0.

        On SLURM it is the GPU that the job asks for.
        """
        return int(self.settings["device"] != "cpu" and (self.slurm_cores > 0 or n_gpus() > 0))

    def shard_command(self, notebook: str) -> str:
        """Shell command of a rule that does a shard's part of what this notebook does."""
        return (
            f"python -P -m audioxai_utils.run.shards {notebook} {{wildcards.shard}} "
            "--threads {threads} {params.arguments} 2> {log:q}"
        )

    @property
    def command(self) -> str:
        """Shell command of every notebook's rule."""
        return (
            "python -P -m audioxai_utils.run.notebook {input[0]:q} {log[0]:q} "
            "--threads {threads} {params.arguments}"
        )


def study_of(results_dir: str | Path) -> Study | None:
    """The study that a results folder was last asked for; None where no run wrote its ``config.json``.

    Raises
    ------
    ValueError
        If that file is not a configuration.
    """
    path = Path(results_dir) / "config.json"
    if not path.is_file():
        return None
    try:
        return Study(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} must be a run's configuration ({error}); delete it and run again") from error
