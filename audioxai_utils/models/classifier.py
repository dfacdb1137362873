"""One classifier, whatever it is made of: its input, its outputs, its head and its silence in one place."""

from __future__ import annotations

import difflib
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..audio.spectrograms import SpectrogramBatch, get_spectrogram
from ..constants import SPECTROGRAM_TYPES, check_choice
from .frontends import PRESETS, LogMel
from .outputs import (
    HALF,
    any_of,
    check_columns,
    check_number,
    class_names,
    column_names,
    numbers_of,
    pick,
)
from .reading import HEADS, Reading
from .scores import (
    FromWaveform,
    Scores,
    WaveformInput,
    check_rows,
    rows_sum_to_one,
    taken,
    warn_of_a_second_sigmoid,
    warn_of_probabilities,
)
from .silence import check_levels, floor_of
from .untouched import evaluation_mode
from .using import using
from .virtual_inspection import VirtualInspection, inspection
from .wrapping import BlackBox, as_module, net_device, net_dtype

WAVEFORMS = ("waveform", "(B, N)", "(B, 1, N)", "wav2vec2")
DOMAINS = ("db", "heard")


@dataclass(frozen=True)
class Bound:
    """What is explained of one clip: a model of its picture, the same of its sound, the transform, the
    picture.

    ``by_sound`` says that a mask acts on the power and the model is asked about the sound that it keeps.
    """

    model: nn.Module
    on_waveform: nn.Module
    spectrogram: nn.Module
    batch: SpectrogramBatch
    by_sound: bool


