"""A classifier that a user brings: ``my_model.py:load``, a function that returns an `AudioClassifier`."""

from __future__ import annotations

import ast
import contextlib
import copy
import hashlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..constants import DURATION, OWN
from ..models.classifier import AudioClassifier
from ..models.frontends import LogMel
from ..numerics import one_thread
from .sources import PACKAGE, imported_names

NAME = OWN  # of its spectrogram, in the place of stft_db and mel_db
LENGTHS = (1.0, DURATION, 10.0, 2.0, 3.0, 4.0, 30.0)  # s of noise, of which the first that is taken counts
LEVELS = (0.1, 0.001)  # standard deviations of the two noises
ALIKE = 2e-3  # of the largest answer, by which threads, devices and half precision may change one
DIGITS = 3  # after the point, of answers as shares of the largest


def load_own(spec: str, device: str = "cpu") -> AudioClassifier:
    """The classifier of ``FILE:FUNCTION``, on a device.

    The function runs in its file's folder, and may import what lies there.

    Raises
    ------
    ValueError
        No such file or function, or it fails or returns something else; one line.
    """
    path, _, function = spec.rpartition(":")
    file = Path(path).absolute()  # its folder becomes the working one
    if not file.is_file():
        raise ValueError(f"--model {spec}: no file {path}")
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


def own_digest(spec: str, classifier: AudioClassifier, said: torch.Tensor | None = None) -> str:
    """Digest of the function's name, its file and those beside it that this imports, what the classifier is
    described by, the weights that it shows, and its answers to noise (`answers`), which others follow from.

    Parameters
    ----------
    said : torch.Tensor, optional
        Answers that were asked for already.
    """
    path, _, function = spec.rpartition(":")
    said = answers(classifier) if said is None else said
    given = classifier._input
    about = [function, classifier.head, classifier.floor, classifier.threshold, classifier.inspect_as]
    about += [classifier.classes, classifier.sample_rate]
    about += [given if isinstance(given, (str, LogMel)) else type(given).__name__]
    about += [weights_digest(part) for part in classifier.parts if part.state_dict()]
    found = hashlib.sha256(repr(about).encode())
    for file in _own_files(Path(path).absolute()):
        found.update(hashlib.sha256(file.read_bytes()).digest())
    shares = (said / said.abs().amax().clamp_min(1e-30)).round(decimals=DIGITS) if said.numel() else said
    found.update(repr((said.shape, (shares + 0.0).tolist())).encode())  # -0 is 0
    return found.hexdigest()[:16]


def answers(
    classifier: AudioClassifier, seconds: float | None = None, before: torch.Tensor | None = None
) -> torch.Tensor:
    """Scores of a loud and of a soft noise, float64 (2, classes), on the CPU: they tell weights that a black
    box, a frozen or a quantised network does not show.

    Parameters
    ----------
    seconds : float, optional
        The study's clip length, tried after `LENGTHS`; where no length is taken, there is no answer, (0, 0).
    before : torch.Tensor, optional
        Answers that were stored: they are returned in the place of those that differ by rounding alone.
    """
    said = torch.zeros(0, 0, dtype=torch.float64)
    asked = copy.copy(classifier)  # a look at noise stays its own
    for length in LENGTHS if seconds is None else (*LENGTHS, seconds):
        with _quietly():
            noise = torch.randn(1, round(length * classifier.sample_rate), dtype=torch.float64)
            try:
                found = [asked.scores(level * noise).double().cpu() for level in LEVELS]
            except (torch.OutOfMemoryError, MemoryError):
                raise
            except Exception:  # whatever a user's code raises of a length that it does not take
                continue
        said = torch.cat(found)
        break
    if before is None or before.shape != said.shape or not said.numel():
        return said
    close = (said - before).abs().amax() <= ALIKE * before.abs().amax()
    return before if bool(close) else said


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """One thread, its own random numbers and no warnings."""
    with warnings.catch_warnings(), one_thread(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        yield


def _own_files(file: Path) -> list[Path]:
    """A model's file, and those in its folder that it imports, directly or not; without this package's."""
    folder, waiting, found = file.parent, [file], []
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.append(path)
        importer = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        names = imported_names(ast.parse(path.read_bytes()), importer, path.name == "__init__.py")
        for name in sorted(names):
            parts = name.split(".")
            if parts[0] in ("", PACKAGE.name):
                continue
            prefixes = [folder.joinpath(*parts[: n + 1]) for n in range(len(parts))]
            some = [each for stem in prefixes for each in (stem.with_suffix(".py"), stem / "__init__.py")]
            waiting += [each for each in some if each.is_file()]
    return sorted(found)


def weights_digest(model: nn.Module) -> str:
    """Digest of a model's weights and buffers: one that is trained again to the same weights is the same."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        for values in _tensors(value):
            about = f"{name} {values.dtype} {tuple(values.shape)}"
            found.update(
                about.encode()
                + values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            )
    return found.hexdigest()[:16]


def _tensors(value) -> Iterator[torch.Tensor]:
    """The tensors of an entry of a state; those of a quantised layer lie in tuples, as whole numbers."""
    if isinstance(value, (tuple, list)):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, torch.Tensor) and not is_lazy(value):
        yield value.dequantize() if value.is_quantized else value
