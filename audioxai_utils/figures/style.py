"""What every picture and page shares: one colour per method, names, and true time and frequency axes.

Only numbers and words live here; matplotlib comes in `maps` and `scores`, HTML in `gallery`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..audio import mel
from ..constants import SPECTROGRAMS, SpectrogramParameters
from ..words import (  # noqa: F401
    METHOD_LABELS,
    METRIC_LABELS,
    SCENARIO_LABELS,
    SPECTROGRAM_LABELS,
    condition_label,
    method_label,
)

TEMPLATES = Path(__file__).resolve().parents[1] / "gallery" / "templates"

# Okabe and Ito's palette for the study's own, then the ones farthest from all before them to any reader's
# eyes (CIE Lab, as seen with protanopia and deuteranopia too): one colour per method, the same in every
# figure.
METHOD_COLOURS = {
    "saliency": "#0072B2",
    "gradcam": "#D55E00",
    "lime": "#009E73",
    "shap": "#CC79A7",
    "shap_functional": "#7A4A68",
    "random": "#7F7F7F",
    "energy": "#E69F00",
    "oracle": "#56B4E9",
    "integrated_gradients": "#0000FF",
    "smoothgrad": "#6699FF",
    "gradient_shap": "#EEBBBB",
    "occlusion": "#552200",
    "guided_gradcam": "#995533",
    "rise": "#332222",
    "slime": "#99DD88",
    "slime_hpss": "#221199",
    "extremal": "#7766FF",
    "extremal_20": "#441155",
    "extremal_heard": "#1155BB",
    "extremal_robust": "#774477",
    "lmac": "#55DDEE",
    "lmac_ft": "#88EE66",
    "lmac_td": "#AA9955",
    "coughlime": "#774444",
    "audiolime": "#110066",
    "segments": "#0022CC",
    "l2i": "#220022",
}
METHOD_MARKERS = {
    "saliency": "o",
    "gradcam": "s",
    "lime": "^",
    "shap": "D",
    "shap_functional": "d",
    "random": "x",
    "energy": "P",
    "oracle": "*",
    "integrated_gradients": "v",
    "smoothgrad": "<",
    "gradient_shap": "p",
    "occlusion": "H",
    "guided_gradcam": "8",
    "rise": "X",
    "slime": ">",
    "slime_hpss": "+",
    "extremal": "h",
    "extremal_20": "1",
    "extremal_heard": "4",
    "extremal_robust": "$r$",
    "lmac": "2",
    "lmac_ft": "3",
    "lmac_td": "$T$",
    "coughlime": "|",
    "audiolime": "_",
    "segments": "$=$",
    "l2i": "$L$",
}
PANELS = 6  # side by side, before a figure goes on below or its panels get narrower
EVEN = 0.01  # share by which the steps between bins may differ on an even scale
SPARE_COLOURS = ("#332288", "#882255", "#44AA99", "#999933")

DISPLAY_DB = (-60.0, 45.0)  # dB shown; a peak-normalised sine reaches about 42 dB in a 1024-point Hann frame
SPECTROGRAM_COLOURS = "magma"  # even in lightness, so it also prints in grey
ATTRIBUTION_COLOURS = (
    "RdBu_r"  # red supports the class, blue speaks against it; safe with red-green deficiency
)


def method_colour(method: str) -> str:
    """The method's fixed colour; a method that is not the study's gets a spare one by its name."""
    if method in METHOD_COLOURS:
        return METHOD_COLOURS[method]
    return SPARE_COLOURS[sum(method.encode()) % len(SPARE_COLOURS)]


def hz_to_mel(frequency) -> np.ndarray:
    """HTK mels of frequencies in Hz."""
    return mel.hz_to_mel(torch.as_tensor(np.asarray(frequency, dtype=float))).numpy()


def mel_to_hz(mels) -> np.ndarray:
    """Frequencies in Hz of HTK mels."""
    return mel.mel_to_hz(torch.as_tensor(np.asarray(mels, dtype=float))).numpy()


@dataclass(frozen=True)
class Axes:
    """Where times and frequencies lie on the picture of a spectrogram.

    Every bin is a cell around its own centre: frame ``i`` is centred at ``i * hop / sample_rate``
    seconds, so the picture starts half a hop before 0 s. Vertical positions are shares of the
    picture's height, 0 at the lower edge and 1 at the upper one.
    """

    sample_rate: int
    hop_length: int
    n_frames: int
    n_bins: int
    mel: bool
    low: float  # lower edge of the picture on its scale: Hz, mel, or bins where these are even in neither
    high: float
    centres: tuple[float, ...] = ()  # Hz of every bin, where the scale is that of bins

    @property
    def start(self) -> float:
        """Left edge in s."""
        return -0.5 * self.hop_length / self.sample_rate

    @property
    def end(self) -> float:
        """Right edge in s."""
        return (self.n_frames - 0.5) * self.hop_length / self.sample_rate

    def height_of(self, frequency):
        """Share of the height at a frequency in Hz."""
        return (self.scale(frequency) - self.low) / (self.high - self.low)

    def scale(self, frequency):
        """A frequency in Hz on the picture's vertical scale."""
        if self.centres:
            return np.interp(frequency, self.centres, np.arange(self.n_bins))
        return hz_to_mel(frequency) if self.mel else np.asarray(frequency, dtype=float)

    def frequency_ticks(self) -> tuple[float, ...]:
        """Round frequencies in Hz inside the picture: evenly spaced in mel, or linear ones."""
        top = float(mel_to_hz(self.high)) if self.mel else self.high
        bottom = float(mel_to_hz(self.low)) if self.mel else max(0.0, self.low)
        if self.centres:
            bottom, top = self.centres[0], self.centres[-1]
        if self.mel or self.centres:
            candidates = (100.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 12000.0, 16000.0, 20000.0)
        else:
            step = next(s for s in (250, 500, 1000, 2000, 2500, 5000, 10000, 1e9) if top / s <= 5.5)
            candidates = tuple(np.arange(0.0, top + step, step))
        return tuple(float(f) for f in candidates if bottom <= f <= top)

    def time_ticks(self) -> tuple[float, ...]:
        """Whole seconds inside the picture (halves or fifths where it is shorter than two)."""
        step = next(s for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0, 1e9) if self.end / s <= 6.5)
        return tuple(float(np.round(t, 3)) for t in np.arange(0.0, self.end + 0.25 * step, step))


