"""What a result depends on: the notebook, and the package's modules that it imports, directly or not.

One digest through the imports keys what is stored, and the same modules are the inputs of the graph's rules.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from .. import constants

PACKAGE = Path(__file__).resolve().parents[1]
TABLES = (".csv", ".json", ".parquet")  # suffixes


@cache
def package_modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Dotted name -> file of every module below ``package``."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = (package.name, *path.relative_to(package).with_suffix("").parts)
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imported_names(tree: ast.AST, importer: str = "", is_package: bool = False) -> set[str]:
    """Dotted names that ``tree`` may import when it runs, wherever in it the import stands.

    Relative imports are resolved against the module ``importer``; ``from a import b`` gives ``a.b``, ``a.b``
    in an expression too, ``import a as c`` also ``a.*``. What stands under ``if TYPE_CHECKING`` is left out.
    """
    names: set[str] = set()
    for node in _running(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
            names.update(f"{alias.name}.*" for alias in node.names if alias.asname)
        elif isinstance(node, ast.ImportFrom):
            parts = importer.split(".") if node.level else []
            base = parts[: len(parts) - node.level + is_package] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names.update(f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names.add(f"{node.value.id}.{node.attr}")
    return names


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING``."""
    waiting = [tree]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
                yield node
                waiting.append(node)


@cache
def _imports_of(name: str, package: Path) -> tuple[frozenset[str], dict[str, str]]:
    """What a module imports, and its ``LAZY`` table: names that it loads at first use, and from where."""
    path = package_modules(package)[name]
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    lazy = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "LAZY":
            lazy = {key: f"{name}.{module}" for key, module in ast.literal_eval(node.value).items()}
    return frozenset(imported_names(tree, name, path.name == "__init__.py")), lazy


def module_closure(names: Iterable[str], package: Path = PACKAGE) -> list[Path]:
    """Files of the package's modules among ``names``, and of all that these import in turn.

    A module brings the ``__init__`` of its packages. A name that a package loads lazily (its table ``LAZY``)
    brings the module it comes from.
    """
    modules = package_modules(package)
    waiting, seen, found = set(names), set(), set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        parent, _, attribute = name.rpartition(".")
        more = {parent} if parent else set()
        if name in modules:
            found.add(name)
            more |= _imports_of(name, package)[0]
        elif parent in modules:
            lazy = _imports_of(parent, package)[1]
            more |= (
                set(lazy.values()) if attribute == "*" else {lazy[attribute]} if attribute in lazy else set()
            )
        waiting |= more - seen
    return sorted(modules[name] for name in found)


@cache
def digest(*modules: str) -> str:
    """Digest of the code of modules and of all that they import: what was computed by it changes with it."""
    files = module_closure(modules)
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def method_modules(methods: Iterable[str]) -> set[str]:
    """Dotted names of the modules that register these attribution methods; they are imported by name."""
    files = constants.method_files()
    return {f"{PACKAGE.name}.attributions.{files[method]}" for method in methods if method in files}


def notebook_code(notebook: Path) -> str:
    """Python of a notebook's code cells, without magics and shell lines."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    lines = []
    for cell in cells:
        source = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
        if cell["cell_type"] == "code" and not source.lstrip().startswith("%%"):
            lines += ["" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines()]
    return "\n".join(lines) + "\n"


@cache
def notebook_sources(
    notebook: Path, methods: tuple[str, ...] = (), package: Path = PACKAGE
) -> tuple[str, ...]:
    """Paths of a notebook and of exactly the package's modules that it imports, directly or not.

    Those of ``methods`` come along where the notebook uses attribution methods at all, and the tables of
    ``published`` where it reads published numbers.

    Raises
    ------
    FileNotFoundError
        If the notebook does not exist.
    ValueError
        If it is not a notebook, or its code is not Python.
    """
    try:
        tree = ast.parse(notebook_code(notebook), filename=str(notebook))
    except (SyntaxError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{notebook} must be a notebook with Python cells: {error}") from error
    names = imported_names(tree)
    paths = module_closure(names, package)
    if package / "attributions" / "registry.py" in paths:
        paths = module_closure(names | method_modules(methods), package)
    if package / "published" / "__init__.py" in paths:
        paths = [*paths, *published_tables(package)]
    return (str(notebook), *(str(path) for path in paths))


def published_tables(package: Path = PACKAGE) -> list[Path]:
    """The files that ``published`` reads."""
    return sorted(path for path in (package / "published").rglob("*") if path.suffix in TABLES)


@cache
def parameter_defaults(notebook: Path) -> dict[str, object]:
    """Names that the notebook's ``parameters`` cell assigns, with their values; empty without that cell.

    A value that is not a plain constant is given as ``None``.
    """
    defaults = {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell.get("metadata", {}).get("tags", []):
            for node in ast.walk(ast.parse("".join(cell["source"]))):
                if isinstance(node, (ast.Assign, ast.AnnAssign)):
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    value = node.value.value if isinstance(node.value, ast.Constant) else None
                    defaults |= {target.id: value for target in targets if isinstance(target, ast.Name)}
    return defaults
