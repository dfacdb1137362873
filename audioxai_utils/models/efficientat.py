"""A pretrained tagger of sounds: EfficientAT's MobileNetV3 ("mn") on log-mel spectrograms.

The published weights of ``mn04`` (width 0.4) load by name, key for key. Two deviations from the published
code, neither of which changes an output:

* every nonlinearity is a module used once, and a residual is a sum and not an addition in place, because
  explanation methods replace gradients at modules and keep what went in;
* the pooling closes ``features``, so that ``features(x)`` is the vector that a linear probe reads.

What a squeeze-excitation gate does is a product of two activations. Gradients, Grad-CAM and integrated
gradients are exact with it; the rescale rule of Deep SHAP needs a product rule of its own there.

References
----------
Howard et al. (2019), Searching for MobileNetV3, Table 1.
Schmid, Koutini & Widmer (2023), Efficient Large-Scale Audio Tagging via Transformer-to-CNN Knowledge
Distillation.
"""

from __future__ import annotations

import csv
import hashlib
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

from ..audio.downloads import WEIGHTS
from .checkpoints import load_state

PUBLISHED = WEIGHTS["mn04"]
N_MELS = 128
STEM, LAST, HIDDEN = 16, 6, 1280  # channels at width 1; LAST multiplies those of the last block
# kernel, expanded channels, output channels, squeeze-excitation, nonlinearity, stride
BLOCKS = (
    (3, 16, 16, False, nn.ReLU, 1),
    (3, 64, 24, False, nn.ReLU, 2),
    (3, 72, 24, False, nn.ReLU, 1),
    (5, 72, 40, True, nn.ReLU, 2),
    (5, 120, 40, True, nn.ReLU, 1),
    (5, 120, 40, True, nn.ReLU, 1),
    (3, 240, 80, False, nn.Hardswish, 2),
    (3, 200, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 480, 112, True, nn.Hardswish, 1),
    (3, 672, 112, True, nn.Hardswish, 1),
    (5, 672, 160, True, nn.Hardswish, 2),
    (5, 960, 160, True, nn.Hardswish, 1),
    (5, 960, 160, True, nn.Hardswish, 1),
)


class EfficientAT(nn.Module):
    """Inverted residuals with squeeze-excitation, pooled to a vector and classified.

    Parameters
    ----------
    n_classes : int
        Logits returned; 527 are AudioSet's, which are independent (a sigmoid each).
    width : float
        Multiplies the channel numbers of MobileNetV3-large, each rounded to a multiple of 8; 0.4 is ``mn04``.
    dropout : float
        Before the last layer, in training.

    Notes
    -----
    Input (batch, 1, 128, frames), the normalised log-mel of `EfficientATMel`; output (batch, n_classes)
    logits. ``features(x)`` is (batch, 384) at width 0.4: the means of the last feature maps. Any number of
    frames fits.

    ``gradcam_layer`` is the last convolution before its batch norm. Its maps have a 32nd of the input's bins
    and frames (4 x 16 for 5 s); every later layer sees means over them.
    """

    feature_axes = ("frequency", "time")

    def __init__(self, n_classes: int = 527, width: float = 0.4, dropout: float = 0.2) -> None:
        super().__init__()
        self.n_classes, self.width = n_classes, width
        channels = scaled(STEM, width)
        layers = [convolution(1, channels, nn.Hardswish, kernel=3, stride=2)]
        for kernel, expanded, out, squeeze, nonlinearity, stride in BLOCKS:
            expanded, out = scaled(expanded, width), scaled(out, width)
            layers.append(InvertedResidual(channels, expanded, out, kernel, stride, nonlinearity, squeeze))
            channels = out
        self.n_features, hidden = LAST * channels, scaled(HIDDEN, width)
        layers.append(convolution(channels, self.n_features, nn.Hardswish))
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Sequential(
            OrderedDict(
                [  # 0 and 1 are the pooling in the published file
                    ("2", nn.Linear(self.n_features, hidden)),
                    ("3", nn.Hardswish()),
                    ("4", nn.Dropout(dropout)),
                    ("5", nn.Linear(hidden, n_classes)),
                ]
            )
        )

    @property
    def gradcam_layer(self) -> nn.Conv2d:
        return self.features[len(BLOCKS) + 1][0]

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        if log_mel.ndim != 4 or log_mel.shape[1:3] != (1, N_MELS):
            raise ValueError(
                f"log_mel must be (batch, 1, {N_MELS}, frames), as EfficientATMel returns it; "
                f"got {tuple(log_mel.shape)}"
            )
        return self.classifier(self.features(log_mel))  # (batch, n_classes)


