"""The classifier that is explained: PANNs' Cnn14 on dB spectrograms.

References
----------
Kong et al. (2020), PANNs: Large-Scale Pretrained Audio Neural Networks for
Audio Pattern Recognition. Two deviations, neither of which changes an output:

* every nonlinearity is a module used once (``nn.ReLU``, ``nn.MaxPool1d``), because
  Deep SHAP replaces gradients at modules and does not see functional calls;
* ``bn0`` normalises a contiguous (batch, frequency, time) tensor. The usual 2-D batch
  norm on a transposed (batch, frequency, time, 1) tensor has ambiguous strides, and its
  backward pass on CPU mixes up elements.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from .checkpoints import load_state

CHANNELS = (64, 128, 256, 512, 1024, 2048)
MIN_FRAMES = 32
DROPOUT = (0.2,) * len(CHANNELS) + (0.5, 0.5)


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU, then average pooling."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        for conv in (self.conv1, self.conv2):
            nn.init.xavier_uniform_(conv.weight)

    def forward(self, x: torch.Tensor, pool: int) -> torch.Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        return functional.avg_pool2d(x, pool) if pool > 1 else x


class Cnn14(nn.Module):
    """Six-block convolutional classifier of spectrograms in dB.

    Parameters
    ----------
    n_bins : int
        Frequency bins of the input.
    n_classes : int
        Logits returned.
    width : float
        Multiplies the published channel numbers 64, 128, ..., 2048.
    dropout : float
        Multiplies the published dropout shares, 0.2 after a block and 0.5 around ``fc1``;
        a narrow model trained from scratch underfits with them.

    Notes
    -----
    Input (batch, 1, frequency, time) in dB, output (batch, n_classes) logits.
    ``gradcam_layer`` is the last convolution before its batch norm; ``feature_axes`` names the
    last two axes of the feature maps, for GradCAM.

    A forward pass sets ``max_pool.kernel_size`` to the clip's frames, so one model serves one
    thread at a time, and a traced or exported copy serves clips of one length.
    """

    feature_axes = ("time", "frequency")

    def __init__(self, n_bins: int, n_classes: int, width: float = 1.0, dropout: float = 1.0) -> None:
        super().__init__()
        channels = [max(1, round(width * n)) for n in CHANNELS]
        self.n_bins, self.n_classes, self.width = n_bins, n_classes, width
        self.bn0 = nn.BatchNorm1d(n_bins)
        for i, (n_in, n_out) in enumerate(zip([1, *channels[:-1]], channels), start=1):
            setattr(self, f"conv_block{i}", ConvBlock(n_in, n_out))
        self.max_pool = nn.MaxPool1d(1)
        self.fc1 = nn.Linear(channels[-1], channels[-1])
        self.relu = nn.ReLU()
        self.head = nn.Linear(channels[-1], n_classes)
        for linear in (self.fc1, self.head):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.dropouts = nn.ModuleList(nn.Dropout(dropout * share) for share in DROPOUT)

    @property
    def gradcam_layer(self) -> nn.Conv2d:
        return self.conv_block6.conv2

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        if db.ndim != 4 or db.shape[1:3] != (1, self.n_bins):
            raise ValueError(f"db must be (batch, 1, {self.n_bins}, time); got {tuple(db.shape)}")
        if db.shape[3] < MIN_FRAMES:
            raise ValueError(
                f"db must have at least {MIN_FRAMES} frames, five poolings halve them; got {db.shape[3]}"
            )
        x = self.bn0(db.squeeze(1).contiguous())  # (batch, frequency, time)
        return self.after_bn0(x.transpose(1, 2).unsqueeze(1))

    def maps(self, x: torch.Tensor) -> torch.Tensor:
        """The last block's feature maps (batch, channels, time, frequency) of a normalised input."""
        for i in range(1, 7):
            x = getattr(self, f"conv_block{i}")(x, pool=2 if i < 6 else 1)
            x = self.dropouts[i - 1](x)
        return x

    def after_bn0(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of a normalised input in PANNs' order, (batch, 1, time, frequency)."""
        x = self.maps(x).mean(dim=3)  # (batch, channels, time)
        self.max_pool.kernel_size = self.max_pool.stride = x.shape[2]  # over all frames
        x = self.max_pool(x).squeeze(2) + x.mean(dim=2)  # (batch, channels)
        x = self.relu(self.fc1(self.dropouts[6](x)))
        return self.head(self.dropouts[7](x))  # (batch, n_classes)


@torch.no_grad()
def blocks(model: nn.Module, db: torch.Tensor, parts: dict[str, nn.Module] | None = None) -> list[dict]:
    """What a model is made of, from input to logits.

    Parameters
    ----------
    db : torch.Tensor
        (1, 1, frequency, time), any clip; the outputs' sizes follow from it.
    parts : dict of str to nn.Module, optional
        Those that are listed, by name; default the model's children.

    Returns
    -------
    list of dict
        Per part ``block``, ``output`` (its shape without the batch) and ``parameters`` (their number).
    """
    rows, handles = [], []

    def note(name: str, part: nn.Module) -> None:
        def look(module, inputs, output) -> None:
            n_parameters = sum(parameter.numel() for parameter in part.parameters())
            rows.append({"block": name, "output": tuple(output.shape[1:]), "parameters": n_parameters})

        handles.append(part.register_forward_hook(look))

    for name, part in (parts or dict(model.named_children())).items():
        if any(True for _ in part.parameters()):
            note(name, part)
    training = model.training
    try:
        model.eval()(db)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return rows


def load_panns_weights(model: Cnn14, path: str | Path) -> list[str]:
    """Load AudioSet weights (``Cnn14_mAP=0.431.pth``) into a full-width model, in place.

    The AudioSet head stays out, and so does ``bn0`` where the number of bins is not 64.

    Returns
    -------
    list of str
        Names of the model's entries that kept their own values.

    Raises
    ------
    FileNotFoundError
        No file at ``path``.
    ValueError
        The file is no PyTorch checkpoint, or its tensors do not fit the model.
    """
    state = load_state(path)
    state = state.get("model", state)
    own = model.state_dict()
    skipped = [
        name for name in own if name.startswith("head.") or (name.startswith("bn0.") and model.n_bins != 64)
    ]
    missing = [name for name in own if name not in state and name not in skipped]
    if missing:
        raise ValueError(f"{path}: not a Cnn14 checkpoint, it lacks {missing[0]} and {len(missing) - 1} more")
    for name in own:
        if name not in skipped and own[name].shape != state[name].shape:
            raise ValueError(
                f"{path}: {name} has shape {tuple(state[name].shape)}, not {tuple(own[name].shape)}; "
                "AudioSet weights fit width=1.0 only"
            )
    model.load_state_dict({name: state[name] for name in own if name not in skipped}, strict=False)
    return skipped
