"""The tests' own little studies have three classes: their smoke profile explains a clip of each."""

import dataclasses

import pytest

from audioxai_utils import config


@pytest.fixture(autouse=True, scope="session")
def a_clip_of_each_class():
    config.PROFILES["smoke"] = dataclasses.replace(config.PROFILES["smoke"], n_clips=3)
