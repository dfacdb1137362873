"""The report's section on speed: tables that the benchmarks left in a run's results, each with its
machine.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from IPython.display import HTML

from .html import escape
from .report_parts import table_html

FOLDER = "benchmarks"  # in the results
TABLES = {
    "explain": "LIME and Deep SHAP: this package's engines (fast, bfloat16) beside the libraries' own paths "
    "(reference). A ratio says how many times sooner; a difference is the largest of a value, over the "
    "clip's largest "
    "value; Spearman is the least rank correlation of a clip; the last columns are shares of the model's "
    "own forward "
    "throughput.",
    "scores": "Sparseness and complexity of all masks beside Quantus.",
    "growth_fits": "How cost grows: the exponent of processor time (1 is linear, less where a part is "
    "fixed), and the "
    "memory that explaining adds at the smallest and the largest size.",
    "growth": "The points of that growth; one call a clip, as in the study.",
}


def about_words(about: dict) -> str:
    """What was measured where and when, as one line."""
    hardware, n_threads = about["hardware"], about["threads"]
    words = [
        f"{about['setting']}; {hardware['processor']}", f"{hardware['cores']} cores", about["vector_units"],
        f"{hardware['memory_bytes'] / 2**30:.0f} GiB", *hardware["gpus"], f"device {about['device']}",
        f"{n_threads} thread{'s' * (n_threads != 1)}", f"torch {about['torch']}", about["date"][:10],
        *([f"commit {about['commit']['id'][:8]}"] if about["commit"]["id"] else []),
    ]  # fmt: skip
    return ", ".join(words)


def speed(study) -> HTML:
    """Every benchmark's table with what it was measured on; a note where none was run."""
    parts = []
    for name, caption in TABLES.items():
        path = Path(study.results) / FOLDER / f"{name}.csv"
        if path.is_file() and path.with_suffix(".json").is_file():
            about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            parts.append(
                f"<p>{escape(caption)}</p>{table_html(pd.read_csv(path), f'Speed, {name}')}"
                f"<p>{escape(about_words(about))}</p>"
            )
    note = (
        '<p class="missing">None was run; <code>python benchmarks/all.py --results FOLDER</code> does it.</p>'
    )
    return HTML("".join(parts) or note)
