"""The explorer: prepared entries, live explanations, one's own file, and its view without a kernel."""

from __future__ import annotations

import io
import re
import types

import pytest
import soundfile
import torch
from gallery_entries import CLASSES, chirps, entries
from torch import nn

from audioxai_utils import widgets
from audioxai_utils.masks import apply_mask
from audioxai_utils.spectrograms import get_spectrogram


class Tiny(nn.Module):
    """One convolution and a linear classifier of its mean spectrum."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(1, 4, 3, padding=1)
        self.linear = nn.Linear(4 * 64, len(CLASSES))

    def forward(self, db):
        return self.linear(self.convolution(db / 50).mean(3).flatten(1))


@pytest.fixture(scope="module")
def classifier():
    return types.SimpleNamespace(model=Tiny().eval(), spectrogram=get_spectrogram("mel_db"), classes=CLASSES)


@pytest.fixture(scope="module")
def prepared():
    return list(entries(2, methods=("lime", "saliency"), mask_names=("bin", "topK_5")))


def upload(name: str, data: bytes) -> tuple:
    import datetime

    return (
        {
            "name": name,
            "content": memoryview(data),
            "type": "",
            "size": len(data),
            "last_modified": datetime.datetime(2025, 1, 1),
        },
    )


def wav(waveform, sample_rate: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, sample_rate, format="WAV")
    return buffer.getvalue()


def test_choices_narrow_and_show_the_chosen_entry(prepared):
    explorer = widgets.explorer(prepared)
    assert len(explorer.choices["clip"].options) == 2
    explorer.choices["method"].value = "LIME"
    explorer.choices["mask"].value = "topK_5"
    explorer.choices["clip"].value = explorer.choices["clip"].options[1]
    assert (explorer.chosen.clip, explorer.chosen.method, explorer.chosen.mask_name) == (
        "5-1001-A-1",
        "lime",
        "topK_5",
    )
    assert "LIME, topK_5" in explorer.shown.value and "5-1001-A-1" in explorer.shown.value


def test_page_without_a_kernel_shows_entries_with_players(prepared):
    bundle = widgets.explorer(prepared)._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/html"].count("<audio") == 3 * widgets.N_STATIC
    assert data["text/html"].count("<img") == 4 * widgets.N_STATIC
    assert len(data["text/html"]) < 1e6


def test_players_hold_the_sounds_at_their_rate(prepared):
    import base64

    html = widgets.entry_html(prepared[0])
    for data in re.findall(r"data:audio/mpeg;base64,([^\"]+)", html):
        sound, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
        assert rate == 32000 and len(sound) == 160000


def test_live_explanation_of_an_uploaded_file(classifier):
    """The kept share is the slider's, probabilities are the model's, and a new slide needs no new attribution."""
    explorer = widgets.explorer(classifier=classifier)
    assert "Drop in" in explorer.status.value
    explorer.upload.value = upload("mine.wav", wav(chirps(22050, 2), 22050))
    assert explorer.status.value == "" and "<audio" in explorer.shown.value
    explorer.method.value = "saliency"
    explorer.area.value = 35
    state = explorer.live["mel_db"]
    before = state.explanation
    explorer.area.value = 40
    assert state.explanation is before
    entry = explorer._live_entry()
    assert float(entry.mask.mean()) == pytest.approx(0.4, abs=1e-4)
    kept_values, removed_values = entry.attribution[entry.mask == 1], entry.attribution[entry.mask == 0]
    assert kept_values.min() >= removed_values.max()
    with torch.no_grad():
        kept = apply_mask(entry.db, entry.mask)[0]
        p = classifier.model(kept).softmax(1)[0]
    assert entry.probabilities["kept"] == (CLASSES[int(p.argmax())], pytest.approx(float(p.max()), abs=1e-6))
    assert len(entry.kept) == len(entry.removed) == 160000


def test_bad_upload_is_one_line_and_the_picture_stays(classifier):
    explorer = widgets.explorer(classifier=classifier)
    explorer.upload.value = upload("good.wav", wav(chirps(16000, 2), 16000))
    shown = explorer.shown.value
    explorer.upload.value = upload("bad.wav", b"this is not a sound")
    assert (
        "bad.wav" in explorer.status.value
        and "\n" not in explorer.status.value
        and "/tmp" not in explorer.status.value
    )
    assert explorer.shown.value == shown


def test_explorer_of_nothing_is_refused():
    with pytest.raises(ValueError, match="needs entries, settings or a classifier"):
        widgets.explorer()
