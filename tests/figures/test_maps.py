"""Pictures of maps: the data behind them, true axes, and that nothing leaks out of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audioxai_utils.constants import MASK_NAMES, SPECTROGRAMS, STUDY_METHODS
from audioxai_utils.evaluation.masks import build_masks
from audioxai_utils.figures import maps
from audioxai_utils.figures.scheme import transform_scheme
from audioxai_utils.figures.style import attribution_scale, axes_of, hz_to_mel, mel_to_hz, two_dimensional
from audioxai_utils.words import AUDITED_FORMULAS, MASK_FORMULAS

SHAPES = {"stft_db": (257, 313), "mel_db": (64, 501)}


@pytest.fixture
def db():
    """A spectrogram in dB of either type."""
    return {kind: np.random.default_rng(0).uniform(-100, 40, shape) for kind, shape in SHAPES.items()}


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
    from audioxai_utils.audio.spectrograms import get_spectrogram

    for kind, (n_bins, n_frames) in SHAPES.items():
        transform = get_spectrogram(kind)
        time = torch.arange(5 * transform.sample_rate) / transform.sample_rate
        batch = transform(torch.sin(2 * torch.pi * 3000 * time)[None])
        figure = maps.spectrogram(batch.db, kind)
        picture = figure.axes[0].images[0]
        _, _, low, high = picture.get_extent()
        row = int(np.asarray(picture.get_array()).mean(axis=1).argmax())
        height = low + (row + 0.5) * (high - low) / n_bins
        wanted = hz_to_mel(3000.0) if kind == "mel_db" else 3000.0
        assert abs(height - wanted) <= (high - low) / n_bins
        assert figure.axes[0].get_xlim() == pytest.approx(
            (axes_of(kind, n_frames).start, axes_of(kind, n_frames).end)
        )


def test_axes_of_another_spectrogram_and_of_nonsense():
    class Other:
        sample_rate, hop_length, frequencies = 8000, 80, np.arange(0, 4000, 100.0)

    axes = axes_of(Other(), 101)
    assert axes.height_of(0.0) == pytest.approx(0.5 / 40) and not axes.mel
    with pytest.raises(ValueError, match="spectrogram must be one of"):
        axes_of("cqt", 10)
    with pytest.raises(ValueError, match="must be a name, or carry"):
        axes_of(object(), 10)


def test_attribution_is_centred_and_one_outlier_does_not_blank_it(db):
    attribution = np.random.default_rng(2).standard_normal((64, 501))
    usual = attribution_scale(attribution)
    attribution[3, 4] = 1e6
    assert attribution_scale(attribution) == pytest.approx(usual, rel=0.01)
    figure = maps.attribution_over(db["mel_db"], attribution, "mel_db")
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


def titles_of(figure) -> dict[str, tuple[str, str]]:
    """Mask -> (formula, the line below it)."""
    lines = [ax.get_title().split("\n") for ax in figure.axes if ax.get_title()]
    return {below.split(":")[0]: (formula, below) for formula, below in lines}


def test_mask_grid_says_the_kept_area():
    rng = np.random.default_rng(0)
    masks = {name: (rng.random((64, 501)) < 0.3).astype(float) for name in MASK_NAMES}
    masks["bin"] = np.ones((64, 501))
    titles = titles_of(maps.mask_grid(masks, "mel_db"))
    assert titles["topK_5"] == (MASK_FORMULAS["topK_5"], f"topK_5: {100 * masks['topK_5'].mean():.1f} %")
    assert titles["bin"] == ("$L > 0$", "bin: constant")
    assert list(titles) == list(MASK_NAMES)


def test_mask_grid_shows_the_formulas_of_its_protocol():
    """Those that the audited protocol changes, on an attribution on which the two differ; no others."""
    attribution = torch.randn(1, 1, 64, 501, generator=torch.Generator().manual_seed(0)) - 2
    built = {protocol: build_masks(attribution, protocol) for protocol in ("paper", "audited")}
    shown = {
        protocol: titles_of(
            maps.mask_grid({name: mask[0] for name, mask in masks.items()}, "mel_db", protocol)
        )
        for protocol, masks in built.items()
    }
    another = {name for name in MASK_NAMES if not torch.equal(built["paper"][name], built["audited"][name])}
    told = {name for name in MASK_NAMES if shown["paper"][name][0] != shown["audited"][name][0]}
    assert told == set(AUDITED_FORMULAS) and told - another <= {"topK_5", "topK_30", "topK_50"}
    assert {name: shown["audited"][name][0] for name in told} == AUDITED_FORMULAS
    with pytest.raises(ValueError, match="protocol must be one of paper, audited; got 'both'"):
        maps.mask_grid({"bin": attribution[0, 0] > 0}, "mel_db", "both")


def test_method_grid_has_a_row_per_condition_and_a_column_per_method(db):
    rows = [
        {
            "label": kind,
            "spectrogram": kind,
            "db": db[kind],
            "maps": {
                method: np.random.default_rng(3).standard_normal(SHAPES[kind]) for method in STUDY_METHODS
            },
        }
        for kind in SHAPES
    ]
    figure = maps.method_grid(rows)
    panels = [ax for ax in figure.axes if ax.images]
    assert len(panels) == len(rows) * (1 + len(STUDY_METHODS))
    assert [ax.get_title() for ax in panels[:5]] == ["Clip", "Saliency", "Grad-CAM", "LIME", "SHAP"]
    with pytest.raises(ValueError, match="kind must be attribution or kept"):
        maps.method_grid(rows, kind="loud")


def test_waveforms_tell_their_levels():
    figure = maps.waveforms({"tone": 0.5 * np.ones(100), "nothing": np.zeros(100)}, 100)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["tone (-6.0 dB RMS)", "nothing (silent)"]


def test_figures_leave_pyplot_and_settings_alone(db):
    import matplotlib
    import matplotlib.pyplot as plt

    before, open_before = dict(matplotlib.rcParams), plt.get_fignums()
    transform_scheme()
    maps.spectrogram(db["mel_db"], "mel_db")
    assert plt.get_fignums() == open_before
    assert dict(matplotlib.rcParams) == before


def test_no_text_of_the_scheme_is_cut_off_or_covers_other_text():
    """Every word of Fig. 1 lies inside the saved picture and on no other word."""
    figure = transform_scheme()
    figure.canvas.draw()
    texts = [text for text in (*figure.texts, *(ax.title for ax in figure.axes)) if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    for number, box in enumerate(boxes):
        for other in range(number):
            assert not box.overlaps(boxes[other]), (texts[number].get_text(), texts[other].get_text())


def test_figures_import_without_matplotlib():
    import subprocess
    import sys

    code = "import sys; import audioxai_utils.figures.maps, audioxai_utils.figures.scores; "
    code += "sys.exit('matplotlib' in sys.modules or 'seaborn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_maps_of_a_condition_stand_under_their_clips(condition):
    """Of each clip the spectrogram, and its own map scaled, in the order of the condition."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(condition.spectrograms.shape, generator=generator, dtype=torch.float64)
    figure = maps.show_maps(condition, values, n_clips=2)
    above, below = (
        [ax for ax in figure.axes if ax.get_title().startswith(words)] for words in ("clip: ", "for ")
    )
    assert len(above) == len(below) == 2
    chosen = condition.clips.first(2).frame["clip"]
    rows = [list(condition.clips.frame["clip"]).index(clip) for clip in chosen]
    for top, bottom, i in zip(above, below, rows):
        np.testing.assert_allclose(top.images[0].get_array(), condition.spectrograms[i, 0])
        drawn = values[i, 0].numpy()
        np.testing.assert_allclose(bottom.images[1].get_array(), drawn / attribution_scale(drawn))
        assert top.get_title() == f"clip: {condition.clips.frame['category'][i]}"
        target = int(condition.targets[i])
        p = float(condition.probabilities[i, target])
        assert bottom.get_title() == f"for {condition.classifier.classes[target]} (p = {p:.2f})"


def test_a_layer_s_own_cells_are_drawn_as_they_are():
    coarse, smooth = torch.tensor([[1.0, -2.0]]), torch.zeros(64, 501)
    figure = maps.grid_of_its_own(coarse, smooth, "mel_db")
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), [[0.5, -1.0]])
    assert [ax.get_title() for ax in figure.axes[:2]] == ["as computed: 1 x 2", "interpolated: 64 x 501"]
    assert figure.axes[0].images[0].get_extent() == figure.axes[1].images[0].get_extent()


def test_names_of_classes_are_words():
    figure = maps.spectrogram_grid({"sea_waves": np.zeros((64, 501))}, "mel_db")
    assert figure.axes[0].get_title() == "sea waves"
