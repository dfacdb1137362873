"""Figures: the data behind them, true axes, fixed colours, and that nothing leaks out of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from audioxai_utils.figures import plots
from audioxai_utils.constants import MASK_NAMES, STUDY_METHODS, STUDY_METRICS, SPECTROGRAMS
from audioxai_utils.figures.style import (
    METHOD_COLOURS, attribution_scale, axes_of, hz_to_mel, mel_to_hz, two_dimensional,
)

SHAPES = {"stft_db": (257, 313), "mel_db": (64, 501)}


@pytest.fixture
def db():
    """A spectrogram in dB of either type."""
    return {kind: np.random.default_rng(0).uniform(-100, 40, shape) for kind, shape in SHAPES.items()}


@pytest.fixture
def scores():
    """Tidy scores of three clips for every method and mask."""
    rng = np.random.default_rng(1)
    rows = [{"method": method, "mask": mask, "clip": clip, "area": rng.random(), **dict(zip(STUDY_METRICS, rng.random(7)))}
            for method in STUDY_METHODS for mask in MASK_NAMES for clip in range(3)]
    return pd.DataFrame(rows)


def means(scores):
    return scores.groupby(["method", "mask"], as_index=False)[list(STUDY_METRICS)].mean()


# Axes: against librosa's mel scale and against the definition of a centred transform


def test_mel_scale_agrees_with_librosa():
    import librosa

    frequencies = np.array([0.0, 50.0, 440.0, 1000.0, 8000.0, 14000.0])
    np.testing.assert_allclose(hz_to_mel(frequencies), librosa.hz_to_mel(frequencies, htk=True), atol=1e-9)
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(frequencies)), frequencies, atol=1e-9)


@pytest.mark.parametrize("kind", SHAPES)
def test_every_bin_lies_at_its_own_frequency_and_time(kind):
    from audioxai_utils.audio.spectrograms import get_spectrogram

    n_bins, n_frames = SHAPES[kind]
    axes = axes_of(kind, n_frames)
    centres = (np.arange(n_bins) + 0.5) / n_bins
    frequencies = get_spectrogram(kind).frequencies.double().numpy()
    np.testing.assert_allclose(axes.height_of(frequencies), centres, atol=1e-5)
    parameters = SPECTROGRAMS[kind]
    times = np.arange(n_frames) * parameters.hop_length / parameters.sample_rate  # centred frames
    shares = (times - axes.start) / (axes.end - axes.start)
    np.testing.assert_allclose(shares, (np.arange(n_frames) + 0.5) / n_frames, atol=1e-12)
    assert all(0 <= axes.height_of(tick) <= 1 for tick in axes.frequency_ticks())
    assert axes.time_ticks()[-1] == 5.0


def test_loudest_bin_of_a_sine_is_drawn_at_its_frequency():
    """A 3 kHz sine through the real transform, through the picture's edges: within one bin."""
    import torch

    from audioxai_utils.audio.spectrograms import get_spectrogram

    for kind, (n_bins, n_frames) in SHAPES.items():
        transform = get_spectrogram(kind)
        time = torch.arange(5 * transform.sample_rate) / transform.sample_rate
        batch = transform(torch.sin(2 * torch.pi * 3000 * time)[None])
        figure = plots.spectrogram(batch.db, kind)
        picture = figure.axes[0].images[0]
        _, _, low, high = picture.get_extent()
        row = int(np.asarray(picture.get_array()).mean(axis=1).argmax())
        height = low + (row + 0.5) * (high - low) / n_bins
        wanted = hz_to_mel(3000.0) if kind == "mel_db" else 3000.0
        assert abs(height - wanted) <= (high - low) / n_bins
        assert figure.axes[0].get_xlim() == pytest.approx((axes_of(kind, n_frames).start, axes_of(kind, n_frames).end))


def test_axes_of_another_spectrogram_and_of_nonsense():
    class Other:
        sample_rate, hop_length, frequencies = 8000, 80, np.arange(0, 4000, 100.0)

    axes = axes_of(Other(), 101)
    assert axes.height_of(0.0) == pytest.approx(0.5 / 40) and not axes.mel
    with pytest.raises(ValueError, match="spectrogram must be one of"):
        axes_of("cqt", 10)
    with pytest.raises(ValueError, match="must be a name, or carry"):
        axes_of(object(), 10)


# Scaling


