"""Listenable explanations of audio classifiers: attribute, mask, hear, score."""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

# Name -> module that has it; each is imported when it is first asked for, so that importing the package stays light.
_PLACES = {
    "explain": "explanation", "explain_many": "explanation", "open_study": "study.study",
    "AudioClassifier": "models.classifier", "LogMel": "models.frontends",
    "Cnn14": "models.cnn14", "load_panns_weights": "models.cnn14",
    "METHODS": "attributions", "gradient_check": "attributions.gradient_check",
    "build_masks": "evaluation.masks", "apply_mask": "evaluation.masks",
    "faithfulness": "evaluation.metrics", "sparseness": "evaluation.metrics", "complexity": "evaluation.metrics",
    "best_masks": "evaluation.tables",
    "get_spectrogram": "audio.spectrograms", "kept_audio": "audio.spectrograms", "removed_audio": "audio.spectrograms",
    "mix": "audio.noise",
}
__all__ = ["__version__", *_PLACES]


def __getattr__(name: str):
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
