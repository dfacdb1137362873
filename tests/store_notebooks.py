"""Store what the notebooks show, and what the regression compares.

    ./run_all.sh --profile smoke --results SMOKE
    .venv/bin/python tests/store_notebooks.py --regression SMOKE
    ./run_all.sh --results STUDY
    .venv/bin/python tests/store_notebooks.py --public STUDY --scores OURS

``--public`` puts the executed notebooks of a finished run (a quick study at least) into notebooks/, with
their parameters as they stand there and smaller pictures; recordings that a study was made of are not ours to
hand on, so that of them no sound is stored. With ``--scores``, 05 is that of another folder, such
as the scores of 400 clips of ESC-50 that ``study.ours.restore`` lays out. ``--regression`` writes tests/regression/ from a
finished smoke run. Run it after a change that is meant to change numbers, and read the difference before
committing it.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import sys
from pathlib import Path

import nbformat
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent / "helpers"))

from regression import NOTEBOOKS, REGRESSION, found, numbers

from audioxai_utils.figures.pictures import palette_png
from audioxai_utils.study.study import Study, open_study

OF_SCORES = "05_metrics_and_tables"  # it needs nothing but scores
GENERATED = "generated"  # the dataset whose sounds are ours
OF_OUR_SOUNDS = ("09_own_model", "12_planted_causes", "14_other_sounds")  # whatever the study is of
PLAYER = re.compile(r"<audio\b[^>]*\bdata:audio[^>]*>.*?</audio>", re.DOTALL)
NOT_STORED = "<i>not stored: a run of your own plays it</i>"
LARGE = 100_000  # bytes of a picture; a notebook of a megabyte is slow to show on the web


def small_png(encoded: str) -> str:
    """The same picture in 256 colours, a third of the size; one that is still `LARGE` with a pixel for each
    that it is shown on, instead of four.
    """
    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    data = palette_png(picture)
    if len(data) > LARGE:
        data = palette_png(picture.convert("RGB").resize((picture.width // 2, picture.height // 2)))
    return base64.b64encode(data).decode()


def executed(study: Study, stem: str) -> Path:
    """The run's executed notebook of that name: for one that runs several times, that of the main condition.

    Raises
    ------
    FileNotFoundError
        The run has none.
    """
    folder, main = study.results / "notebooks", study.main_condition
    names = [stem, f"{stem}-{main.spectrogram_type}", f"{stem}-{'-'.join(main.pair)}"]
    paths = [path for path in (folder / f"{name}.ipynb" for name in names) if path.is_file()]
    if not paths:
        raise FileNotFoundError(f"{folder}: no executed {stem}; let the run come to its end first")
    return paths[0]


def public_face(notebook, done, silent: bool = False) -> None:
    """Give ``notebook`` the outputs of ``done``, the same one executed, and what it found under its title.

    ``silent``: without players.

    Raises
    ------
    ValueError
        ``done`` is another version of the notebook.
    """
    added = ("injected-parameters", "found")
    cells = [cell for cell in done.cells if not set(added) & set(cell.metadata.get("tags", []))]
    own = [cell for cell in notebook.cells if "found" not in cell.metadata.get("tags", [])]
    if [cell.source for cell in cells] != [cell.source for cell in own]:
        raise ValueError("the run has executed another version of this notebook; run it again")
    count = 0
    for cell, result in zip(own, cells):
        if cell.cell_type == "code":
            count += 1
            cell.outputs, cell.execution_count = _smaller(result.outputs, count, silent), count
    lifted = [cell for cell in done.cells if "found" in cell.metadata.get("tags", [])]
    title = next(i for i, cell in enumerate(own) if cell.cell_type == "markdown")
    for cell in lifted:
        cell.metadata = nbformat.NotebookNode(tags=["found"])
    notebook.cells = [*own[: title + 1], *lifted, *own[title + 1 :]]


def _smaller(outputs: list, count: int, silent: bool) -> list:
    """Outputs without progress lines, with smaller pictures and the cell's number; ``silent``: no sounds."""
    kept = [output for output in outputs if output.output_type != "stream" or output.name != "stderr"]
    for output in kept:
        if "execution_count" in output:
            output.execution_count = count
        if silent and "text/html" in output.get("data", {}):
            output.data["text/html"] = PLAYER.sub(NOT_STORED, output.data["text/html"])
        if "image/png" in output.get("data", {}):
            output.data["image/png"] = small_png(output.data["image/png"])
    return kept


def store_public(study: Study, scores: Study | None = None) -> None:
    """Write the run's outputs into notebooks/; those of 05 of ``scores``, where that is given."""
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        shown = scores if scores and path.stem == OF_SCORES else study
        silent = shown.settings.dataset != GENERATED and path.stem not in OF_OUR_SOUNDS
        public_face(notebook, nbformat.read(executed(shown, path.stem), as_version=4), silent)
        nbformat.write(notebook, path)
        print("stored", path.name, f"{path.stat().st_size / 1000:.0f} kB", flush=True)


def store_regression(results: Path) -> None:
    """Write the tables and texts of a smoke run into tests/regression/."""
    REGRESSION.mkdir(exist_ok=True)
    for name, frame in numbers(results).items():
        frame.to_csv(REGRESSION / f"{name}.csv", index=False, float_format="%.8g")
    text = json.dumps(found(results), indent=1, ensure_ascii=False)
    (REGRESSION / "found.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--public", metavar="RESULTS", type=Path)
    parser.add_argument("--scores", metavar="RESULTS", type=Path)
    parser.add_argument("--regression", metavar="RESULTS", type=Path)
    given = parser.parse_args()
    if given.regression:
        store_regression(given.regression)
    if given.public:
        store_public(open_study(given.public), open_study(given.scores) if given.scores else None)