def test_attribution_is_centred_and_one_outlier_does_not_blank_it(db):
    attribution = np.random.default_rng(2).standard_normal((64, 501))
    usual = attribution_scale(attribution)
    attribution[3, 4] = 1e6
    assert attribution_scale(attribution) == pytest.approx(usual, rel=0.01)
    figure = plots.attribution_over(db["mel_db"], attribution, "mel_db")
    picture = figure.axes[0].images[1]
    assert picture.norm.vmin == -picture.norm.vmax  # zero is the middle of the diverging map
    np.testing.assert_allclose(picture.get_array(), attribution / attribution_scale(attribution))
    assert attribution_scale(np.zeros((2, 2))) == 1.0
    with pytest.raises(ValueError, match="finite"):
        attribution_scale(np.array([[np.nan]]))


def test_maps_of_several_clips_are_refused():
    assert two_dimensional(np.zeros((1, 1, 3, 4)), "db").shape == (3, 4)
    with pytest.raises(ValueError, match="db must be one"):
        two_dimensional(np.zeros((2, 1, 3, 4)), "db")


# What the figures hold


def test_mask_grid_says_the_kept_area():
    rng = np.random.default_rng(0)
    masks = {name: (rng.random((64, 501)) < 0.3).astype(float) for name in MASK_NAMES}
    masks["bin"] = np.ones((64, 501))
    figure = plots.mask_grid(masks, "mel_db")
    titles = {ax.get_title().split(":")[0]: ax.get_title() for ax in figure.axes if ax.get_title()}
    assert titles["topK_5"] == f"topK_5: {100 * masks['topK_5'].mean():.1f} %"
    assert titles["bin"] == "bin: constant"
    assert len(titles) == 14


def test_method_grid_has_a_row_per_condition_and_a_column_per_method(db):
    rows = [{"label": kind, "spectrogram": kind, "db": db[kind],
             "maps": {method: np.random.default_rng(3).standard_normal(SHAPES[kind]) for method in STUDY_METHODS}}
            for kind in SHAPES]
    figure = plots.method_grid(rows)
    panels = [ax for ax in figure.axes if ax.images]
    assert len(panels) == len(rows) * (1 + len(STUDY_METHODS))
    assert [ax.get_title() for ax in panels[:5]] == ["Clip", "Saliency", "Grad-CAM", "LIME", "SHAP"]
    with pytest.raises(ValueError, match="kind must be attribution or kept"):
        plots.method_grid(rows, kind="loud")


def test_training_curves_mark_the_best_epoch():
    history = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [3, 2, 1.0], "validation_loss": [3, 2, 2.5],
                            "train_accuracy": [0.2, 0.5, 0.9], "validation_accuracy": [0.2, 0.6, 0.5]})
    figure = plots.training_curves(history)
    assert figure.axes[1].get_title() == "kept: epoch 2, 60.0 % validation"
    curves = {line.get_label(): line.get_ydata() for line in figure.axes[1].lines}
    np.testing.assert_allclose(curves["validation"], [20, 60, 50])


def test_confusion_matrix_writes_counts_and_accuracy():
    matrix = np.array([[3, 1], [0, 4]])
    figure = plots.confusion_matrix(matrix, ("dog", "sea_waves"))
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["1", "3", "4"]
    assert "87.5 % of 8 clips" in figure.axes[0].get_title()
    with pytest.raises(ValueError, match="matrix must be 2 x 2"):
        plots.confusion_matrix(matrix[:1], ("dog", "rain"))


def test_kept_area_draws_the_medians(scores):
    figure = plots.kept_area(scores)
    part = scores[scores["method"] == "lime"]
    panel = figure.axes[2]
    assert panel.get_title() == "LIME"
    medians = {round(float(line.get_xdata()[0]), 6) for line in panel.lines if len(set(line.get_xdata())) == 1}
    for mask in MASK_NAMES:
        assert round(100 * part.loc[part["mask"] == mask, "area"].median(), 6) in medians


def test_points_have_the_methods_colours_and_values(scores):
    from matplotlib.colors import to_hex

    results = means(scores)
    results["FF_low"], results["FF_high"] = results["FF"] - 0.1, results["FF"] + 0.2
    results["SPS_low"], results["SPS_high"] = results["SPS"], results["SPS"]
    figure = plots.faithfulness_against_conciseness(results, published=results)
    drawn = {container.get_label(): container for container in figure.axes[0].containers}
    for method, label in (("saliency", "Saliency"), ("shap", "SHAP")):
        points = drawn[label].lines[0]
        part = results[results["method"] == method]
        assert to_hex(points.get_color()) == METHOD_COLOURS[method].lower()
        np.testing.assert_allclose(np.sort(np.asarray(points.get_ydata(), float)), np.sort(part["FF"]))
        bars = drawn[label].lines[2][1].get_segments()
        np.testing.assert_allclose([segment[1][1] - segment[0][1] for segment in bars], 0.3)


