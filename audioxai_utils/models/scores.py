"""A network between what this package knows, waveforms and pictures, and scores (batch, classes)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from .outputs import ROUNDING, of_larger_scores, pick
from .reading import Reading, reading_of
from .untouched import evaluation_mode
from .wrapping import is_scripted, net_dtype

ROWS_AGREE = 1e-3  # of what tells the scores apart; in half precision, more by its rounding
LAST_DIGITS = 1e-5  # of the largest score, by which batches of another size may differ in float32


class Scores(nn.Module):
    """A network between what this package knows, pictures or waveforms, and scores (batch, classes).

    ``prepare`` makes the network's input, ``output`` takes the scores out of what it returns; one column
    becomes two by ``reading``: -z and z, or 1 - p and p.
    """

    casts = True  # the network gets its own dtype, the scores have the input's

    def __init__(self, net: nn.Module, prepare: Callable, output, reading: Reading) -> None:
        super().__init__()
        self.net, self.prepare, self.output, self.reading = net, prepare, output, reading
        self.n_frames = getattr(getattr(prepare, "__self__", None), "n_frames", None)  # of a `LogMel`'s input

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (batch, classes) of what ``prepare`` takes."""
        prepared, dtype = self.prepare(x.clone()), net_dtype(self.net)  # a network may change what it gets
        if isinstance(prepared, torch.Tensor) and dtype is not None and prepared.is_floating_point():
            prepared = prepared.to(dtype)
        scores = pick(answer(self.net, prepared), self.output).to(x.dtype)
        if len(scores) != len(x):
            raise ValueError(
                f"net must return a row for each of its {len(x)} clips; got {len(scores)} rows: it loses or "
                "mixes the axis of the batch, as by squeeze() or a mean over it"
            )
        if self.reading.head == "binary":
            return torch.cat([-scores, scores], dim=1)
        if self.reading.head == "probabilities" and scores.shape[1] == 1:
            return torch.cat([1 - scores, scores], dim=1)
        return scores


def answer(net: nn.Module, x: torch.Tensor):
    """What ``net`` makes of ``x``; a ScriptModule's refusal, many lines of its interpreter's, is one.

    Raises
    ------
    ValueError
        A ScriptModule does not take this shape or type.
    """
    try:
        return net(x)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if not is_scripted(net):
            raise
        lines = [type(error).__name__, *str(error).strip().splitlines()]
        reason = lines[-1].removeprefix("RuntimeError: ")[:150]
        given = f"{tuple(x.shape)} in {x.dtype}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise ValueError(
            f"net is a ScriptModule that does not take {given}: {reason}; a "
            "traced, frozen or optimised one keeps its shape and type: give the module that it was made of"
        ) from error


def check_rows(plain: Scores, given: torch.Tensor, columns: torch.Tensor) -> None:
    """Refuse a network whose answer to a clip changes with what else is in its batch.

    Parameters
    ----------
    plain : Scores
    given : torch.Tensor
        Pictures (batch, 1, F, T) or waveforms (batch, samples).
    columns : torch.Tensor
        (batch, columns), what ``plain`` says of them.

    Raises
    ------
    ValueError
        Naming what to do. Nothing is said of batches to a network that takes one clip at a time, or whose
        answer to the louder row is not finite.
    """
    if not bool(columns.isfinite().all()):
        return  # said by who reads them
    largest, eps = columns.abs().max(), torch.finfo(net_dtype(plain.net) or given.dtype).eps
    # of scores that share a large part, what tells the columns apart
    extent = (columns.amax(1) - columns.amin(1)).max() if columns.shape[1] > 1 else largest
    rounding = max(LAST_DIGITS, 8 * eps) * largest
    tolerance = torch.maximum(ROWS_AGREE * torch.minimum(extent, largest), rounding)

    def agree(found: torch.Tensor, expected: torch.Tensor) -> bool:
        return bool(((found - expected).abs() <= tolerance).all())

    if not agree(plain(given), columns):  # a state may be kept for batches of one size alone
        raise _changing(plain.net)
    beside = given[:1] + 20 if given.ndim == 4 else given[:1] * 10  # the same, 20 dB louder
    try:
        together = plain(torch.cat([given[:1], beside]))
    except (RuntimeError, ValueError):
        if is_scripted(plain.net):
            raise
        return  # takes one clip at a time: methods that ask about more say so
    if not bool(together.isfinite().all()) or agree(together[0], columns[0]):
        return  # one that is too loud for this network tells nothing of the first
    if is_scripted(plain.net) or not agree(plain(torch.cat([given[:1], beside])), together):
        raise _changing(plain.net)
    raise ValueError(
        "the network's answer to a clip changes with the others in its batch, as by a maximum over all rows "
        "(top_db); let it take each row by itself, torch.cat([net(row[None]) for row in x])"
    )


