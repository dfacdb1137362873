"""The gallery inside JupyterLab: choose prepared explanations, or make new ones with a live kernel.

A page without a kernel shows a few of the prepared entries instead, with pictures and players.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ipywidgets
import torch

from ..attributions import METHODS
from ..audio.datasets import load_noise, load_waveform
from ..audio.noise import mix
from ..constants import (
    DURATION,
    MASK_NAMES,
    NOISE_SCENARIOS,
    OWN,
    STUDY_METHODS,
    STUDY_METRICS,
)
from ..evaluation.masks import build_masks
from ..evaluation.scoring import MaskScorer, score_masks
from ..explanation import Explanation, explain
from ..figures.style import template
from ..models.classifier import AudioClassifier
from ..models.wrapping import is_differentiable, shows_layers
from ..numerics import largest
from ..words import SCENARIO_LABELS, condition_label, method_label
from .cards import cards_html, entry_html, static_entries
from .entries import GalleryEntry
from .html import escape, readable_size
from .said import sounds_of

BY_AREA = "by kept area"  # the mask that keeps the largest attributions, as much as the slider says
OWN_FILE = "your own file"
LARGEST_UPLOAD = 10_000_000  # bytes; a larger message ends the connection of JupyterLab to its kernel


def _upload_script() -> ipywidgets.Output:
    """A widget without looks: files may be dropped, and one that is too large is refused before it is
    read.
    """
    text = template("drop.js").replace("LARGEST_BYTES", str(LARGEST_UPLOAD))
    text = text.replace("LARGEST_WORDS", readable_size(LARGEST_UPLOAD))
    data = {"application/javascript": text, "text/plain": ""}
    return ipywidgets.Output(outputs=({"output_type": "display_data", "data": data, "metadata": {}},))


@dataclass
class _Live:
    """What the live part needs for one spectrogram type, and the explanation made last with its warnings."""

    classifier: object
    checked: bool = False
    key: tuple = ()
    explanation: Explanation | None = None
    warned: list[str] = field(default_factory=list)


def area_mask(attribution: torch.Tensor, share: float) -> torch.Tensor:
    """Binary mask (1, 1, F, T) of the largest ``share`` (0 to 1) of an attribution's bins."""
    kept = largest(attribution.reshape(1, -1), round(share * attribution.numel()))
    return kept.to(attribution).view_as(attribution)


