"""Names, sizes and paths of the study, as plain constants and frozen dataclasses.

This module imports the standard library alone, so that the command line can be
checked before anything is installed.
"""

from __future__ import annotations

import functools
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

OWN = "own"  # a user's dataset, and the spectrogram of a user's classifier
TAGGER = "mn04"  # the pretrained network that is small enough for a quick study
PRETRAINED = (TAGGER, "cnn14")  # networks with AudioSet weights to start from
DATASETS = ("generated", "esc10", "esc50", "own")
NOISE_SCENARIOS = ("clean", "white", "room", "horse")
# the published ones; known_methods() has all that there are
STUDY_METHODS = ("saliency", "gradcam", "lime", "shap")
FORMER_NAMES = {  # of methods, still taken
    "optimised": "extremal",
    "optimised_20": "extremal_20",
    "optimised_heard": "extremal_heard",
}
PROTOCOLS = ("paper", "audited")
MASK_NAMES = (
    "minmax",
    "sigmoid",
    "bin",
    "topK_5",
    "topK_30",
    "topK_50",
    "minmax_pos",
    "sigmoid_pos",
    "pos_thresh_25",
    "pos_thresh_50",
    "pos_thresh_75",
    "topK_5_pos",
    "topK_30_pos",
    "topK_50_pos",
)
FAITHFULNESS_METRICS = ("FF", "AI", "AG", "FidIn", "AD")
CONCISENESS_METRICS = ("SPS", "COMP")
STUDY_METRICS = ("FF", "AI", "AG", "FidIn", "SPS", "AD", "COMP")  # the order of Tables II-VI
LOWER_IS_BETTER = ("AD", "COMP")
YES_OR_NO = {"AI": 100.0, "FidIn": 1.0}  # a clip scores 0 or this
RANGES = {  # of each metric, heard or not, and of what stands beside them
    "FF": (-1, 1),
    "AI": (0, 100),
    "AG": (0, 100),
    "FidIn": (0, 1),
    "AD": (0, 100),
    "SPS": (0, 1),
    "COMP": (0, float("inf")),
    "COMP_rel": (0, 1),
    "area": (0, 1),
    "degenerate": (0, 1),
    "seconds": (0, float("inf")),
}

DURATION = 5.0  # seconds at most; see `datasets.common_length`
DB_FLOOR = -100.0  # dB; ten times the decadic logarithm of the power floor 1e-10
SEED = 42  # of initial weights and training, unless --seed says otherwise
# Seeds that no option changes: the defaults of the functions that draw, listed here for the manifest.
FIXED_SEEDS = {
    "generated clips and noises": 20250,  # synthesis.SEED
    "LIME": 12345,  # as published
    "random controls": 0,
    "bootstrap": 0,
    "gradient check": 0,
}
MIXING_ALPHA = 0.6  # share of the clip in a noisy mixture; 0.4 is the noise
STUDY_SNR_DB = 20 * math.log10(MIXING_ALPHA / (1 - MIXING_ALPHA))  # +3.52 dB


@dataclass(frozen=True)
class SpectrogramParameters:
    """One time-frequency representation; times are samples, frequencies Hz."""

    name: str
    sample_rate: int
    n_fft: int
    hop_length: int
    n_mels: int | None = None  # None: linear frequency bins
    f_min: float = 0.0
    f_max: float | None = None

    @property
    def n_bins(self) -> int:
        return self.n_mels if self.n_mels is not None else self.n_fft // 2 + 1

    def n_frames(self, n_samples: int) -> int:
        """Frames of a centred transform of ``n_samples`` samples."""
        return n_samples // self.hop_length + 1


SPECTROGRAMS = {
    parameters.name: parameters
    for parameters in (
        SpectrogramParameters("stft_db", sample_rate=16000, n_fft=512, hop_length=256),
        SpectrogramParameters(
            "mel_db", sample_rate=32000, n_fft=1024, hop_length=320, n_mels=64, f_min=50.0, f_max=14000.0
        ),
    )
}
SPECTROGRAM_TYPES = tuple(SPECTROGRAMS)

CONDITION = ["spectrogram_type", "noise_scenario"]  # columns of tables, parameters of a condition's notebooks

# The study's conditions in the order of Tables II-VI.
STUDY_CONDITIONS = (
    ("stft_db", "clean"),
    ("mel_db", "clean"),
    ("mel_db", "white"),
    ("mel_db", "room"),
    ("mel_db", "horse"),
)
TABLE_NUMBERS = dict(zip(STUDY_CONDITIONS, ("II", "III", "IV", "V", "VI")))


@functools.cache
def method_files() -> dict[str, str]:
    """Name of every attribution method -> the module of ``attributions`` that registers it, found without
    importing.
    """
    found = {}
    for path in sorted((Path(__file__).parent / "attributions").glob("*.py")):
        for name in re.findall(r'^@register\(\s*"(\w+)"', path.read_text(encoding="utf-8"), re.MULTILINE):
            found[name] = path.stem
    return found


def known_methods() -> tuple[str, ...]:
    """Every method that can be run: the study's own first, then the others by name."""
    return (*STUDY_METHODS, *sorted(set(method_files()) - set(STUDY_METHODS)))


def default_data_root(dataset: str) -> Path:
    """``AUDIOXAI_DATA`` where it is set (not for the generated set), else ``data/<dataset>``."""
    if dataset != "generated" and os.environ.get("AUDIOXAI_DATA"):
        return Path(os.environ["AUDIOXAI_DATA"]).expanduser().resolve()
    return REPOSITORY / "data" / dataset


def check_choice(argument: str, value: str, choices) -> str:
    """Return ``value``, or raise a ValueError that names the argument and what it accepts."""
    if value not in choices:
        raise ValueError(f"{argument} must be one of {', '.join(choices)}; got {value!r}")
    return value
