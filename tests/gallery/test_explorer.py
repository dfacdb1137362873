"""The explorer: prepared entries, live explanations, one's own file, and its view without a kernel."""

from __future__ import annotations

import copy
import dataclasses
import io
import re
import types

import any_models
import numpy as np
import pytest
import soundfile
import tiny_study
import torch
from browser import Visit, chromium, needs_browser
from gallery_entries import CLASSES, chirps, entries
from torch import nn

from audioxai_utils import explanation
from audioxai_utils.attributions import METHODS
from audioxai_utils.audio.datasets import load_noise
from audioxai_utils.audio.spectrograms import get_spectrogram
from audioxai_utils.constants import STUDY_METRICS
from audioxai_utils.explanation import explain
from audioxai_utils.gallery import cards, explorer
from audioxai_utils.gallery.entries import PARTS
from audioxai_utils.words import SCENARIO_LABELS


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
    controls = explorer.explorer(prepared)
    assert len(controls.choices["clip"].options) == 2
    controls.choices["method"].value = "LIME"
    controls.choices["mask"].value = "topK_5"
    controls.choices["clip"].value = controls.choices["clip"].options[1]
    assert (controls.chosen.clip, controls.chosen.method, controls.chosen.mask_name) == (
        "5-1001-A-1",
        "lime",
        "topK_5",
    )
    assert "LIME, topK_5" in controls.shown.value and "5-1001-A-1" in controls.shown.value


def test_page_without_a_kernel_shows_entries_with_players(prepared):
    bundle = explorer.explorer(prepared)._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert "application/vnd.jupyter.widget-view+json" in data
    shown = data["text/html"].count('class="card"')
    assert 4 <= shown <= cards.N_STATIC == 6 < len(prepared)
    assert data["text/html"].count("<audio") == 3 * shown
    assert data["text/html"].count("<img") == 4 * shown
    assert len(data["text/html"]) < cards.STATIC_SIZE + 1000


@pytest.fixture(scope="module")
def grid():
    """Two clips in two scenes by the four methods of the study, one mask each."""
    return list(entries(2, conditions=(("mel_db", "clean"), ("mel_db", "white")), mask_names=("bin",)))


def test_scenes_methods_and_masks_are_offered(grid, prepared):
    """Whatever combination is chosen is the one that is controls."""
    controls = explorer.explorer([*grid, *prepared])
    boxes = controls.choices
    assert [len(boxes[name].options) for name in ("clip", "condition", "method")] == [2, 2, 4]
    assert [word.split(", ")[1] for word in boxes["condition"].options] == ["clean", "white noise"]
    assert list(boxes["method"].options) == ["Saliency", "Grad-CAM", "LIME", "SHAP"]
    boxes["method"].value = "LIME"
    assert list(boxes["mask"].options) == ["bin", "topK_5"]
    boxes["condition"].value = boxes["condition"].options[1]
    assert list(boxes["mask"].options) == ["bin"]  # of what was prepared in this scene
    for clip in boxes["clip"].options:
        for method in boxes["method"].options:
            boxes["clip"].value, boxes["method"].value = clip, method
            chosen = controls.chosen
            assert (chosen.clip in clip, chosen.noise_scenario, chosen.mask_name) == (True, "white", "bin")
            assert explorer.method_label(chosen.method) == method and chosen.clip in controls.shown.value


def test_a_page_without_a_kernel_shows_six_that_differ(grid):
    shown = cards.static_entries(grid)
    assert len(shown) == 6 and len({entry.name for entry in shown}) == 6
    assert len({e.clip for e in shown}) == len({e.noise_scenario for e in shown}) == 2
    assert len({e.method for e in shown}) == 4
    assert [grid.index(entry) for entry in shown] == sorted(grid.index(entry) for entry in shown)
    assert cards.static_entries(grid[:3]) == grid[:3]
    bundle = explorer.explorer(grid)._repr_mimebundle_()
    html = (bundle[0] if isinstance(bundle, tuple) else bundle)["text/html"]
    assert html.count('class="card"') >= 4 and html.count("<audio") == 3 * html.count('class="card"')
    assert len(html) < cards.STATIC_SIZE + 1000
    assert cards.cards_html(grid, most=1).count('class="card"') == 1


def test_players_hold_the_sounds_at_their_rate(prepared):
    import base64

    html = cards.entry_html(prepared[0])
    for data in re.findall(r"data:audio/mpeg;base64,([^\"]+)", html):
        sound, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
        assert rate == 32000 and len(sound) == 160000