class InvertedResidual(nn.Module):
    """Widen, convolve each channel by itself, gate, narrow; plus the input where the shapes are the same."""

    def __init__(
        self,
        n_in: int,
        n_expanded: int,
        n_out: int,
        kernel: int,
        stride: int,
        nonlinearity: type[nn.Module],
        squeeze: bool,
    ) -> None:
        super().__init__()
        layers = [convolution(n_in, n_expanded, nonlinearity)] if n_expanded != n_in else []
        layers.append(convolution(n_expanded, n_expanded, nonlinearity, kernel, stride, groups=n_expanded))
        if squeeze:
            gates = nn.Sequential(SqueezeExcitation(n_expanded))
            layers.append(nn.Sequential(OrderedDict(conc_se_layers=gates)))  # the published file's name
        layers.append(convolution(n_expanded, n_out))
        self.block = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and n_in == n_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block(x) if self.has_shortcut else self.block(x)


class SqueezeExcitation(nn.Module):
    """Multiply every channel by a share in (0, 1) that depends on the means of all channels."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        squeezed = scaled(n_channels // 4)
        self.fc1 = nn.Linear(n_channels, squeezed)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(squeezed, n_channels)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        share = self.sigmoid(self.fc2(self.relu(self.fc1(x.mean(dim=(2, 3))))))  # (batch, channels)
        return x * share[:, :, None, None]


def convolution(
    n_in: int,
    n_out: int,
    nonlinearity: type[nn.Module] | None = None,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    """Convolution without bias that keeps the size at stride 1, batch norm, and a nonlinearity if given."""
    layers = [
        nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(n_out, eps=1e-3, momentum=0.01),
    ]
    return nn.Sequential(*layers, *([nonlinearity()] if nonlinearity else []))


def scaled(n_channels: int, width: float = 1.0) -> int:
    """The multiple of 8 nearest to ``width * n_channels``, or the next where that loses over a tenth."""
    wanted = width * n_channels
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def load_efficientat(path: str | Path, width: float = 0.4, check: bool = False) -> EfficientAT:
    """The AudioSet tagger with its published weights, in evaluation mode.

    Parameters
    ----------
    path : str or Path
        ``mn04_as_mAP_432.pt`` (`PUBLISHED`), or another file of the "mn" family with its ``width``.
    width : float
        Width of the network in the file.
    check : bool
        Compare size and SHA-256 with those of ``mn04_as_mAP_432.pt`` before reading.

    Raises
    ------
    FileNotFoundError
        No file at ``path``.
    ValueError
        Another file than the published one (``check``), no PyTorch checkpoint, or its names or shapes are not
        exactly the network's.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: {path} is no file; download {PUBLISHED.url}")
    if check:
        _check_file(path)
    state = load_state(path)
    n_classes = len(state["classifier.5.bias"]) if "classifier.5.bias" in state else 527
    model = EfficientAT(n_classes, width)
    _check_state(path, state, model)
    model.load_state_dict(state)
    return model.eval()


def _check_file(path: Path) -> None:
    size = path.stat().st_size
    if size != PUBLISHED.size:
        raise ValueError(f"{path} has {size} bytes, {PUBLISHED.name} has {PUBLISHED.size}; download it again")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if f"sha256:{digest}" != PUBLISHED.checksum:
        raise ValueError(
            f"{path} has SHA-256 {digest}, expected {PUBLISHED.checksum.partition(':')[2]}; download it again"
        )


def _check_state(path: Path, state: dict[str, torch.Tensor], model: EfficientAT) -> None:
    """ValueError in one line unless names and shapes are the model's, none missing and none more."""
    own = model.state_dict()
    for text, names in (("lacks", own.keys() - state.keys()), ("has an unknown", state.keys() - own.keys())):
        if names:
            raise ValueError(
                f"{path}: no EfficientAT mn checkpoint of width {model.width}, it {text} {min(names)} "
                f"({len(names)} in all)"
            )
    for name, value in own.items():
        if value.shape != state[name].shape:
            raise ValueError(
                f"{path}: {name} has shape {tuple(state[name].shape)}, at width {model.width} it is "
                f"{tuple(value.shape)}; give the file's own width"
            )


def read_audioset_labels(path: str | Path) -> list[str]:
    """Names of AudioSet's classes in the order of the logits, from ``class_labels_indices.csv``.

    Raises
    ------
    FileNotFoundError
        No file at ``path``.
    ValueError
        The columns index and display_name are not there, or the indices are not 0, 1, 2, ...
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: {path} is no file; AudioSet's class_labels_indices.csv is expected")
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not {"index", "display_name"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{path}: expected columns index, mid, display_name; got {reader.fieldnames}")
        rows = list(reader)
    if [row["index"] for row in rows] != [str(i) for i in range(len(rows))]:
        raise ValueError(f"{path}: the column index must count 0, 1, 2, ... in file order")
    return [row["display_name"] for row in rows]
