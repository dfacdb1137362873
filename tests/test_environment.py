"""pyproject.toml, environment.yml and constraints.txt name one environment, and it is installed."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

REPOSITORY = Path(__file__).resolve().parents[1]
# The study's own choice (README, run_all.sh); a lock without one of them is not its environment.
CHOSEN = {
    "torch",
    "torchaudio",
    "jupyterlab",
    "papermill",
    "nbconvert",
    "captum",
    "shap",
    "lime",
    "librosa",
    "seaborn",
    "pandas",
    "ipywidgets",
    "pytest",
    "nbval",
    "lightning",
    "soundfile",
    "pooch",
    "pyarrow",
    "snakemake",
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines) -> dict[str, str]:
    """Name -> version of lines ``name==version``; anything else is an error."""
    found = {}
    for line in lines:
        name, version = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!]+)", line).groups()
        assert canonical(name) not in found, line
        found[canonical(name)] = version
    return found


def lock() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    return pins(line for line in lines if line and not line.startswith("#"))


def project() -> dict:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def direct() -> dict[str, str]:
    return pins(project()["dependencies"] + project()["optional-dependencies"]["test"])


def test_direct_dependencies_are_locked_at_the_same_version():
    locked = lock()
    assert {name: locked.get(name) for name in direct()} == direct()
    assert set(direct()) >= CHOSEN


def test_conda_gets_the_same_environment():
    *conda, pip = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]
    assert conda == ["python=3.11", "pip"]
    constraints, *requirements, itself = pip["pip"]
    assert (constraints, itself) == ("-c constraints.txt", "-e .")
    assert pins(requirements) == direct()
    assert SpecifierSet(project()["requires-python"]).contains("3.11.0")


def needed() -> dict[str, str]:
    """Name -> installed version of the direct dependencies and of all they need here."""
    waiting, seen, found = [(name, ()) for name in direct()], set(), {}
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found[name] = metadata.version(name)
        for requirement in map(Requirement, metadata.requires(name) or []):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append((canonical(requirement.name), tuple(sorted(requirement.extras))))
    return found


def test_what_is_installed_is_what_is_locked():
    locked, installed = lock(), needed()
    assert len(installed) > 150
    assert {name: locked.get(name) for name in installed} == installed


def test_every_locked_package_takes_the_oldest_python_of_the_project():
    wanted = {name: metadata.metadata(name)["Requires-Python"] or "" for name in needed()}
    assert {
        name: versions for name, versions in wanted.items() if "3.11.0" not in SpecifierSet(versions)
    } == {}


def test_the_package_is_this_one():
    import audioxai_utils

    assert Path(audioxai_utils.__file__).resolve().parents[1] == REPOSITORY