def test_live_explanation_of_an_uploaded_file(classifier):
    """The kept share is the slider's, probabilities are the model's, and a new slide needs no new
    attribution.
    """
    controls = explorer.explorer(classifier=classifier)
    assert "Drop in" in controls.status.value
    controls.upload.value = upload("mine.wav", wav(chirps(22050, 2), 22050))
    assert (
        re.fullmatch(r"Explained in \d+\.\d s\.", controls.status.value) and "<audio" in controls.shown.value
    )
    assert "mine.wav" in controls.shown.value
    controls.method.value = "saliency"
    controls.area.value = 35
    state = controls.live["mel_db"]
    before = state.explanation
    controls.area.value = 40
    assert state.explanation is before
    entry = controls._live_entry()
    assert float(entry.mask.mean()) == pytest.approx(0.4, abs=1e-4)
    kept_values, removed_values = entry.attribution[entry.mask == 1], entry.attribution[entry.mask == 0]
    assert kept_values.min() >= removed_values.max()
    with torch.no_grad():
        p = classifier.model(classifier.spectrogram(entry.kept[None]).db).softmax(1)[0]
    assert entry.probabilities["kept"] == (CLASSES[int(p.argmax())], pytest.approx(float(p.max()), abs=1e-6))
    assert len(entry.kept) == len(entry.removed) == 160000


def sound_of(controls):
    return controls.live["mel_db"].explanation.waveform.numpy()


def test_logits_that_could_be_probabilities_are_logits_all_the_same(classifier):
    """A study's classifier is asked nothing about its outputs: nobody is there to answer."""
    small = copy.deepcopy(classifier.model)
    with torch.no_grad():
        small.linear.weight.mul_(0.1), small.linear.bias.fill_(0.5)
    controls = explorer.explorer(
        classifier=types.SimpleNamespace(model=small, spectrogram=classifier.spectrogram, classes=CLASSES)
    )
    controls.upload.value = upload("mine.wav", wav(chirps(32000, 3), 32000))
    assert "Explained in" in controls.status.value, controls.status.value
    with torch.no_grad():
        logits = small(classifier.spectrogram(torch.from_numpy(sound_of(controls))[None]).db)
    assert float(logits.min()) > 0 and float(logits.max()) < 1
    torch.testing.assert_close(controls.live["mel_db"].explanation.probabilities, logits.softmax(1)[0])


@pytest.mark.parametrize("method", ["saliency", "gradcam"])
def test_live_explanations_can_be_heard(classifier, method):
    """The attribution is the method's own on this clip, the sound is the inversion of what the mask keeps."""
    controls = explorer.explorer(classifier=classifier)
    controls.upload.value = upload("mine.wav", wav(chirps(32000, 3), 32000))
    controls.method.value = method
    entry = controls._live_entry()
    print(method, controls.status.value)
    assert entry.method == method and "Explained in" in controls.status.value
    assert 0 < float(entry.kept.square().mean()) < 1 and 0 < float(entry.removed.square().mean()) < 1
    db = torch.from_numpy(chirps(32000, 3))[None]
    expected = METHODS[method](
        classifier.model,
        classifier.spectrogram(db).db,
        torch.tensor([controls.live["mel_db"].explanation.target]),
    )
    torch.testing.assert_close(entry.attribution, expected, rtol=1e-3, atol=1e-6)
    batch = classifier.spectrogram(db)
    power = batch.power * entry.mask
    torch.testing.assert_close(
        entry.kept, classifier.spectrogram.invert(power, batch.phase, 160000)[0], rtol=0, atol=3e-3
    )  # 16-bit file


def test_the_mask_that_is_shown_is_scored_and_no_other(classifier):
    """The others would take most of the time until one hears something; the one shown is what `explain`
    makes.
    """
    controls = explorer.explorer(classifier=classifier)
    controls.upload.value = upload("mine.wav", wav(chirps(32000, 3), 32000))
    whole = explain(classifier.model, sound_of(controls), 32000, spectrogram="mel_db", method="gradcam")
    for name in ("topK_30_pos", "sigmoid"):
        controls.mask.value = name
        entry = controls._live_entry()
        torch.testing.assert_close(entry.mask, whole.masks[name])
        assert entry.scores == pytest.approx(
            whole.scores.loc[name, list(STUDY_METRICS)].to_dict(), nan_ok=True
        )
    assert len(controls.live["mel_db"].explanation.scores) == 1


