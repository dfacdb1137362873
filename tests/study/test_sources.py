"""A step depends on its notebook and exactly the modules that this imports, directly or not."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import toy_study

from audioxai_utils.study import sources

FILES = {
    "__init__.py": "def __getattr__(name):\n    if name == 'explain':\n        from .late import explain\n        return explain\n",
    "base.py": "",
    "late.py": "from . import base\ndef explain(): pass\n",
    "middle.py": "def later():\n    from .base import x\n",
    "top.py": "import package.middle as m\n",
    "by_name.py": "import importlib\nimportlib.import_module('package.alone')\n",
    "alone.py": "",
    "methods/__init__.py": "import pkgutil\n",
    "methods/one.py": "from ..alone import x\n",
    "methods/two.py": "from . import one\n",
}


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "package"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(("code", "modules"), [
    ("import numpy", ""),
    ("from package import base", "__init__ base"),
    ("import package", "__init__"),
    ("from package import explain", "__init__ late base"),
    ("import package\npackage.explain()", "__init__ late base"),
    ("import package as p\np.explain()", "__init__ late base"),
    ("def f():\n    from package.middle import later", "__init__ middle base"),
    ("import package.top", "__init__ top middle base"),
    ("from package.by_name import anything", "__init__ by_name alone"),
    ("from package.methods import METHODS", "__init__ methods/__init__ methods/one methods/two alone"),
    ("import package.methods.two", "__init__ methods/__init__ methods/one methods/two alone"),
    ("%matplotlib inline\n!ls\nfrom package import alone", "__init__ alone"),
])
def test_closure(package, tmp_path, code, modules):
    notebook = tmp_path / "a.ipynb"
    toy_study.write_notebook(notebook, ("seed",), code, "%%bash\nimport package.top")
    found = sources.notebook_sources(notebook, package)
    assert found[0] == str(notebook)
    assert set(found[1:]) == {str(package / f"{name}.py") for name in modules.split()}


@pytest.mark.parametrize("notebook", ["01_data_and_noise", "04_mask_study", "05_metrics_and_tables"])
def test_closure_holds_what_python_itself_loads(notebook):
    """The interpreter as the oracle: the modules loaded by the notebook's import cells."""
    path = toy_study.REPOSITORY / "notebooks" / f"{notebook}.ipynb"
    tree = ast.parse(sources.notebook_code(path))
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    code = ast.unparse(ast.Module(imports, [])) + "\nimport sys, json\n"
    code += "print(json.dumps([m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'audioxai_utils']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=toy_study.REPOSITORY, capture_output=True, text=True,
                          check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert loaded <= set(sources.notebook_sources(path)) and len(loaded) > 5


def test_an_unreadable_notebook_names_itself(tmp_path):
    broken = tmp_path / "broken.ipynb"
    broken.write_text("{}")
    with pytest.raises(ValueError, match=r"broken\.ipynb must be a notebook with Python cells"):
        sources.notebook_sources(broken)
    toy_study.write_notebook(tmp_path / "wrong.ipynb", ("seed",), "def (")
    with pytest.raises(ValueError, match=r"wrong\.ipynb must be a notebook with Python cells: invalid syntax"):
        sources.notebook_sources(tmp_path / "wrong.ipynb")
    with pytest.raises(FileNotFoundError):
        sources.notebook_sources(Path(tmp_path, "missing.ipynb"))


def test_parameter_defaults(tmp_path):
    path = tmp_path / "a.ipynb"
    toy_study.write_notebook(path, ("seed", "device"), "other = 1")
    assert sources.parameter_defaults(path) == {"seed": "", "device": ""}
    toy_study.write_notebook(tmp_path / "b.ipynb", ("seed",), tagged=False)
    assert sources.parameter_defaults(tmp_path / "b.ipynb") == {}
