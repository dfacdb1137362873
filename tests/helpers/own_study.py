"""Settings of a study of a user's own classifier, whose file and sounds lie in one folder. Not a test itself."""

from __future__ import annotations

from pathlib import Path

from audioxai_utils.study.settings import Settings


def own_settings(folder: Path, model: str, **options) -> Settings:
    """Of ``model``, ``FILE:FUNCTION`` in ``folder``, on the sounds in ``clips``; results lie beside them."""
    given = {"data_root": str(folder / "clips"), "results_dir": str(folder / "results"), "device": "cpu"}
    return Settings(model=str(folder / model), dataset="own", **given | options)
