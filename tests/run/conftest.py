"""A toy study that has run once, for the tests of the graph."""

from __future__ import annotations

import shutil

import pytest
import toy_study

from audioxai_utils.run import graph


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A toy study that has run once: (repository, results, what it printed)."""
    repository = toy_study.make(tmp_path_factory.mktemp("graph") / "repository", fast=True)
    results = repository.parent / "results"
    done = toy_study.run(repository, results, *toy_study.SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    return repository, results, done.stdout


@pytest.fixture
def study(finished, tmp_path, monkeypatch):
    """A copy of the finished results, to be changed; the repository is put back afterwards."""
    repository, results, _ = finished
    monkeypatch.setattr(graph, "NOTEBOOKS", repository / "notebooks")
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    copy = tmp_path / "results"
    shutil.copytree(results, copy, copy_function=shutil.copy2)
    yield repository, copy
    for path in repository.rglob("*.ipynb"):
        if path not in before:
            path.unlink()
    for path, content in before.items():
        if path.read_bytes() != content:
            path.write_bytes(content)
