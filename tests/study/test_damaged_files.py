"""What a study keeps on file, damaged in every way: it counts as absent and is made anew, never read as if whole."""

from __future__ import annotations

import os
import random
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tiny_study
import torch

from audioxai_utils import files
from audioxai_utils.attributions.decoder import Decoder
from audioxai_utils.models.checkpoints import load_state
from audioxai_utils.study import attribute, classifiers, decoders, score

DAMAGE = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "zeros": lambda data: bytes(len(data)),
    "another": lambda data: b"PAR1" + b"no file of ours",
    "a bit in the middle": lambda data: flipped(data, len(data) // 2),
    "a bit near the end": lambda data: flipped(data, len(data) - len(data) // 8),
}
damaged = pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return tiny_study.make(tmp_path_factory.mktemp("damaged"))


@damaged
def test_an_attribution_is_made_anew(study, damage):
    condition = study.condition("mel_db", "white")
    before = condition.attribute("saliency")
    path = condition.attribution_folder("saliency") / f"{condition.clips.frame['clip'][0]}.npz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FileNotFoundError, match="1 of 3"):
        condition.attributions("saliency")
    assert torch.equal(condition.attribute("saliency"), before)


@damaged
def test_a_block_of_scores_is_made_anew(study, damage, tmp_path, monkeypatch):
    clips, scored = study.condition("mel_db", "clean").clips, []

    def of_each_clip(block, *_):
        scored.append(1)
        n = len(clips)
        yield pd.DataFrame(
            {"index": range(n), "protocol": "paper", "method": "m", "mask": "x", "control": ""}
        ).assign(target=0, score=np.linspace(0, 1, n))

    block = SimpleNamespace(scorer=SimpleNamespace(batch=SimpleNamespace(db=torch.zeros(1, 1, 2, 3))))
    monkeypatch.setattr(score._Block, "of", lambda *_: block)
    monkeypatch.setattr(score, "_scored", of_each_clip)
    about = (study.classifier("mel_db"), clips, 0, {}, ["paper"], tmp_path, {"spectrogram_type": "mel_db"})
    before = score.score_block(*about)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    for _ in range(2):
        pd.testing.assert_frame_equal(score.score_block(*about), before, check_exact=True)
    assert len(scored) <= 2 and len(list(tmp_path.iterdir())) == 1


@damaged
def test_saved_scores_are_never_read_damaged(study, tmp_path, damage):
    frame = pd.DataFrame(
        {"score": np.linspace(0, 1, 99), "clip": ["a", "b", "c"] * 33, "correct": [True, False, True] * 33}
    )
    files.save_parquet(frame, tmp_path / "s.parquet")
    pd.testing.assert_frame_equal(files.read_parquet(tmp_path / "s.parquet"), frame)
    (tmp_path / "s.parquet").write_bytes(damage((tmp_path / "s.parquet").read_bytes()))
    try:
        assert files.read_parquet(tmp_path / "s.parquet").equals(frame)  # a bit that says nothing
    except ValueError as error:
        assert str(error).startswith(f"{tmp_path}/s.parquet: damaged") and "\n" not in str(error)


def test_a_frame_with_missing_values_and_other_types_is_as_it_was_written(tmp_path):
    frame = pd.DataFrame(
        {"x": [1.5, np.nan, -0.0], "s": ["é", None, ""], "n": [1, 2, 3], "f": np.float32([1, 2, 3])}
    )
    frame["g"] = frame["s"].astype(object)
    frame.attrs = {"mine": 1}
    files.save_parquet(frame, tmp_path / "s.parquet")
    read = files.read_parquet(tmp_path / "s.parquet")
    assert (
        read.drop(columns="g").equals(frame.drop(columns="g"))
        and read.attrs == {}
        and frame.attrs == {"mine": 1}
    )
    files.save_parquet(frame.iloc[:0], tmp_path / "none.parquet")
    assert files.read_parquet(tmp_path / "none.parquet").empty


@damaged
def test_a_decoder_is_trained_anew(study, damage, monkeypatch):
    classifier, trained, training = study.classifier("mel_db"), [], decoders.decoder_training

    def train(*_, **__):
        trained.append(1)
        return training.FittedDecoder(Decoder([4, 4], 3), ["block1", "block2"], [0.5], 1.5)

    monkeypatch.setattr(training, "train_decoder", train)
    path = decoders.fitted_decoder(study, classifier, "lmac")
    whole, n = path.read_bytes(), len(trained)
    path.write_bytes(damage(whole))
    for _ in range(2):
        assert decoders.fitted_decoder(study, classifier, "lmac") == path and len(trained) == n + 1
        assert decoders.training_seconds(study, classifier, "lmac") == 1.5


@damaged
def test_a_checkpoint_is_refused_in_one_line(study, tmp_path, damage):
    """Above all one whose weights have changed by a bit, which torch itself would read."""
    path = tmp_path / "c.pt"
    path.write_bytes(damage(study.checkpoint("mel_db").read_bytes()))
    with pytest.raises(ValueError, match="c.pt: not a readable PyTorch checkpoint") as error:
        load_state(path)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="not a readable"):
        classifiers.load_classifier(path, study.dataset.classes, "mel_db", study.dtype, "cpu")


