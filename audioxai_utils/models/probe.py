"""A linear probe: new classes on the features of a pretrained network, in seconds and without training it.

References
----------
Alain & Bengio (2017), Understanding intermediate layers using linear classifier probes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

C = 0.1  # inverse strength of the penalty; left-out training folds of ESC-50 do not tell .01 from 3
MAX_ITERATIONS = 2000


class Probed(nn.Module):
    """A pretrained network with a probe's head in place of its own, behind a front end.

    Parameters
    ----------
    network : nn.Module
        Like `EfficientAT`: ``features`` to a vector and ``classifier`` on it. It is copied, not changed.
    head : nn.Linear
        From `fit_probe`.
    front_end : nn.Module, optional
        From the input that is explained to the network's own, such as `EfficientATMel` or `StftToMel`.

    Notes
    -----
    Output (batch, n_classes) logits of a softmax. ``gradcam_layer`` and ``feature_axes`` are the network's.
    """

    def __init__(self, network: nn.Module, head: nn.Linear, front_end: nn.Module | None = None) -> None:
        super().__init__()
        self.front_end = front_end if front_end is not None else nn.Identity()
        self.network = copy.deepcopy(network)
        self.network.classifier = copy.deepcopy(head)
        self.network.n_classes = head.out_features

    @property
    def gradcam_layer(self) -> nn.Module:
        return self.network.gradcam_layer

    @property
    def feature_axes(self) -> tuple[str, str]:
        return self.network.feature_axes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(self.front_end(x))  # (batch, n_classes)


@torch.no_grad()
def pooled_features(
    network: nn.Module, batches: Iterable[torch.Tensor], front_end: nn.Module | None = None
) -> torch.Tensor:
    """Features of all clips, (clips, n_features), with batch norm and dropout as in evaluation.

    Parameters
    ----------
    network : nn.Module
        Its ``features`` are called; every module's training flag is left as it was found.
    batches : iterable of torch.Tensor
        Inputs of ``front_end``, or of the network where there is none; on its device.

    Raises
    ------
    ValueError
        No batch.
    """
    flags = {module: module.training for module in network.modules()}
    network.eval()
    try:
        features = [network.features(batch if front_end is None else front_end(batch)) for batch in batches]
    finally:
        for module, flag in flags.items():
            module.training = flag
    if not features:
        raise ValueError("batches is empty; at least one batch of clips is needed")
    return torch.cat(features)


def fit_probe(features: torch.Tensor, labels: torch.Tensor, c: float = C) -> nn.Linear:
    """Multinomial logistic regression on standardised features, as one linear layer on the raw ones.

    Parameters
    ----------
    features : torch.Tensor
        (clips, n_features).
    labels : torch.Tensor
        (clips,) whole numbers, 0 to K-1 with none left out, K >= 2.
    c : float
        Inverse strength of the squared penalty on the weights, as scikit-learn's ``C``.

    Returns
    -------
    nn.Linear
        Logits of a softmax, float32, on the features' device.

    Raises
    ------
    ValueError
        Shapes that do not belong together, values that are not finite, labels with a gap, or a fit that did
        not come to an end.

    Notes
    -----
    With z = (x - mean) / scale, W z + b = (W / scale) x + (b - (W / scale) mean). A feature that never
    changes has scale 1. The fit runs in float64 and draws nothing, so it gives the same head again.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x, y = _checked(features, labels)
    scaler = StandardScaler().fit(x)
    fit = LogisticRegression(C=c, max_iter=MAX_ITERATIONS).fit(scaler.transform(x), y)
    if fit.n_iter_.max() >= MAX_ITERATIONS:
        raise ValueError(f"c={c}: the fit did not end in {MAX_ITERATIONS} iterations; choose a smaller c")
    weight, bias = fit.coef_, fit.intercept_
    if len(weight) == 1:  # of two classes scikit-learn gives the difference of their logits
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scaler.scale_
    head = nn.Linear(x.shape[1], len(weight))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias - weight @ scaler.mean_))
    return head.to(features.device)


def _checked(features: torch.Tensor, labels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels as float64 and integer arrays; ValueError in one line."""
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            "features must be (clips, n_features) and labels (clips,); "
            f"got {tuple(features.shape)} and {tuple(labels.shape)}"
        )
    if not torch.isfinite(features).all():
        raise ValueError("features must be finite; got NaN or infinite values, look for a broken clip")
    classes = torch.unique(labels).tolist()
    if len(classes) < 2 or classes != list(range(len(classes))):
        raise ValueError(f"labels must be 0 to K-1 with none left out and K >= 2; got {str(classes)[:60]}")
    return features.detach().cpu().double().numpy(), labels.cpu().numpy()
