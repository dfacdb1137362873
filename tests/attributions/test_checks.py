"""The gradient check passes right models, refuses wrong ones, and says where they go wrong."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from audioxai_utils.attributions.gradient_check import GradientCheckError, gradient_check
from audioxai_utils.models.cnn14 import Cnn14


def cnn14(n_bins: int, width: float = 1 / 16) -> Cnn14:
    torch.manual_seed(0)
    model = Cnn14(n_bins, 5, width)
    model.bn0.running_mean.fill_(-40.0)
    model.bn0.running_var.fill_(200.0)
    return model


def clips(n: int, n_bins: int, n_frames: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, 1, n_bins, n_frames, generator=generator) * 15 - 40


class TransposedNorm(nn.Module):
    """The usual audio model: ``bn0`` as a 2-D batch norm over a transposed spectrogram."""

    def __init__(self, n_bins: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bn0 = nn.BatchNorm2d(n_bins)
        self.bn0.running_var.uniform_(0.5, 2.0)
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(4, 3)

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        x = self.bn0(db.transpose(2, 3).transpose(1, 3)).transpose(1, 3)  # (batch, 1, time, frequency)
        return self.head(self.relu(self.conv(x)).mean(dim=(2, 3)))


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 1.01


class Wrong(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return WrongBackward.apply(x)


@pytest.mark.parametrize(("n_bins", "n_frames"), [(64, 501), (257, 313)])
@pytest.mark.parametrize("n_clips", [1, 3])
def test_our_cnn14_passes(n_bins, n_frames, n_clips):
    found = gradient_check(cnn14(n_bins), clips(n_clips, n_bins, n_frames), n_directions=2)
    assert found.relative_error < 1e-4 and found.cosine > 0.9999 and found.own_type_error < 0.05
    assert found.n_compared >= n_clips


def test_transposed_batch_norm_is_refused_by_name():
    model = TransposedNorm(8)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        GradientCheckError, match=r"input gradient is wrong.*layer bn0 \(BatchNorm2d"
    ) as caught:
        gradient_check(model, clips(2, 8, 12))
    assert "\n" not in str(caught.value)
    assert model.training and all(
        torch.equal(before[key], value) for key, value in model.state_dict().items()
    )


def test_the_layer_nearest_to_the_logits_is_named():
    model = cnn14(32)
    model.dropouts[1], model.dropouts[4] = Wrong(), Wrong()
    with pytest.raises(GradientCheckError, match=r"layer dropouts.4 \(Wrong"):
        gradient_check(model, clips(1, 32, 64))


class WrongOutside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = cnn14(32)

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        return self.inner(WrongBackward.apply(db))


def test_an_error_outside_of_layers_is_refused_without_a_name():
    with pytest.raises(GradientCheckError, match="no layer alone shows it"):
        gradient_check(WrongOutside(), clips(1, 32, 64))


def test_silent_frames_are_no_obstacle():
    db = clips(2, 32, 128)
    db[:, :, :, 40:] = -100.0  # equal frames: the maximum over time is a tie
    assert gradient_check(cnn14(32), db).relative_error < 1e-4


class WrongInFloat32(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.dtype == torch.float64 else x.detach() + x.flip(3) - x.flip(3).detach()


def test_an_error_of_the_models_own_type_alone_is_refused():
    model = nn.Sequential(WrongInFloat32(), nn.Flatten(), nn.Linear(32, 3))
    assert gradient_check(model.double(), clips(2, 4, 8).double()).own_type_error == 0.0
    with pytest.raises(GradientCheckError, match="torch.float32 is wrong"):
        gradient_check(model.float(), clips(2, 4, 8))


class Step(nn.Module):
    def forward(self, db: torch.Tensor) -> torch.Tensor:
        noise = torch.rand(db.shape[0], 1, dtype=db.dtype)
        return torch.cat([noise, db.sum(dim=(1, 2, 3))[:, None] * 0], dim=1)


def test_what_cannot_be_checked_is_refused():
    with pytest.raises(
        GradientCheckError, match="cannot be checked: its logits are not smooth or not repeatable"
    ):
        gradient_check(Step(), clips(1, 4, 8), target=torch.tensor([0]))


def test_targets_are_the_predicted_classes_unless_given():
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 3)).double()
    with torch.no_grad():
        model[1].weight[2] = 0.0  # a dead class has a right gradient too: zero
    assert gradient_check(model, clips(2, 4, 8).double(), target=torch.tensor([2, 2])).relative_error == 0.0
    assert gradient_check(model, clips(2, 4, 8).double()).relative_error < 1e-6


def test_bad_spectrograms_are_refused():
    with pytest.raises(ValueError, match="db must have shape"):
        gradient_check(cnn14(32), torch.zeros(32, 64))