def axes_of(spectrogram, n_frames: int) -> Axes:
    """Time and frequency axes of a spectrogram.

    Parameters
    ----------
    spectrogram : str, SpectrogramParameters or Spectrogram
        A name of the study, its parameters, or an object that carries them as ``.settings`` or has
        ``sample_rate``, ``hop_length`` and ``frequencies`` (Hz, rising).
    n_frames : int
        Frames of the picture.

    Raises
    ------
    ValueError
        Unknown name, or an object without the attributes.
    """
    if isinstance(spectrogram, str) and spectrogram not in SPECTROGRAMS:
        raise ValueError(f"spectrogram must be one of {', '.join(SPECTROGRAMS)}; got {spectrogram!r}")
    found = SPECTROGRAMS[spectrogram] if isinstance(spectrogram, str) else spectrogram
    settings = getattr(found, "settings", None)
    if isinstance(settings, SpectrogramParameters) and settings.n_bins == getattr(found, "n_bins", 0):
        found = settings  # else bands of that transform
    if isinstance(found, SpectrogramParameters):
        return _study_axes(found, n_frames)
    if not all(hasattr(found, name) for name in ("sample_rate", "hop_length", "frequencies")):
        raise ValueError(
            "spectrogram must be a name, or carry sample_rate, hop_length and frequencies; "
            f"got {type(found).__name__}"
        )
    centres = np.asarray(found.frequencies, dtype=float)
    sizes = (int(found.sample_rate), int(found.hop_length), n_frames, len(centres))
    for even_in_mel, values in ((False, centres), (True, hz_to_mel(centres))):
        step = (values[-1] - values[0]) / max(1, len(values) - 1)
        if np.allclose(np.diff(values), step, rtol=EVEN):
            return Axes(*sizes, even_in_mel, float(values[0] - step / 2), float(values[-1] + step / 2))
    return Axes(*sizes, False, -0.5, len(centres) - 0.5, tuple(centres.tolist()))


def _study_axes(parameters: SpectrogramParameters, n_frames: int) -> Axes:
    sizes = (parameters.sample_rate, parameters.hop_length, n_frames, parameters.n_bins)
    if parameters.n_mels is None:
        step = parameters.sample_rate / parameters.n_fft
        return Axes(*sizes, False, -step / 2, parameters.sample_rate / 2 + step / 2)
    f_max = parameters.f_max if parameters.f_max is not None else parameters.sample_rate / 2
    low, high = float(hz_to_mel(parameters.f_min)), float(hz_to_mel(f_max))
    step = (high - low) / (parameters.n_mels + 1)  # the filters' centres leave half a filter at both ends
    return Axes(*sizes, True, low + step / 2, high - step / 2)


def frequency_label(frequency: float) -> str:
    """A tick in Hz without needless digits: ``500``, ``2k``, ``2.5k``."""
    return f"{frequency / 1000:g}k" if frequency >= 1000 else f"{frequency:g}"


def attribution_scale(attribution) -> float:
    """Robust scale of a signed map: the 99th percentile of its size, so that one bin does not blank it."""
    size = np.abs(np.asarray(attribution, dtype=float))
    if not np.isfinite(size).all():
        raise ValueError("attribution must be finite; it holds NaN or infinite values")
    return float(np.quantile(size, 0.99) or size.max() or 1.0)


def two_dimensional(values, name: str) -> np.ndarray:
    """A (frequency, time) float array from one of shape (1, 1, F, T), (1, F, T) or (F, T).

    Raises
    ------
    ValueError
        More than one clip or channel, or not a map.
    """
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=float)
    if array.ndim < 2 or any(size != 1 for size in array.shape[:-2]):
        raise ValueError(f"{name} must be one (frequency, time) map; got shape {tuple(array.shape)}")
    return array.reshape(array.shape[-2:])


def template(name: str) -> str:
    """Text of a file in ``templates``."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def present(frame, column: str, order) -> list:
    """The values of a column: known ones in the study's order, then the others."""
    values = list(dict.fromkeys(frame[column]))
    return [value for value in order if value in values] + [value for value in values if value not in order]
