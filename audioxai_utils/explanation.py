"""Explain a classifier on a sound: attribution, masks, sound and scores in a single call, or a table over
many.
"""

from __future__ import annotations

import numbers
import os
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import nn

from .attributions import METHODS, Found
from .attributions.gradient_check import gradient_check
from .attributions.registry import check_layers
from .audio.reading import as_mono
from .audio.spectrograms import Spectrogram, SpectrogramBatch, kept_audio
from .constants import PROTOCOLS, SPECTROGRAMS, check_choice
from .evaluation.masks import MASKS, build_masks
from .evaluation.scoring import MaskScorer, score_masks, score_sound, warn_of_no_numbers
from .models.classifier import DOMAINS, AudioClassifier, Bound
from .models.cnn14 import Cnn14
from .models.scores import taken
from .models.virtual_inspection import PictureAsSound
from .models.wrapping import is_differentiable, unwrapped
from .numerics import without_modes

REQUIRED = {
    "background": ", reference clips (n, 1, frequency, time) in dB such as classifier.pictures(waveforms)",
    "decoder": ", the file of one trained for this model, see decoder_training.train_decoder",
}
NOTHING = 1e-20  # of attributions, in any unit: rounding of a score that does not change
# what a network raises in the middle of a method, and says little without its name
OF_OTHERS = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError)


@dataclass(frozen=True)
class Explanation:
    """What a model hears in one clip.

    Attributes
    ----------
    waveform : torch.Tensor
        (samples,) at ``sample_rate`` Hz.
    spectrogram : Spectrogram
        The transform.
    batch : SpectrogramBatch
        Of this clip, a batch of one.
    method, protocol : str
    target : int
        The explained column, which the scores follow too; ``target_name`` is its class.
    probabilities : torch.Tensor
        (classes,) of the whole clip. Where several classes or a function are explained: without and with it.
    attribution : torch.Tensor
        (1, 1, frequency, time), raw and signed.
    masks : dict of str to torch.Tensor
        (1, 1, frequency, time) in [0, 1].
    scores : pandas.DataFrame
        One row per mask, indexed by its name.
    target_name : str
    domain : {"db", "heard"}
        Whether masks acted on what the network gets, or on the sound, which is then what was scored.
    fill : float, optional
        Level (dB) that masked parts of the sound got; None is silence.
    sound, sound_scores : torch.Tensor and pandas.DataFrame, optional
        What the method keeps as sound itself, (samples,), and its scores as it is heard, in one row; None
        where it gives a map alone.
    """

    waveform: torch.Tensor
    sample_rate: int
    spectrogram: Spectrogram
    batch: SpectrogramBatch
    method: str
    protocol: str
    target: int
    probabilities: torch.Tensor
    attribution: torch.Tensor
    masks: dict[str, torch.Tensor]
    scores: pd.DataFrame
    target_name: str = ""
    domain: str = "db"
    fill: float | None = None
    sound: torch.Tensor | None = None
    sound_scores: pd.DataFrame | None = None

    def kept_audio(self, mask: str | torch.Tensor = "bin") -> torch.Tensor:
        """Sound (samples,) of what a mask keeps; ``mask`` is a name or a tensor."""
        return kept_audio(self.batch, self._mask(mask), self.spectrogram, self.fill)[0]

    def removed_audio(self, mask: str | torch.Tensor = "bin") -> torch.Tensor:
        """Sound (samples,) of what a mask removes."""
        return kept_audio(self.batch, 1 - self._mask(mask), self.spectrogram, self.fill)[0]

    def _mask(self, mask: str | torch.Tensor) -> torch.Tensor:
        if isinstance(mask, torch.Tensor):
            return mask
        if mask not in self.masks:
            raise ValueError(f"mask must be one of {', '.join(self.masks)}; got {mask!r}")
        return self.masks[mask]


