"""Players that a notebook shows."""

import numpy as np

from audioxai_utils.audio import encoding


def test_players_stand_side_by_side_under_their_escaped_names():
    tone = 0.5 * np.sin(np.arange(16000))
    page = encoding.players_html({"<b>dog": tone, "silence": 0 * tone}, 16000)
    assert page.count("<audio") == 1 and "&lt;b&gt;dog" in page and "<b>" not in page
    assert page.index("dog") < page.index("silence<br>silent") and "flex" in page
