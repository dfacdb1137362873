"""The gallery: its sounds, its data, its page in a real browser, and what it refuses."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import re

import numpy as np
import pytest
import soundfile
from browser import WIDTHS, Visit, chromium, needs_browser
from gallery_entries import chirps, entries

from audioxai_utils.audio import encoding
from audioxai_utils.constants import MASK_NAMES, STUDY_METHODS, STUDY_METRICS
from audioxai_utils.figures import pictures
from audioxai_utils.figures.style import axes_of
from audioxai_utils.gallery import players
from audioxai_utils.gallery.entries import PARTS
from audioxai_utils.gallery.html import whole_directory
from audioxai_utils.gallery.listening_gallery import write_gallery

N_ENTRIES = 2 * 2 * 4 + len(MASK_NAMES) - 1  # what the fixture writes


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """A gallery of two conditions, four methods, and all masks of one method on one clip."""
    folder = tmp_path_factory.mktemp("report") / "gallery"
    some = entries(2, conditions=(("stft_db", "clean"), ("mel_db", "white")))
    others = [name for name in MASK_NAMES if name != "topK_30_pos"]
    more = entries(1, conditions=(("mel_db", "white"),), methods=("shap",), mask_names=others)
    report = write_gallery(itertools.chain(some, more), folder, links=(("../index.html", "Report"),))
    return folder, report


def data_of(folder) -> dict:
    text = (folder / "assets" / "gallery-data.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix("window.AUDIOXAI_GALLERY=").removesuffix(";\n"))


# Sounds


def test_loudness_of_the_standards_reference_sine():
    """BS.1770: a 997 Hz sine at full scale in one channel measures -3.01 LUFS (here within 0.1)."""
    for sample_rate in (16000, 32000, 48000):
        time = np.arange(5 * sample_rate) / sample_rate
        sine = np.sin(2 * np.pi * 997 * time)
        assert encoding.loudness(sine, sample_rate) == pytest.approx(-3.01, abs=0.1)
        assert encoding.loudness(sine / 10, sample_rate) == pytest.approx(-23.01, abs=0.1)


def test_loudness_is_that_of_the_standards_filters():
    """Stationary noise at 48 kHz through the two filters as BS.1770-5 prints them (tables 1 and 2), without
    gates.
    """
    from scipy.signal import lfilter

    noise = 0.1 * np.random.default_rng(0).standard_normal(10 * 48000)
    shelf = (
        [1.53512485958697, -2.69169618940638, 1.19839281085285],
        [1, -1.69065929318241, 0.73248077421585],
    )
    high_pass = ([1.0, -2.0, 1.0], [1, -1.99004745483398, 0.99007225036621])
    expected = -0.691 + 10 * np.log10(np.mean(lfilter(*high_pass, lfilter(*shelf, noise)) ** 2))
    assert encoding.loudness(noise, 48000) == pytest.approx(expected, abs=0.01)


def test_loudness_of_short_and_of_very_soft_sounds():
    """Shorter than a block, and below the absolute gate: the same figure moved by the level."""
    time = np.arange(5 * 32000) / 32000
    sine = np.sin(2 * np.pi * 997 * time)
    assert encoding.loudness(sine[:6400], 32000) == pytest.approx(-3.01, abs=0.2)
    assert encoding.loudness(1e-4 * sine, 32000) == pytest.approx(-83.01, abs=0.1)


def test_loudness_of_a_sound_that_lies_behind_the_last_whole_block():
    sound = np.zeros(6000)  # 0.75 s: blocks end at 0.7 s
    sound[5700:] = np.sin(2 * np.pi * 1000 * np.arange(300) / 8000)
    whole = encoding.loudness(sound, 8000)
    assert whole == pytest.approx(-3.01 + 10 * np.log10(300 / 6000), abs=0.5)
    assert encoding.loudness(1e-3 * sound, 8000) == pytest.approx(whole - 60, abs=1e-6)
    assert np.isfinite(encoding.store(sound, 8000).loudness)


def test_loudness_ignores_pauses_and_weights_rumble_down():
    sample_rate = 16000
    time = np.arange(4 * sample_rate) / sample_rate
    sine = np.sin(2 * np.pi * 997 * time)
    with_pause = np.concatenate([sine, np.zeros(8 * sample_rate)])
    assert encoding.loudness(with_pause, sample_rate) == pytest.approx(
        encoding.loudness(sine, sample_rate), abs=0.5
    )
    assert (
        encoding.loudness(np.sin(2 * np.pi * 25 * time), sample_rate)
        < encoding.loudness(sine, sample_rate) - 8
    )
    assert encoding.loudness(np.zeros(sample_rate), sample_rate) == -np.inf


@pytest.mark.parametrize("sample_rate", [16000, 32000])
@pytest.mark.parametrize("level", [1.0, 0.01])
def test_stored_sound_keeps_rate_duration_and_level(sample_rate, level):
    """Decoded again: exact rate, exact number of samples, loudness within 0.5 dB, no clipping."""
    waveform = level * chirps(sample_rate, seed=3)
    stored = encoding.store(waveform, sample_rate)
    decoded, rate = soundfile.read(io.BytesIO(stored.data))
    assert rate == sample_rate
    assert abs(len(decoded) - len(waveform)) <= 1152  # at most one MP3 frame; libsndfile gives 0
    assert np.abs(decoded).max() <= 1
    assert encoding.loudness(decoded, rate) == pytest.approx(stored.loudness, abs=0.5)
    assert stored.loudness == pytest.approx(encoding.loudness(waveform, sample_rate) + stored.gain, abs=0.01)
    size = min(len(decoded), len(waveform))
    similarity = np.corrcoef(decoded[:size], waveform[:size])[0, 1]
    assert similarity > 0.98  # the same sound at the same time


def test_silence_is_not_stored_and_bad_sounds_are_refused():
    assert encoding.store(np.zeros(16000), 16000).data == b""
    with pytest.raises(ValueError, match="sample_rate must be one of MP3"):
        encoding.store(np.ones(100), 44000)
    with pytest.raises(ValueError, match="finite"):
        encoding.store(np.array([0.1, np.nan]), 16000)


def test_playback_volumes_match_loudness_or_keep_true_levels():
    waveform = chirps(16000, seed=1)
    stored = {
        "original": encoding.store(waveform, 16000),
        "kept": encoding.store(waveform / 4, 16000),
        "removed": encoding.store(np.zeros(16000), 16000),
    }
    volumes = players.playback_volumes(stored)
    assert set(volumes) == {"original", "kept"}
    heard = {
        name: stored[name].loudness + 20 * np.log10(volume["matched"]) for name, volume in volumes.items()
    }
    assert heard["original"] == pytest.approx(heard["kept"], abs=0.05)
    true = {name: volume["true"] * 10 ** (stored[name].gain / 20) for name, volume in volumes.items()}
    assert true["original"] == pytest.approx(true["kept"], rel=1e-3)  # both files undo their gain alike
    assert volumes["kept"]["gain"] == pytest.approx(20 * np.log10(4), abs=0.05)
    assert volumes["original"]["gain"] == 0
    assert all(0 < volume[key] <= 1 for volume in volumes.values() for key in ("matched", "true"))


# Pictures and axes


def test_pictures_show_each_bin_at_its_place():
    from PIL import Image

    db = np.full((64, 501), -100.0)
    db[5, 100] = 45.0
    picture = np.asarray(
        Image.open(io.BytesIO(pictures.encode(pictures.level_picture(db), None))).convert("RGB")
    )
    assert picture.shape == (64, 501, 3)
    row, column = np.unravel_index(picture.astype(int).sum(2).argmax(), (64, 501))
    assert (63 - row, column) == (5, 100)  # the lowest frequency is the lowest row
    axes = axes_of("mel_db", 501)
    centre = (100 + 0.5) / 501
    assert pictures.time_share(axes, 100 * 320 / 32000) == pytest.approx(centre, abs=1e-9)


def test_masked_picture_is_what_is_scored():
    import torch

    from audioxai_utils.evaluation.masks import apply_mask

    rng = np.random.default_rng(0)
    db, mask = rng.uniform(-100, 40, (8, 9)), rng.random((8, 9))
    kept, removed = apply_mask(torch.from_numpy(db)[None, None], torch.from_numpy(mask)[None, None])
    np.testing.assert_allclose(pictures.masked_db(db, mask), kept[0, 0].numpy(), atol=1e-9)
    np.testing.assert_allclose(pictures.masked_db(db, 1 - mask), removed[0, 0].numpy(), atol=1e-9)


# The folder


def test_every_entry_is_there_with_its_files(gallery):
    folder, report = gallery
    data = data_of(folder)
    assert len(data["entries"]) == report["entries"] == N_ENTRIES
    named = set()
    binary = {entry["mask"] for entry in data["entries"] if "kept" not in entry["layers"]}
    assert binary == {name for name in MASK_NAMES if not name.startswith(("minmax", "sigmoid"))}
    for entry in data["entries"]:
        named |= set(entry["layers"].values()) | {sound["file"] for sound in entry["sounds"] if sound["file"]}
        assert [sound["part"] for sound in entry["sounds"]] == list(PARTS)
        assert set(entry["scores"]) == set(STUDY_METRICS)
    there = {path.name for path in (folder / "assets").iterdir()}
    assert there == named | {"gallery-data.js", "gallery.js", "style.css"}  # nothing missing, nothing idle


def test_data_round_trip(gallery):
    """The page's data say what the entries said."""
    folder, _ = gallery
    by_name = {entry["id"]: entry for entry in data_of(folder)["entries"]}
    for entry in entries(1, conditions=(("mel_db", "white"),)):
        record = by_name[entry.name]
        assert record["area"] == pytest.approx(float(entry.mask.double().mean()), abs=1e-5)
        for metric in STUDY_METRICS:
            assert record["scores"][metric] == pytest.approx(entry.scores[metric], abs=1e-5)
        for sound in record["sounds"]:
            assert (sound["class"], sound["p"]) == (
                entry.probabilities[sound["part"]][0],
                pytest.approx(entry.probabilities[sound["part"]][1], abs=1e-5),
            )


