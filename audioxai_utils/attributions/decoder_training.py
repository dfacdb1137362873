"""Training of the decoders behind ``lmac``, ``lmac_ft``, ``lmac_td`` and ``l2i``, with Lightning, on training
clips alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from ..files import atomic_path
from ..models.inference import inference_copy
from ..models.training import quiet_lightning
from ..numerics import default_dtype
from .decoder import (
    Decoder,
    Recipe,
    asked,
    feature_layers,
    features_of,
    load_decoder,
    read_decoder,
    settle_axes,
)
from .extremal import DOMAINS, objective, penalty, upsampled
from .interpreter import Interpreter, InterpreterRecipe, interpreter_loss, magnitude, new_interpreter
from .sound_decoder import SoundRecipe, augmented_sound, new_sound_decoder, sound_layers, sound_loss

GRADIENT_CLIP = 1.0  # largest norm; single clips have losses of many nats
PLAIN = Recipe()


@dataclass(frozen=True)
class FittedDecoder:
    """A trained decoder: the layers it reads, the mean loss (nats) of every epoch, and what it cost in all
    (s).
    """

    decoder: Decoder | Interpreter
    layers: list[str]
    losses: list[float]
    seconds: float


def train_decoder(
    model: nn.Module,
    db: torch.Tensor,
    recipe: Recipe = PLAIN,
    seed: int = 0,
    layers: Sequence[str] | None = None,
    start: str | Path | None = None,
) -> FittedDecoder:
    """Train a decoder for a classifier; the classifier is not changed, nor is the global random state.

    Parameters
    ----------
    model : nn.Module
        The trained classifier, dB spectrograms to logits; the decoder is trained on its device.
    db : Tensor (clips, 1, F, T)
        Training clips in dB, of the model's dtype; labels are not needed, the predicted class is explained.
    recipe : Recipe
        An `InterpreterRecipe` trains the interpreter of ``l2i``, a `SoundRecipe` the decoder of ``lmac_td``,
        whose model takes waveforms and whose clips are waveforms (clips, samples).
    seed : int
        Of initial weights, shuffling and augmentation.
    layers : sequence of str, optional
        Modules whose maps are read, finest first; default all children that give maps.
    start : path, optional
        File of a decoder that is trained further; its layers are read, its seconds added. Default: a new one.
    """
    import lightning

    started = time.perf_counter()
    device = next(model.parameters()).device
    first = db[:1].to(device)
    frozen = inference_copy(model, first)
    with torch.random.fork_rng(), quiet_lightning():
        torch.manual_seed(seed)
        found = sound_layers if isinstance(recipe, SoundRecipe) else feature_layers
        layers = list(layers or found(frozen, first))
        decoder, layers, spent = (
            _continued(start, db) if start else (_new(frozen, db, layers, recipe, seed), layers, 0.0)
        )
        settle_axes(frozen, first, layers[0])
        loader = DataLoader(TensorDataset(db), recipe.batch_size, shuffle=True)
        module = _make_module(decoder, frozen, layers, recipe, recipe.epochs * len(loader), seed)
        lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            max_epochs=recipe.epochs,
            precision="64-true" if db.dtype == torch.float64 else "32-true",
            logger=False,
            enable_checkpointing=False,
            gradient_clip_val=GRADIENT_CLIP,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(module, loader)
    decoder = module.decoder.cpu().eval().requires_grad_(False)
    return FittedDecoder(decoder, layers, module.losses, spent + time.perf_counter() - started)


def _new(
    model: nn.Module, db: torch.Tensor, layers: list[str], recipe: Recipe, seed: int
) -> Decoder | Interpreter:
    """A decoder that knows nothing of the classifier yet."""
    if isinstance(recipe, InterpreterRecipe):
        return new_interpreter(model, db, layers, recipe, seed)
    if isinstance(recipe, SoundRecipe):
        return new_sound_decoder(model, db[:1].to(next(model.parameters()).device), layers, recipe)
    logits, features = features_of(model, db[:1].to(next(model.parameters()).device), layers)
    with default_dtype(db.dtype):
        return Decoder([maps.shape[1] for maps in features], logits.shape[1])


def _continued(path: str | Path, db: torch.Tensor) -> tuple[Decoder, list[str], float]:
    """The decoder of a file, to be trained, its layers, and the seconds it has cost."""
    decoder, layers = load_decoder(path, db)
    return decoder.train().requires_grad_(True), layers, decoder_info(path)["seconds"]


def _make_module(
    decoder: Decoder, frozen: nn.Module, layers: list[str], recipe: Recipe, n_steps: int, seed: int
):
    """A LightningModule around ``decoder``; defined here so that importing this file stays light."""
    import lightning

    class Masks(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.decoder, self.losses, self.rows = decoder, [], []
            self.draws = torch.Generator().manual_seed(seed)

        def training_step(self, batch, number):
            loss = self.loss(batch[0], number)
            self.rows.append(loss.detach())
            return loss.mean()

        def loss(self, clips, number):
            if isinstance(recipe, SoundRecipe):
                sounds = augmented_sound(clips, recipe, self.draws, self.decoder.stft)
                return sound_loss(self.decoder, frozen, sounds, layers, recipe, self.draws)
            clean, db = augmented(clips, recipe, self.draws)
            if isinstance(recipe, InterpreterRecipe):
                return interpreter_loss(self.decoder, frozen, db, layers, recipe)
            logits, features = features_of(frozen, db, layers)
            target = asked(logits, recipe, self.draws)
            coarse = self.decoder(features, target)
            fine = upsampled(coarse, db)
            mask = fine.sigmoid()
            size = penalty(mask, coarse, recipe, None)
            if recipe.guide:
                guided = is_alike(mask, clean, db, recipe) & (target == logits.argmax(1))
                size = torch.where(guided, recipe.guide * guide_loss(fine, clean, recipe), size)
            domain = DOMAINS["both"][number % 2]
            return objective(frozen, db, target, mask, domain) + size

        def on_train_epoch_end(self) -> None:
            self.losses.append(float(torch.cat(self.rows).mean()))
            self.rows = []

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.decoder.parameters(), lr=recipe.learning_rate)
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, recipe.learning_rate, total_steps=n_steps
            )
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    return Masks()


def is_alike(mask: torch.Tensor, clean: torch.Tensor, db: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Whether what the mask keeps of ``db`` correlates with the clip before anything was added to it, bool
    (n,).
    """
    kept = mask.detach() * magnitude(db)
    return functional.cosine_similarity(kept.flatten(1), magnitude(clean).flatten(1)) >= recipe.alike


