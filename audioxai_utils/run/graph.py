"""The study as a graph of notebooks: what each step is called, reads and depends on.

``notebooks/Snakefile`` asks a `Graph` for the names, inputs, parameters and threads of its rules; the run
asks it which steps there are, and what each depends on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import constants
from ..constants import CONDITION
from ..study.settings import Settings
from ..study.sources import PACKAGE, method_modules, module_closure, notebook_sources
from . import machine, slurm

NOTEBOOKS = constants.REPOSITORY / "notebooks"
REPORT = "00_report"  # runs last, and becomes the first page
JOBS_PER_GPU = 2  # notebooks at once on one GPU: LIME segments on the CPU, so one alone leaves it idle
STEP_MEMORY = {"paper": 8e9}  # bytes that a step may need; of the paper's an estimate, of others measured
WILDCARDS = (*CONDITION, "shard")
PLANTED = "12_planted_causes"
ALONE = ("09_own_model", PLANTED, "14_other_sounds")  # read nothing of the study
LONG = ("10_localisation", "11_noise_levels", "13_sound_quality")  # they train or explain anew
MAIN = (
    "01_data_and_noise",
    "02_fine_tuning",
    "03_attributions",
    "04_mask_study",
    "05_metrics_and_tables",
    "06_listening_gallery",
)
ON_CPU = ("01_data_and_noise", "05_metrics_and_tables", REPORT, *ALONE)  # they ask for no GPU
AUDITS = ("07_audit", *LONG)  # they compare both protocols and at least two methods
SANITY = "08_sanity_checks"  # compares at least two methods; the report's table of trust is made of it


@dataclass(frozen=True)
class Step:
    """A notebook, and what it is run for; "" where it is for more than one."""

    notebook: str
    spectrogram_type: str = ""
    noise_scenario: str = ""
    shard: str = ""

    @property
    def name(self) -> str:
        """In file names: ``03_attributions-mel_db-white``."""
        return "-".join(filter(None, (self.notebook, self.spectrogram_type, self.noise_scenario, self.shard)))


class Graph:
    """The steps of one run.

    Parameters
    ----------
    record : dict
        What ``settings.json`` holds: the settings, and the ``states`` of what the run reads.
    cores : int
        Processor cores of this machine that the run may use.
    """

    def __init__(self, record: dict[str, Any], cores: int | None = 1):
        self.settings, self.states = Settings.of(record), record["states"]
        self.conditions = self.settings.conditions
        self.spectrogram_types = list(dict.fromkeys(kind for kind, _ in self.conditions))
        self.job_cores = slurm.job_cores(self.settings)  # 0 is this machine's run
        self.cores = self.job_cores or cores or 1
        fitting = machine.memory() // STEP_MEMORY.get(self.settings.profile, 2e9)
        self.at_once = int(max(1, min(self.cores, fitting)))  # steps of this machine
        n = self.settings.shards
        self.shards = [f"{i}of{n}" for i in range(1, n + 1) if n > 1]

    # Steps

    def further(self) -> list[str]:
        """Notebooks of the whole study that come after the gallery: 07_..., 08_..., as found."""
        several = len(self.settings.explained_by) > 1
        left_out = () if several and self.settings.protocol == "both" else AUDITS
        left_out = left_out if several else (*left_out, SANITY)
        found = sorted(path.stem for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb") if path.stem[:2] > "06")
        return [stem for stem in found if stem not in left_out]

    def steps(self) -> dict[str, Step]:
        """All steps by their names, in their order."""
        steps = [
            Step("01_data_and_noise"),
            *(Step("02_fine_tuning", kind) for kind in self.spectrogram_types),
        ]
        for notebook in ("03_attributions", "04_mask_study"):
            steps += [
                Step(notebook, *each, shard) for each in self.conditions for shard in (*self.shards, "")
            ]
        whole = ("05_metrics_and_tables", "06_listening_gallery", *self.further(), REPORT)
        return {step.name: step for step in (*steps, *map(Step, whole))}

    def record(self, notebook: str, *wildcards: str) -> str:
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
        return "-".join([notebook, *(f"{{{word}}}" if word in WILDCARDS else word for word in wildcards)])

    def records(self, notebook: str) -> list[str]:
        """Records of a notebook's steps in every condition or spectrogram type, without those of shards."""
        steps = self.steps().items()
        return [self.record(name) for name, step in steps if step.notebook == notebook and not step.shard]

    def shards_of(self, notebook: str) -> Callable[[Any], list[str]]:
        """Input of a condition's step: records of the shards whose work it finds done, if there are any."""
        return lambda wildcards: [self.record(notebook, *wildcards, shard) for shard in self.shards]

    # What a step depends on

    def sources(self, notebook: str, shard: bool = False) -> list[str]:
        """Input of a rule: the notebook, the modules it imports and the published tables it may read; of a
        shard, the modules it needs.
        """
        methods = self.settings.explained_by
        if shard:
            modules = {f"{PACKAGE.name}.{module}" for module in ("study.study", "run.shards")}
            return [str(path) for path in module_closure(modules | method_modules(methods))]
        return list(notebook_sources(NOTEBOOKS / f"{notebook}.ipynb", methods))

    def depends(self, notebook: str) -> Callable[[Any], str]:
        """Parameter of a rule: `depends_on` as JSON, so that a change of it reruns the step."""
        return lambda wildcards: json.dumps(
            self.depends_on(Step(notebook, *(wildcards.get(name, "") for name in CONDITION)))
        )

    def depends_on(self, step: Step) -> dict[str, Any]:
        """The options on which a step depends, and what it reads besides the results of other steps.

        A condition's step depends on its own noise, that of a spectrogram type on those of its conditions,
        any other on all.
        """
        number, states = step.notebook[:2] if step.notebook != REPORT else "99", self.states
        wanted = (step.spectrogram_type, step.noise_scenario)
        own = [each for each in self.conditions if all(w in ("", name) for w, name in zip(wanted, each))]
        scenarios = {scenario for _, scenario in own}
        noises = {name: digest for name, digest in states["noises"].items() if name in scenarios}
        found = self.settings.since(number) | {"conditions": own, "data": states["data"], "noises": noises}
        if number >= "02":
            found |= {"weights": states["weights"], "model": states["model"]}
        if step.notebook in ("06_listening_gallery", REPORT):
            found |= {"answers": states["answers"]}  # of listeners, who come after the first run
        if step.notebook == REPORT:
            found |= {"benchmarks": states["benchmarks"]}  # which somebody ran after the first run
        return json.loads(json.dumps(found))

    # How it is run

    def whole_threads(self, notebook: str, n_jobs: int) -> int:
        """`threads` of a notebook of the whole study; half of the cores where it measures planted causes,
        which have a process each.
        """
        return self.threads(2 if notebook == PLANTED and self.settings.measures_planted else n_jobs)

    def threads(self, n_jobs: int = 1) -> int:
        """Threads of each of ``n_jobs`` steps that may run at once; on SLURM each has a job of its own."""
        return self.cores if self.job_cores else max(1, self.cores // max(1, min(n_jobs, self.at_once)))

    @staticmethod
    def priority(notebook: str) -> int:
        """Which of the steps that could start does: the one after which most is still to be done.

        A notebook that reads nothing of the study waits until a core would be idle, as beside 05. By itself
        Snakemake goes by the size of a step's inputs, and so by the pictures stored in its notebook.
        """
        order = (*MAIN, *LONG)
        return len(order) + 1 - order.index(notebook) if notebook in order else int(notebook not in ALONE)

    def wants_gpu(self, notebook: str) -> bool:
        """Whether a notebook computes anything that a GPU speeds up."""
        return notebook not in ON_CPU or (notebook == PLANTED and self.settings.measures_planted)

    def gpu_share(self) -> int:
        """1 where a step may take a GPU, whose steps are then limited to ``JOBS_PER_GPU``; else 0.

        On SLURM it is the GPU that the job asks for.
        """
        return int(self.settings.device != "cpu" and (self.job_cores > 0 or bool(machine.gpus())))

    def command(self, *wildcards: str) -> str:
        """Shell command of a notebook's rule."""
        words = ["python -P -m audioxai_utils.run.notebook {input[0]:q} {log[0]:q} --threads {threads}"]
        words += [f"-p {name} {{wildcards.{name}}}" for name in wildcards]
        return " ".join(words)

    def shard_command(self, notebook: str) -> str:
        """Shell command of a rule that does a shard's part of what this notebook does."""
        names = " ".join(f"{{wildcards.{name}}}" for name in WILDCARDS)
        return f"python -P -m audioxai_utils.run.shards {notebook} {names} --threads {{threads}} 2> {{log:q}}"
