"""What a notebook's result depends on: itself, and the package's modules it imports."""

from __future__ import annotations

import ast
import json
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


@cache
def package_modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Dotted name -> file of every module below ``package``."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = (package.name, *path.relative_to(package).with_suffix("").parts)
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imported_names(tree: ast.AST, importer: str = "", is_package: bool = False) -> set[str]:
    """Dotted names that ``tree`` may import or use, wherever in it the import stands.

    Relative imports are resolved against the module ``importer``; ``from a import b`` gives
    ``a.b``, ``a.b`` in an expression too, ``import a as c`` also ``a.*``, and every dotted string
    literal is taken for a name (for ``import_module``).
    """
    names: set[str] = set()
    for node in ast.walk(tree):
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
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            names.add(node.value)
    return names


@cache
def _imports_of(name: str, package: Path) -> tuple[frozenset[str], dict[str, frozenset[str]]]:
    """What a module imports, and for each name that its ``__getattr__`` knows what that loads at first use."""
    path = package_modules(package)[name]
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    where = (name, path.name == "__init__.py")
    getattrs = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "__getattr__"]
    tree.body = [node for node in tree.body if node not in getattrs]
    lazy = ast.Module(getattrs, [])
    known = {node.value for node in ast.walk(lazy) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    loaded = frozenset(imported_names(lazy, *where))
    return frozenset(imported_names(tree, *where)), dict.fromkeys(known | {"*"}, loaded)


def module_closure(names: set[str], package: Path = PACKAGE, siblings: bool = True) -> list[Path]:
    """Files of the package's modules among ``names``, and of all that these import in turn.

    A package brings its ``__init__``; a subpackage, such as the methods, all its modules,
    because they register themselves (unless ``siblings`` is False). What a module's ``__getattr__`` loads at first use of a
    name counts where that name is imported or used.
    """
    modules = package_modules(package)
    waiting, seen, found = set(names), set(), set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        parent, _, attribute = name.rpartition(".")
        more = {parent}
        if name in modules:
            found.add(name)
            more |= _imports_of(name, package)[0]
            if siblings and name != package.name:
                more |= {other for other in modules if other.startswith(f"{name}.")}
        elif parent in modules:
            more |= _imports_of(parent, package)[1].get(attribute, frozenset())
        waiting |= more - seen
    return sorted(modules[name] for name in found)


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
def notebook_sources(notebook: Path, package: Path = PACKAGE) -> tuple[str, ...]:
    """Paths of a notebook and of exactly the package's modules that it imports, directly or not.

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
    return (str(notebook), *(str(path) for path in module_closure(imported_names(tree), package)))


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
