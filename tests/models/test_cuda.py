"""CUDA: on a machine without it, that the fast paths keep to the device and never wait for it; on one with
it, the numbers.

Fake tensors know their device and shape and hold no values. An operation on two devices fails with them, and
so does every look at a value from the host.
"""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from audioxai_utils.attributions import METHODS, neighbourhoods, rescale
from audioxai_utils.attributions.shap_fast import PairedModel
from audioxai_utils.audio import spectrograms
from audioxai_utils.audio.spectrograms import get_spectrogram
from audioxai_utils.constants import SPECTROGRAM_TYPES
from audioxai_utils.evaluation import masks, metrics, scoring
from audioxai_utils.models.cnn14 import Cnn14
from audioxai_utils.models.inference import half_precision_copy, inference_copy
from audioxai_utils.numerics import tensor_float32, to_device, to_host
from audioxai_utils.study import attribute, clips

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture
def faked():
    """Everything made in the test is fake."""
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        yield mode


def fake_model() -> Cnn14:
    with torch.device("cuda"):
        return Cnn14(64, 10, 1 / 16).eval().requires_grad_(False)


def test_fake_tensors_refuse_what_they_are_here_to_refuse(faked):
    """The other tests would pass for nothing otherwise."""
    there = torch.zeros(2, device="cuda")
    with pytest.raises(RuntimeError, match="two different devices"):
        there + torch.zeros(2)
    for look in (lambda: there.sum().item(), lambda: there.tolist(), lambda: bool(there.all())):
        with pytest.raises(DataDependentOutputException):
            look()


DTYPES = {"i": torch.int64, "b": torch.bool, "f": torch.float64}


def test_lime_classifies_in_tf32_without_waiting_for_the_device_and_scores_are_in_float32(faked, monkeypatch):
    # pinning wants a driver
    monkeypatch.setattr(neighbourhoods, "to_device", lambda values, device: values.to(device))
    monkeypatch.setattr(
        torch, "from_numpy", lambda array: torch.empty(array.shape, dtype=DTYPES[array.dtype.kind])
    )
    seen, model, db = [], fake_model(), torch.empty(1, 1, 64, 501, device="cuda")
    model.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    drawn = neighbourhoods.Neighbourhood(
        np.zeros((64, 501), int), np.ones((40, 12), bool), np.zeros((64, 501)), np.zeros((64, 501))
    )
    for choice in (True, False):
        with tensor_float32(choice, torch.device("cuda")):
            p = neighbourhoods.classified(model, drawn, 3, db, batch_size=16)
            assert p.device.type == "cuda" and p.shape == (40,) and p.dtype == torch.float32
            assert seen == [True] * 3
            scoring.probabilities(model, db)
            assert seen.pop() is False
        seen.clear()


def test_deep_shap_records_and_goes_forward_without_waiting_for_the_device(faked):
    pairs = PairedModel(fake_model())
    clip, background = (torch.empty(n, 1, 64, 501, device="cuda") for n in (1, 4))
    logits = pairs.record(background)
    with torch.no_grad():
        own = pairs.model(clip.expand(4, -1, -1, -1))
    assert (logits.device.type, own.device.type, own.shape) == ("cuda", "cuda", (4, 10))


def test_the_rescale_rule_stays_on_the_device(faked):
    """The backward passes by themselves: autograd's own engine wants a driver."""
    x, b, g = (torch.empty(n, 8, 50, device="cuda") for n in (1, 4, 4))
    relu, pool = SimpleNamespace(x=x, b=b), torch.nn.functional.max_pool1d
    assert rescale.ReLU.backward(relu, g)[0].device.type == "cuda"
    arguments = (5, 5, 0, 1, False, True)
    y, largest = pool(x, *arguments)
    pooled = SimpleNamespace(x=x, b=b, y=y, x_largest=largest, pool=pool, arguments=arguments)
    found = rescale.MaxPool.backward(pooled, torch.empty(4, 8, 10, device="cuda"))[0]
    assert found.device.type == "cuda" and found.shape == b.shape


@pytest.mark.parametrize("spectrogram_type", SPECTROGRAM_TYPES)
def test_masks_sounds_and_scores_stay_on_the_device(spectrogram_type, monkeypatch):
    """All but PyTorch's inverse STFT, which looks at its window once a call."""

    def istft(spectrum, *_, window, length, **__):
        assert spectrum.device == window.device
        return torch.empty(len(spectrum), length, device=spectrum.device)

    monkeypatch.setattr(torch, "istft", istft)
    spectrogram = get_spectrogram(spectrogram_type)  # outside: its filters are looked at when they are made
    with FakeTensorMode() as mode:
        for name, values in list(spectrogram.named_buffers()):
            setattr(spectrogram, name, mode.from_tensor(values).to("cuda"))
        _stay_on_the_device(spectrogram)


