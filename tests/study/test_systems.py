"""Methods over components, segments and a trained interpreter run through the study by their names."""

from __future__ import annotations

import pytest
import tiny_study
import torch

from audioxai_utils.attributions import METHODS
from audioxai_utils.constants import known_methods
from audioxai_utils.study.settings import Settings


@pytest.fixture(scope="module")
def condition(tmp_path_factory):
    return tiny_study.make(tmp_path_factory.mktemp("tiny")).condition("mel_db", "clean").first(1)


@pytest.mark.parametrize("method", ["coughlime", "audiolime", "segments", "l2i", "lmac_td"])
def test_it_is_explained_stored_and_scored_with_the_run_s_options(condition, method):
    assert method in known_methods() and Settings(methods=(method,)).explained_by == (method,)
    options = condition.method_options(method)
    wanted = {"n_samples"} if METHODS.traits(method).budget else {"decoder"}
    assert set(options) == wanted
    frame = condition.explained(method)
    assert len(frame) == 1 and (frame["seconds"] > 0).all()
    stored = condition.attributions(method)
    assert stored.shape == condition.spectrograms.shape and torch.isfinite(stored).all() and stored.any()
    scores = next(iter(condition.score_blocks([method])))
    own = scores[(scores["method"] == method) & (scores["control"] == "")]
    assert own["FF_heard"].notna().any() and set(own["protocol"]) == {"paper", "audited"}
