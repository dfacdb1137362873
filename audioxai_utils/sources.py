"""What a notebook's result depends on: itself, and the package's modules it imports."""

from __future__ import annotations

import ast
import json
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


@cache
def package_modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Dotted name -> file of every module below ``package``."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = (package.name, *path.relative_to(package).with_suffix("").parts)
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imported_names(tree: ast.AST, importer: str = "", is_package: bool = False) -> set[str]:
    """Dotted names that ``tree`` may import, wherever in it the import stands.

    Relative imports are resolved against the module ``importer``; of ``from a import b``
    both ``a`` and ``a.b`` are given, and every dotted string literal too (for ``import_module``).
    """
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = importer.split(".") if node.level else []
            base = parts[: len(parts) - node.level + is_package] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            names.add(node.value)
    return names


@cache
def _direct_imports(name: str, package: Path) -> frozenset[str]:
    path = package_modules(package)[name]
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return frozenset(imported_names(tree, name, path.name == "__init__.py"))


def module_closure(names: set[str], package: Path = PACKAGE) -> list[Path]:
    """Files of the package's modules among ``names``, and of all that these import in turn.

    A package brings its ``__init__``; a subpackage, such as the methods, all its modules,
    because they register themselves.
    """
    modules = package_modules(package)
    waiting, found = set(names), set()
    while waiting:
        name = waiting.pop()
        if name not in modules or name in found:
            continue
        found.add(name)
        waiting |= _direct_imports(name, package)
        if "." in name:
            waiting.add(name.rpartition(".")[0])
            waiting |= {other for other in modules if other.startswith(f"{name}.")}
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
def parameter_names(notebook: Path) -> frozenset[str]:
    """Names that the notebook's ``parameters`` cell assigns; empty without such a cell."""
    names = set()
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell.get("metadata", {}).get("tags", []):
            for node in ast.walk(ast.parse("".join(cell["source"]))):
                if isinstance(node, (ast.Assign, ast.AnnAssign)):
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(names)