class Explorer(ipywidgets.VBox):
    """Controls over prepared entries, and over live explanations where a classifier is there.

    Parameters
    ----------
    entries : sequence of GalleryEntry
        Prepared explanations.
    study : Study, optional
        A finished one: its test clips and classifiers are used live.
    classifier : object, optional
        Instead of a study's: any `AudioClassifier`, of waveforms and black boxes too, or what has ``model``
        (its outputs are softmax logits), ``spectrogram`` and ``classes``.
    """

    def __init__(self, entries: Sequence[GalleryEntry] = (), study=None, classifier=None) -> None:
        self.entries, self.study = list(entries), study
        self.live: dict[str, _Live] = (
            {} if classifier is None else {_kind_of(classifier): _Live(_described(classifier))}
        )
        self.shown = ipywidgets.HTML()
        self.status = ipywidgets.HTML().add_class("audioxai-status")
        tabs, titles = [], []
        if self.entries:
            tabs.append(self._prepared_controls())
            titles.append("Prepared")
        if study is not None or classifier is not None:
            tabs.append(self._live_controls())
            titles.append("Live")
        if not tabs:
            raise ValueError("explorer needs entries, a study or a classifier; got none of them")
        self.tabs = ipywidgets.Tab(children=tabs, titles=titles)
        self.tabs.observe(self._tab_changed, "selected_index")
        super().__init__([self.tabs, self.status, self.shown, _upload_script()])
        self.add_class("audioxai-explorer")
        self._tab_changed()

    def _repr_mimebundle_(self, **options):
        """The controls, and for a page without a kernel a few entries as cards."""
        bundle = super()._repr_mimebundle_(**options)
        data, *rest = bundle if isinstance(bundle, tuple) else (bundle,)
        if data is not None and self.entries:
            data["text/html"] = cards_html(static_entries(self.entries))
        return (data, *rest) if rest else data

    # Prepared entries

    def _prepared_controls(self):
        self.choices = {
            "clip": ipywidgets.Dropdown(description="Clip"),
            "condition": ipywidgets.Dropdown(description="Scene"),
            "method": ipywidgets.Dropdown(description="Method"),
            "mask": ipywidgets.Dropdown(description="Mask"),
        }
        self._narrow()
        for box in self.choices.values():
            box.observe(self._choice_changed, "value")
        return ipywidgets.HBox(list(self.choices.values()), layout=ipywidgets.Layout(flex_flow="row wrap"))

    @staticmethod
    def _words_of(entry: GalleryEntry) -> dict[str, str]:
        condition = f"{condition_label(entry.spectrogram_type, entry.noise_scenario)}, {entry.protocol}"
        return {
            "clip": f"{entry.category.replace('_', ' ')} ({entry.clip})",
            "condition": condition,
            "method": method_label(entry.method),
            "mask": entry.mask_name,
        }

    def _narrow(self) -> None:
        """Offer in each box only what the boxes before it leave; keep choices that are still possible."""
        left = [(entry, self._words_of(entry)) for entry in self.entries]
        for key, box in self.choices.items():
            options = list(dict.fromkeys(traits[key] for _, traits in left))
            value = box.value if box.value in options else options[0]
            if list(box.options) != options:
                box.options = options
            box.value = value
            left = [(entry, traits) for entry, traits in left if traits[key] == value]
        self.chosen = left[0][0]

    def _choice_changed(self, _change) -> None:
        if getattr(self, "_narrowing", False):
            return
        self._narrowing = True
        try:
            self._narrow()
        finally:
            self._narrowing = False
        self.shown.value = entry_html(self.chosen)

    def _tab_changed(self, _change=None) -> None:
        if self.tabs.titles[self.tabs.selected_index or 0] == "Prepared":
            self.status.value = ""
            self.shown.value = entry_html(self.chosen)
        else:
            self._explain()

    # Live explanations

    def _live_controls(self):
        kinds = list(self.live) or [
            kind for kind in self.study.spectrogram_types if self.study.checkpoint(kind).is_file()
        ]
        self.paths = {} if self.study is None else self._test_clips()
        scenes = [(SCENARIO_LABELS[name], name) for name in NOISE_SCENARIOS]
        methods = [(method_label(method), method) for method in self._live_methods()]
        whole = {"description_width": "88px"}  # of the longest description, which is cut off otherwise
        self.kind = ipywidgets.Dropdown(options=kinds, description="Spectrogram", style=whole)
        self.clip = ipywidgets.Dropdown(options=[*self.paths, OWN_FILE], description="Clip")
        self.upload = ipywidgets.FileUpload(accept=".wav,.flac,.ogg,.mp3", description="Drop in a file")
        self.scene = ipywidgets.Dropdown(options=scenes, value="clean", description="Noise")
        first = self._state(kinds[0]).classifier if kinds else None
        self.method = ipywidgets.Dropdown(options=methods, value=_first_method(first), description="Method")
        self.mask = ipywidgets.Dropdown(options=[BY_AREA, *MASK_NAMES], description="Mask")
        self.area = ipywidgets.IntSlider(20, 1, 100, description="Keep (%)", continuous_update=False)
        boxes = [self.kind, self.clip, self.upload, self.scene, self.method, self.mask, self.area]
        for box in boxes:
            box.observe(self._live_changed, "value")
        return ipywidgets.HBox(boxes, layout=ipywidgets.Layout(flex_flow="row wrap"))

    @property
    def seconds(self) -> float:
        """Length of what is explained: that of the study's clips."""
        return DURATION if self.study is None else self.study.dataset.seconds

    def _live_methods(self) -> list[str]:
        """The study's methods first; those that need a background only where a study can give it."""
        first = [method for method in STUDY_METHODS if self.study is not None or not METHODS.required(method)]
        return first + [name for name in METHODS if name not in STUDY_METHODS and not METHODS.required(name)]

    def _test_clips(self) -> dict[str, Path]:
        frame = self.study.dataset.split("test")
        return {
            f"{row.category.replace('_', ' ')} ({row.clip})": Path(row.path) for row in frame.itertuples()
        }

    def _live_changed(self, change) -> None:
        self.area.disabled = self.mask.value != BY_AREA
        if change["owner"] is self.upload and self.upload.value and self.clip.value != OWN_FILE:
            self.clip.value = OWN_FILE  # its own change explains the file
        else:
            self._explain()

    def _explain(self) -> None:
        """Explain what the controls say; bad input is told in one line and the last picture stays."""
        if self.clip.value == OWN_FILE and not self.upload.value:
            self.status.value = (
                f"Drop in a WAV, FLAC, Ogg or MP3 file of up to {readable_size(LARGEST_UPLOAD)}; its first "
                f"{self.seconds:g} seconds are explained."
            )
            return
        self.status.value, started = "explaining ...", time.perf_counter()
        try:
            self.shown.value = entry_html(self._live_entry())
            took = f"Explained in {time.perf_counter() - started:.1f} s."
            warned = [f"<b>Warning:</b> {escape(words)}." for words in self._state(self.kind.value).warned]
            self.status.value = " ".join([took, *warned])
        except (ValueError, TypeError, OSError) as error:
            self.status.value = f"<b>{escape(error)}</b>"

    def _live_entry(self) -> GalleryEntry:
        state = self._state(self.kind.value)
        explanation = self._explanation(state)
        by_area = self.mask.value == BY_AREA
        if by_area:
            name, mask = (
                f"largest {self.area.value} %",
                area_mask(explanation.attribution, self.area.value / 100),
            )
        else:
            name = self.mask.value
            mask = build_masks(explanation.attribution, explanation.protocol, [name])[name]
        clip = self.upload.value[-1]["name"] if self.clip.value == OWN_FILE else self.clip.value
        return live_entry(state.classifier, explanation, mask, name, clip, self.scene.value)

    def _state(self, kind: str) -> _Live:
        if kind not in self.live:
            known = self.study.classifier(kind)
            own = self.study.own_model if kind == OWN else _described(known)
            self.live[kind] = _Live(own, checked="gradient_error" in known.info)  # proved in training
        return self.live[kind]

    def _explanation(self, state: _Live) -> Explanation:
        """The explanation of the chosen clip, scene and method; made anew only when one of these changes."""
        name, data = self.clip.value, b""
        if name == OWN_FILE:
            name, data = self.upload.value[-1]["name"], bytes(self.upload.value[-1]["content"])
        key = (self.clip.value, name, hash(data), self.scene.value, self.method.value)
        if key != state.key:
            transform, method = state.classifier.spectrogram, self.method.value
            options = (
                {} if self.study is None else self.study.condition(self.kind.value).method_options(method)
            )
            sound = self._sound(name, data, transform.sample_rate)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                state.explanation = explain(
                    state.classifier,
                    sound,
                    transform.sample_rate,
                    method=method,
                    check_gradient=not state.checked,
                    masks=MASK_NAMES[:1],  # live_entry scores the one that is shown; all take a second
                    **options,
                )
            state.warned = list(dict.fromkeys(str(w.message) for w in caught if w.category is UserWarning))
            state.key, state.checked = key, True
        return state.explanation

    def _sound(self, name: str, data: bytes, sample_rate: int) -> torch.Tensor:
        """Waveform (samples,) of a test clip or an uploaded file, mixed with the scene's noise."""
        if self.clip.value == OWN_FILE:
            waveform = _waveform_of(name, data, sample_rate, self.seconds)
        else:
            waveform = load_waveform(self.paths[name], sample_rate, seconds=self.seconds)
        root = None if self.study is None else self.study.settings.noise_root
        noise = load_noise(self.scene.value, sample_rate, root, seconds=self.seconds)
        return waveform if noise is None else mix(waveform, noise)


