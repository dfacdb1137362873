"""Cnn14 against a plain functional PANNs forward pass, its checkpoints, and its gradient."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from audioxai_utils.models.checkpoints import load_state
from audioxai_utils.models.cnn14 import Cnn14, blocks, load_panns_weights

WIDTH = 1 / 32


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Cnn14(64, 5, WIDTH).double()
    for module in model.modules():  # batch norms that do something
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
    return model.eval()


def panns_forward(state, x):
    """PANNs' Cnn14 with functional calls on (batch, 1, time, frequency), as the paper's repository orders its
    axes.
    """

    def norm(x, name):
        keys = [f"{name}.{key}" for key in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *(state[key] for key in keys))

    x = norm(x.transpose(1, 3), "bn0").transpose(1, 3)
    for i in range(1, 7):
        for j in (1, 2):
            x = functional.conv2d(x, state[f"conv_block{i}.conv{j}.weight"], padding=1)
            x = functional.relu(norm(x, f"conv_block{i}.bn{j}"))
        if i < 6:
            x = functional.avg_pool2d(x, 2)
    x = x.mean(3)
    x = x.max(2).values + x.mean(2)
    x = functional.relu(functional.linear(x, state["fc1.weight"], state["fc1.bias"]))
    return functional.linear(x, state["head.weight"], state["head.bias"])


@pytest.mark.parametrize("frames", [32, 63, 101])
def test_same_outputs_as_panns(model, frames):
    db = 20 * torch.randn(3, 1, 64, frames, dtype=torch.float64) - 40
    expected = panns_forward(model.state_dict(), db.transpose(2, 3))
    torch.testing.assert_close(model(db), expected, rtol=1e-9, atol=1e-9)


def test_full_width_has_panns_parameters():
    model = Cnn14(64, 527)
    # the published 80.8 M, with bn0 and a 527-class head
    assert sum(p.numel() for p in model.parameters()) == 80_753_615


def test_input_gradient_equals_central_differences(model):
    """Audit 6: with batch norm on a transposed 2-D input this fails on CPU."""
    db = (20 * torch.randn(2, 1, 64, 40, dtype=torch.float64) - 40).requires_grad_()
    gradient = torch.autograd.grad(model(db)[:, 1].sum(), db)[0]
    for seed in range(4):
        direction = torch.randn(db.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        step = 1e-6
        with torch.no_grad():
            difference = (model(db + step * direction)[:, 1] - model(db - step * direction)[:, 1]) / (
                2 * step
            )
        torch.testing.assert_close((gradient * direction).sum((1, 2, 3)), difference, rtol=1e-5, atol=1e-7)


def test_bn0_learns_with_the_right_gradient(model):
    """The parameters' gradients of bn0 in training mode, by central differences."""
    model.train()
    for dropout in model.dropouts:
        dropout.p = 0.0
    db = 20 * torch.randn(3, 1, 64, 40, dtype=torch.float64) - 40

    def loss():
        return model(db).square().sum()

    loss().backward()
    for parameter in (model.bn0.weight, model.bn0.bias):
        direction, value, step = torch.randn_like(parameter), parameter.data.clone(), 1e-6
        sides = []
        for sign in (1, -1):
            parameter.data = value + sign * step * direction
            sides.append(loss().item())
        parameter.data = value
        expected = (sides[0] - sides[1]) / (2 * step)
        assert (parameter.grad * direction).sum().item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_every_nonlinearity_is_a_module_used_once(model):
    calls = {}
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.ReLU, torch.nn.MaxPool1d)):
            module.register_forward_hook(
                lambda m, i, o, name=name: calls.update({name: calls.get(name, 0) + 1})
            )
    model(torch.zeros(1, 1, 64, 33, dtype=torch.float64))
    assert len(calls) == 14 and set(calls.values()) == {1}


def panns_checkpoint(model, path, **changes):
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("head.")}
    state |= {
        "fc_audioset.weight": torch.zeros(527, 64),
        "spectrogram_extractor.stft.conv_real.weight": torch.zeros(3),
    }
    torch.save({"iteration": 1, "model": state | changes}, path)
    return path


def test_audioset_weights_fill_all_but_the_head(model, tmp_path):
    path = panns_checkpoint(model, tmp_path / "cnn14.pth")
    other = Cnn14(64, 7, WIDTH).double()
    assert {name.split(".")[0] for name in load_panns_weights(other, path)} == {"head"}
    assert torch.equal(other.fc1.weight, model.fc1.weight) and torch.equal(
        other.bn0.running_mean, model.bn0.running_mean
    )
    narrow = Cnn14(257, 7, WIDTH).double()
    assert {name.split(".")[0] for name in load_panns_weights(narrow, path)} == {"head", "bn0"}


