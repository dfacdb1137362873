"""An interpreter that reads a classifier's feature maps as activations of learned spectra, and how it is
trained.

The dictionary W (frequency, K) of non-negative spectra is learned first, from training clips alone. A small
network Psi turns the frozen classifier's maps into activations H (K, time) >= 0, so that W H is the clip,
and a linear layer Theta turns pooled activations z into the classifier's own probabilities. The loss is
their cross-entropy, plus the squared error of W H, plus the mean of H.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..models.reading import reading_of
from ..numerics import default_dtype
from .decoder import AGAIN, Recipe, features_of, read_decoder, restored

WIDTH = 32  # channels between the maps and the activations
BANDS = 8  # of a map's frequencies, whose means are read
FRAMES = 4000  # of the training clips, of which the dictionary is learned
NMF_STEPS = 200


@dataclass(frozen=True)
class InterpreterRecipe(Recipe):
    """How an interpreter is trained, beside ``Recipe``'s epochs, batch size and learning rate."""

    n_components: int = 32
    reconstruction: float = 10.0  # nats per mean squared error of log(1 + magnitude)
    sparseness: float = 0.1  # nats per mean activation

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_components < 2:
            raise ValueError(f"n_components must be 2 or more; got {self.n_components}")


class Interpreter(nn.Module):
    """Psi and Theta over a dictionary.

    Parameters
    ----------
    channels : sequence of int
        Of each feature map, the finest first.
    n_classes : int
    dictionary : Tensor (frequency, K)
        Spectra of log(1 + magnitude), 0 or more.
    width : int
        Channels between.
    """

    def __init__(
        self, channels: Sequence[int], n_classes: int, dictionary: torch.Tensor, width: int = WIDTH
    ) -> None:
        super().__init__()
        self.channels, self.n_classes, self.width = list(channels), n_classes, width
        self.register_buffer("dictionary", dictionary)
        n = dictionary.shape[1]
        self.takes = nn.ModuleList(nn.Conv1d(BANDS * c, width, 1) for c in channels)
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for _ in channels)  # of each clip by itself
        self.refine = nn.Conv1d(width, width, 5, padding=2)
        self.activate = nn.Conv1d(width, n, 1)
        self.attend = nn.Conv1d(n, n, 1)
        self.classify = nn.Linear(n, n_classes)
        nn.init.zeros_(self.classify.weight)  # no component has a part in a class that was not learned

    def forward(self, features: Sequence[torch.Tensor], n_frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Activations H (n, K, n_frames) and pooled ones z (n, K), from maps (n, channels, F', T')."""
        total = 0
        for maps, take, norm in zip(features, self.takes, self.norms):
            bands = functional.adaptive_avg_pool2d(maps, (BANDS, maps.shape[3]))  # (n, channels, BANDS, T')
            own = norm(take(bands.flatten(1, 2)))  # (n, width, T')
            total = total + functional.interpolate(own, n_frames, mode="linear", align_corners=False)
        h = functional.softplus(self.activate(functional.relu(self.refine(functional.relu(total)))))
        return h, (h * self.attend(h).softmax(2)).sum(2)

    def relevance(self, z: torch.Tensor, target: torch.Tensor, exclusive: bool) -> torch.Tensor:
        """Of each component (n, K) for classes (n,): z times its weight in Theta, over the largest size.

        What Theta gives to all classes alike says nothing where they exclude each other, and is taken off.
        """
        theta = self.classify.weight - (self.classify.weight.mean(0) if exclusive else 0)
        r = z * theta[target]
        return r / r.abs().amax(1, keepdim=True).clamp_min(torch.finfo(r.dtype).tiny)


def magnitude(db: torch.Tensor) -> torch.Tensor:
    """log(1 + magnitude) of decibels: the scale on which loud and quiet are told apart."""
    return (10 ** (db / 20)).log1p()


def learn_dictionary(db: torch.Tensor, n_components: int, seed: int) -> torch.Tensor:
    """Spectra (F, K) of length 1 that add up to the frames of clips (n, 1, F, T) in dB."""
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    frames = magnitude(db[:, 0]).transpose(1, 2).flatten(0, 1).double().cpu().numpy()  # (frames, F)
    chosen = np.random.RandomState(seed).permutation(len(frames))[:FRAMES]
    n = min(n_components, len(chosen), frames.shape[1])
    model = NMF(n, init="nndsvda", max_iter=NMF_STEPS, tol=1e-3, random_state=seed)
    with warnings.catch_warnings():  # the interpreter is trained on whatever it was stopped at
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(frames[chosen])
    spectra = torch.from_numpy(model.components_.T)  # (F, K)
    return (spectra / spectra.norm(dim=0).clamp_min(1e-12)).to(db)


def new_interpreter(
    model: nn.Module, db: torch.Tensor, layers: Sequence[str], recipe: InterpreterRecipe, seed: int
) -> Interpreter:
    """One that knows the clips' spectra (n, 1, F, T), and nothing of the classifier."""
    first = db[:1].to(next(model.parameters()).device)
    logits, features = features_of(model, first, layers)
    dictionary = learn_dictionary(db, recipe.n_components, seed)
    with default_dtype(db.dtype):
        return Interpreter([maps.shape[1] for maps in features], logits.shape[1], dictionary)


def interpreter_loss(
    interpreter: Interpreter,
    model: nn.Module,
    db: torch.Tensor,
    layers: Sequence[str],
    recipe: InterpreterRecipe,
) -> torch.Tensor:
    """Loss (n,) of clips (n, 1, F, T) in dB, in nats.

    Under a softmax the cross-entropy with the classifier's probabilities, under independent labels the mean
    binary one.
    """
    logits, features = features_of(model, db, layers)
    h, z = interpreter(features, db.shape[3])
    reading = reading_of(model)
    p, found = reading.probabilities(logits), interpreter.classify(z)
    if reading.threshold is None:
        fidelity = functional.cross_entropy(found, p, reduction="none")
    else:
        fidelity = functional.binary_cross_entropy_with_logits(found, p, reduction="none").mean(1)
    error = (magnitude(db[:, 0]) - interpreter.dictionary @ h).square().mean(dim=(1, 2))
    return fidelity + recipe.reconstruction * error + recipe.sparseness * h.mean(dim=(1, 2))


def load_interpreter(path: str | Path, like: torch.Tensor) -> tuple[Interpreter, list[str]]:
    """Interpreter of a file, with ``like``'s device and dtype and frozen, and the layers it reads.

    Raises
    ------
    FileNotFoundError
        No file at ``path``.
    ValueError
        It is not an interpreter's, or one of other spectrograms.
    """
    train = f"{AGAIN}(model, db, InterpreterRecipe())"
    content = read_decoder(path)
    state = content["decoder"]
    if "dictionary" not in state:
        raise ValueError(f"decoder {path}: holds no interpreter; {train}")
    n_bins = len(state["dictionary"])
    if n_bins != like.shape[2]:
        raise ValueError(
            f"decoder {path}: its spectra have {n_bins} bins, the clips {like.shape[2]}; {train}"
        )
    sizes = (content["channels"], content["n_classes"], state["dictionary"].to(like.dtype), content["width"])
    return restored(lambda: Interpreter(*sizes), content, path, like), content["layers"]
