"""Real events with known stems, on generated sounds: scenes, measures against loops, tagging, tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from sklearn.metrics import f1_score, jaccard_score, roc_auc_score
from torch import nn

from audioxai_utils import AudioClassifier
from audioxai_utils.audit.planted.judge import Effort, joined
from audioxai_utils.audit.stems import judge, measures, scenes, tables
from audioxai_utils.figures import stems as figures
from audioxai_utils.models.frontends import LogMel

RATE = scenes.STORED_RATE


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> pd.DataFrame:
    """Four recordings of five seconds: a tone of 1, 2, 3 and 4 kHz between the second and the fourth second."""
    folder, found = tmp_path_factory.mktemp("clips"), []
    time = np.arange(5 * RATE) / RATE
    for i in range(4):
        path = folder / f"{i}.wav"
        tone = 0.3 * np.sin(2 * np.pi * 1000 * (i + 1) * time) * ((time > 2) & (time < 4))
        soundfile.write(path, tone, RATE)
        found.append({"path": str(path), "clip": str(i), "category": f"tone{i}"})
    return pd.DataFrame(found)


@pytest.fixture(scope="module")
def scene(rows) -> scenes.Scene:
    return scenes.drawn_scene("a", rows, 3, np.random.default_rng(1))


def test_stems_lie_where_the_scene_says_at_its_levels(scene, tmp_path):
    stems = scene.stems()
    assert stems.shape == (3, 320000) and len({event.category for event in scene.events}) == 3
    for stem, event in zip(stems, scene.events):
        first, n = round(event.onset * 32000), 2 * event.n_samples
        inside = stem[first : first + n]
        assert stem.square().sum() == pytest.approx(float(inside.square().sum()), rel=1e-3)
        level = 10 * np.log10(float(inside.square().mean()) / scenes.RMS**2)
        assert level == pytest.approx(event.level_db, abs=0.1)
        assert scenes.LEVELS[0] <= event.level_db <= scenes.LEVELS[1]
    scenes.write_scenes([scene], tmp_path)
    (again,) = scenes.read_scenes(tmp_path)
    assert again.events == scene.events and torch.equal(again.stems(), stems)
    with pytest.raises(FileNotFoundError, match="scenes.json"):
        scenes.read_scenes(tmp_path / "nowhere")


def test_an_event_is_the_loudest_stretch_and_is_there_where_it_is_heard(rows):
    recording, _ = soundfile.read(rows["path"][0])
    sound = scenes.event_of(recording, 1.5, 0.0)
    assert len(sound) == 1.5 * RATE and np.abs(sound[RATE // 2 : RATE]).max() > 1000  # no silence of its ends
    stem = torch.zeros(RATE)
    stem[3200:8000] = torch.sin(torch.arange(4800.0))
    stem[8000:9600] = 0.01 * torch.sin(torch.arange(1600.0))  # 40 dB below: not there
    assert scenes.present(stem, RATE).tolist() == [False, False, True, True, True, *[False] * 5]


def test_measures_in_time_against_scikit_learn():
    rng = np.random.default_rng(0)
    maps = torch.from_numpy(rng.standard_normal((4, 6, 40)))
    there = torch.from_numpy(rng.random(10) < 0.4)
    found = measures.in_time(maps, there)
    profile = maps.clamp_min(0).mean(1).reshape(4, 10, 4).mean(2)
    for i, each in enumerate(profile.numpy()):
        assert float(found["auc_time"][i]) == pytest.approx(roc_auc_score(there, each))
        assert float(found["pointing_time"][i]) == float(there[each.argmax()])
        for share in measures.SHARES:
            said, iou = each > share * each.max(), float(found[f"iou_{share * 100:g}"][i])
            assert iou == pytest.approx(jaccard_score(there, said))
            assert 2 * iou / (1 + iou) == pytest.approx(f1_score(there, said))
    silent = measures.in_time(-maps.abs(), there)
    assert (silent["iou_5"] == 0).all() and (silent["auc_time"] == 0.5).all()


def test_a_label_belongs_to_the_one_event_without_which_it_is_gone():
    p = torch.tensor([[0.9, 0.8, 0.7, 0.05], [0.1, 0.7, 0.1, 0.0], [0.9, 0.8, 0.1, 0.05]])
    assert judge.caused_by(0, p) == 0  # label 2 is gone without either, label 3 is not heard at all
    assert judge.caused_by(1, p) is None


class Bands(nn.Module):
    """A label a tone: the mean level of the bands about 1, 2, 3 and 4 kHz against one of its own."""

    def __init__(self, rows: list[int]) -> None:
        super().__init__()
        self.rows, self.scale = rows, nn.Parameter(torch.tensor(50.0))

    def forward(self, picture):
        loud = torch.stack([picture[:, 0, row - 1 : row + 2].amax(1).mean(1) for row in self.rows], 1)
        return self.scale * (loud - self.level)

    level = torch.zeros(4)


@pytest.fixture(scope="module")
def stage(scene) -> judge.Stage:
    front_end = LogMel.efficientat()
    spectrogram = front_end.spectrogram()
    alone = spectrogram.decibels(
        torch.stack(
            [torch.sin(2 * torch.pi * 1000 * (i + 1) * torch.arange(32000.0) / 32000) for i in range(4)]
        )
    )
    peaks = [int(each[0].mean(1).argmax()) for each in alone]
    net, stems = Bands(peaks), scene.stems()
    tagger = AudioClassifier(net, [f"tone{i}" for i in range(4)], input=front_end, head="sigmoid")
    pictures = torch.stack([stems.sum(0), *(stems.sum(0) - stem for stem in stems)])
    with torch.no_grad():
        z = tagger.model(spectrogram.decibels(pictures)) / net.scale
    net.level = torch.full((4,), 100.0)  # no tone that is in no event
    for i, event in enumerate(scene.events):
        c = tagger.classes.index(event.category)
        net.level[c] = (z[0, c] + z[1 + i, c]) / 2
    return judge.Stage(tagger, {"a": scene}, stems[:2])


def test_labels_that_hear_a_band_point_at_their_own_event(stage, tmp_path):
    found = judge.heard_labels(stage, ["a"])
    assert found is not None and len(found) >= 2
    for about, there, own, others in zip(found.about, found.there, found.own, found.others):
        assert about["label"] == about["category"] and about["p_without"] <= 0.5 * about["p_clip"]
        assert there.any() and own.any() and not torch.equal(own, others)
    effort = Effort(8, methods=("saliency", "integrated_gradients"))
    assert judge.judge_to(stage, "a", tmp_path, effort)[1]
    assert judge.judge_to(stage, "a", tmp_path, effort) == ("a: there already", True)
    points = joined(tmp_path, "points")
    means = points.groupby("method", observed=True).mean(numeric_only=True)
    assert means.loc["oracle", "auc"] == 1 and means.loc["oracle", "iou_5"] > 0.8
    own = points[points["method"] == "integrated_gradients"]  # a click's splatter is heard by no band
    assert (own["decoy_ratio"] > 5).all() and (own["pointing_time"] == 1).all()
    assert means.loc["random", "decoy_ratio"] == pytest.approx(1, abs=0.1)


def test_the_level_of_a_profile_is_chosen_on_other_scenes_and_the_goal_is_told():
    columns = [f"iou_{share * 100:g}" for share in measures.SHARES]
    rows = []
    for number in range(4):
        for method, best in (("gradcam", "iou_20"), ("level", "iou_50")):
            # even scenes are best at another level than odd ones
            other = best if number % 2 else "iou_5"
            row = dict.fromkeys(columns, 0.1) | {best: 0.5, other: 0.6}
            row |= {"scene": f"s{number}", "method": method, "pointing_time": 1.0, "auc_time": 0.9}
            rows.append(row | {"average_precision": 0.4, "mass": 0.3, "auc_decoy": 0.5})
    found = tables.with_iou(pd.DataFrame(rows))
    mine = found[found["method"] == "gradcam"].set_index("scene")
    assert mine.loc["s0", "iou"] == 0.5 and mine.loc["s1", "iou"] == 0.1  # chosen elsewhere, not here
    assert mine.loc["s0", "frame_f1"] == pytest.approx(2 / 3)
    means = tables.table(pd.DataFrame(rows))
    assert means["method"].tolist() == ["gradcam", "level"] and means["iou"][0] == pytest.approx(0.3)
    assert tables.reach_the_goal(means) == []
    assert tables.reach_the_goal(means.assign(iou=0.5)) == ["gradcam"]
    shown = tables.beside_the_field(means)
    assert shown["method"].tolist()[-1].endswith("(theirs)") and len(shown) == 5
    drawn = figures.beside_the_field(means)
    labels = [text.get_text() for text in drawn.axes[0].get_yticklabels()]
    assert (
        labels == ["Level", "Grad-CAM"]
        and drawn.axes[0].collections[1].get_offsets()[1, 0] == means["iou"][0]
    )
    assert "no method reaches both" in tables.summary(pd.DataFrame(rows))
