"""Fine-tuning (or training from scratch) of the classifier, with Lightning.

The published study keeps ``model.state_dict()`` without copying it and so ships its last
epoch as its best; here Lightning's checkpoint of the best validation accuracy is restored.
"""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import pandas as pd
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchaudio import transforms

from ..numerics import round_to_bfloat16, tensor_float32
from .cnn14 import MIN_FRAMES

FREQUENCY_MASK, TIME_MASK = 10, 20  # bins and frames at most, as published


@dataclass(frozen=True)
class TrainingRun:
    """A trained classifier with its history.

    Attributes
    ----------
    model : torch.nn.Module
        In evaluation mode on the CPU, with the weights of ``best_epoch``.
    history : pandas.DataFrame
        epoch (from 1), train_loss, train_accuracy, validation_loss, validation_accuracy.
    best_epoch : int
        The first epoch with the highest validation accuracy.
    seconds : float
    """

    model: nn.Module
    history: pd.DataFrame
    best_epoch: int
    seconds: float


def augment(db: torch.Tensor, labels: torch.Tensor, profile) -> tuple[torch.Tensor, torch.Tensor]:
    """Masking, a circular time shift with a crop, gain and mixup, as far as the profile asks for them.

    Parameters
    ----------
    db : torch.Tensor
        (batch, 1, frequency, time) dB; the result holds ``profile.crop`` of the frames, of a short clip as
        many as a Cnn14 needs.
    labels : torch.Tensor
        (batch, classes) one-hot; mixup makes them soft.
    """
    if profile.time_shift:
        shifts = torch.randint(db.shape[3], (len(db),), device=db.device)
        frames = (torch.arange(db.shape[3], device=db.device) + shifts[:, None]) % db.shape[3]
        frames = frames[:, : max(MIN_FRAMES, round(profile.crop * db.shape[3]))]  # (batch, kept frames)
        db = db.gather(3, frames[:, None, None, :].expand(-1, -1, db.shape[2], -1))
    if profile.masked:  # both fill with 0 dB, torchaudio's default
        db = transforms.FrequencyMasking(FREQUENCY_MASK, iid_masks=profile.iid_masks)(db)
        db = transforms.TimeMasking(TIME_MASK, iid_masks=profile.iid_masks)(db)
    if profile.gain_db:
        db = db + profile.gain_db * (2 * torch.rand(len(db), 1, 1, 1, dtype=db.dtype, device=db.device) - 1)
    if profile.mixup:
        share = torch.distributions.Beta(profile.mixup, profile.mixup).sample((len(db),)).to(db)
        other = torch.randperm(len(db), device=db.device)
        db = share[:, None, None, None] * db + (1 - share[:, None, None, None]) * db[other]
        labels = share[:, None] * labels + (1 - share[:, None]) * labels[other]
    return db, labels


class _History:
    """Loss and accuracy of each epoch, from its batches."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.sums: dict[str, float] = {}

    def begin(self) -> None:
        self.sums = {}

    def count(self, stage: str, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """A batch of ``stage`` ("train" or "validation"), its mean loss and its labels (n,)."""
        right = float((logits.argmax(1) == labels).sum())
        for name, value in (
            ("loss", float(loss.detach()) * len(labels)),
            ("accuracy", right),
            ("n", len(labels)),
        ):
            self.sums[f"{stage}_{name}"] = self.sums.get(f"{stage}_{name}", 0.0) + value

    def end(self, epoch: int) -> float:
        """Close the epoch; its validation accuracy."""
        row = {"epoch": epoch}
        for stage in ("train", "validation"):
            for kind in ("loss", "accuracy"):
                row[f"{stage}_{kind}"] = self.sums[f"{stage}_{kind}"] / self.sums[f"{stage}_n"]
        self.rows.append(row)
        return row["validation_accuracy"]


def _optimizers(model: nn.Module, profile, n_steps: int):
    """What Lightning's ``configure_optimizers`` gives, by the profile's schedule."""
    if profile.schedule == "constant":
        return torch.optim.Adam(model.parameters(), lr=profile.learning_rate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=profile.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, profile.learning_rate, total_steps=n_steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _make_module(model: nn.Module, profile, n_steps: int, history: _History):
    """A LightningModule around ``model``; defined here so that importing this file stays light."""
    import lightning

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch, _):
            db, labels = batch
            one_hot = functional.one_hot(labels, self.model.n_classes).to(db.dtype)
            mixed_db, mixed_labels = augment(db, one_hot, profile)
            logits = self.model(mixed_db)
            loss = functional.cross_entropy(logits, mixed_labels)
            # of a mixture, the louder part's class
            history.count("train", loss, logits, mixed_labels.argmax(1))
            return loss

        def validation_step(self, batch, _):
            db, labels = batch
            logits = self.model(db)
            history.count("validation", functional.cross_entropy(logits, labels), logits, labels)

        def on_train_epoch_start(self) -> None:
            history.begin()
            if profile.frozen_norms:
                freeze_norms(self.model)

        def on_validation_epoch_start(self) -> None:  # so that what is validated and saved is what goes on
            if profile.reproducible:
                states = self.trainer.optimizers[0].state.values()
                moments = [moment for state in states for moment in state.values() if moment.ndim]
                round_to_bfloat16([*self.model.state_dict().values(), *moments])

        def on_validation_epoch_end(self) -> None:  # Lightning calls it after the epoch's last training step
            self.log("validation_accuracy", history.end(self.current_epoch + 1))

        def configure_optimizers(self):
            return _optimizers(self, profile, n_steps)

    return Classifier()


def freeze_norms(model: nn.Module) -> None:
    """Let batch norms use the statistics they came with, as in evaluation."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.eval()