def _described(classifier) -> AudioClassifier:
    """A study's classifier with what is known of its outputs, so that nothing is asked about them."""
    if isinstance(classifier, AudioClassifier):
        return classifier
    return AudioClassifier(classifier.model, classifier.classes, input=classifier.spectrogram, head="softmax")


def _kind_of(classifier) -> str:
    """What its picture is called."""
    return getattr(classifier.spectrogram, "name", OWN)


def _first_method(classifier: AudioClassifier | None) -> str:
    """What a first look shows: Grad-CAM, saliency where there is no map to look at, LIME of a black box."""
    if classifier is None or (shows_layers(classifier.net) and not classifier.takes_waveform):
        return "gradcam"
    return "saliency" if is_differentiable(classifier.net) else "lime"


def _waveform_of(name: str, data: bytes, sample_rate: int, seconds: float) -> torch.Tensor:
    """Waveform (samples,) of an uploaded file, prepared as the study prepares its clips."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"upload{Path(name).suffix}"
        path.write_bytes(data)
        try:
            return load_waveform(path, sample_rate, seconds=seconds)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), name)) from error


def live_entry(
    classifier: AudioClassifier,
    explanation: Explanation,
    mask: torch.Tensor,
    mask_name: str,
    clip: str,
    noise_scenario: str = "clean",
) -> GalleryEntry:
    """A gallery entry of a fresh explanation and one mask."""
    batch, transform = explanation.batch, explanation.spectrogram
    sound = explanation.waveform[None]
    bound = classifier.bound(sound)
    by_sound = {"on_waveform": bound.on_waveform, "waveform": sound} if bound.by_sound else {}
    scorer = MaskScorer(bound.model, transform, batch, torch.tensor([explanation.target]), **by_sound)
    scores = score_masks(scorer, {mask_name: mask}, explanation.protocol).iloc[0]
    return GalleryEntry(
        clip=clip,
        category=f"heard as {classifier.classes[explanation.target]}",
        spectrogram_type=_kind_of(classifier),
        noise_scenario=noise_scenario,
        method=explanation.method,
        mask_name=mask_name,
        protocol=explanation.protocol,
        db=batch.db,
        attribution=explanation.attribution,
        mask=mask,
        original=explanation.waveform,
        sample_rate=explanation.sample_rate,
        **sounds_of(scorer, mask, classifier.classes),
        scores={name: float(scores[name]) for name in STUDY_METRICS},
        spectrogram=transform,
    )


def explorer(entries: Sequence[GalleryEntry] = (), study=None, classifier=None) -> Explorer:
    """The gallery's controls for JupyterLab, see `Explorer`."""
    return Explorer(entries, study, classifier)
