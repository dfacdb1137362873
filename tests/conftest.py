"""The tests' own little studies have three classes: their smoke profile explains a clip of each."""

import dataclasses

import pytest
import tiny_study

from audioxai_utils.study import profiles


@pytest.fixture(autouse=True, scope="session")
def a_clip_of_each_class():
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