@without_modes()
def explain(
    classifier: AudioClassifier | nn.Module,
    waveform,
    sample_rate: int | None = None,
    *,
    target=None,
    method: str = "gradcam",
    layer: nn.Module | str | None = None,
    fill: float | None = None,
    heard: bool = False,
    domain: str | None = None,
    inspect_as: str | None = None,
    spectrogram=None,
    masks: Sequence[str] | None = None,
    protocol: str = "paper",
    check_gradient: bool = True,
    **options,
) -> Explanation:
    """Explain a classifier's decision on one clip; nothing is normalised, see `datasets.load_waveform` for
    that, and ``torch.autocast`` around the call is left out.

    Parameters
    ----------
    classifier : AudioClassifier or nn.Module
        A module by itself maps dB spectrograms (batch, 1, frequency, time) to softmax logits (batch,
        classes); its ``spectrogram`` must then be named, except for this package's `Cnn14`.
    waveform, sample_rate : path, or array (samples,) or (channels, samples), and Hz
        Floating point; channels are averaged. Resampled where the classifier wants another rate, up to 120 s.
    target : str, int, several of them or callable, optional
        What is attributed and scored: a class by name or index; of several, that at least one is there;
        numbers (batch,) of the network's output. None is the predicted class.
    method : str
        One of `METHODS`.
    layer : nn.Module or str, optional
        Where Grad-CAM looks.
    fill : float, optional
        Level (dB) of what is masked or hidden; None is silence to this model.
    heard : bool
        Score the sound of each mask too (``*_heard``).
    domain : {"db", "heard"}, optional
        Where masks act, and with them every method; ``heard`` is the sound, and the only one for a model of
        waveforms.
    inspect_as : {"stft", "mel", "cqt"}, optional
        The picture in the domain ``heard``; default the classifier's own.
    spectrogram : str or callable, optional
        Of a module by itself: one of the study's, or what gives a `SpectrogramBatch` and has ``sample_rate``
        and ``invert``.
    masks, protocol : sequence of str, str
        The masks to score, None for all; ``paper`` or ``audited``.
    check_gradient : bool
        Prove the input gradient first, where the method differentiates; once per model is enough.
    **options
        The method's own, such as ``background=`` for ``shap``. Its ``waveform`` and ``spectrogram``, where it
        has them, are this clip's.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        What does not fit, in one line; `gradient_check.GradientCheckError` where the gradient is wrong.
    """
    if layer is not None:
        options["layer"] = layer
    _check_choices(method, masks, protocol, fill, options)
    classifier = as_classifier(classifier, spectrogram)
    samples = classifier.samples(as_mono(waveform, sample_rate, classifier.sample_rate)[None])  # (1, samples)
    classifier, column, name = classifier.for_target(target, samples)
    wanted, options = _domain(method, domain, classifier, inspect_as, options)
    bound = classifier.bound(samples, "heard" if inspect_as and wanted is None else wanted, inspect_as)
    _warn_of_a_cut(bound)
    if fill is not None:
        bound.model.reading = replace(bound.model.reading, floor=float(fill))
    by_sound = bound.by_sound or domain == "heard"
    scorer = _scorer(bound, samples, column, fill, by_sound)
    if METHODS.traits(method).gradients:
        _prove(method, bound, scorer.target, check_gradient)
    attribution, sound = _attributed(method, bound, scorer.target, samples, fill, options)
    if attribution.abs().max() < NOTHING:
        attribution = torch.zeros_like(attribution)
        warnings.warn(
            f"{method} is zero everywhere: what it changes of this clip does not change the explained score",
            stacklevel=3,  # the caller's line
        )
    built = build_masks(attribution, protocol, masks or None)
    scores = score_masks(scorer, built, protocol, heard).drop(columns="index").set_index("mask")
    warn_of_no_numbers(scores)
    return Explanation(
        samples[0],
        classifier.sample_rate,
        bound.spectrogram,
        bound.batch,
        method,
        protocol,
        int(scorer.target),
        scorer.p[0],
        attribution,
        built,
        scores,
        name or classifier.classes[int(scorer.target)],
        "heard" if by_sound else "db",
        fill if by_sound else None,
        *_of_sound(scorer, samples, sound, protocol),
    )


def _of_sound(scorer: MaskScorer, samples: torch.Tensor, sound: torch.Tensor | None, protocol: str) -> tuple:
    """(samples,) and scores of what a method keeps without a mask, or None and None."""
    if sound is None:
        return None, None
    return sound[0], score_sound(scorer, samples, sound, protocol).drop(columns=["index", "mask"])


