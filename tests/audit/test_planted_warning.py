"""Does it warn: against the formula of the test, and of a control that a map lies on all the same."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from audioxai_utils.audit.planted import warning


def test_warning_against_the_formula():
    rng = np.random.default_rng(0)
    difference = rng.normal(0.1, 0.1, 12)
    n = warning.clips_needed(difference)
    for count, enough in ((n, True), (n - 1, False)):  # a sample of that size with this mean and spread
        sample = rng.standard_normal(int(count))
        sample = (sample - sample.mean()) / sample.std(ddof=1) * difference.std(ddof=1) + difference.mean()
        assert (ttest_1samp(sample, 0).pvalue <= 0.05) == enough
    assert math.isnan(warning.clips_needed(-difference)) and warning.p_value(np.zeros(5)) == 1
    points = pd.DataFrame(
        {"auc": 0.5 + difference, "control_auc": 0.5, "method": "shap", "clip": range(12), "case": "x"}
    ).assign(classifier="c", plant="tone", level_db=0.0)
    (row,) = warning.warnings_of(points).to_dict("records")
    assert row["difference"] == pytest.approx(difference.mean()) and row["needed"] == n
    assert row["p_control"] == 1  # exactly chance
    always = points.assign(control_auc=0.6 + 0.01 * points["clip"], auc=0.9)
    alarm = warning.warnings_of(always).iloc[0]
    assert alarm["p"] < 0.05 and alarm["p_control"] == pytest.approx(0.5**12)  # all twelve on one side
    (told,) = warning.summarised(warning.warnings_of(always)).to_dict("records")
    assert told["warns"] == 1 and told["false_alarm"] == 1
    assert warning.summarised(warning.warnings_of(points))["false_alarm"].tolist() == [0]
    mass = points.assign(mass=points["auc"], control_mass=0.1)
    assert math.isnan(warning.warnings_of(mass, "mass")["p_control"].iloc[0])  # no chance is known
    loud, missing = points.assign(case="y", level_db=6.0), points.assign(case="z", plant="lowpass")
    found = warning.by_level(warning.warnings_of(pd.concat([points, loud, loud.assign(case="w"), missing])))
    assert found["level_db"].tolist() == [6, 0] and found["n_cases"].tolist() == [2, 1]
    assert (found["warns"] == 1).all() and (found["needed"] == n).all()
