"""What all tests share: a small smoke study, and registries that hold after a test what they held before."""

import dataclasses
from pathlib import Path

import pytest
import registries
import tiny_study

from audioxai_utils.study import profiles

MINUTES = (
    "notebooks/test_notebooks.py",
    "run/test_slurm.py",
    "run/test_workflow.py",
    "test_any_classifier.py",
    "run/test_changed_inputs.py",
    "run/test_lost_results.py",
)


def pytest_collection_modifyitems(items):
    """The files that take minutes come first: what is left at the end is short, and no core waits for one."""
    rank = {Path(__file__).parent / name: i for i, name in enumerate(MINUTES)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(autouse=True, scope="session")
def files_register_nothing():
    """What a test file registers as it is imported, it gives to every other file's parameters."""
    if found := registries.added():
        pytest.fail(
            f"registered while tests were collected: {', '.join(found)}; use own_method", pytrace=False
        )


@pytest.fixture(autouse=True)
def registries_as_they_were(files_register_nothing):
    """A test that leaves a method, mask or metric behind fails, and does not spoil the tests after it."""
    yield
    if found := registries.take_back():
        pytest.fail(
            f"left registered: {', '.join(found)}; use own_method, or take it out again", pytrace=False
        )


@pytest.fixture
def same_weights():
    """Networks made in a test have the same weights whatever ran before it."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def own_method(registries_as_they_were):
    """Registers a method, ``own_method(name, function, **traits)``, that is gone after the test."""
    from audioxai_utils.attributions import METHODS, register

    names = []

    def enter(name, function, **traits):
        names.append(name)
        return register(name, **traits)(function)

    yield enter
    for name in names:
        if name in METHODS:
            METHODS.remove(name)


@pytest.fixture(autouse=True, scope="session")
def a_clip_of_each_class():
    """The tests' own little studies have three classes: their smoke profile explains a clip of each."""
    profiles.PROFILES["smoke"] = dataclasses.replace(profiles.PROFILES["smoke"], n_clips=3)


@pytest.fixture(scope="module")
def condition(tmp_path_factory, a_clip_of_each_class):
    """The clean mel condition over two classes of five-second tones, with a classifier drawn at random."""
    study = tiny_study.make(
        tmp_path_factory.mktemp("two"),
        seconds=5,
        categories=("low", "high"),
        frequency=lambda target: 300 + 2000 * target,
    )
    return study.condition("mel_db", "clean")
