"""A step depends on its notebook and the modules that this imports; what is stored is keyed by the same."""

from __future__ import annotations

import ast
import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from audioxai_utils import constants
from audioxai_utils.run import graph
from audioxai_utils.study import attribute, sources
from audioxai_utils.study.settings import Settings

FILES = {
    "__init__.py": 'import importlib\nLAZY = {"explain": "late"}\ndef __getattr__(name): ...\n',
    "base.py": "",
    "late.py": "from . import base\ndef explain(): pass\n",
    "middle.py": "def later():\n    from .base import x\n",
    "top.py": "import package.middle as m\n",
    "typed.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import top\n",
    "alone.py": "",
    "room/__init__.py": "",
    "room/one.py": "from ..alone import x\n",
    "room/two.py": "from . import one\n",
}


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "package"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def write_notebook(path: Path, *codes: str, parameters: str | None = None) -> None:
    """A notebook of code cells; ``parameters`` is that of the cell with the tag."""
    cells = [nbformat.v4.new_code_cell(code) for code in codes]
    if parameters is not None:
        cells.insert(0, nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import numpy", ""),
        ("from package import base", "__init__ base"),
        ("import package", "__init__"),
        ("from package import explain", "__init__ late base"),
        ("import package\npackage.explain()", "__init__ late base"),
        ("import package as p\np.explain()", "__init__ late base"),
        ("def f():\n    from package.middle import later", "__init__ middle base"),
        ("import package.top", "__init__ top middle base"),
        ("from package import typed", "__init__ typed"),
        ("import package.room.two", "__init__ room/__init__ room/two room/one alone"),
        ("%matplotlib inline\n!ls\nfrom package import alone", "__init__ alone"),
    ],
)
def test_closure(package, tmp_path, code, modules):
    notebook = tmp_path / "a.ipynb"
    write_notebook(notebook, code, "%%bash\nimport package.top", parameters='seed = ""')
    found = sources.notebook_sources(notebook, package=package)
    assert found[0] == str(notebook)
    assert set(found[1:]) == {str(package / f"{name}.py") for name in modules.split()}


def test_published_tables_are_inputs_of_the_notebooks_that_import_them_alone(package, tmp_path):
    tables = {"published/one.csv", "published/ours/two.parquet", "published/ours/three.json"}
    for name in (*tables, "published/__init__.py", "published/ours/note.md", "room/four.csv"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("")
    (package / "reader.py").write_text("from . import published\n")
    modules = {"__init__.py", "published/__init__.py"}
    for code, expected in {
        "from package.published import x": modules | tables,
        "from package import reader": modules | tables | {"reader.py"},
        "from package.room import one": {"__init__.py", "room/__init__.py", "room/one.py", "alone.py"},
    }.items():
        write_notebook(tmp_path / f"{len(code)}.ipynb", code)
        found = sources.notebook_sources(tmp_path / f"{len(code)}.ipynb", package=package)
        assert set(found[1:]) == {str(package / name) for name in expected}, code


def test_a_changed_published_table_reruns_the_steps_that_show_it():
    """By the inputs of the graph's rules; attributions read no table."""
    steps = graph.Graph(dataclasses.asdict(Settings("smoke")) | {"states": {}})
    ours = sources.PACKAGE / "published" / "ours"
    shown = {
        "09_own_model": "street.csv",
        "10_localisation": "stems.parquet",
        "12_planted_causes": "planted.parquet",
        "14_other_sounds": "other_sounds.parquet",
        "05_metrics_and_tables": "scores.parquet",
        graph.REPORT: "other_sounds.csv",
    }
    for notebook, table in shown.items():
        assert (ours / table).is_file() and str(ours / table) in steps.sources(notebook), notebook
    for notebook in ("01_data_and_noise", "03_attributions", "11_noise_levels"):
        assert not [path for path in steps.sources(notebook) if "published" in path], notebook


INTERPRETER = """
import json, os, sys
import numpy, pandas, torch
for line in sys.stdin:
    if not os.fork():
        exec(json.loads(line), {"__name__": "__main__"})
        loaded = [m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "audioxai_utils"]
        print(json.dumps(loaded), flush=True)
        os._exit(0)
    if os.wait()[1]:
        print("null", flush=True)
"""


@functools.cache
def interpreter() -> subprocess.Popen:
    """A Python that knows the libraries and nothing of the package; each line of code runs in a copy of it."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    env = os.environ | {"PYTHONPATH": str(constants.REPOSITORY)}
    return subprocess.Popen([sys.executable, "-P", "-c", INTERPRETER], env=env, **pipes)


@functools.cache
def loaded_files(code: str) -> set[str]:
    """Files of the package that Python itself has loaded when ``code`` has run in a new process."""
    process = interpreter()
    print(json.dumps(code), file=process.stdin, flush=True)
    loaded = json.loads(process.stdout.readline())
    assert loaded is not None, "the code failed; see what it wrote to stderr"
    return set(loaded)


NOTEBOOKS = ("01_data_and_noise", "03_attributions", "04_mask_study", "05_metrics_and_tables")


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_closure_holds_what_python_itself_loads(notebook):
    """The interpreter as the oracle: the modules loaded by the notebook's import cells."""
    path = constants.REPOSITORY / "notebooks" / f"{notebook}.ipynb"
    tree = ast.parse(sources.notebook_code(path))
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    loaded = loaded_files(ast.unparse(ast.Module(imports, [])))
    assert loaded <= set(sources.notebook_sources(path)) and len(loaded) > 5


SETUP = """
import tempfile
from pathlib import Path
import pandas as pd, torch
from audioxai_utils.audio.spectrograms import get_spectrogram
from audioxai_utils.models.cnn14 import Cnn14
from audioxai_utils.study.classifiers import Classifier
from audioxai_utils.study.clips import Clips
torch.manual_seed(0)
info, frame = {"gradient_error": 0.0}, pd.DataFrame([{"clip": "a", "category": "x", "label": 0}])
classifier = Classifier(Cnn14(64, 2, 1 / 32).eval(), get_spectrogram("mel_db"), ("x", "y"), info, "d")
clips, background = Clips(frame, torch.rand(1, 16000) - 0.5, []), torch.rand(2, 1, 64, 51) * 50 - 60
folder = Path(tempfile.mkdtemp())
"""


def used_by(statement: str) -> set[str]:
    """Files loaded by a computation on one short clip, without those that only set it up."""
    return loaded_files(SETUP + statement) - loaded_files(SETUP)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("guided_gradcam", "{}"),
        ("shap", '{"background": background}'),
        ("slime_hpss", '{"n_samples": 4}'),
    ],
)
def test_the_key_of_an_attribution_knows_every_module_that_made_it(method, options):
    """A module that takes part and is missed by the digest would leave stale maps when it is changed."""
    run = "from audioxai_utils.study import attribute\n"
    run += f"list(attribute.attribute(classifier, clips, {method!r}, {options}, folder))"
    package = sources.PACKAGE.name
    names = [attribute.__name__, f"{package}.attributions.{constants.method_files()[method]}"]
    known = set(map(str, sources.module_closure(names)))
    used = used_by(run)
    assert used <= known, sorted(used - known)
    assert any(path.endswith(f"attributions/{constants.method_files()[method]}.py") for path in used)