def test_unusable_checkpoints_end_in_one_line(model, tmp_path):
    path = panns_checkpoint(model, tmp_path / "cnn14.pth")
    with pytest.raises(ValueError, match="width=1.0"):
        load_panns_weights(Cnn14(64, 5, 2 * WIDTH), path)
    torch.save({"model": {"weight": torch.zeros(2)}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="not a Cnn14 checkpoint"):
        load_panns_weights(model, tmp_path / "other.pth")
    (tmp_path / "short.pth").write_bytes(path.read_bytes()[:1000])
    (tmp_path / "text.pth").write_text("no tensors here")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("short", "text", "list"):
        with pytest.raises(ValueError) as error:
            load_state(tmp_path / f"{name}.pth")
        assert "\n" not in str(error.value) and name in str(error.value)
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        load_state(tmp_path / "missing.pth")


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="not a readable"):
        load_state(tmp_path / "evil.pth")
    assert not (tmp_path / "owned").exists()


def test_wrong_shapes_are_refused(model):
    with pytest.raises(ValueError, match=r"\(batch, 1, 64, time\)"):
        model(torch.zeros(1, 1, 65, 40, dtype=torch.float64))
    with pytest.raises(ValueError, match="at least 32 frames"):
        model(torch.zeros(1, 1, 64, 31, dtype=torch.float64))


@pytest.mark.parametrize(
    "number",
    [
        np.float64(0.43),
        np.float32(0.43),
        np.float16(0.5),
        np.int64(3),
        np.uint8(3),
        np.bool_(True),
        np.str_("bal_mixup"),
        np.datetime64("2020-01-01"),
        np.mean(np.ones(3, np.float32)),
    ],
)
def test_a_checkpoint_may_hold_numpy_numbers_and_nothing_that_runs(tmp_path, number):
    torch.save({"model": torch.ones(2), "mAP": number}, tmp_path / "scalar.pth")
    assert load_state(tmp_path / "scalar.pth")["mAP"] == number


@pytest.mark.parametrize(
    "content, words",
    [
        (argparse.Namespace(lr=1), "more than tensors and plain values; save the model's state_dict"),
        (Path("logs"), "more than tensors and plain values; save the model's state_dict"),
        (print, "more than tensors and plain values; save the model's state_dict"),
        (nn.Linear(2, 2), "more than tensors and plain values; save the model's state_dict"),
        (np.array([{}], dtype=object), "more than tensors and plain values; save the model's state_dict"),
        (None, "it is a ScriptModule; save its state_dict"),
    ],
)
def test_a_checkpoint_of_more_than_tensors_says_what_to_save(tmp_path, content, words):
    path = tmp_path / "more.pth"
    if content is None:
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    else:
        torch.save({"model": torch.ones(2), "more": content}, path)
    with pytest.raises(ValueError, match=words) as error:
        load_state(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "n_bytes, words", [(None, "more than tensors and plain"), (60, "another kind of file")]
)
def test_a_checkpoint_of_long_ago_says_what_to_save(tmp_path, n_bytes, words):
    path = tmp_path / "old.pth"
    torch.save({"model": nn.Linear(2, 2)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(ValueError, match=words):
        load_state(path)


@pytest.mark.parametrize("content", [b"", b"abc", b"PK\x03\x04 half a zip"])
def test_a_damaged_checkpoint_is_one_line_without_torchs_internals(tmp_path, content):
    (tmp_path / "damaged.pth").write_bytes(content)
    with pytest.raises(ValueError, match="damaged.pth: not a readable PyTorch checkpoint") as error:
        load_state(tmp_path / "damaged.pth")
    assert "\n" not in str(error.value)


def test_blocks_hold_every_parameter_and_leave_the_model_as_it_was(model):
    model.train()
    rows = blocks(model, torch.randn(1, 1, model.n_bins, 64, dtype=next(model.parameters()).dtype))
    assert sum(row["parameters"] for row in rows) == sum(p.numel() for p in model.parameters())
    names = ["bn0", *(f"conv_block{i}" for i in range(1, 7)), "fc1", "head"]
    assert [row["block"] for row in rows] == names and rows[-1]["output"] == (model.n_classes,)
    assert rows[1]["output"][1:] == (32, model.n_bins // 2)  # (time, frequency), halved
    assert model.training and not any(module._forward_hooks for module in model.modules())
