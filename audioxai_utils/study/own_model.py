"""A classifier that a user brings: ``my_model.py:load``, a function that returns an `AudioClassifier`."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import sys
from pathlib import Path

import torch
from torch import nn

from ..constants import OWN
from ..models.classifier import AudioClassifier

NAME = OWN  # of its spectrogram, in the place of stft_db and mel_db


def load_own(spec: str, device: str = "cpu") -> AudioClassifier:
    """The classifier of ``FILE:FUNCTION``, on a device.

    The function runs in its file's folder, and may import what lies there.

    Raises
    ------
    ValueError
        No such file or function, or it fails or returns something else; one line.
    """
    path, _, function = spec.rpartition(":")
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"--model {spec}: no file {file}")
    with contextlib.chdir(file.parent), _importable(file.parent):
        found = importlib.util.spec_from_file_location(f"own_model_{file.stem}", file)
        module = importlib.util.module_from_spec(found)
        try:
            found.loader.exec_module(module)
            make = getattr(module, function)
            classifier = make()
        except Exception as error:  # whatever a user's code raises
            said = " ".join(str(error).split())[:200]
            raise ValueError(f"--model {spec}: {type(error).__name__}: {said}") from error
    if not isinstance(classifier, AudioClassifier):
        raise ValueError(f"--model {spec} must return an AudioClassifier; got {type(classifier).__name__}")
    return classifier.to(device)


@contextlib.contextmanager
def _importable(folder: Path):
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def own_digest(spec: str, classifier: AudioClassifier) -> str:
    """Digest of the file and of the network's weights, as far as it shows them."""
    found = hashlib.sha256(Path(spec.rpartition(":")[0]).read_bytes())
    found.update(
        repr((classifier.head, classifier.floor, classifier.threshold, classifier.inspect_as)).encode()
    )
    if isinstance(classifier.net, nn.Module):
        found.update(weights_digest(classifier.net).encode())
    return found.hexdigest()[:16]


def weights_digest(model: nn.Module) -> str:
    """Digest of a model's weights and buffers: one that is trained again to the same weights is the same."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, torch.Tensor):
            about = f"{name} {value.dtype} {tuple(value.shape)}"
            found.update(
                about.encode()
                + value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            )
    return found.hexdigest()[:16]