def test_the_key_of_scores_knows_every_module_that_made_them():
    run = """
from audioxai_utils.study import score
attributed = {"saliency": (torch.rand(1, 1, 64, 51) - 0.5, [0.1])}
score.score_block(classifier, clips, 0, attributed, ["paper", "audited"], folder, {"noise_scenario": "clean"})
"""
    known, used = set(map(str, sources.module_closure(["audioxai_utils.study.score"]))), used_by(run)
    scored_by = {path for path in loaded_files(SETUP + run) if "/evaluation/" in path}  # the set-up's too
    assert any(path.endswith("evaluation/metrics.py") for path in scored_by)
    assert used | scored_by <= known, sorted((used | scored_by) - known)


def test_the_digest_changes_with_the_modules_a_method_imports_and_no_others(monkeypatch):
    """Guided Grad-CAM takes its layer from gradcam; saliency knows nothing of it."""
    methods = ("guided_gradcam", "gradcam", "saliency", "slime")

    def digests():
        sources.digest.cache_clear()
        return {name: attribute.method_digest(name) for name in methods}

    before, read = digests(), Path.read_bytes

    def changed(*name):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path.parts[-2:] == name))
            after = digests()
        return {method for method, digest in after.items() if digest != before[method]}

    try:
        assert changed("attributions", "gradcam.py") == {"guided_gradcam", "gradcam"}
        assert changed("attributions", "lime.py") == {"slime"}
        assert changed("attributions", "saliency.py") == {"guided_gradcam", "saliency"}
        for everywhere in (
            ("attributions", "registry.py"),
            ("audioxai_utils", "numerics.py"),
            ("study", "attribute.py"),
        ):
            assert changed(*everywhere) == set(methods)
        assert changed("figures", "maps.py") == changed("evaluation", "tables.py") == set()
    finally:
        sources.digest.cache_clear()


def test_an_unreadable_notebook_names_itself(tmp_path):
    broken = tmp_path / "broken.ipynb"
    broken.write_text("{}")
    with pytest.raises(ValueError, match=r"broken\.ipynb must be a notebook with Python cells"):
        sources.notebook_sources(broken)
    write_notebook(tmp_path / "wrong.ipynb", "def (")
    with pytest.raises(
        ValueError, match=r"wrong\.ipynb must be a notebook with Python cells: invalid syntax"
    ):
        sources.notebook_sources(tmp_path / "wrong.ipynb")
    with pytest.raises(FileNotFoundError):
        sources.notebook_sources(Path(tmp_path, "missing.ipynb"))


def test_parameter_defaults(tmp_path):
    write_notebook(tmp_path / "a.ipynb", "other = 1", parameters='seed = ""\ndevice = "cpu"')
    assert sources.parameter_defaults(tmp_path / "a.ipynb") == {"seed": "", "device": "cpu"}
    write_notebook(tmp_path / "b.ipynb", 'seed = ""')
    assert sources.parameter_defaults(tmp_path / "b.ipynb") == {}
