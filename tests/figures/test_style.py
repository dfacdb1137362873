"""Colours that can be told apart, and axes on which every bin lies where it was measured."""

import itertools

import numpy as np
import pytest

from audioxai_utils.audio.spectrograms import get_spectrogram
from audioxai_utils.constants import (
    LOWER_IS_BETTER,
    NOISE_SCENARIOS,
    OWN,
    SPECTROGRAM_TYPES,
    STUDY_METHODS,
    STUDY_METRICS,
    known_methods,
)
from audioxai_utils.figures import style
from audioxai_utils.models.frontends import LogMel
from audioxai_utils.models.virtual_inspection import inspection

# Machado et al. (2009): linear RGB as seen with protanopia and deuteranopia.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
}


def lab(colour, matrix):
    """CIE Lab (D65) of a hex colour as seen through a matrix of linear RGB."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(matrix) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ linear / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_methods_can_be_told_apart_by_colour(deficiency):
    """Distance in Lab; 2 is just noticeable side by side, 10 at a glance."""
    colours = {name: lab(colour, DEFICIENCIES[deficiency]) for name, colour in style.METHOD_COLOURS.items()}
    for one, other in itertools.combinations(set(known_methods()) - {"shap_functional"}, 2):
        assert np.linalg.norm(colours[one] - colours[other]) > 15, (one, other)
    for one, other in itertools.combinations(colours, 2):
        assert np.linalg.norm(colours[one] - colours[other]) > 8, (one, other)


def test_every_method_there_is_has_its_own_colour_and_they_are_more_than_fourteen():
    known = known_methods()
    assert set(known) <= set(style.METHOD_COLOURS) and len(known) >= 14
    assert len({style.method_colour(name) for name in known}) == len(known)


def test_methods_have_a_colour_a_marker_and_a_label_each():
    assert (
        set(STUDY_METHODS)
        <= set(style.METHOD_COLOURS)
        == set(style.METHOD_MARKERS)
        == set(style.METHOD_LABELS)
    )
    assert len(set(style.METHOD_MARKERS.values())) == len(style.METHOD_MARKERS)
    assert len(set(style.METHOD_LABELS.values())) == len(style.METHOD_LABELS)
    assert set(style.SCENARIO_LABELS) == set(NOISE_SCENARIOS)
    assert set(style.SPECTROGRAM_LABELS) == {*SPECTROGRAM_TYPES, OWN}
    assert set(LOWER_IS_BETTER) <= set(STUDY_METRICS)


def test_a_method_of_somebody_else_has_a_spare_colour_that_stays():
    assert style.method_colour("my_method") == style.method_colour("my_method") in style.SPARE_COLOURS
    assert style.method_label("my_method") == "my_method"
    assert style.condition_label("mel_db", "white") == "mel, white noise"
    assert style.condition_label("cqt", "rain") == "cqt, rain"


@pytest.mark.parametrize("kind, n_frames", [("mel_db", 501), ("stft_db", 626)])
def test_a_bin_lies_at_its_own_frequency_and_a_frame_at_its_own_time(kind, n_frames):
    """Centres of bins come from the transform, centres of frames from its hop."""
    transform, axes = get_spectrogram(kind), style.axes_of(kind, n_frames)
    expected = (np.arange(axes.n_bins) + 0.5) / axes.n_bins
    np.testing.assert_allclose(axes.height_of(transform.frequencies.numpy()), expected, atol=1e-5)
    times = np.arange(n_frames) * transform.hop_length / transform.sample_rate
    np.testing.assert_allclose(
        (times - axes.start) / (axes.end - axes.start), (np.arange(n_frames) + 0.5) / n_frames
    )
    assert style.axes_of(transform, n_frames) == style.axes_of(transform.settings, n_frames) == axes


@pytest.mark.parametrize(
    ("picture", "mel"),
    [
        (LogMel.efficientat().spectrogram(), True),
        (LogMel.panns().spectrogram(), False),  # Slaney's scale is even in neither
        (inspection("cqt", 32000), False),
        (inspection("stft", 32000), False),
    ],
    ids=["Kaldi", "Slaney", "constant-Q", "STFT"],
)
def test_bins_of_any_spectrogram_lie_at_their_own_frequencies(picture, mel):
    axes = style.axes_of(picture, 101)
    centres = picture.frequencies.double().numpy()
    expected = (np.arange(axes.n_bins) + 0.5) / axes.n_bins
    np.testing.assert_allclose(axes.height_of(centres), expected, atol=0.1 / axes.n_bins)
    heights = axes.height_of(np.array(axes.frequency_ticks()))
    assert axes.mel == mel and len(heights) >= 3 and (heights >= 0).all() and (heights <= 1).all()


@pytest.mark.parametrize("kind", SPECTROGRAM_TYPES)
@pytest.mark.parametrize("n_frames", [5, 51, 501, 6001])
def test_ticks_are_few_round_and_inside(kind, n_frames):
    axes = style.axes_of(kind, n_frames)
    heights = axes.height_of(np.array(axes.frequency_ticks()))
    assert (
        3 <= len(heights) <= 9
        and (heights >= 0).all()
        and (heights <= 1).all()
        and (np.diff(heights) > 0).all()
    )
    labels = [style.frequency_label(f) for f in axes.frequency_ticks()]
    assert len(set(labels)) == len(labels) and max(map(len, labels)) <= 4
    times = axes.time_ticks()
    assert (
        times[0] == 0
        and len(times) <= 8
        and times[-1] <= axes.end + 0.25 * (times[1] if len(times) > 1 else 1)
    )


def test_mel_and_hertz_are_inverse_and_the_known_value_is_met():
    frequencies = np.array([20.0, 1000.0, 16000.0])
    np.testing.assert_allclose(style.mel_to_hz(style.hz_to_mel(frequencies)), frequencies)
    assert style.hz_to_mel(1000) == pytest.approx(999.99, abs=0.01)  # HTK


def test_a_scale_is_not_one_bin_s():
    values = np.zeros((10, 100))
    assert style.attribution_scale(values) == 1.0
    values[0, 0] = -7
    assert style.attribution_scale(values) == 7.0  # nothing else to go by
    values[:, 1:] = np.linspace(-1, 1, 990).reshape(10, 99)
    assert style.attribution_scale(values) < 1.0
    with pytest.raises(ValueError, match="attribution must be finite"):
        style.attribution_scale([[np.nan]])


@pytest.mark.parametrize("shape", [(3,), (2, 1, 4, 5), (1, 2, 4, 5)])
def test_only_one_map_is_taken(shape):
    with pytest.raises(ValueError, match=r"mask must be one \(frequency, time\) map"):
        style.two_dimensional(np.zeros(shape), "mask")
    assert style.two_dimensional(np.ones((1, 1, 4, 5)), "mask").shape == (4, 5)