def test_undefined_scores_become_null(gallery):
    folder, _ = gallery
    values = {entry["mask"]: entry["scores"]["COMP"] for entry in data_of(folder)["entries"]}
    assert values["pos_thresh_75"] is None and values["bin"] is not None


def test_sounds_on_disk_have_the_right_rate_and_duration(gallery):
    folder, _ = gallery
    for entry in data_of(folder)["entries"]:
        for sound in entry["sounds"]:
            if sound["file"]:
                found = soundfile.info(folder / "assets" / sound["file"])
                assert found.samplerate == (16000 if entry["spectrogram"] == "stft_db" else 32000)
                assert found.duration == pytest.approx(5.0, abs=0.075)  # one MP3 frame at 16 kHz is 72 ms
                assert sound["seconds"] == 5.0


def test_originals_and_spectrograms_are_stored_once(gallery):
    folder, _ = gallery
    for scene in (("5-1000-A-0", "mel_db"), ("5-1001-A-1", "stft_db")):
        same = [e for e in data_of(folder)["entries"] if (e["clip"], e["spectrogram"]) == scene]
        assert len(same) >= 4
        assert len({entry["sounds"][0]["file"] for entry in same}) == 1
        assert len({entry["layers"]["spectrogram"] for entry in same}) == 1


def test_size_and_no_address_outside(gallery):
    folder, report = gallery
    assert report["bytes"] < 75e3 * report["entries"]  # so 30 MB hold 400, though half of these are noisy
    assert (folder / "index.html").stat().st_size < 2e5
    for path in (
        *folder.glob("*.html"),
        *(folder / "assets").glob("*.js"),
        *(folder / "assets").glob("*.css"),
    ):
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", text), path.name