class AudioClassifier:
    """A classifier of sounds as its user has it.

    Parameters
    ----------
    net : nn.Module, function or onnxruntime.InferenceSession
        Wrappers (DataParallel, torch.compile, averaged weights) are taken off. What is no module is a black
        box.
    classes : sequence of str or dict, optional
        Names of the outputs in their order, or numbered as Hugging Face's ``id2label`` and ``label2id``
        are; None numbers them. A binary head takes one name, or two: of a low logit, then of a high one.
    sample_rate : int
        Hz; may be left out where ``input`` says it.
    input : str, LogMel, spectrogram or callable
        ``"waveform"``: (B, N) or (B, 1, N), whichever the network takes; ``"(B, N)"``, ``"(B, 1, N)"``; or
        ``"wav2vec2"``, (B, N) with mean 0 and variance 1. ``"stft_db"``, ``"mel_db"``: the study's, (B, 1, F,
        T). A `LogMel`, or the name of a preset: ``"panns"``, ``"efficientat"``, ``"ast"``. An object with
        ``sample_rate``, a call to a `SpectrogramBatch` and ``invert``. Anything else that is callable makes
        the network's input of waveforms (B, N).
    output : int, str or callable, optional
        Where the scores are in what the network returns: place in a tuple, key of a dict, ``".logits"`` for
        an attribute, or a function. None: the network returns them.
    head : {"softmax", "sigmoid", "binary", "probabilities"}, optional
        What the scores are, see `Reading`. None is softmax logits, and is refused where the outputs look
        otherwise.
    floor : float, optional
        Level of silence in the picture (dB); None is the front end's own.
    threshold : float
        Probability above which a label is heard, unless its classes exclude each other.
    inspect_as : {"stft", "mel", "cqt"}
        The picture of a model of waveforms.

    Raises
    ------
    TypeError, ValueError
        What does not fit, in one line. What the outputs show is refused at the first sound.
    """

    def __init__(
        self,
        net,
        classes: Sequence[str] | Mapping | None = None,
        sample_rate: int | None = None,
        input="waveform",
        output=None,
        head: str | None = None,
        floor: float | None = None,
        *,
        threshold: float = 0.5,
        inspect_as: str = "stft",
    ) -> None:
        if head is not None:
            check_choice("head", head, HEADS)
        self.net, self.output = as_module(net), using(output)
        self.threshold = check_number("threshold", threshold, "a probability", 0, 1)
        self.classes = class_names(classes)
        self.head, self.inspect_as, self._looked, self._input = head, inspect_as, False, input
        self.spectrogram, self._prepare = _understood(input)
        self.sample_rate = _rate(sample_rate, self.spectrogram)
        self.takes_waveform = self.spectrogram is None
        if self.takes_waveform:
            self.spectrogram = inspection(inspect_as, self.sample_rate)
        with evaluation_mode(self.parts):
            own_floor = floor_of(self.spectrogram, self.sample_rate) if floor is None else floor
        self.floor = check_number("floor", own_floor, "a level in dB")
        self.device, dtype = net_device(self.net), net_dtype(self.net)
        black_box = isinstance(self.net, BlackBox)  # which mostly takes nothing else
        self.dtype = torch.float32 if dtype in HALF or black_box else dtype  # None: the sound's own
        if isinstance(self.spectrogram, nn.Module):
            self.spectrogram = self.spectrogram.to(self.device)

    def __repr__(self) -> str:
        n = "?" if self.classes is None else len(self.classes)
        name, head = type(self.net).__name__, self.head or "softmax unless its outputs look otherwise"
        rest = f"{self.sample_rate} Hz, head: {head}, floor: {self.floor:g} dB"
        return f"AudioClassifier({name}, {n} classes, {rest})"

    def to(self, device: str | torch.device) -> AudioClassifier:
        """Move network and front end to a device, and return the classifier."""
        self.parts.to(device)
        self.device = net_device(self.net)
        return self

    @property
    def parts(self) -> nn.ModuleList:
        """The network and whatever is a module of its front end, its output and its picture."""
        parts = (self.net, self._prepare, self.output, self.spectrogram)
        return nn.ModuleList([part for part in parts if isinstance(part, nn.Module)])

    def reading(self) -> Reading:
        """How scores and levels are read; ValueError where that is not known before a sound was looked at."""
        if not self._looked and self.head in (None, "probabilities"):
            raise ValueError(
                "the scores are not known yet: give head=, or a first sound, classifier.look(waveform)"
            )
        exclusive = self.head == "softmax" or (self.head == "probabilities" and self._exclusive)
        threshold = None if exclusive else self.threshold
        return Reading(self.head, self.floor, threshold, self._looked and self._single)

    @property
    def model(self) -> nn.Module:
        """Pictures (batch, 1, F, T) in dB to scores; ValueError for a model of waveforms, which needs a
        clip's phase.
        """
        if self.takes_waveform:
            raise ValueError(
                "a model of waveforms has no model of pictures without a clip; use bound(waveform).model"
            )
        return Scores(self.net, self._prepare, self.output, self.reading())

    @property
    def on_waveform(self) -> nn.Module:
        """Waveforms (batch, samples) to scores."""
        if self.takes_waveform:
            return Scores(self.net, self._prepare, self.output, self.reading())
        return FromWaveform(self.spectrogram, self.model)

    def samples(self, waveform: torch.Tensor) -> torch.Tensor:
        """Waveforms (batch, samples) where the network is, in the network's dtype, but at least float32.

        Raises
        ------
        ValueError
            Another shape, or no floating-point numbers.
        """
        if not isinstance(waveform, torch.Tensor) or waveform.ndim != 2 or not waveform.is_floating_point():
            got = (
                f"{waveform.dtype} {tuple(waveform.shape)}"
                if isinstance(waveform, torch.Tensor)
                else type(waveform)
            )
            raise ValueError(f"waveform must be a floating-point tensor (batch, samples); got {got}")
        own = waveform.dtype if waveform.dtype == torch.float64 else torch.float32
        return waveform.to(self.device, self.dtype or own)

    def pictures(self, waveform: torch.Tensor) -> torch.Tensor:
        """Pictures (batch, 1, F, T) in dB of waveforms (batch, samples), such as reference clips for
        ``shap``.
        """
        with evaluation_mode(self.parts):
            return self.spectrogram(self.samples(waveform)).db

    @torch.no_grad()
    def scores(self, waveform: torch.Tensor) -> torch.Tensor:
        """Scores (batch, classes) of waveforms (batch, samples) at ``sample_rate``."""
        self.look(waveform)
        with evaluation_mode(self.parts):
            return self.on_waveform(self.samples(waveform))

    def probabilities(self, waveform: torch.Tensor) -> torch.Tensor:
        """Probabilities (batch, classes) of waveforms (batch, samples) at ``sample_rate``."""
        return self.reading_after(waveform).probabilities(self.scores(waveform))

    def reading_after(self, waveform: torch.Tensor) -> Reading:
        """`reading`, after a look at these waveforms."""
        self.look(waveform)
        return self.reading()

    def bound(
        self, waveform: torch.Tensor, domain: str | None = None, inspect_as: str | None = None
    ) -> Bound:
        """What is explained of one waveform (1, samples).

        Parameters
        ----------
        domain : {"db", "heard"}, optional
            Where masks act: on the decibels that the network gets, or on the power, and then the sound is
            asked about. Default: ``heard`` for a model of waveforms, for which it is the only one, else
            ``db``.
        inspect_as : {"stft", "mel", "cqt"}, optional
            Picture of a sound; default the classifier's own.
        """
        self.look(waveform)
        domain = check_choice("domain", domain or ("heard" if self.takes_waveform else "db"), DOMAINS)
        if domain == "db" and (self.takes_waveform or inspect_as):
            raise ValueError("domain 'db' is of models of spectrograms, in their own; use domain='heard'")
        waveform, spectrogram = self.samples(waveform), self.spectrogram
        if inspect_as is not None:
            spectrogram = inspection(inspect_as, self.sample_rate).to(self.device)
        with evaluation_mode(self.parts):
            batch = spectrogram(waveform)
        if domain == "db":
            check_levels(batch, self.floor)
            return Bound(self.model, self.on_waveform, spectrogram, batch, False)
        model = VirtualInspection(self.on_waveform, spectrogram, batch)
        if inspect_as is None:
            model.reading = replace(model.reading, floor=self.floor)
        return Bound(model, self.on_waveform, spectrogram, batch, True)

    @torch.no_grad()
    def look(self, waveform: torch.Tensor, made: bool = False) -> None:
        """Find out from a first sound (batch, samples) what was left open, and refuse what cannot be read."""
        if self._looked:
            return
        waveform = self.samples(waveform)
        with evaluation_mode(self.parts):
            self._prepare = self._shape(waveform) if self._prepare is None else self._prepare
            plain = Scores(self.net, self._prepare, self.output, Reading())
            given = waveform if self.takes_waveform else self.spectrogram(waveform).db
            with taken(given):
                columns = plain(given)
            check_rows(plain, given, columns)
            self.head, sums = check_columns(columns, self.head)
            warn_of_a_second_sigmoid(None if made else self.head, plain, given)  # made of other columns
            self._single = columns.shape[1] == 1
            self._exclusive = sums and self.head == "probabilities" and rows_sum_to_one(plain, given)
        self.classes = column_names(self.classes, columns.shape[1])
        self._looked = True

    def _shape(self, waveform: torch.Tensor) -> WaveformInput:
        """(B, N) or (B, 1, N), tried on two copies of a waveform, so that the batch is told from channels."""
        refusals = []
        for channel in (False, True):
            try:
                given = WaveformInput(channel)(waveform[:1].repeat(2, 1))
                scores = pick(self.net(given.to(net_dtype(self.net) or given.dtype)), self.output)
            except (RuntimeError, ValueError, IndexError, AssertionError) as error:
                refusals.append((str(error).splitlines() or [""])[0][:80])
                continue
            if len(scores) == 2:
                return WaveformInput(channel)
            refusals.append(f"{len(scores)} rows for 2 waveforms")
        raise ValueError(
            f"net takes neither (B, N), {refusals[0]}, nor (B, 1, N), {refusals[1]}; give input=a function"
        )

    # What is explained

    def index(self, target: int | str) -> int:
        """Column of a class by its name or number; ValueError with the nearest names for another."""
        if isinstance(target, str):
            columns = [column for column, name in enumerate(self.classes) if name == target]
            if len(columns) > 1:
                raise ValueError(
                    f"target {target!r} is the name of columns {columns}; give one by its number"
                )
            if columns:
                return columns[0]
            near = difflib.get_close_matches(target, self.classes, 3, 0.4) or self.classes[:3]
            raise ValueError(f"target {target!r} is no class of the model; there are {', '.join(near)}, ...")
        try:
            number = operator.index(target)
        except TypeError:
            raise TypeError(
                f"target must be the index or the name of a class, several or a function; got {target!r}"
            ) from None
        if not 0 <= number < len(self.classes):
            raise ValueError(f"target must lie between 0 and {len(self.classes) - 1}; got {number}")
        return number

    def for_target(self, target, waveform: torch.Tensor) -> tuple[AudioClassifier, int | None, str]:
        """The classifier whose column is explained, that column (None: the predicted one) and its name.

        Several classes are explained as one: that at least one of them is there. A function of the network's
        output (what ``output`` selects) gives (batch,) numbers, which are logits, or probabilities where the
        head is ``probabilities``.
        """
        if callable(target):
            name = getattr(target, "__name__", type(target).__name__)
            rule = functools.partial(numbers_of, target, output=self.output)
            derived = self._derived(rule, name, waveform)
            if self.head != "probabilities":
                warn_of_probabilities(target, self.output, derived, waveform)
            return derived, 1, name
        self.look(waveform)
        if target is None:
            return self, None, ""
        if isinstance(target, (list, tuple, set)):
            columns = sorted({self.index(each) for each in target})
            if not columns or len(columns) == len(self.classes):
                raise ValueError(
                    f"target must be some of the model's {len(self.classes)} classes; got {len(columns)}"
                )
            name = " or ".join(self.classes[column] for column in columns)
            if len(columns) > 1:
                rule = {"columns": columns, "output": self.output, "head": self.head}
                rule = functools.partial(any_of, **rule, exclusive=self._exclusive)
                return self._derived(rule, name, waveform), 1, name
            target = columns[0]
        number = self.index(target)
        return self, number, self.classes[number]

    def _derived(self, output: Callable, name: str, waveform: torch.Tensor) -> AudioClassifier:
        """The classifier with one column made of its outputs, and so two classes: not name, and name."""
        head = "probabilities" if self.head == "probabilities" else "binary"
        derived = AudioClassifier(
            self.net,
            [name],
            self.sample_rate,
            self._input,
            output,
            head,
            self.floor,
            threshold=self.threshold,
            inspect_as=self.inspect_as,
        )
        derived.spectrogram = self.spectrogram
        derived.look(waveform, made=True)
        return derived