def test_no_random_damage_is_read_as_if_whole(study):
    """Bits, bytes and ends of the three kinds of file that hold numbers."""
    condition = study.condition("mel_db", "white")
    whole = condition.attribute("saliency")[0, 0].numpy()
    path = condition.attribution_folder("saliency") / f"{condition.clips.frame['clip'][0]}.npz"
    data, key = (
        path.read_bytes(),
        attribute.attribution_keys(condition.classifier, condition.clips.waveforms, "saliency", {})[0],
    )
    draw, n_refused = random.Random(0), 0
    for _ in range(150):
        path.write_bytes(flipped(data, draw.randrange(len(data))))
        found = attribute._read(path, key)
        n_refused += found is None
        assert found is None or np.array_equal(found["attribution"], whole)
    assert n_refused > 100
    path.write_bytes(data)


def test_what_a_killed_step_left_half_made_is_swept(tmp_path):
    def killed(path):
        with files.atomic_path(path) as temporary:
            temporary.write_text("half")
            os._exit(1)

    for path in ("a.npz", "deep/er/b.csv", f"{'long' * 62}.npz"):
        if (child := os.fork()) == 0:
            killed(tmp_path / path)
        os.waitpid(child, 0)
    (tmp_path / f"{files.PARTIAL}folder" / "in").mkdir(parents=True)
    (tmp_path / "whole.csv").write_text("whole")
    (tmp_path / ".hidden").write_text("somebody's")
    assert len(list(tmp_path.rglob(f"{files.PARTIAL}*"))) == 4
    files.sweep(tmp_path / "deep", below=False)
    assert len(list(tmp_path.rglob(f"{files.PARTIAL}*"))) == 4
    files.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [".hidden", "whole.csv"]


def test_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(files.os, "fsync", lambda _: order.append("synced"))
    replace = os.replace
    monkeypatch.setattr(files.os, "replace", lambda *paths: (order.append("named"), replace(*paths)))
    files.write_json(tmp_path / "a.json", {"a": 1})
    assert order == ["synced", "named"]
    order.clear()
    (tmp_path / "folder" / "in").mkdir(parents=True)
    (tmp_path / "folder" / "in" / "x").touch()
    (tmp_path / "folder" / "link").symlink_to("nothing")
    files.to_disk(tmp_path / "folder")
    assert order == ["synced"]


def test_a_disk_that_refuses_keeps_the_old_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    files.write_json(tmp_path / "a.json", {"a": 1})
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_json(tmp_path / "a.json", {"a": 2})
    assert '"a": 1' in (tmp_path / "a.json").read_text() and len(list(tmp_path.iterdir())) == 1
