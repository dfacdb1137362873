"""What a classifier hears: descriptions of log-mel front ends, and the spectrogram each of them makes.

A picture is always in decibels, 10 log10 of the power with the front end's own offset in it; what the network
is given, natural logarithms, its own scale and order of axes, is computed from the picture, with gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from ..audio.mel import MEL_SCALES, mel_centres, mel_filters
from ..audio.spectrograms import Spectrogram, overlap_add
from ..constants import check_choice

LOGARITHMS = {"db": 1.0, "ln": math.log(10) / 10, "log10": 0.1}  # units of each in one decibel
AXES = ("(B, 1, F, T)", "(B, 1, T, F)", "(B, F, T)", "(B, T, F)")
WINDOWS = {"hann": 1.0, "hamming": 1.0, "povey": 0.85}  # exponent of the raised cosine
FRAMINGS = ("centred", "kaldi")


KALDI = {"periodic": False, "mel_scale": "kaldi", "log": "ln", "pre_emphasis": 0.97}
PANNS = {"sample_rate": 32000, "n_mels": 64, "f_min": 50.0, "f_max": 14000.0}
PANNS |= {"mel_scale": "slaney", "norm": "slaney", "axes": "(B, 1, T, F)"}
EFFICIENTAT = KALDI | {"sample_rate": 32000, "win_length": 800, "n_mels": 128, "f_max": 15000.0}
EFFICIENTAT |= {"offset": 1e-5, "clamped": False, "mean": -4.5, "std": 5.0}
AST = KALDI | {"sample_rate": 16000, "n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 128}
AST |= {"f_min": 20.0, "framing": "kaldi", "axes": "(B, T, F)", "n_frames": 1024}
AST |= {"offset": torch.finfo(torch.float32).eps, "mean": -4.2677393, "std": 2 * 4.5689974}


@dataclass(frozen=True)
class LogMel:
    """A log-mel front end in numbers; ``LogMel.panns()``, ``.efficientat()`` and ``.ast()`` are those of
    well-known nets.

    Attributes
    ----------
    sample_rate, n_fft, win_length, hop_length, n_mels : int
        Hz, samples and filters; ``win_length`` None is ``n_fft``.
    f_min, f_max : float
        Hz; ``f_max`` None is half of ``sample_rate``.
    window : {"hann", "hamming", "povey"}
    periodic : bool
        Of the window; False is symmetric.
    framing : {"centred", "kaldi"}
        Reflected at both ends and the window in the middle of ``n_fft``; or whole frames alone, padded at the
        right, each without its mean, as Kaldi's.
    mel_scale, norm : {"htk", "slaney", "kaldi"}, {None, "slaney"}
    log : {"db", "ln", "log10"}
    offset : float
        Power below which there is silence; ``clamped`` says whether it is a lower bound or is added.
    scale : float
        Multiplies the waveform, such as 2**15 where samples are counted as integers.
    mean, std : float
        What the network is given is (logarithm - mean) / std.
    axes : {"(B, 1, F, T)", "(B, 1, T, F)", "(B, F, T)", "(B, T, F)"}
    pre_emphasis : float
        a of x[t] - a x[t-1]; 0 is none.
    n_frames : int, optional
        Frames that the network always gets: more are cut, missing ones are 0 on the logarithm's scale.
    """

    sample_rate: int
    n_fft: int = 1024
    hop_length: int = 320
    n_mels: int = 64
    win_length: int | None = None
    f_min: float = 0.0
    f_max: float | None = None
    window: str = "hann"
    periodic: bool = True
    framing: str = "centred"
    mel_scale: str = "htk"
    norm: str | None = None
    log: str = "db"
    offset: float = 1e-10
    clamped: bool = True
    scale: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    axes: str = "(B, 1, F, T)"
    pre_emphasis: float = 0.0
    n_frames: int | None = None

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_fft", "hop_length", "n_mels"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} must be 1 or more; got {getattr(self, name)}")
        if not 1 <= (self.win_length or self.n_fft) <= self.n_fft:
            raise ValueError(f"win_length must be at most n_fft={self.n_fft}; got {self.win_length}")
        check_choice("window", self.window, WINDOWS)
        check_choice("framing", self.framing, FRAMINGS)
        check_choice("mel_scale", self.mel_scale, MEL_SCALES)
        check_choice("log", self.log, LOGARITHMS)
        object.__setattr__(self, "axes", self.axes.replace(" ", "").replace(",", ", "))
        check_choice("axes", self.axes, AXES)
        if not self.offset > 0 or not self.scale > 0 or self.std == 0:
            raise ValueError(
                f"offset and scale must be above 0, std not 0; got {self.offset}, {self.scale} and {self.std}"
            )

    @property
    def floor(self) -> float:
        """Level of silence in the picture (dB)."""
        return 10 * math.log10(self.offset)

    @classmethod
    def panns(cls, **changes) -> LogMel:
        """PANNs at 32 kHz (Kong et al. 2020): librosa's Slaney filters, decibels, (B, 1, T, F)."""
        return cls(**PANNS | changes)

    @classmethod
    def efficientat(cls, **changes) -> LogMel:
        """EfficientAT (Schmid et al. 2023): pre-emphasis, 25 ms, 128 Kaldi filters, silence at -50 dB."""
        return cls(**EFFICIENTAT | changes)

    @classmethod
    def ast(cls, **changes) -> LogMel:
        """AST (Gong et al. 2021) as Hugging Face's ASTFeatureExtractor: Kaldi's bank, 1024 frames."""
        return cls(**AST | changes)

    def to_input(self, db: torch.Tensor) -> torch.Tensor:
        """What the network is given, in its order of axes, of a picture (batch, 1, F, T) in dB."""
        values = db * LOGARITHMS[self.log]
        if self.n_frames is not None:
            values = functional.pad(values, (0, self.n_frames - values.shape[3]))  # cuts where it is negative
        values = (values - self.mean) / self.std
        values = values.transpose(2, 3) if "T, F" in self.axes else values
        return values if "1" in self.axes else values.squeeze(1)

    def spectrogram(self) -> LogMelSpectrogram:
        """The transform from waveform to picture and back."""
        return LogMelSpectrogram(self)