def _understood(input) -> tuple[nn.Module | None, Callable | None]:
    """Spectrogram (None: the network takes waveforms) and what makes the network's input (None: to be found
    out).
    """
    if isinstance(input, str) and input in PRESETS:
        input = PRESETS[input]()
    if isinstance(input, str) and input in SPECTROGRAM_TYPES:
        return get_spectrogram(input), _as_it_is
    if isinstance(input, str):
        check_choice("input", input, (*WAVEFORMS, *SPECTROGRAM_TYPES, *PRESETS))
        shapes = {"waveform": None, "(B, N)": WaveformInput(), "(B, 1, N)": WaveformInput(True)}
        return None, shapes.get(input, WaveformInput(normalised=True))
    if isinstance(input, LogMel):
        return input.spectrogram(), input.to_input
    if callable(input):
        return (
            (input, _as_it_is)
            if hasattr(input, "invert") and hasattr(input, "sample_rate")
            else (None, using(input))
        )
    raise TypeError(f"input must be a name, a LogMel or a callable; got {type(input).__name__}")


def _as_it_is(x: torch.Tensor) -> torch.Tensor:
    return x


def _rate(sample_rate: int | None, spectrogram) -> int:
    own = getattr(spectrogram, "sample_rate", None)
    if sample_rate is None and own is None:
        raise ValueError("sample_rate must be given in Hz for a model of waveforms; got none")
    if own is not None and sample_rate not in (None, own):
        raise ValueError(f"sample_rate must be that of input, {own} Hz; got {sample_rate}")
    rate = own if sample_rate is None else sample_rate
    if check_number("sample_rate", rate, "a whole number of Hz", 100) != int(rate):
        raise ValueError(f"sample_rate must be a whole number of Hz; got {rate!r}")
    return int(rate)