def guide_loss(logits: torch.Tensor, clean: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Binary cross-entropy (n,), nats a bin, between the mask of these logits and the clip's loud bins."""
    level = magnitude(clean)
    loud = (level >= recipe.loud * level.amax(dim=(1, 2, 3), keepdim=True)).to(logits)
    return functional.binary_cross_entropy_with_logits(logits, loud, reduction="none").mean(dim=(1, 2, 3))


def augmented(db: torch.Tensor, recipe: Recipe, draws: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips shifted in time (circularly), and the same, some with another one added in power, with noise in
    dB.
    """
    n, n_frames = len(db), db.shape[3]
    shifts = torch.randint(n_frames, (n,), generator=draws).tolist()
    db = torch.stack([clip.roll(shift, dims=-1) for clip, shift in zip(db, shifts)])
    other = db[torch.randperm(n, generator=draws).to(db.device)]
    level = -recipe.quieter * torch.rand(n, 1, 1, 1, generator=draws)
    level[torch.rand(n, generator=draws) >= recipe.mixed] = -math.inf
    noise = recipe.noise * torch.randn(db.shape, generator=draws)
    power = 10 ** (db / 10) + 10 ** ((other + level.to(db)) / 10)
    return db, 10 * power.log10() + noise.to(db)


def save_decoder(fitted: FittedDecoder, path: str | Path, **info: str | int | float) -> None:
    """Write a decoder for the method that wants it; ``info`` is kept beside it with seconds and losses."""
    content = {
        "decoder": fitted.decoder.state_dict(),
        "channels": fitted.decoder.channels,
        "n_classes": fitted.decoder.n_classes,
        "width": fitted.decoder.width,
        "layers": fitted.layers,
        "info": info | {"seconds": fitted.seconds, "losses": fitted.losses},
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def decoder_info(path: str | Path) -> dict:
    """What ``save_decoder`` kept beside a decoder: seconds of training, mean loss of every epoch, and its
    notes.
    """
    return read_decoder(path)["info"]
