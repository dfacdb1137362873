"""Players in HTML: the sound they hold, silence, and words that are text."""

import base64
import io
import re

import numpy as np
import pytest
import soundfile
from gallery_entries import chirps

from audioxai_utils.gallery.players import matched_cuts, player_html, players_html


def test_a_player_holds_its_sound():
    html = player_html(chirps(22050, 1, seconds=2.0), 22050, "a bird")
    data = re.search(r'src="data:audio/mpeg;base64,([^"]+)"', html)[1]
    sound, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert rate == 22050 and len(sound) == pytest.approx(44100, abs=1152) and html.startswith("<p>a bird<br>")


def test_silence_is_said_and_words_are_text():
    assert player_html(np.zeros(1000), 22050, "nothing") == "<p>nothing<br>silent</p>"
    assert player_html(np.zeros(1000), 22050, "<b>") == "<p>&lt;b&gt;<br>silent</p>"
    assert players_html({"a": np.zeros(9), "b": chirps(8000, 1)}, 8000).count("<p>") == 2


def test_no_sound_is_turned_down_further_than_one_click_can_ask():
    assert matched_cuts({"a": -20.0, "b": -23.0}) == {"a": -3.0, "b": 0.0}
    assert matched_cuts({"a": -20.0, "b": -60.0}) == {"a": -12.0, "b": 0.0}
