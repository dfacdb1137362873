"""What a report is made of: executed notebooks, tables and figures of a small run."""

from __future__ import annotations

import base64
import json

import nbformat.v4 as v4
import pandas as pd

from audioxai_utils import files
from audioxai_utils.figures import scores as score_figures
from audioxai_utils.figures.scheme import transform_scheme

PIXEL = base64.b64encode(
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
).decode()
TABLE = pd.DataFrame(
    {
        "method": ["saliency", "gradcam", "lime", "shap"],
        "mask": ["topK_30", "bin", "bin", "topK_50_pos"],
        "FF": [0.8, 0.7, 0.9, 0.75],
        "AI": [1.0, 20.0, 30.0, 0.0],
        "AG": [0.1, 2.0, 12.0, 0.0],
        "FidIn": [0.1, 0.6, 0.9, 0.2],
        "SPS": [0.7, 0.2, 0.3, 0.5],
        "AD": [95.0, 24.0, 8.0, 90.0],
        "COMP": [9.2, 4.9, 9.5, 9.7],
        "area": [0.3, 0.6, 0.55, 0.5],
        "degenerate": [0.0, 0.45, 0.0, 0.1],
    }
)


def notebook(path, cells):
    """Write an executed notebook of (kind, source, outputs[, tags])."""
    made = [
        v4.new_markdown_cell(source, metadata={"tags": list(tags)})
        if kind == "markdown"
        else v4.new_code_cell(source, outputs=outputs, metadata={"tags": list(tags)})
        for kind, source, outputs, *tags in cells
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(v4.new_notebook(cells=made)), encoding="utf-8")


def display(data, kind="display_data"):
    return v4.new_output(kind, data=data)


def save_tables(tables):
    """Table I of mel, and III and IV with their best masks."""
    accuracy = {
        "spectrogram_type": ["mel_db"],
        "train_acc": [99.0],
        "val_acc": [88.0],
        "test_acc": [86.25],
        "epoch": [31],
    }
    best = {
        "protocol": "paper",
        "spectrogram_type": "mel_db",
        "noise_scenario": "clean",
        "score": [0.2, 0.3, 0.6, 0.1],
    }
    files.save_table(pd.DataFrame(accuracy), tables / "table_I")
    files.save_table(TABLE, tables / "paper" / "table_III")
    files.save_table(TABLE.assign(FidIn=TABLE["FidIn"] / 2), tables / "paper" / "table_IV")
    files.save_table(TABLE.assign(**best), tables / "best_masks")


def save_figures(figures):
    """The scheme, and two epochs of training."""
    history = {
        "epoch": [1, 2],
        "train_loss": [2, 1],
        "validation_loss": [2, 1.5],
        "train_accuracy": [0.2, 0.5],
        "validation_accuracy": [0.3, 0.4],
    }
    files.save_figure(transform_scheme(), figures / "transform_scheme")
    files.save_figure(score_figures.training_curves(pd.DataFrame(history)), figures / "training_mel_db")