def _changing(net: nn.Module) -> ValueError:
    """The refusal of a network that does not say the same of the same clip."""
    if is_scripted(net):  # traced in training mode, batch norm and dropout stay so
        return ValueError(
            "net is a ScriptModule whose scores of a clip change with the others of its batch, or by chance: "
            "it was made in training mode; call .eval() on the module before torch.jit.trace or freeze"
        )
    return ValueError(
        "the network's answer to a clip changes from one call to the next, as by dropout or noise that "
        "stays on in evaluation mode, or by a state that it keeps; turn that off"
    )


def rows_sum_to_one(plain: Scores, given: torch.Tensor) -> bool:
    """Whether a network's rows sum to 1 for other sounds too: noise, and ``given``'s first softer and louder.

    A sure tagger's labels of one clip, .999 and nothing else, do so by chance. Pictures (batch, 1, F, T) or
    waveforms (batch, samples).
    """
    sums = _of_other_sounds(plain, given).sum(1)
    return bool(((sums - 1).abs() < ROUNDING)[sums.isfinite()].all())


def warn_of_a_second_sigmoid(head: str | None, plain: Scores, given: torch.Tensor) -> None:
    """Warn where what is read as one logit lies in [0, 1], of other sounds too; one clip's may by chance."""
    if head != "binary":
        return
    scores = torch.cat([plain(given[:1]), _of_other_sounds(plain, given)])
    scores = scores[scores.isfinite()]
    if ((scores >= 0) & (scores <= 1)).all():
        warnings.warn(
            "the output lies in [0, 1], of other sounds too: head='binary' is for a logit, whose sigmoid is "
            "taken; give head='probabilities' for what is a probability already",
            stacklevel=3,
        )


def _of_other_sounds(plain: Scores, given: torch.Tensor) -> torch.Tensor:
    """A network's columns (6, n) of noise, and of ``given``'s first softer and louder."""
    first, picture = given[:1], given.ndim == 4
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(first.shape, generator=generator, dtype=torch.float64).to(first)
    others = [10 * noise - 80, 20 * noise - 40] if picture else [noise / 1000, noise / 10]
    others += [first + 10 * n if picture else first * 10 ** (n / 2) for n in (-4, -2, 1, 2)]
    return torch.cat([plain(each) for each in others])


@torch.no_grad()
def warn_of_probabilities(target: Callable, output, classifier, waveform: torch.Tensor) -> None:
    """Warn of a function that is read as a logit and returns probabilities, whatever the scores.

    ``classifier`` is the `AudioClassifier` of that function, which was looked at.
    """
    waveform = classifier.samples(waveform[:1])
    given = waveform if classifier.takes_waveform else classifier.spectrogram(waveform).db
    prepare = classifier.on_waveform.prepare if classifier.takes_waveform else classifier.model.prepare
    asked = Scores(
        classifier.net, prepare, lambda raw: of_larger_scores(target, raw, output).nan_to_num(-1), Reading()
    )
    with evaluation_mode(classifier.parts):
        numbers = asked(given)[0]
    if bool(((numbers >= 0) & (numbers <= 1)).all()):
        warnings.warn(
            f"target returns {float(numbers[0]):.3g}, and numbers from 0 to 1 of others too: it is read "
            "as a logit; of a probability p return p.logit()",
            stacklevel=6,  # explain's caller
        )


class FromWaveform(nn.Module):
    """A model of pictures as one of waveforms (batch, samples): its spectrogram in front of it."""

    casts = True

    def __init__(self, spectrogram: nn.Module, on_picture: nn.Module) -> None:
        super().__init__()
        self.spectrogram, self.on_picture = spectrogram, on_picture
        self.reading = reading_of(on_picture)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Scores (batch, classes) of waveforms (batch, samples)."""
        if hasattr(self.spectrogram, "decibels"):
            return self.on_picture(self.spectrogram.decibels(waveform))
        return self.on_picture(self.spectrogram(waveform).db)


@contextmanager
def taken(given: torch.Tensor) -> Iterator[None]:
    """A network's own error in here, about what it was given, in one line.

    Raises
    ------
    ValueError
        Naming the shape of ``given``, and the network's reason.
    """
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        reason = ([*str(error).strip().splitlines(), type(error).__name__])[0][:150]
        if isinstance(error, KeyError):  # which says the key alone
            reason = f"KeyError {reason}"
        kind = "the picture" if given.ndim == 4 else "the waveform"
        raise ValueError(
            f"net does not take what input= makes of {kind} {tuple(given.shape)}: {reason}; see the axes and "
            "the length that it was made for"
        ) from error


@dataclass(frozen=True)
class WaveformInput:
    """A waveform (B, N) in a network's shape; ``normalised`` is mean 0 and variance 1, as wav2vec2's."""

    channel: bool = False
    normalised: bool = False

    def __call__(self, waveform: torch.Tensor) -> torch.Tensor:
        """The network's input of waveforms (batch, samples)."""
        if self.normalised:
            variance = waveform.var(1, keepdim=True, correction=0)
            waveform = (waveform - waveform.mean(1, keepdim=True)) / (variance + 1e-7).sqrt()
        return waveform.unsqueeze(1) if self.channel else waveform