def test_bad_entries_leave_the_old_gallery_alone(tmp_path):
    good = next(iter(entries(1)))
    folder = tmp_path / "gallery"
    write_gallery([good], folder)
    before = sorted(path.name for path in folder.rglob("*"))
    cases = {
        "at least one": [],
        "more than once": [good, good],
        "must have one shape": [dataclasses.replace(good, mask=good.mask[..., :-1])],
        "probabilities must have": [dataclasses.replace(good, probabilities={"original": ("dog", 1.0)})],
    }
    for message, some in cases.items():
        with pytest.raises(ValueError, match=message):
            write_gallery(some, folder)
    assert sorted(path.name for path in folder.rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["gallery"]


def test_whole_directory_keeps_the_old_one_after_an_error(tmp_path):
    with whole_directory(tmp_path / "a") as folder:
        (folder / "one").write_text("1")
    with pytest.raises(RuntimeError), whole_directory(tmp_path / "a") as folder:
        (folder / "two").write_text("2")
        raise RuntimeError
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["one"]
    with whole_directory(tmp_path / "a") as folder:
        (folder / "two").write_text("2")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["two"]
    assert len(list(tmp_path.iterdir())) == 1


# The page in a browser

LOAD_ALL = """async () => {
  const found = [];
  for (const audio of document.querySelectorAll("audio")) {
    audio.preload = "auto"; audio.load();
    await new Promise((resolve) => { audio.oncanplaythrough = resolve; audio.onerror = resolve; });
    found.push([audio.readyState, audio.duration, Number(audio.dataset.seconds)]);
  }
  return found;
}"""


@needs_browser
def test_page_in_a_browser_without_network(gallery, tmp_path):
    """Paints within a second; every player loads; filters, addresses, keys and seeking work."""
    folder, _ = gallery
    with chromium() as browser:
        visit = Visit(browser)
        page = visit.open(folder / "index.html")
        assert visit.first_paint() < 1000
        assert page.inner_text("#summary").startswith(f"{N_ENTRIES} explanations")
        players = page.evaluate(LOAD_ALL)
        assert len(players) >= 30
        assert all(state == 4 and abs(duration - seconds) < 0.08 for state, duration, seconds in players)
        check_filters(page, folder)
        check_playing(page)
        assert visit.faults == [] and visit.outside == []
        visit.close()
        check_widths(browser, folder, tmp_path)
        check_without_javascript(browser, folder)


def check_filters(page, folder):
    """Every choice is in the address, and the address alone brings the same cards back."""
    page.select_option("#filter-method", "lime")
    page.select_option("#filter-spectrogram", "mel_db")
    page.wait_for_function("document.querySelector('#summary').textContent.startsWith('2 ')")
    expected = [
        e["id"] for e in data_of(folder)["entries"] if (e["method"], e["spectrogram"]) == ("lime", "mel_db")
    ]
    cards = "[...document.querySelectorAll('article')].map(card => card.dataset.id)"
    assert page.evaluate(cards) == expected
    assert "method=lime" in page.url and "spectrogram=mel_db" in page.url
    page.reload()
    assert page.evaluate(cards) == expected
    page.evaluate("location.hash = '#view=masks'")
    page.wait_for_function(f"document.querySelectorAll('article').length === {len(MASK_NAMES)}")
    page.evaluate("location.hash = '#view=methods&layer=mask'")
    page.wait_for_function(f"document.querySelectorAll('article').length === {len(STUDY_METHODS)}")
    shown = page.evaluate(
        "[...document.querySelectorAll('article:first-child img')]"
        ".filter(image => image.offsetParent).map(image => image.className)"
    )
    assert shown == ["layer layer-mask"]
    page.go_back()
    page.wait_for_function(f"document.querySelectorAll('article').length === {len(MASK_NAMES)}")


def check_playing(page):
    """Playing moves the playhead to the right place; one sound at a time; keys and clicks seek."""
    page.evaluate("location.hash = '#method=gradcam'")
    page.wait_for_function("document.querySelector('article').dataset.id.includes('gradcam')")
    playing = "[...document.querySelectorAll('audio')].filter(audio => !audio.paused).length"
    now = "document.querySelector('article:first-child .picture').getAttribute('aria-valuenow')"
    page.click("article:first-child [data-part=kept]")
    page.wait_for_function(f"Number({now}) > 0.3")
    page.keyboard.press("o")
    page.wait_for_function(
        "document.querySelector('[data-part=original]').getAttribute('aria-pressed') === 'true'"
    )
    assert page.evaluate(playing) == 1
    page.keyboard.press("o")
    page.wait_for_function(f"{playing} === 0")
    box = page.locator("article:first-child .picture").bounding_box()
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 30)
    page.wait_for_function(f"{playing} === 1")
    page.keyboard.press(" ")
    page.wait_for_function(f"{playing} === 0")
    assert float(page.evaluate(now)) == pytest.approx(2.5, abs=0.4)
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert float(page.evaluate(now)) == pytest.approx(0.1, abs=1e-6)
    head = page.evaluate("parseFloat(document.querySelector('article:first-child .playhead').style.left)")
    axes = axes_of("stft_db", 313)
    assert head == pytest.approx(100 * (0.1 - axes.start) / (axes.end - axes.start), abs=0.01)
    page.keyboard.press("l")
    page.wait_for_function("location.hash.includes('level=true')")


def check_widths(browser, folder, pictures_to):
    """No sideways scrolling from 360 to 1920 px; nothing serious for axe-core on small screens, light and
    dark.
    """
    for width, scheme in zip(WIDTHS, ("light", "dark", "light", "dark")):
        visit = Visit(browser, width, color_scheme=scheme)
        page = visit.open(folder / "index.html", "#view=methods")
        page.wait_for_selector("article")
        page.screenshot(path=pictures_to / f"gallery-{width}-{scheme}.png", full_page=True)
        assert visit.overflow() == 0
        assert width > WIDTHS[1] or visit.serious_faults() == []
        assert visit.faults == []
        visit.close()


def check_without_javascript(browser, folder):
    visit = Visit(browser, java_script_enabled=False)
    page = visit.open(folder / "index.html")
    assert page.locator("article.card").count() >= 16
    assert page.locator("article audio[controls]").count() >= 40
    visit.close()