PRESETS = {"panns": LogMel.panns, "efficientat": LogMel.efficientat, "ast": LogMel.ast}


class LogMelSpectrogram(Spectrogram):
    """The picture of a `LogMel` front end, (batch, 1, n_mels, time) in dB, and its inverse with a clip's own
    phase.

    Called and inverted as `audio.spectrograms.Spectrogram` is; the phase is that of what the front end
    transforms, after its pre-emphasis, which the inverse takes back.
    """

    def __init__(self, description: LogMel) -> None:
        nn.Module.__init__(self)
        d = self.settings = description
        self.name, self.sample_rate, self.floor = "log-mel", d.sample_rate, d.floor
        self.n_bins, self.hop_length = d.n_mels, d.hop_length
        self.win_length, self.f_max = d.win_length or d.n_fft, d.f_max or d.sample_rate / 2
        filters = mel_filters(
            d.n_fft // 2 + 1, d.f_min, self.f_max, d.n_mels, d.sample_rate, d.mel_scale, d.norm
        )
        self.register_buffer("window", make_window(d.window, self.win_length, d.periodic))
        self.register_buffer("filters", filters)
        self.register_buffer("inverse_filters", torch.linalg.pinv(filters))

    @property
    def frequencies(self) -> torch.Tensor:
        """Centre frequency of every filter, Hz, (n_mels,)."""
        return mel_centres(self.n_bins, self.settings.f_min, self.f_max, self.settings.mel_scale)

    def _decibels(self, power: torch.Tensor) -> torch.Tensor:
        d = self.settings
        return 10 * (power.clamp_min(d.offset) if d.clamped else power + d.offset).log10()

    def _stft(self, waveform: torch.Tensor) -> torch.Tensor:
        d = self.settings
        if waveform.ndim != 2 or not waveform.is_floating_point():
            got = f"{waveform.dtype} {tuple(waveform.shape)}"
            raise ValueError(f"waveform must be floating and (batch, samples); got {got}")
        shortest = d.n_fft // 2 + 2 if d.framing == "centred" else self.win_length
        if waveform.shape[1] < shortest:
            raise ValueError(f"waveform must have at least {shortest} samples; got {waveform.shape[1]}")
        waveform, window = waveform * d.scale, self.window.to(waveform.dtype)
        if d.framing == "kaldi":
            return self._kaldi_frames(waveform, window)
        if d.pre_emphasis:
            waveform = waveform[:, 1:] - d.pre_emphasis * waveform[:, :-1]
        return torch.stft(
            waveform,
            d.n_fft,
            d.hop_length,
            self.win_length,
            window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        ).unsqueeze(1)  # (batch, 1, n_fft // 2 + 1, time)

    def _kaldi_frames(self, waveform: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
        frames = waveform.unfold(1, self.win_length, self.hop_length)  # (batch, time, win_length)
        frames = frames - frames.mean(2, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
        frames = (frames - self.settings.pre_emphasis * before) * window
        return torch.fft.rfft(frames, self.settings.n_fft).transpose(1, 2).unsqueeze(1)

    def _istft(self, complex_stft: torch.Tensor, length: int) -> torch.Tensor:
        """Waveform (batch, length) of what `_stft` returned, without Kaldi's means, which are lost."""
        d, window = self.settings, self.window.to(complex_stft.real.dtype)
        frames = torch.fft.irfft(complex_stft, d.n_fft, dim=1)  # (batch, n_fft, time)
        if d.framing == "kaldi":
            waveform = overlap_add(frames[:, : self.win_length], window, d.hop_length)
        else:
            before = (d.n_fft - self.win_length) // 2  # the window lies in the middle
            waveform = overlap_add(frames[:, before : before + self.win_length], window, d.hop_length)
            waveform = waveform[:, d.n_fft // 2 - before :]
            # a first sample that is not known
            waveform = functional.pad(waveform, (1 if d.pre_emphasis else 0, 0))
        waveform = functional.pad(waveform, (0, length - waveform.shape[1]))
        return de_emphasised(waveform, d.pre_emphasis) / d.scale


def de_emphasised(waveform: torch.Tensor, a: float) -> torch.Tensor:
    """y[t] = x[t] + a y[t-1] of waveforms (batch, samples): what x[t] - a x[t-1] took away.

    As a convolution with a^n, as far as that reaches in float64, so that it is as fast on a GPU and has
    gradients of every order.
    """
    from scipy.fft import next_fast_len  # half a second, which most kernels need not spend

    if not a:
        return waveform
    n_samples = waveform.shape[1]
    n_taps = min(n_samples, math.ceil(math.log(1e-17) / math.log(a)))
    taps = a ** torch.arange(n_taps, dtype=torch.float64, device=waveform.device)
    n = next_fast_len(n_samples + n_taps - 1, real=True)
    spectrum = torch.fft.rfft(waveform, n) * torch.fft.rfft(taps.to(waveform.dtype), n)
    return torch.fft.irfft(spectrum, n)[:, :n_samples]


def make_window(kind: str, length: int, periodic: bool) -> torch.Tensor:
    """(length,) float64."""
    if kind == "hamming":
        return torch.hamming_window(length, periodic, dtype=torch.float64)
    return torch.hann_window(length, periodic, dtype=torch.float64) ** WINDOWS[kind]
