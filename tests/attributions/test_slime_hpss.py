"""SLIME over harmonic and percussive components, against the lime library and clips whose parts are known."""

from __future__ import annotations

import copy

import numpy as np
import torch
from test_attributions_more import TARGET, clips, relative, trained_looking
from torch import nn

from audioxai_utils.attributions import METHODS
from audioxai_utils.attributions.slime import regular_grid
from audioxai_utils.attributions.slime_hpss import component_segments, is_percussive


def test_slime_over_components_is_the_lime_library_over_the_same_segments():
    from lime.lime_image import LimeImageExplainer

    model, db = trained_looking(), clips(2, seed=1)
    found = METHODS["slime_hpss"](model, db, TARGET, n_time=4, kernel_size=9, n_samples=25, seed=3)
    plain = copy.deepcopy(model).eval()
    for clip, label in enumerate(TARGET.tolist()):
        segments = component_segments(db[clip], regular_grid((32, 64), "time", 4, 1), 9)
        assert len(np.unique(segments)) == 8
        low, high = float(db[clip].min()), float(db[clip].max())

        def classify(images, low=low, high=high):
            batch = torch.stack([torch.from_numpy(image[..., 0]) * (high - low) + low for image in images])
            with torch.no_grad():
                return plain(batch[:, None]).softmax(1).numpy()

        explanation = LimeImageExplainer(random_state=3).explain_instance(
            ((db[clip, 0] - low) / (high - low)).numpy(),
            classify,
            labels=(label,),
            top_labels=None,
            num_samples=25,
            hide_color=(-100.0 - low) / (high - low),
            segmentation_fn=lambda image, s=segments: s,
        )
        expected = np.vectorize(dict(explanation.local_exp[label]).get)(segments)
        assert relative(found[clip, 0], torch.from_numpy(expected)) < 1e-6


def test_a_tone_is_harmonic_and_a_click_percussive():
    """Against the definition: medians along time and along frequency, by SciPy, the larger one wins."""
    from scipy.ndimage import median_filter

    clip = torch.full((1, 32, 64), -60.0, dtype=torch.float64)
    clip[0, 10] = 0.0
    clip[0, :, 40] = -3.0
    struck = is_percussive(clip, 9)
    assert not struck[10, :36].any() and struck[:6, 40].all() and struck[16:, 40].all()
    clip = clips(1, seed=4)[0]
    magnitude = 10 ** (clip[0].numpy() / 20)
    along_time = median_filter(magnitude, size=(1, 9), mode="reflect")
    along_frequency = median_filter(magnitude, size=(9, 1), mode="reflect")
    assert np.array_equal(is_percussive(clip, 9), along_frequency > along_time)


def test_segments_have_no_gaps_where_a_component_is_missing():
    clip = torch.full((1, 32, 64), -60.0, dtype=torch.float64)
    clip[0, 10] = 0.0
    segments = component_segments(clip, regular_grid((32, 64), "time", 4, 1), 9)
    assert np.unique(segments).tolist() == list(range(segments.max() + 1)) and segments.max() < 7


def test_a_model_of_clicks_weighs_percussive_segments():
    """Probability rises with the level of one click: its slice's percussive segment gets the largest weight."""

    class Click(nn.Module):
        def forward(self, x):
            level = (x[:, 0, :, 40].mean(1) + 60) / 10
            return torch.stack([level, -level], dim=1)

    clip = torch.full((1, 1, 32, 64), -60.0, dtype=torch.float64)
    clip[0, 0, 10] = -10.0
    clip[0, 0, :, 40] = -30.0
    found = METHODS["slime_hpss"](Click(), clip, torch.tensor([0]), n_time=4, kernel_size=9, n_samples=200)
    assert float(found[0, 0, 25, 40]) == float(found.max()) > 3 * float(found[0, 0, 10, 20].abs())
