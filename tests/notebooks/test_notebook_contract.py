"""What every notebook promises: few parameters, small cells, formulas, an answer, nothing of a machine."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
PARAMETERS = {"results_dir": ""}
FURTHER = {
    "02": {"spectrogram_type": "mel_db"},
    "03": {"spectrogram_type": "mel_db", "noise_scenario": "clean"},
    "04": {"spectrogram_type": "mel_db", "noise_scenario": "clean"},
}
DEFINE = ("02", "03", "04", "05")  # what these do they define by formulas
MACHINE_PATH = re.compile(r"/(tmp|root|home|work|Users|mnt)/")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


@pytest.fixture
def number(request):
    return request.node.callspec.id[:2]


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag):
    return [cell for cell in code(notebook) if tag in cell.metadata.get("tags", [])]


def outputs(notebook):
    return json.dumps([cell.outputs for cell in code(notebook)])


def test_there_are_notebooks():
    assert [path.stem[:2] for path in NOTEBOOKS if path.stem[:2] != "00"][:5] == [
        "01",
        "02",
        "03",
        "04",
        "05",
    ]


def test_it_is_valid_and_small(notebook):
    nbformat.validate(notebook)
    assert len(json.dumps(notebook)) < 2_000_000


def test_its_parameters_are_those_of_the_run(notebook, number):
    (cell,) = tagged(notebook, "parameters")
    statements = ast.parse(cell.source).body
    assert all(isinstance(s, ast.Assign) and isinstance(s.value, ast.Constant) for s in statements)
    assert {s.targets[0].id: s.value.value for s in statements} == PARAMETERS | FURTHER.get(number, {})


def test_cells_are_small_and_define_nothing(notebook):
    for cell in code(notebook):
        lines = cell.source.splitlines()
        assert len(lines) <= 25 and max(map(len, lines)) <= 110, cell.source[:120]
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)), node.name


def test_no_cell_exists_for_a_test(notebook):
    """What only asserts, or prints the shape of something, belongs to the tests."""
    for cell in code(notebook):
        statements = ast.parse(cell.source).body
        assert not any(isinstance(node, ast.Assert) for node in statements), cell.source[:120]
        last = statements[-1] if statements else None
        if isinstance(last, ast.Expr):
            assert not ast.unparse(last.value).endswith((".shape", ".columns.tolist()", ".dtype")), (
                cell.source[:120]
            )


def test_it_opens_with_a_title_and_a_question_and_closes_with_a_summary(notebook):
    first, markdown = (
        notebook.cells[0].source,
        [c.source for c in notebook.cells if c.cell_type == "markdown"],
    )
    assert first.startswith("# ") and "**Question.**" in first and first.count("?") >= 1
    if not re.match(r"# \d\d · ", first):  # the report says what was found at its beginning
        return
    assert markdown[-1] == "## Summary"
    assert tagged(notebook, "summary") == [notebook.cells[-1]]
    assert "Markdown(" in "".join(notebook.cells[-1].source.split())


def test_code_is_introduced(notebook):
    """Every section says what it is about before it computes: no long run of code without a word."""
    run = 0
    for cell in notebook.cells:
        run = run + 1 if cell.cell_type == "code" else 0
        assert run <= 3, cell.source[:120]


def test_what_it_defines_it_defines_by_formulas(notebook, number):
    if number not in DEFINE:
        pytest.skip("defines nothing")
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert len(re.findall(r"(?<!\\)\$\$.+?\$\$|(?<![\\$])\$[^$]+\$(?!\$)", text, flags=re.DOTALL)) >= 5


def test_every_formula_can_be_drawn_offline(notebook):
    """By the converter that the report uses."""
    from latex2mathml.converter import convert

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"`[^`]*`", "", cell.source)
            for block, inline in re.findall(r"\$\$(.+?)\$\$|\$([^$]+?)\$", text, flags=re.DOTALL):
                drawn = convert(block or inline)
                assert drawn.startswith("<math") and "\\" not in drawn, block or inline
                assert inline == inline.strip(), (
                    inline
                )  # with spaces inside the dollars it stays as it was typed


def test_numbers_in_prose_are_not_typed_results(notebook):
    """A result in a Markdown cell would stay when the run changes; what was found is rendered by the run."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and "found" not in cell.metadata.get("tags", []):
            prose = re.sub(r"`[^`]*`|\$[^$]*\$|https?://\S+", "", cell.source)
            assert not re.search(r"\b\d+\.\d+ ?(%|s\b|dB\b)", prose), cell.source[:120]


def test_every_cell_was_executed_in_order_or_none(notebook):
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts in (list(range(1, len(counts) + 1)), [None] * len(counts))


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