@contextmanager
def channels_last_convolutions(model: nn.Module) -> Iterator[None]:
    """Run the 2-D convolutions in channels-last order, and all else as before.

    With few channels the CPU's convolutions take a fraction of the time that way, forward and backward,
    and its batch norms several times as long. Logits and gradients are the same to rounding.
    """
    convolutions = [module for module in model.modules() if type(module) is nn.Conv2d]
    handles = []
    for convolution in convolutions:
        convolution.to(memory_format=torch.channels_last)
        handles.append(
            convolution.register_forward_pre_hook(
                lambda _, inputs: inputs[0].contiguous(memory_format=torch.channels_last)
            )
        )
        handles.append(convolution.register_forward_hook(lambda _, inputs, output: output.contiguous()))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for convolution in convolutions:
            convolution.to(memory_format=torch.contiguous_format)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning's device banner and its advice on loader workers say nothing about the study."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        logger.setLevel(level)


def train_classifier(
    model: nn.Module,
    train: tuple[torch.Tensor, torch.Tensor],
    validation: tuple[torch.Tensor, torch.Tensor],
    profile,
    seed: int = 42,
    device: str = "cpu",
) -> TrainingRun:
    """Train and restore the epoch with the best validation accuracy.

    Parameters
    ----------
    model : torch.nn.Module
        With an ``n_classes`` attribute; trained in place.
    train, validation : (torch.Tensor, torch.Tensor)
        dB spectrograms (clips, 1, frequency, time) and labels (clips,) long.
    profile : Profile
        Epochs, batch size, optimiser and augmentation.
    seed : int
        Of shuffling and augmentation; the initial weights are the caller's.
    device : {"cpu", "cuda"}
    """
    from lightning.pytorch.callbacks import ModelCheckpoint

    started = time.perf_counter()
    torch.manual_seed(seed)
    double = train[0].dtype == torch.float64
    drop_last = len(train[0]) % profile.batch_size == 1  # batch norm cannot train on a single clip
    on_gpu = device.startswith("cuda")
    loader = DataLoader(
        TensorDataset(*train), profile.batch_size, shuffle=True, drop_last=drop_last, pin_memory=on_gpu
    )
    history = _History()
    module = _make_module(model, profile, profile.epochs * len(loader), history)
    in_order = nullcontext() if double else channels_last_convolutions(model)
    faster = tensor_float32(True, torch.device(device)) if on_gpu else in_order
    with tempfile.TemporaryDirectory() as folder, quiet_lightning(), faster:
        checkpoint = ModelCheckpoint(folder, monitor="validation_accuracy", mode="max")
        trainer = _trainer(profile, checkpoint, on_gpu, double)
        trainer.fit(module, loader, DataLoader(TensorDataset(*validation), profile.batch_size))
        best = torch.load(checkpoint.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
    model.cpu().load_state_dict({name.removeprefix("model."): value for name, value in best.items()})
    frame = pd.DataFrame(history.rows)
    best_epoch = int(frame["epoch"][frame["validation_accuracy"].argmax()])
    return TrainingRun(model.eval(), frame, best_epoch, time.perf_counter() - started)


def _trainer(profile, checkpoint, on_gpu: bool, double: bool):
    """Lightning's trainer for a profile, silent but for errors."""
    import lightning
    from lightning.pytorch.callbacks import EMAWeightAveraging

    callbacks = [checkpoint]
    if profile.averaging:  # Lightning would save the plain weights with save_weights_only=True
        callbacks.insert(0, EMAWeightAveraging(decay=profile.averaging, use_buffers=True))
    return lightning.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=1,
        max_epochs=profile.epochs,
        precision="64-true" if double else "32-true",
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
