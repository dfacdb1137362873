"""Decoders for planted causes: what they are trained on, and that they are judged."""

from __future__ import annotations

import planted_bench
import pytest
import torch

from audioxai_utils.audio.spectrograms import get_spectrogram
from audioxai_utils.audit.planted import agreement, decoders
from audioxai_utils.audit.planted.bench import Bench, Sounds, decoder_path
from audioxai_utils.audit.planted.cases import Case
from audioxai_utils.audit.planted.judge import Effort, judge
from audioxai_utils.audit.planted.material import Material
from audioxai_utils.models.frontends import LogMel


@pytest.fixture(scope="module")
def sounds() -> Sounds:
    return planted_bench.sounds()


@pytest.mark.parametrize("kind", ["cnn14", "mn04"])
def test_a_decoder_hears_what_its_classifier_was_trained_on(sounds, kind):
    """Of ten classes the one with the plant has the cause, of plant or not each clip twice, with and without."""
    labels = torch.tensor([0, 1, 2])
    material = Material(planted_bench.bench(sounds), (sounds, labels), {"train": (sounds, labels)})
    spectrogram = get_spectrogram("mel_db") if kind == "cnn14" else LogMel.efficientat().spectrogram()
    case = Case("tone", kind, "tone", False, 0.0, 1)
    mixed = sounds.mixtures(case, spectrogram)
    found = decoders.trained_on(material, case, spectrogram)
    parts = [mixed.without_cause[0], mixed.whole[1], mixed.without_cause[2]]
    expected = torch.stack(parts) if kind == "cnn14" else torch.cat([mixed.whole, mixed.without_cause])
    torch.testing.assert_close(found, expected)


def test_a_trained_method_is_judged_with_its_decoder_and_named_without(sounds, tmp_path):
    bench = planted_bench.bench(sounds)
    bench.write(tmp_path)
    bench, effort = Bench.read(tmp_path), Effort(8, 1, 1, 0, methods=("saliency", "lmac_ft"), fills=("mean",))
    (case,) = bench.cases
    points, _, record = judge(bench, case, effort)
    assert "lmac_ft" not in set(points["method"]) and "no such file" in record["failed"]["lmac_ft"]
    labels = torch.tensor([0, 1, 2])
    material = Material(bench, (sounds, labels), {"train": (sounds, labels)})
    path = decoders.train(material, bench, case, "lmac_ft", epochs=1)
    assert path == decoder_path(tmp_path, case, "lmac_ft") and decoder_path(tmp_path, case, "lmac").is_file()
    made = path.stat().st_mtime_ns
    assert decoders.train(material, bench, case, "lmac_ft", epochs=1).stat().st_mtime_ns == made
    assert decoders.train(material, bench, case, "lmac_ft", epochs=2).stat().st_mtime_ns > made
    other = Material(bench, (sounds, labels), {"train": (planted_bench.sounds("chainsaw"), labels)})
    keys = {decoders.trained_for(m, bench, case, decoders.Recipe(), None) for m in (material, other)}
    assert len(keys) == 2  # other clips want another decoder
    points, scores, record = judge(bench, case, effort)
    own = points[points["method"] == "lmac_ft"]
    assert not record["failed"] and own["auc"].between(0, 1).all() and own["control_auc"].isna().all()
    assert set(scores["method"]) == {"saliency", "lmac_ft", *agreement.CONTROL_MAPS}
