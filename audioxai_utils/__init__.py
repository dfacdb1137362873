"""Listenable explanations of audio classifiers: attribute, mask, hear, score."""

from __future__ import annotations

__version__ = "0.1.0"


def __getattr__(name: str):
    """Load ``explain`` at first use, so that importing the package stays light."""
    if name == "explain":
        from .explanation import explain

        return explain
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