def _warn_of_a_cut(bound: Bound) -> None:
    """Warn where the network hears less than the clip."""
    n_frames, n_heard = bound.batch.db.shape[3], getattr(bound.model, "n_frames", None)
    if n_heard and n_heard < n_frames:
        warnings.warn(
            f"the network hears the first {n_heard} of this clip's {n_frames} frames; cut the clip, or see "
            "explain_recording",
            stacklevel=4,  # the line that calls explain
        )


def _scorer(
    bound: Bound, samples: torch.Tensor, column: int | None, fill: float | None, by_sound: bool
) -> MaskScorer:
    """What scores masks of the clip; by the sound, it hears them on the waveform (1, samples)."""
    with taken(bound.batch.db):
        return MaskScorer(
            bound.model,
            bound.spectrogram,
            bound.batch,
            None if column is None else torch.tensor([column]),
            fill=fill,
            on_waveform=bound.on_waveform if by_sound else None,
            waveform=samples if by_sound else None,
        )


def _prove(method: str, bound: Bound, target: torch.Tensor, check_gradient: bool) -> None:
    """Refuse a sound without a gradient and a model without the layers that a method needs; where
    ``check_gradient`` is given, prove the gradient on the clip.
    """
    if is_differentiable(bound.model):  # else the proof, or the method, says what is missing
        check_layers(method, bound.model)
    if bound.by_sound and not bound.batch.power.any():
        raise ValueError(f"waveform is silent: a sound of no level has no gradient for {method}")
    if check_gradient:
        gradient_check(bound.model, bound.batch.db, target)


def explain_many(
    classifier: AudioClassifier | nn.Module,
    clips: Iterable | Mapping,
    methods: Sequence[str] = ("saliency", "lime"),
    sample_rate: int | None = None,
    *,
    method_options: Mapping[str, Mapping] | None = None,
    **options,
) -> pd.DataFrame:
    """Scores of several methods on several clips, one row per clip, method and mask.

    Parameters
    ----------
    classifier, sample_rate
        As in `explain`.
    clips : iterable of paths or arrays, or dict of them by name
    methods : sequence of str
        Of `METHODS`.
    method_options : dict of str to dict, optional
        Options of single methods, such as ``{"lime": {"n_samples": 200}}``.
    **options
        Of `explain`, the same for all, such as ``target=`` and ``masks=``. The gradient is proved on the
        first clip.

    Returns
    -------
    pandas.DataFrame
        ``clip``, ``method``, ``target_name``, ``mask`` and the scores of `explain`; ``seconds`` of the whole
        explanation; ``n_bins`` and ``n_frames`` of its picture; ``refused``: why a clip cannot be read, or a
        method does not work on it, in a row without scores, else "".
    """
    if isinstance(methods, str):
        raise TypeError(f"methods must be a list of names; got {methods!r}, pass [{methods!r}]")
    for name in [*methods, *(method_options or {})]:
        check_choice("methods", name, METHODS)
    classifier = as_classifier(classifier, options.pop("spectrogram", None))
    check, tables = options.pop("check_gradient", True), []
    for clip, sound in _named(clips):
        for name in methods:
            own = {"check_gradient": check, **options, **(method_options or {}).get(name, {})}
            head, started = {"clip": clip, "method": name}, time.perf_counter()
            try:
                found = explain(classifier, sound, sample_rate, method=name, **own)
            except (torch.OutOfMemoryError, torch.AcceleratorError):  # no later clip would fare better
                raise
            except (OSError, TypeError, ValueError, RuntimeError, *OF_OTHERS) as refusal:
                words = [type(refusal).__name__] if isinstance(refusal, OF_OTHERS) or not str(refusal) else []
                refused = " ".join([*words, *str(refusal).split()])
                tables.append(pd.DataFrame([head | {"refused": refused}]))
                continue
            check = check and not METHODS.traits(name).gradients
            rest = {"target_name": found.target_name, "seconds": time.perf_counter() - started, "refused": ""}
            rest |= dict(zip(("n_bins", "n_frames"), found.attribution.shape[2:]))
            tables.append(found.scores.reset_index().assign(**head, **rest))
    table = (
        pd.concat(tables, ignore_index=True)
        if tables
        else pd.DataFrame(columns=["clip", "method", "refused"])
    )
    first = [name for name in ("clip", "method", "target_name", "mask") if name in table]
    return table[first + [name for name in table if name not in first]]