@pytest.mark.parametrize(
    ("kind", "first"),
    [("multi-label logits", "gradcam"), ("waveform (B, N)", "saliency"), ("function", "lime")],
)
def test_any_classifier_is_explained_live(kind, first, monkeypatch):
    """Of pictures, of waveforms, a black box: what is shown is what ``explain`` scores."""
    own, explained = any_models.make(kind), explorer.explain
    few = {"n_samples": 20} if first == "lime" else {}
    monkeypatch.setattr(explorer, "explain", lambda *given, **named: explained(*given, **named, **few))
    controls = explorer.explorer(classifier=own)
    assert controls.method.value == first
    controls.mask.value = "topK_30"
    controls.upload.value = upload("mine.wav", wav(chirps(32000, 2), 32000))
    assert "Explained in" in controls.status.value, controls.status.value
    entry, sound = controls._live_entry(), next(iter(controls.live.values())).explanation.waveform
    whole = explain(own, sound, own.sample_rate, method=first, masks=["topK_30"], **few)
    expected = whole.scores.loc["topK_30", list(STUDY_METRICS)].to_dict()
    assert entry.scores == pytest.approx(expected, nan_ok=True)
    assert entry.category == f"heard as {whole.target_name}"
    assert entry.probabilities["original"][1] == pytest.approx(float(whole.probabilities.max()))


def test_a_gradient_is_proved_once_and_not_again_where_training_has(classifier, tmp_path, monkeypatch):
    proved = []
    monkeypatch.setattr(explanation, "gradient_check", lambda model, *_: proved.append(model))
    controls = explorer.explorer(classifier=classifier)
    controls.upload.value = upload("mine.wav", wav(chirps(32000, 3), 32000))
    controls.method.value = "saliency"
    assert [scores.net for scores in proved] == [classifier.model]
    study_s = explorer.explorer(study=tiny_study.make(tmp_path))
    assert "Explained in" in study_s.status.value and len(proved) == 1


def test_a_stereo_file_at_another_rate_is_prepared_as_the_study_does(classifier):
    """Channel mean, 32 kHz, 5 s, peak 1: two tones whose mean is known after resampling."""
    time, wanted = np.arange(2 * 44100) / 44100, np.arange(2 * 32000) / 32000
    left, right = 0.3 * np.sin(2 * np.pi * 500 * time), 0.1 * np.sin(2 * np.pi * 1500 * time)
    controls = explorer.explorer(classifier=classifier)
    controls.upload.value = upload("stereo.wav", wav(np.stack([left, right], axis=1), 44100))
    found = sound_of(controls)
    expected = 3 * np.sin(2 * np.pi * 500 * wanted) + np.sin(2 * np.pi * 1500 * wanted)
    inner = slice(1000, 63000)  # away from the ends, where the resampler sees silence
    np.testing.assert_allclose(found[inner], expected[inner] / np.abs(expected).max(), atol=2e-3)
    assert found.shape == (160000,) and np.abs(found).max() == 1 and not found[64100:].any()


@pytest.mark.parametrize("name, kind", [("a.flac", "FLAC"), ("a.ogg", "OGG"), ("a.mp3", "MP3")])
def test_other_formats_are_read(classifier, name, kind):
    buffer = io.BytesIO()
    sound = chirps(32000, 4)
    soundfile.write(buffer, 0.5 * sound, 32000, format=kind)
    controls = explorer.explorer(classifier=classifier)
    controls.upload.value = upload(name, buffer.getvalue())
    assert "Explained in" in controls.status.value, controls.status.value
    found = sound_of(controls)
    assert found @ sound / np.linalg.norm(found) / np.linalg.norm(sound) > (
        0.99999 if kind == "FLAC" else 0.95
    )


@pytest.mark.parametrize("scene", ["white", "room", "horse"])
def test_a_live_scene_mixes_its_noise_in(classifier, scene):
    controls = explorer.explorer(classifier=classifier)
    clip = chirps(32000, 5)
    controls.upload.value = upload("mine.wav", wav(clip, 32000))
    before = sound_of(controls)
    assert [value for _, value in controls.scene.options] == ["clean", "white", "room", "horse"]
    controls.scene.value = scene
    noise = load_noise(scene, 32000).numpy().astype(float)
    mixture = 0.6 * before / np.sqrt(np.mean(before**2)) + 0.4 * noise / np.sqrt(np.mean(noise**2))
    np.testing.assert_allclose(sound_of(controls), mixture / np.abs(mixture).max(), atol=1e-4)
    assert controls._live_entry().noise_scenario == scene and SCENARIO_LABELS[scene] in controls.shown.value


