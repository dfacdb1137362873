"""A notebook's page: what is folded, what comes first, formulas, links and sounds."""

from __future__ import annotations

import base64
import re

import nbformat.v4 as v4
import pytest
from report_run import display, notebook

from audioxai_utils.gallery.notebook_pages import mathml, notebook_body, part_words, relink, sounds_to_files


def test_progress_is_folded_and_a_warning_is_not(tmp_path):
    """Lines of Study.progress and of tqdm are folded away in one place; a warning stays one."""
    texts = [
        ("stdout", "start\n"),
        ("stderr", "lime on mel, clean: 1/20\nlime on mel, clean: 20/"),
        ("stderr", "20\n"),
        ("stderr", "epochs:  40%|####      | 4/10 [00:01<00:02]\n"),
        ("stderr", "x.py:3: UserWarning: 2/3 of the clips are silent\n  warnings.warn(text)\n"),
        ("stdout", "end\n"),
        ("stderr", "shap on mel, clean: 20/20\n"),
    ]
    outputs = [v4.new_output("stream", name=name, text=text) for name, text in texts]
    notebook(tmp_path / "a.ipynb", [("code", "run()", outputs)])
    text = notebook_body(tmp_path / "a.ipynb", tmp_path, {})
    folded = re.findall(
        r'<details class="progress"><summary>(.*?)</summary><pre[^>]*>(.*?)</pre>', text, re.S
    )
    assert [(words, lines.split("\n")[:-1]) for words, lines in folded] == [
        (
            "Progress (4 lines)",
            [
                "lime on mel, clean: 1/20",
                "lime on mel, clean: 20/20",
                "epochs:  40%|####      | 4/10 [00:01&lt;00:02]",
                "shap on mel, clean: 20/20",
            ],
        )
    ]
    found = re.findall(r'<div class="output( warning)?"><pre[^>]*>(.*?)</pre>', text, re.S)
    assert [(bool(mark), lines.strip().split("\n")) for mark, lines in found] == [
        (False, ["start"]),
        (True, ["x.py:3: UserWarning: 2/3 of the clips are silent", "  warnings.warn(text)"]),
        (False, ["end"]),
    ]


def test_setup_is_folded_and_the_science_is_not(tmp_path):
    cells = [
        ("markdown", "# T", []),
        ("code", "import torch\nfrom a import (\n    b,\n)", []),
        ("code", 'results_dir = ""', [], "parameters"),
        ("code", 'results_dir = "r"', [], "injected-parameters"),
        ("code", "maps = condition.attribute(method)", []),
    ]
    notebook(tmp_path / "a.ipynb", cells)
    text = notebook_body(tmp_path / "a.ipynb", tmp_path, {})
    assert re.findall(r'<details class="input"><summary>(\w+)</summary>', text) == [
        "Imports",
        "Parameters",  # what was given, without the defaults
    ]
    shown = re.sub(r"<[^>]+>", "", text[text.rindex('<div class="input">') :])
    assert "maps = condition.attribute(method)" in shown


@pytest.mark.parametrize("marked", [True, False])
def test_what_was_found_comes_first(tmp_path, marked):
    """The cell ``found``; without one, what the cell ``summary`` displayed."""
    said = [display({"text/markdown": "LIME wins on **7** clips.", "text/plain": "x"})]
    cells = [("markdown", "# Title", []), ("markdown", "## First", []), ("code", "say()", said, "summary")]
    if marked:
        cells.append(("markdown", "The run **says** so.", [], "found"))
    notebook(tmp_path / "a.ipynb", cells)
    text = notebook_body(tmp_path / "a.ipynb", tmp_path, {})
    found = "The run <strong>says</strong> so." if marked else "LIME wins on <strong>7</strong> clips."
    assert (
        text.index("Title") < text.index('class="cell text found"') < text.index(found) < text.index("First")
    )
    assert text.count('class="cell text found"') == 1


def test_parts_of_a_condition_are_named_in_words():
    assert part_words("04_mask_study-mel_db-white") == "mel, white noise"
    assert part_words("02_fine_tuning-stft_db") == "STFT" and part_words("01_data_and_noise") == ""
    assert part_words("03_attributions-mel_db-my-cafe") == "mel, my-cafe"
    assert part_words("03_attributions-stft_db-clean-lime") == "STFT, clean, LIME"


def test_formulas_leave_code_and_prices_alone():
    assert mathml("<code>$a$</code> and <pre>x $b$ y</pre>") == "<code>$a$</code> and <pre>x $b$ y</pre>"
    assert mathml("from $5 to $6") == "from $5 to $6"
    assert "<math" in mathml("$a &lt; b$") and "<mo>&#x0003C;</mo>" in mathml("$a &lt; b$")
    assert 'display="block"' in mathml("$$\\sum_i x_i$$")


def test_links_and_embedded_sounds(tmp_path):
    assert relink('<a href="x/02_b.ipynb#c">', {"02_b": "B"}) == '<a href="02_b.html#c">'
    assert relink('<a href="https://a.org/n.ipynb">', {"n": "N"}) == '<a href="https://a.org/n.ipynb">'
    data = bytes(range(64))
    text = sounds_to_files(
        f'<source src="data:audio/wav;base64,{base64.b64encode(data).decode()}">', tmp_path / "f", "f"
    )
    name = re.search(r'src="f/(\w+\.wav)"', text)[1]
    assert (tmp_path / "f" / name).read_bytes() == data
