"""Statistical figures: what they draw are the numbers they were given, in fixed colours."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from audioxai_utils.audio.spectrograms import get_spectrogram
from audioxai_utils.constants import MASK_NAMES, STUDY_METHODS, STUDY_METRICS
from audioxai_utils.figures import maps
from audioxai_utils.figures import scores as plots
from audioxai_utils.figures.style import METHOD_COLOURS


@pytest.fixture
def scores():
    """Tidy scores of three clips for every method and mask."""
    rng = np.random.default_rng(1)
    rows = [
        {
            "method": method,
            "mask": mask,
            "clip": clip,
            "area": rng.random(),
            **dict(zip(STUDY_METRICS, rng.random(7))),
        }
        for method in STUDY_METHODS
        for mask in MASK_NAMES
        for clip in range(3)
    ]
    return pd.DataFrame(rows)


def means(scores):
    return scores.groupby(["method", "mask"], as_index=False)[list(STUDY_METRICS)].mean()


def test_training_curves_mark_the_best_epoch():
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "train_loss": [3, 2, 1.0],
            "validation_loss": [3, 2, 2.5],
            "train_accuracy": [0.2, 0.5, 0.9],
            "validation_accuracy": [0.2, 0.6, 0.5],
        }
    )
    figure = plots.training_curves(history)
    assert figure.axes[1].get_title() == "kept: epoch 2, 60.0 % validation"
    curves = [line.get_ydata() for line in figure.axes[1].lines if len(line.get_xdata()) == 3]
    np.testing.assert_allclose(curves, [[20, 50, 90], [20, 60, 50]])
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "train",
        "validation",
        "kept epoch",
    ]


def test_confusion_matrix_writes_counts_and_accuracy():
    matrix = np.array([[3, 1], [0, 4]])
    figure = plots.confusion_matrix(matrix, ("dog", "sea_waves"))
    assert sorted(text.get_text() for text in figure.axes[0].texts if text.get_text()) == ["1", "3", "4"]
    assert "87.5 % of 8 clips" in figure.axes[0].get_title()
    with pytest.raises(ValueError, match="matrix must be 2 x 2"):
        plots.confusion_matrix(matrix[:1], ("dog", "rain"))


def test_kept_area_draws_the_medians(scores):
    figure = plots.kept_area(scores)
    part = scores[scores["method"] == "lime"]
    panel = figure.axes[2]
    assert panel.get_title() == "LIME"
    medians = {
        round(float(line.get_xdata()[0]), 6) for line in panel.lines if len(set(line.get_xdata())) == 1
    }
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
        table = results.pivot(index="mask", columns="method", values=metric).loc[
            list(MASK_NAMES), list(STUDY_METHODS)
        ]
        sign = -1 if metric in ("AD", "COMP") else 1
        np.testing.assert_allclose(np.asarray(ax.collections[0].get_array()).reshape(table.shape), table)
        assert [text.get_text() for text in ax.texts] == [
            f"{value:.2f}" for value in table.to_numpy().ravel()
        ]
        frame = ax.patches[-1]
        row, column = round(frame.get_y()), round(frame.get_x())
        assert sign * table.iloc[row, column] == (sign * table).to_numpy().max()


def test_colours_stay_apart_for_colour_blind_readers():
    """Dichromats, simulated after Viénot et al. (1999): two methods differ by more than 0.1 in RGB."""
    from matplotlib.colors import to_rgb

    to_lms = np.array(
        [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
    )
    red_blind = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
    green_blind = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    colours = np.array([to_rgb(METHOD_COLOURS[method]) for method in STUDY_METHODS]) ** 2.2
    for loss in (red_blind, green_blind):
        seen = colours @ (np.linalg.inv(to_lms) @ loss @ to_lms).T
        for first in range(len(seen)):
            for second in range(first):
                assert np.linalg.norm(seen[first].clip(0, 1) - seen[second].clip(0, 1)) > 0.1


def test_every_point_of_the_front_says_what_it_is(scores):
    results = means(scores)
    results["FF_low"], results["FF_high"] = results["FF"] - 0.1, results["FF"] + 0.2
    figure = plots.faithfulness_against_conciseness(results)
    hovered = [line for line in figure.axes[0].lines if (line.get_gid() or "").startswith("hover-")]
    assert len(hovered) == len(results) and len({line.get_gid() for line in hovered}) == len(results)
    row = results[(results["method"] == "lime") & (results["mask"] == "bin")].iloc[0]
    words = [line.get_label() for line in hovered if line.get_label().startswith("_LIME + bin:")]
    assert words == [
        f"_LIME + bin: FF {row.FF:.2f} [{row.FF - 0.1:.2f}, {row.FF + 0.2:.2f}], SPS {row.SPS:.2f}"
    ]


def test_among_many_methods_only_the_front_has_intervals_and_a_name_a_place():
    rows = [{"method": f"m{i}", "mask": "bin", "FF": i / 10, "SPS": i / 10} for i in range(8)]
    rows += [
        {"method": "twin", "mask": "bin", "FF": 0.7001, "SPS": 0.6999}
    ]  # on the front too, at m7's place
    results = pd.DataFrame(rows).assign(FF_low=0.0, FF_high=1.0, SPS_low=0.0, SPS_high=1.0)
    ax = plots.faithfulness_against_conciseness(results).axes[0]
    drawn = {container.get_label(): len(container.lines[0].get_xdata()) for container in ax.containers}
    assert {name for name, n in drawn.items() if n} == {"m7", "twin"} and len(drawn) == 9
    assert [text.get_text() for text in ax.texts] == ["twin + bin"]


def test_a_metric_without_a_value_is_drawn_without_a_frame(scores):
    results = means(scores).assign(SPS=np.nan)
    panel = plots.metric_heatmap(results, metrics=("SPS", "FF")).axes[0]
    assert not panel.patches and not [text for text in panel.texts if text.get_text()]


def test_intervals_are_drawn_at_the_numbers_of_their_table():
    from matplotlib.colors import to_hex

    rows = [
        {
            "spectrogram_type": kind,
            "noise_scenario": noise,
            "method": method,
            "mask": "bin",
            "metric": metric,
            "mean": place + shift,
            "low": place + shift - 0.1,
            "high": place + shift + 0.3,
        }
        for shift, (kind, noise) in enumerate((("stft_db", "clean"), ("mel_db", "white")))
        for metric in ("FF", "AD")
        for place, method in enumerate(("lime", "shap"))
    ]
    figure = plots.intervals(pd.DataFrame(rows), metrics=("FF", "AD"))
    assert [ax.get_title(loc="left") for ax in figure.axes[::2]] == ["STFT, clean", "mel, white noise"]
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "", "FF ↑", "AD ↓"]
    panel = figure.axes[2]
    (bars,) = panel.containers[0].lines[2]
    np.testing.assert_allclose(
        [[start[0], end[0]] for start, end in bars.get_segments()], [[0.9, 1.3], [1.9, 2.3]]
    )
    points = [
        (float(x), to_hex(line.get_color()))
        for line in panel.lines
        for x in np.ma.getdata(line.get_xdata())
        if np.isfinite(x) and line.get_marker() == "o"
    ]
    assert points == [(1.0, METHOD_COLOURS["lime"].lower()), (2.0, METHOD_COLOURS["shap"].lower())]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["LIME", "SHAP"]


NAMES = [r"$\frac{$", "$$", "a$b$c", r"\$", "50 $ and 60 $", "x^2_$y$"]


@pytest.mark.parametrize("name", NAMES)
def test_a_class_is_drawn_as_it_is_written(name, tmp_path):
    """And not as a formula, which might be none."""
    figure = plots.confusion_matrix(np.array([[3, 1], [0, 4]]), ("dog", name))
    figure.savefig(tmp_path / "f.svg")
    assert figure.axes[0].get_xticklabels()[1].get_text().replace(r"\$", "$") == name.replace("_", " ")


@pytest.mark.parametrize("name", NAMES)
def test_a_title_is_drawn_as_it_is_written(name, tmp_path):
    """Notebooks and recordings put categories and files' names there."""
    history = pd.DataFrame({"epoch": [1, 2]}).assign(
        **{f"{part}_{what}": 0.5 for part in ("train", "validation") for what in ("loss", "accuracy")}
    )
    db = torch.full((1, 1, 64, 20), -40.0)
    drawn = {
        "history": lambda: plots.training_curves(history, title=name),
        "waves": lambda: maps.waveforms({name: torch.zeros(1, 800)}, 8000, title=name),
        "picture": lambda: maps.spectrogram(db, get_spectrogram("mel_db"), title=name),
    }
    for make in drawn.values():
        figure = make()
        figure.savefig(tmp_path / "f.svg")
        titles = [figure.get_suptitle(), *(ax.get_title() for ax in figure.axes)]
        assert name in [title.replace(r"\$", "$") for title in titles]