def as_classifier(model, spectrogram=None) -> AudioClassifier:
    """An `AudioClassifier` as it is, or of a module and its spectrogram; only our own `Cnn14` needs not name
    it.
    """
    if isinstance(model, AudioClassifier):
        if spectrogram is not None:
            raise ValueError("spectrogram= is for a module by itself; this classifier's is its input=")
        return model
    if spectrogram is None:
        own = unwrapped(model) if isinstance(model, nn.Module) else None
        fitting = [
            name
            for name, each in SPECTROGRAMS.items()
            if isinstance(own, Cnn14) and each.n_bins == own.n_bins
        ]
        if not fitting:
            raise ValueError(
                f"spectrogram must be named for a {type(model).__name__}, or say what it takes with "
                "AudioClassifier(net, classes, sample_rate, input=...)"
            )
        spectrogram = fitting[0]
    if isinstance(spectrogram, str):
        check_choice("spectrogram", spectrogram, SPECTROGRAMS)
    return AudioClassifier(model, input=spectrogram)


def _check_choices(method: str, masks, protocol: str, fill, options: dict) -> None:
    """Refuse what can be known to be wrong before anything is computed."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    check_choice("protocol", protocol, PROTOCOLS)
    if isinstance(masks, str):
        raise TypeError(f"masks must be a list of names; got {masks!r}, pass [{masks!r}]")
    unknown = [name for name in masks or () if name not in MASKS]
    if unknown:
        raise ValueError(f"masks must be among {', '.join(MASKS)}; got {unknown[0]!r}")
    if fill is not None and (isinstance(fill, (bool, np.bool_)) or not isinstance(fill, numbers.Real)):
        raise TypeError(f"fill must be a level in dB; got {fill!r}")
    if fill is not None and not abs(fill) < np.inf:
        raise ValueError(f"fill must be a level in dB, a finite number; got {fill!r}")
    for name in METHODS.required(method):
        if options.get(name) is None:
            raise TypeError(f"method {method!r} needs {name}={REQUIRED.get(name, '')}; got none")


def _domain(
    method: str, domain: str | None, classifier: AudioClassifier, inspect_as: str | None, options: dict
) -> tuple[str | None, dict]:
    """The domain in which the model is bound, and the options of a method that has a domain of its own."""
    if "domain" not in METHODS.options(method):
        return (None if domain is None else check_choice("domain", domain, DOMAINS)), options
    if classifier.takes_waveform or inspect_as:  # the model makes the sound itself: masks act on its power
        return "heard", options | {"domain": "power"}
    return None, options if domain is None else options | {"domain": domain}


def _attributed(
    method: str, bound: Bound, target: torch.Tensor, samples: torch.Tensor, fill: float | None, options: dict
) -> Found:
    transform = PictureAsSound(bound.batch, bound.spectrogram) if bound.by_sound else bound.spectrogram
    given = {"waveform": samples, "spectrogram": transform} | ({} if fill is None else {"fill": float(fill)})
    given = METHODS.taken(method, **given)
    return METHODS.found(method, bound.model, bound.batch.db, target, **given, **options)


def _named(clips: Iterable | Mapping) -> Iterable[tuple[str, object]]:
    """(name, sound) of clips: a dict's keys, files' names, or numbers."""
    if isinstance(clips, Mapping):
        return clips.items()
    clips = [clips] if isinstance(clips, (str, os.PathLike)) else list(clips)
    if clips and isinstance(clips[0], (numbers.Real, torch.Tensor, np.ndarray)) and np.ndim(clips[0]) == 0:
        raise TypeError(f"clips must be a list of sounds; got {len(clips)} samples of one, pass [waveform]")
    return [
        (os.fspath(clip) if isinstance(clip, (str, os.PathLike)) else str(i), clip)
        for i, clip in enumerate(clips)
    ]
