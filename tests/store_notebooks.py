"""Execute the notebooks on a finished smoke study and store what they show, here and in tests/regression.

    ./run_all.sh --profile smoke --results SOMEWHERE/generated-smoke
    .venv/bin/python tests/store_notebooks.py SOMEWHERE

Run it after a change that is meant to change numbers, and read the difference before committing it.
"""

import base64
import io
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image
from test_notebooks import NOTEBOOKS, REGRESSION, ROOT, numbers


def small_png(encoded: str) -> str:
    """The same picture with a palette of 256 colours: a third of the size."""
    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def store(path: Path) -> None:
    """Execute one notebook in its own folder; keep outputs, drop times."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = small_png(output.data["image/png"])
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, path)
    print("stored", path.name, f"{path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    parent = Path(sys.argv[1]).resolve()
    os.environ |= {"AUDIOXAI_RESULTS": str(parent), "PYTHONPATH": str(ROOT)}
    REGRESSION.mkdir(exist_ok=True)
    for name, frame in numbers(parent / "generated-smoke").items():  # before the notebooks write into the results
        frame.to_csv(REGRESSION / f"{name}.csv", index=False, float_format="%.8g")
    for path in NOTEBOOKS:
        store(path)
