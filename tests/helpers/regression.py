"""What the regression holds on to: tables of the smoke study, and what its notebooks found in words.

Not a test itself; used by test_notebooks.py and store_notebooks.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REGRESSION = ROOT / "tests" / "regression"
KEYS = ["protocol", "spectrogram_type", "noise_scenario", "method", "mask"]
# AI under the paper's protocol counts rises in the last digit, so it is no number to hold on to (audit 3),
# nor is the choice of a best mask, which takes AI in; the audited protocol chooses the same on every machine.
VALUES = ["FF", "AG", "FidIn", "SPS", "AD", "COMP", "area", "degenerate"]
OF_THE_MACHINE = re.compile(r"paper protocol|\bs a clip\b|\bseconds?\b|\bGB\b|\bcolumns? of these tables\b")


def numbers(folder: Path) -> dict[str, pd.DataFrame]:
    """Means of all masks, accuracies, and intervals of a run's results."""
    tables = folder / "tables"
    summary = pd.read_csv(tables / "summary.csv").query("subset == 'all'")[[*KEYS, *VALUES]]
    intervals = pd.read_csv(tables / "intervals.csv").query("protocol == 'audited'")
    accuracies = pd.concat([pd.read_csv(path) for path in sorted(tables.glob("accuracy_*.csv"))])
    return {
        "summary": summary.sort_values(KEYS, ignore_index=True),
        "intervals": intervals.sort_values([*KEYS, "metric"], ignore_index=True),
        "accuracies": accuracies[["spectrogram_type", "noise_scenario", "test_acc"]].reset_index(drop=True),
    }


def found(folder: Path) -> dict[str, list[str]]:
    """Lines of the summaries that a run's notebooks show, without numbers and those of the machine."""
    texts = {}
    for path in sorted((folder / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        outputs = [o for cell in cells if "summary" in cell.metadata.get("tags", []) for o in cell.outputs]
        lines = "\n".join(
            o.data["text/markdown"] for o in outputs if "text/markdown" in o.get("data", {})
        ).splitlines()
        kept = [line for line in lines if line.strip() and not OF_THE_MACHINE.search(line)]
        texts[path.stem] = [re.sub(r"`[0-9a-f]{8,}`|-?\d+([.,]\d+)*(e[+-]?\d+)?", "#", line) for line in kept]
    return texts
