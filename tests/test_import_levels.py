"""A module imports only from lower levels, so that data flows one way through the package."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "audioxai_utils"
LEVELS = [
    {"config", "devices", "published", "statistics", "sound_events", "sounds", "locks", "progress", "sources", "results",
     "inference", "models", "precision", "slurm", "speed", "watch"},
    {"attributions", "controls", "downloads", "forkserver", "frames", "graph", "inputs", "listening", "masks", "metrics", "noise", "spectrograms",
     "style", "synthesis", "table_styles", "training"},
    {"checks", "comparisons", "data", "decoders", "drawing", "example", "findings", "notebook_pages", "pages", "pictures", "preparation",
     "provenance", "reconstruction", "tables"},
    {"report_tables"},
    {"front", "gallery", "report", "scheme", "scoring", "workflow"},
    {"audit_figures", "cli", "explanation", "listening_page", "plots", "runner", "study", "trust_figures"},
    {"pipeline"},
    {"audit", "robustness", "shards", "showcase", "sweep", "trust", "truth", "widgets"},
    {"__init__"},
]


def imports(path):
    """Names of the package's top-level modules that a file imports when it runs."""
    found, folder = set(), path.parent.relative_to(PACKAGE).parts
    for node in runtime_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = list(folder[: len(folder) - (node.level - 1)])
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {".".join([*base, name]).split(".")[0] for name in names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("audioxai_utils"):
            found |= {alias.name for alias in node.names} if node.module == "audioxai_utils" else {node.module.split(".")[1]}
    return found


def runtime_nodes(tree):
    """All nodes but those under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from runtime_nodes(node)


def test_every_module_has_one_level():
    modules = {p.stem for p in PACKAGE.glob("*.py")} | {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    named = [name for level in LEVELS for name in level]
    assert len(named) == len(set(named))
    assert modules - set(named) == set()


def test_modules_import_from_lower_levels_only():
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        wrong += [f"{own} -> {name}" for name in imports(path) if name != own and level[name] >= level[own]]
    assert wrong == []


def test_metrics_do_not_know_attributions_and_attributions_know_no_study():
    assert not imports(PACKAGE / "metrics.py") & {"attributions", "models", "study"}
    for path in (PACKAGE / "attributions").glob("*.py"):
        assert imports(path) <= {"attributions", "devices", "inference", "precision", "_registry", path.stem} | {p.stem for p in path.parent.glob("*.py")}
