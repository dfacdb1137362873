"""The public face of a notebook: a run's outputs, its own parameters, what was found under the title."""

import base64
import copy
import io
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import store_notebooks
from regression import found

new = nbformat.v4


def png(size: int = 64) -> str:
    pixels = np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def pair():
    """(notebook as it is written, the same one as a run leaves it)."""

    def cells(value):
        return [
            new.new_markdown_cell("# Title"),
            new.new_code_cell('results_dir = ""'),
            new.new_code_cell("display(1)"),
            new.new_code_cell("summary", metadata={"tags": ["summary"]}),
        ]

    written, done = new.new_notebook(cells=cells("")), new.new_notebook(cells=cells(""))
    done.cells.insert(
        2, new.new_code_cell('results_dir = "/there"', metadata={"tags": ["injected-parameters"]})
    )
    done.cells[3].outputs = [
        new.new_output("stream", name="stderr", text="lime on mel, clean: 1/2\n"),
        new.new_output("execute_result", data={"image/png": png()}, execution_count=3),
    ]
    words = "- 0.5 of 3 `0123456789ab` clips, 2.5 s a clip\n- **3 of 4** masks"
    done.cells[4].outputs = [new.new_output("display_data", data={"text/markdown": words})]
    lifted = new.new_markdown_cell(words, metadata={"tags": ["found"], "papermill": {"duration": 1}})
    done.cells.insert(1, lifted)
    return written, done


def test_outputs_are_taken_over_without_progress_and_parameters():
    written, done = pair()
    store_notebooks.public_face(written, done)
    code = [cell for cell in written.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3]
    assert "/there" not in nbformat.writes(written) and "1/2" not in nbformat.writes(written)
    (picture,) = code[1].outputs
    assert picture.execution_count == 2 and len(picture.data["image/png"]) < len(png())
    assert written.cells[1].metadata == {"tags": ["found"]} and written.cells[1].source.startswith(
        "- 0.5 of 3"
    )


def test_a_silent_face_has_no_sound():
    written, done = pair()
    player = '<audio controls src="data:audio/mpeg;base64,AAAA"></audio>'
    html = f"<table><tr><td>rain {player}</td><td>dog {player}</td></tr></table>"
    done.cells[-1].outputs.append(new.new_output("display_data", data={"text/html": html}))
    loud = copy.deepcopy(written)
    store_notebooks.public_face(loud, copy.deepcopy(done))
    assert nbformat.writes(loud).count("data:audio") == 2
    store_notebooks.public_face(written, done, silent=True)
    stored = nbformat.writes(written)
    assert "data:audio" not in stored and stored.count(store_notebooks.NOT_STORED) == 2 and "rain" in stored


def test_a_large_picture_is_stored_as_it_is_shown_and_a_small_one_as_it_is():
    sizes = [
        Image.open(io.BytesIO(base64.b64decode(store_notebooks.small_png(png(n))))).size for n in (64, 500)
    ]
    assert sizes == [(64, 64), (250, 250)]


def test_what_was_found_is_replaced_and_not_repeated():
    written, done = pair()
    store_notebooks.public_face(written, done)
    store_notebooks.public_face(written, pair()[1])
    assert sum("found" in cell.metadata.get("tags", []) for cell in written.cells) == 1


def test_another_version_of_the_notebook_is_refused():
    written, done = pair()
    written.cells[2].source = "display(2)"
    with pytest.raises(ValueError, match="executed another version of this notebook"):
        store_notebooks.public_face(written, done)


def test_the_regression_keeps_words_without_numbers_and_seconds(tmp_path):
    (tmp_path / "notebooks").mkdir()
    nbformat.write(pair()[1], tmp_path / "notebooks" / "01_a.ipynb")
    assert found(tmp_path) == {"01_a": ["- **# of #** masks"]}
