"""How good does a kept sound sound? Objective measures that stand beside a listening test.

All take sounds (batch, samples) and give one float64 number a sound. Against the clean sound, where it is
known: SI-SDR and SDR (dB), log-spectral distance (dB), spectral convergence. Against the clip itself:
musical noise and loudness. For speech: STOI and PESQ.

References
----------
.. [1] E. Vincent, R. Gribonval, C. Fevotte, Performance Measurement in Blind Audio Source Separation, 2006.
.. [2] Y. Uemura et al., Automatic Optimization Scheme of Spectral Subtraction Based on Musical Noise
   Assessment via Higher-Order Statistics, IWAENC 2008: ratio of kurtoses, eq. 3 and 4, here its natural
   logarithm.
.. [3] C. Taal et al., An Algorithm for Intelligibility Prediction of Time-Frequency Weighted Noisy Speech,
   2011.
.. [4] ITU-T P.862.2, wideband PESQ.
"""

from __future__ import annotations

import math
import warnings
from importlib.util import find_spec

import torch

from ..audio.encoding import loudness
from .controls import si_sdr

FRAME = 0.032  # s of the STFT, rounded to a power of two samples; a quarter of it is the hop
RANGE = 60.0  # dB below the reference's loudest bin; softer bins are as loud as that
BETTER = {  # what is good in each measure
    "si_sdr": "higher",
    "sdr": "higher",
    "lsd": "lower",
    "convergence": "lower",
    "musical_noise": "lower",
    "loudness": "higher",
    "stoi": "higher",
    "pesq": "higher",
}
PESQ_RATE = 16000  # Hz, of wideband PESQ