def test_heat_map_holds_the_means_and_frames_the_best(scores):
    results = means(scores)
    figure = plots.metric_heatmap(results)
    for ax, metric in zip(figure.axes, STUDY_METRICS):
        table = results.pivot(index="mask", columns="method", values=metric).loc[list(MASK_NAMES), list(STUDY_METHODS)]
        sign = -1 if metric in ("AD", "COMP") else 1
        np.testing.assert_allclose(sign * np.asarray(ax.images[0].get_array()), table)
        frame = ax.patches[-1]
        row, column = round(frame.get_y() + 0.5), round(frame.get_x() + 0.5)
        assert sign * table.iloc[row, column] == (sign * table).to_numpy().max()


def test_waveforms_tell_their_levels():
    figure = plots.waveforms({"tone": 0.5 * np.ones(100), "nothing": np.zeros(100)}, 100)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["tone (-6.0 dB RMS)", "nothing (silent)"]


def test_colours_stay_apart_for_colour_blind_readers():
    """Dichromats, simulated after Viénot et al. (1999): any two methods differ by more than 0.1 in RGB distance."""
    from matplotlib.colors import to_rgb

    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    red_blind = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
    green_blind = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    colours = np.array([to_rgb(METHOD_COLOURS[method]) for method in STUDY_METHODS]) ** 2.2
    for loss in (red_blind, green_blind):
        seen = colours @ (np.linalg.inv(to_lms) @ loss @ to_lms).T
        for first in range(len(seen)):
            for second in range(first):
                assert np.linalg.norm(seen[first].clip(0, 1) - seen[second].clip(0, 1)) > 0.1


# Manners


def test_figures_leave_pyplot_and_settings_alone(db):
    import matplotlib
    import matplotlib.pyplot as plt

    before, open_before = dict(matplotlib.rcParams), plt.get_fignums()
    plots.transform_scheme()
    plots.spectrogram(db["mel_db"], "mel_db")
    assert plt.get_fignums() == open_before
    assert dict(matplotlib.rcParams) == before


def test_no_text_of_the_scheme_is_cut_off_or_covers_other_text():
    """Every word of Fig. 1 lies inside the saved picture and on no other word."""
    figure = plots.transform_scheme()
    figure.canvas.draw()
    texts = [text for text in (*figure.texts, *(ax.title for ax in figure.axes)) if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    for number, box in enumerate(boxes):
        for other in range(number):
            assert not box.overlaps(boxes[other]), (texts[number].get_text(), texts[other].get_text())


def test_plots_imports_without_matplotlib():
    import subprocess
    import sys

    code = "import sys; import audioxai_utils.figures.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_point_of_the_front_says_what_it_is(scores):
    results = means(scores)
    results["FF_low"], results["FF_high"] = results["FF"] - 0.1, results["FF"] + 0.2
    figure = plots.faithfulness_against_conciseness(results)
    hovered = [line for line in figure.axes[0].lines if (line.get_gid() or "").startswith("hover-")]
    assert len(hovered) == len(results) and len({line.get_gid() for line in hovered}) == len(results)
    row = results[(results["method"] == "lime") & (results["mask"] == "bin")].iloc[0]
    words = [line.get_label() for line in hovered if line.get_label().startswith("_LIME + bin:")]
    assert words == [f"_LIME + bin: FF {row.FF:.2f} [{row.FF - 0.1:.2f}, {row.FF + 0.2:.2f}], SPS {row.SPS:.2f}"]


def test_among_many_methods_only_the_front_has_intervals_and_a_name_a_place():
    rows = [{"method": f"m{i}", "mask": "bin", "FF": i / 10, "SPS": i / 10} for i in range(8)]
    rows += [{"method": "twin", "mask": "bin", "FF": 0.7001, "SPS": 0.6999}]  # on the front too, at m7's place
    results = pd.DataFrame(rows).assign(FF_low=0.0, FF_high=1.0, SPS_low=0.0, SPS_high=1.0)
    ax = plots.faithfulness_against_conciseness(results).axes[0]
    drawn = {container.get_label(): len(container.lines[0].get_xdata()) for container in ax.containers}
    assert {name for name, n in drawn.items() if n} == {"m7", "twin"} and len(drawn) == 9
    assert [text.get_text() for text in ax.texts] == ["twin + bin"]
