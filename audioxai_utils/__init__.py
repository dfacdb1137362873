"""Listenable explanations of audio classifiers: attribute, mask, hear, score."""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

# what is called from outside, and where it lives; loaded at first use, so that importing stays light
LAZY = {
    "explain": "explanation",
    "explain_many": "explanation",
    "explain_recording": "recordings",
    "explain_folder": "recordings",
    "AudioClassifier": "models.classifier",
    "LogMel": "models.frontends",
    "open_study": "study.study",
    "METHODS": "attributions",
    "gradient_check": "attributions.gradient_check",
    "get_spectrogram": "audio.spectrograms",
    "kept_audio": "audio.spectrograms",
    "removed_audio": "audio.spectrograms",
    "mix": "audio.noise",
    "build_masks": "evaluation.masks",
    "apply_mask": "evaluation.masks",
    "faithfulness": "evaluation.metrics",
    "sparseness": "evaluation.metrics",
    "complexity": "evaluation.metrics",
    "best_masks": "evaluation.tables",
    "Cnn14": "models.cnn14",
    "load_panns_weights": "models.cnn14",
}
__all__ = ["__version__", *LAZY]  # noqa: PLE0604


def __getattr__(name: str):
    """Load a name of `LAZY` at first use."""
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *LAZY})