def test_a_silent_file_is_explained_and_said_to_be_silent(classifier):
    controls = explorer.explorer(classifier=classifier)
    controls.upload.value = upload("silence.wav", wav(np.zeros(32000), 32000))
    assert "Explained in" in controls.status.value, controls.status.value
    assert controls.shown.value.count("<br>silent") == 3 and "<audio" not in controls.shown.value


def test_a_study_s_clips_are_explained_live(tmp_path):
    """Test clips of a finished study, by its own classifier, with the background that SHAP needs."""
    controls = explorer.explorer(study=tiny_study.make(tmp_path))
    assert list(controls.clip.options) == [
        f"{word} (5-{i}-A-{i})" for i, word in enumerate(tiny_study.CATEGORIES)
    ] + [explorer.OWN_FILE]
    assert list(controls.kind.options) == ["mel_db"]
    controls.method.value = "shap"
    assert "Explained in" in controls.status.value and "SHAP" in controls.shown.value, controls.status.value
    controls.clip.value = controls.clip.options[2]
    assert "5-2-A-2" in controls.shown.value and "5-0-A-0" not in controls.shown.value


def test_bad_upload_is_one_line_and_the_picture_stays(classifier):
    controls = explorer.explorer(classifier=classifier)
    controls.upload.value = upload("good.wav", wav(chirps(16000, 2), 16000))
    shown = controls.shown.value
    controls.upload.value = upload("bad.wav", b"this is not a sound")
    assert (
        "bad.wav" in controls.status.value
        and "\n" not in controls.status.value
        and "/tmp" not in controls.status.value
    )
    assert controls.shown.value == shown


UPLOAD_PAGE = """<div class="audioxai-explorer">
<div class="audioxai-status"><div class="widget-html-content"></div></div>
<button class="widget-upload">Drop in a file</button></div><script>
  const input = document.createElement("input");  // as in ipywidgets: never in the page, met by click() alone
  input.type = "file"; window.received = [];
  input.addEventListener("change", () => window.received.push(...[...input.files].map(file => file.name)));
  document.querySelector("button").onclick = () => { input.value = ""; input.click(); };
</script>"""


@needs_browser
def test_a_file_that_is_too_large_is_refused_in_words_before_it_is_read(tmp_path):
    """By the button and by dropping; one that fits arrives either way, also after one that did not."""
    script = explorer.explorer(
        classifier=types.SimpleNamespace(
            model=torch.nn.Identity(), spectrogram=get_spectrogram("mel_db"), classes=()
        )
    )
    text = script.children[-1].outputs[0]["data"]["application/javascript"]
    (tmp_path / "page.html").write_text(UPLOAD_PAGE + f"<script>{text}</script>", encoding="utf-8")
    small, large = (tmp_path / "small.wav", tmp_path / "large.wav")
    small.write_bytes(bytes(10))
    large.write_bytes(bytes(explorer.LARGEST_UPLOAD + 1))
    with chromium() as browser:
        visit = Visit(browser)
        page = visit.open(tmp_path / "page.html")
        for path in (large, small):
            with page.expect_file_chooser() as chooser:
                page.click("button")
            chooser.value.set_files(path)
            page.wait_for_timeout(100)
        assert page.evaluate("window.received") == ["small.wav"]
        assert (
            page.inner_text(".audioxai-status")
            == "large.wav is too large: at most 10.0 MB can be explained here."
        )
        page.evaluate(f"""() => {{ for (const size of [{explorer.LARGEST_UPLOAD + 1}, 10]) {{
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(size)], `dropped-${{size}}.wav`));
          const drop = new DragEvent("drop", {{ dataTransfer: files, bubbles: true }});
          document.querySelector("button").dispatchEvent(drop);
        }} }}""")
        assert page.evaluate("window.received") == ["small.wav", "dropped-10.wav"]
        assert visit.faults == []
        visit.close()


def test_the_limit_is_said_before_a_file_is_chosen(classifier):
    assert "up to 10.0 MB" in explorer.explorer(classifier=classifier).status.value


def test_names_are_text(prepared):
    name = "<script>alert(1)</script>"
    entry = dataclasses.replace(
        prepared[0],
        clip=name,
        category=name,
        noise_scenario=name,
        probabilities=dict.fromkeys(PARTS, (name, 0.5)),
    )
    assert "<script>" not in cards.entry_html(entry) and cards.entry_html(entry).count("&lt;script&gt;") == 6


def test_explorer_of_nothing_is_refused():
    with pytest.raises(ValueError, match="needs entries, a study or a classifier"):
        explorer.explorer()