def _stay_on_the_device(spectrogram) -> None:
    with torch.device("cuda"):
        model = Cnn14(spectrogram.n_bins, 10, 1 / 16).eval()
    batch = spectrogram(torch.empty(2, 160000, device="cuda"))
    mask = torch.empty_like(batch.db)
    p = scoring.probabilities(model, torch.cat([batch.db, *masks.apply_mask(batch.db, mask)]))
    assert p.device.type == "cuda" and p.shape == (6, 10)
    scores = metrics.faithfulness(*p.split(2), "audited")
    sound = spectrograms.removed_audio(batch, mask, spectrogram)
    assert {value.device.type for value in (*scores.values(), sound, spectrogram.decibels(sound))} == {"cuda"}


CUDA = torch.device("cuda")


@pytest.mark.parametrize("before", [("highest", True), ("medium", False)])
def test_the_callers_choice_of_tf32_comes_back(before):
    def choice():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    own = choice()
    try:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
        for allowed, inside in ((True, ("high", True)), (False, ("highest", False))):
            with pytest.raises(RuntimeError, match="inside"), tensor_float32(allowed, CUDA):
                assert choice() == inside
                raise RuntimeError("inside")
            assert choice() == before
        with tensor_float32(not before[1], torch.device("cpu")):
            assert choice() == before
    finally:
        torch.set_float32_matmul_precision(own[0])
        torch.backends.cudnn.allow_tf32 = own[1]


def test_a_choice_by_pytorchs_newer_words_is_left_alone():
    before = torch.backends.cudnn.conv.fp32_precision
    try:
        torch.backends.cudnn.conv.fp32_precision = "ieee"
        with tensor_float32(True, CUDA):
            assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    finally:
        torch.backends.cudnn.conv.fp32_precision = before


def test_sounds_reach_the_device_they_are_sent_to():
    values = torch.arange(3.0)
    assert to_device(values, torch.device("cpu")) is values and to_host(values)() is values


def test_lime_reads_each_clip_when_the_next_one_is_under_way():
    order = []

    def made():
        for i in range(3):
            order.append(f"made {i}")
            yield i

    for i in neighbourhoods.one_behind(made()):
        order.append(f"read {i}")
    assert order == ["made 0", "made 1", "read 0", "made 2", "read 1", "read 2"]


def test_spectrograms_of_a_split_are_computed_where_the_transform_is(condition, monkeypatch):
    """Training wants them on the CPU; a clip that stays there would meet a window on the GPU."""
    sent = []
    monkeypatch.setattr(clips, "to_device", lambda values, device: sent.append(device) or values)
    db, labels, _ = condition.study.split("mel_db", "test")
    assert (
        set(sent) == {condition.spectrogram.window.device}
        and db.device.type == "cpu"
        and len(db) == len(labels)
    )


def test_clips_that_are_attributed_together_are_what_they_are_alone(condition, monkeypatch):
    """As on a GPU, blocks of clips; a block that is partly there computes the rest."""
    folder = condition.attribution_folder("saliency")

    def attributed() -> list[dict]:
        return list(attribute.attribute(condition.classifier, condition.clips, "saliency", {}, folder))

    alone = attributed()
    values = condition.attributions("saliency")
    for path in sorted(folder.glob("*.npz"))[1:]:
        path.unlink()
    monkeypatch.setitem(attribute.AT_ONCE, "cpu", 16)
    again = attributed()
    torch.testing.assert_close(condition.attributions("saliency"), values, atol=1e-6, rtol=1e-5)
    assert sum(row["computed"] for row in again) == len(condition.clips) - 1 > 0
    assert [(r["clip"], r["target"]) for r in again] == [(r["clip"], r["target"]) for r in alone]


@needs_cuda
def test_float16_is_taken_on_cuda():
    torch.manual_seed(0)
    model, db = Cnn14(64, 10, 1 / 8).eval().cuda(), 20 * torch.randn(2, 1, 64, 501).cuda() - 40
    assert half_precision_copy(inference_copy(model, db), db) is not None


@needs_cuda
@pytest.mark.parametrize("method", ["saliency", "gradcam", "lime", "shap"])
def test_cpu_and_cuda_agree(method):
    torch.manual_seed(0)
    here = Cnn14(64, 10, 1 / 8).eval()
    there = copy.deepcopy(here).cuda()
    db, background = (20 * torch.randn(n, 1, 64, 501) - 40 for n in (2, 6))
    target = here(db).argmax(1)
    options = {"lime": {"n_samples": 100}, "shap": {"background": background}}.get(method, {})
    found = METHODS[method](here, db, target, **options)
    options = {
        name: value.cuda() if isinstance(value, torch.Tensor) else value for name, value in options.items()
    }
    other = METHODS[method](there, db.cuda(), target.cuda(), **options).cpu()
    assert float((found - other).abs().max() / found.abs().max()) < (1e-2 if method == "lime" else 1e-3)
    torch.testing.assert_close(
        scoring.probabilities(there, db.cuda()).cpu(), scoring.probabilities(here, db), atol=1e-3, rtol=0
    )