def sound_quality(
    kept: torch.Tensor, clip: torch.Tensor, sample_rate: int, reference: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Measures of kept sounds by their names.

    Parameters
    ----------
    kept, clip : (batch, samples) tensors
        What was kept, and the clip that it was kept of.
    sample_rate : int
        Hz.
    reference : (batch, samples) tensor, optional
        What should have been kept, such as the stem of the class.

    Returns
    -------
    dict of str to (batch,) float64 tensor
        ``musical_noise`` and ``loudness`` (LU above the clip, so below 0 for most), and, with a reference,
        ``si_sdr``, ``sdr``, ``lsd`` (dB) and ``convergence``. NaN where a sound is silent.
    """
    return QualityMeter(clip, sample_rate, reference)(kept)


class QualityMeter:
    """`sound_quality` of many kept sounds of the same clips, which are analysed once."""

    def __init__(self, clip: torch.Tensor, sample_rate: int, reference: torch.Tensor | None = None) -> None:
        self._given = {"clip": clip} if reference is None else {"clip": clip, "reference": reference}
        _check(**self._given)
        self.sample_rate, self.reference = sample_rate, reference
        self._kurtosis = _log_kurtosis(_stft(clip, sample_rate).abs().square())
        self._loudness = _loudness(clip, sample_rate)
        if reference is not None:
            self._wanted, self._silent = _stft(reference, sample_rate).abs(), ~_loud(reference)

    def __call__(self, kept: torch.Tensor) -> dict[str, torch.Tensor]:
        """The measures of kept sounds (batch, samples) by their names."""
        _check(kept=kept, **self._given)
        own = _stft(kept, self.sample_rate).abs()
        found = {
            "musical_noise": (_log_kurtosis(own.square()) - self._kurtosis).nanmean(1),
            "loudness": _loudness(kept, self.sample_rate) - self._loudness,
        }
        if self.reference is None:
            return found
        return found | {
            "si_sdr": si_sdr(kept, self.reference),
            "sdr": sdr(kept, self.reference),
            "lsd": _distance(own, self._wanted).masked_fill(self._silent, math.nan),
            "convergence": _convergence(own, self._wanted).masked_fill(self._silent, math.nan),
        }


def sdr(estimate: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Signal-to-distortion ratio (batch,) in dB as BSS Eval has it [1]_: the reference may be filtered by 512
    taps.

    By torchmetrics, in float64; NaN where either is silent. One sound at a time: with several threads
    PyTorch 2.11 cannot solve a batch of systems as large as these.
    """
    from torchmetrics.functional.audio import signal_distortion_ratio

    found = _nothing(estimate)
    loud = _loud(estimate) & _loud(reference)
    for i in loud.nonzero()[:, 0].tolist():
        pair = estimate[i].double(), reference[i].double()
        found[i] = signal_distortion_ratio(*pair, load_diag=1e-9)
    return found


def _distance(own: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean over frames of the root mean square over frequencies of the difference in level, (batch,) in dB.

    Of magnitudes (batch, frequencies, frames); levels end `RANGE` dB below the loudest bin of ``wanted``.
    """
    least = wanted.amax((1, 2), keepdim=True) * 10 ** (-RANGE / 20)
    levels = [20 * torch.maximum(each, least).log10() for each in (own, wanted)]
    return (levels[0] - levels[1]).square().mean(1).sqrt().mean(1)


def _convergence(own: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Norm of the difference of magnitudes over the norm of ``wanted``, (batch,)."""
    return (own - wanted).norm(dim=(1, 2)) / wanted.norm(dim=(1, 2))


def musical_noise(kept: torch.Tensor, clip: torch.Tensor, sample_rate: int) -> torch.Tensor:
    r"""Mean over frequencies of the log-kurtosis ratio of power, (batch,) in nats [2]_; NaN for silence.

    :math:`\ln \kappa_\mathrm{kept} - \ln \kappa_\mathrm{clip}` with
    :math:`\kappa = \overline{x^4} / \overline{x^2}^2` of a frequency's power x over the frames. Above 0 the
    power comes in rarer and shorter bursts than it did, which is heard as tones that twitter. Deviation: over
    the whole clip instead of its noise.
    """
    own, whole = (_log_kurtosis(_stft(sound, sample_rate).abs().square()) for sound in (kept, clip))
    return (own - whole).nanmean(1)


def _log_kurtosis(power: torch.Tensor) -> torch.Tensor:
    """(batch, frequencies) of power (batch, frequencies, frames); NaN where there is none."""
    relative = power / power.mean(2, keepdim=True)
    return (relative**4).mean(2).log() - 2 * (relative**2).mean(2).log()


def speech_quality(kept: torch.Tensor, reference: torch.Tensor, sample_rate: int) -> dict[str, torch.Tensor]:
    """STOI [3]_ (0 to 1) and wideband PESQ [4]_ (about 1 to 4.6) of kept speech, by their names.

    Through torchmetrics; PESQ where the package ``pesq`` is installed, which needs a C compiler. NaN where a
    sound is silent or too short: STOI compares stretches of 0.384 s of speech without pauses, PESQ needs an
    utterance.
    """
    _check(kept=kept, reference=reference)
    measures = {"stoi": _stoi} | ({"pesq": _pesq} if find_spec("pesq") is not None else {})
    loud, found = _loud(kept) & _loud(reference), {}
    for name, rule in measures.items():
        found[name] = _nothing(kept)
        for i in loud.nonzero()[:, 0].tolist():
            found[name][i] = rule(kept[i], reference[i], sample_rate)
    return found


def _stoi(kept: torch.Tensor, reference: torch.Tensor, sample_rate: int) -> torch.Tensor | float:
    from torchmetrics.functional.audio import short_time_objective_intelligibility

    with warnings.catch_warnings():  # pystoi warns, and gives 1e-5 as if nothing were understood
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            return short_time_objective_intelligibility(kept.double(), reference.double(), sample_rate)
        except RuntimeWarning:
            return math.nan


def _pesq(kept: torch.Tensor, reference: torch.Tensor, sample_rate: int) -> torch.Tensor | float:
    from pesq import BufferTooShortError, NoUtterancesError
    from torchaudio.functional import resample
    from torchmetrics.functional.audio import perceptual_evaluation_speech_quality

    if sample_rate != PESQ_RATE:
        kept, reference = (resample(sound, sample_rate, PESQ_RATE) for sound in (kept, reference))
    try:
        return perceptual_evaluation_speech_quality(kept.double(), reference.double(), PESQ_RATE, "wb")
    except (BufferTooShortError, NoUtterancesError):
        return math.nan


# What is measured


def _stft(sound: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """Complex (batch, frequencies, frames), float64, Hann."""
    n_fft = 2 ** round(math.log2(FRAME * sample_rate))
    window = torch.hann_window(n_fft, dtype=torch.float64, device=sound.device)
    return torch.stft(sound.double(), n_fft, n_fft // 4, window=window, return_complex=True)


def _loudness(sound: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """LUFS (batch,); NaN for silence."""
    levels = [loudness(each, sample_rate) for each in sound.double().cpu().numpy()]
    found = torch.tensor(levels, dtype=torch.float64, device=sound.device)
    return torch.where(found.isfinite(), found, math.nan)


def _loud(sound: torch.Tensor) -> torch.Tensor:
    return sound.abs().amax(1) > 0


def _nothing(like: torch.Tensor) -> torch.Tensor:
    return torch.full((len(like),), math.nan, dtype=torch.float64, device=like.device)


def _check(**sounds: torch.Tensor) -> None:
    """All are finite (batch, samples) tensors of one shape."""
    first = next(iter(sounds.values()))
    for name, sound in sounds.items():
        if not isinstance(sound, torch.Tensor) or sound.ndim != 2 or not sound.is_floating_point():
            got = tuple(sound.shape) if isinstance(sound, torch.Tensor) else type(sound).__name__
            raise ValueError(f"{name} must be a floating-point tensor (batch, samples); got {got}")
        if sound.shape != first.shape:
            raise ValueError(f"{name} must have the shape {tuple(first.shape)}; got {tuple(sound.shape)}")
        if not bool(torch.isfinite(sound).all()):
            raise ValueError(f"{name} must be finite; it holds NaN or infinite samples")
