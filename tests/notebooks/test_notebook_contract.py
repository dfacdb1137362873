"""What every notebook promises: one parameters cell, small cells, executed, readable without us."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
PARAMETERS = {"profile", "dataset", "data_root", "noise_root", "results_dir", "seed", "device"}
MACHINE_PATH = re.compile(r"/(tmp|root|home|work|Users|mnt)/")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return json.dumps([cell.outputs for cell in code(notebook)])


def test_there_are_notebooks():
    assert [path.stem[:2] for path in NOTEBOOKS][:6] == ["01", "02", "03", "04", "05", "06"]


def test_it_is_valid_and_small(notebook):
    nbformat.validate(notebook)
    assert len(json.dumps(notebook)) < 1_000_000


def test_one_parameters_cell_of_plain_assignments(notebook):
    tagged = [cell for cell in code(notebook) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    statements = ast.parse(tagged[0].source).body
    assert all(isinstance(s, ast.Assign) and isinstance(s.value, ast.Constant) for s in statements)
    assert PARAMETERS <= {s.targets[0].id for s in statements}


EXPLAINS = ("03", "04", "06", "07", "08", "10", "11")


def test_who_reads_the_explained_clips_takes_their_number(notebook, request):
    """What --clips changes reaches them; 05 reads scores, which are of those clips already."""
    (tagged,) = [cell.source for cell in code(notebook) if "parameters" in cell.metadata.get("tags", [])]
    made = "".join(cell.source for cell in code(notebook)).count("seed, device, n_clips)")
    reads = request.node.callspec.id.startswith(EXPLAINS)
    assert ("n_clips = 0" in tagged.splitlines(), made) == (reads, int(reads))


def test_cells_are_small_and_define_no_classes(notebook):
    for cell in code(notebook):
        assert len(cell.source.splitlines()) <= 20, cell.source[:80]
        tree = ast.parse(cell.source)
        for node in ast.walk(tree):
            assert not isinstance(node, ast.ClassDef)
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 8, node.name


def test_it_opens_with_a_title_and_a_question_and_closes_with_a_summary(notebook):
    first, titles = notebook.cells[0].source, [c.source for c in notebook.cells if c.cell_type == "markdown"]
    assert first.startswith("# ") and "**Question.**" in first
    assert titles[-1] == "## Summary" and notebook.cells[-1].cell_type == "code"


def test_every_cell_was_executed_in_order(notebook):
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_outputs_hold_no_paths_warnings_or_errors(notebook):
    text = re.sub(r'"image/(png|svg\+xml|jpeg|webp)": "[^"]*"', "", outputs(notebook))
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert not MACHINE_PATH.search(text)
    assert "Warning" not in text and "Traceback" not in text
    assert all(output.output_type != "error" for cell in code(notebook) for output in cell.outputs)


def test_links_between_notebooks_lead_somewhere(notebook):
    for cell in notebook.cells:
        for target in re.findall(r"\]\(([\w./-]+\.ipynb)", cell.source):
            assert (NOTEBOOKS[0].parent / target).is_file(), target
