"""Notebook 06 in a real JupyterLab and a real browser: its explorer is used as a person would."""

from __future__ import annotations

import base64
import dataclasses
import io
import os
import socket
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
import soundfile
import tiny_study
from browser import Visit, chromium, needs_browser
from gallery_entries import chirps

from audioxai_utils import constants
from audioxai_utils.evaluation import tables
from audioxai_utils.gallery.explorer import BY_AREA, OWN_FILE
from audioxai_utils.run import watch
from audioxai_utils.study.settings import remember_latest
from audioxai_utils.study.study import Study

pytestmark = [needs_browser, pytest.mark.timeout(900)]
NOTEBOOK = "06_listening_gallery.ipynb"
METHODS = ("saliency", "gradcam")
WAIT = 120  # seconds for any one thing, on a machine that is busy with others
PLAYERS = "[...document.querySelectorAll('.audioxai audio')]"  # original, kept, removed
HEARD = f"""before => {{
    const refusal = document.querySelector('.audioxai-status b');
    if (refusal) throw new Error(refusal.innerText);
    const players = {PLAYERS}, kept = players[1];
    if (players.length !== 3 || kept.src === before) return false;
    if (kept.paused) kept.play();
    return kept.currentTime > 0 && players.every(player => player.readyState === 4);
}}"""


# The study and the server


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of three tones up to its best masks, with an untrained classifier of the quick study's size."""
    folder = tmp_path_factory.mktemp("study")
    made = tiny_study.make(folder, profile="quick", seconds=constants.DURATION)
    chosen = dataclasses.replace(
        made.settings, methods=METHODS, protocol="paper", spectrograms=("mel_db",), scenarios=("clean",)
    )
    chosen.write()
    made = Study(chosen)
    for method in METHODS:
        made.main_condition.attribute(method)
    made.save("best_masks", tables.best_masks(tables.summarise(made.main_condition.score_all())))
    return made


def write_notebook(folder: Path) -> None:
    """Notebook 06 as it is, not run: with nothing set, it opens the run that was started last."""
    notebook = nbformat.read(constants.REPOSITORY / "notebooks" / NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, folder / NOTEBOOK)


@contextmanager
def jupyterlab(folder: Path, results_parent: Path):
    """Address of a server that offers ``folder``; neither it nor its kernels outlive the test.

    ``results_parent`` is where its kernels look for runs.
    """
    state, log = folder.parent / "jupyter", folder.parent / "jupyterlab.log"
    do_not_ask(state / "config")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-P",
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        f"--ServerApp.root_dir={folder}",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=",
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.extension_manager=readonly",
    ]
    environment = os.environ | {"IPYTHONDIR": str(state / "ipython"), "AUDIOXAI_RESULTS": str(results_parent)}
    environment |= {"PYTHONPATH": str(constants.REPOSITORY)}
    environment.pop("AUDIOXAI_RUN", None)
    environment |= {
        f"JUPYTER_{name.upper()}_DIR": str(state / name) for name in ("config", "data", "runtime")
    }
    with open(log, "w", encoding="utf-8") as file:
        server = psutil.Popen(watch.bound(command), env=environment, cwd=folder, stdout=file, stderr=file)
    try:
        wait_for(port, server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        family = [server, *(server.children(recursive=True) if server.is_running() else [])]
        server.terminate()
        left = psutil.wait_procs(family, timeout=WAIT)[1]
        for process in left:
            process.kill()
    assert left == []


def do_not_ask(config_folder: Path) -> None:
    """JupyterLab offers news in a box over the page, and looks for updates on the network."""
    folder = config_folder / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    folder.mkdir(parents=True)
    answers = '{"fetchNews": "false", "checkForUpdates": false}'
    (folder / "notification.jupyterlab-settings").write_text(answers, encoding="utf-8")


def wait_for(port: int, server, log: Path) -> None:
    """Return when the server takes connections."""
    end = time.monotonic() + WAIT
    while True:
        assert server.poll() is None and time.monotonic() < end, log.read_text(encoding="utf-8")[-3000:]
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


def run_notebook(page, address: str) -> None:
    """Open the notebook by its address, wait for its kernel, run all cells and scroll to the explorer."""
    page.set_default_timeout(1000 * WAIT)
    page.goto(f"{address}/lab/tree/{NOTEBOOK}?reset")
    page.wait_for_function("window.jupyterapp")
    page.evaluate("jupyterapp.restored.then(() => true)")
    page.wait_for_function(
        "jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    )
    ran = page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    assert ran, page.locator(".jp-OutputArea").all_inner_texts()
    page.locator(".widget-tab").scroll_into_view_if_needed()


# The explorer


class Hand:
    """Works the controls that are seen, and waits each time until a new kept sound is heard."""

    def __init__(self, page, folder: Path) -> None:
        self.page, self.folder, self.seconds = page, folder, {}

    def does(self, name: str, act) -> None:
        before = self.sounds()[1]
        started = time.perf_counter()
        try:
            act()
            self.page.wait_for_function(HEARD, arg=before)
            self.seconds[name] = time.perf_counter() - started
        finally:
            self.page.screenshot(path=self.folder / f"{name}.png")
        durations = self.page.evaluate(f"{PLAYERS}.map(player => player.duration)")
        assert durations == pytest.approx([constants.DURATION] * 3, abs=0.1)

    def sounds(self) -> list[str]:
        return self.page.evaluate(f"{PLAYERS}.map(player => player.src)")

    def said(self) -> str:
        """Title, clip, cell and kept area."""
        return self.page.locator(".audioxai > p").first.inner_text()

    def box(self, label: str):
        return self.page.get_by_label(label, exact=True).locator("visible=true")

    def options(self, label: str) -> list[str]:
        return (
            self.box(label).locator("option").evaluate_all("options => options.map(option => option.value)")
        )

    def opens(self, tab: str) -> None:
        self.does(
            f"{tab} opened", lambda: self.page.locator(".widget-tab .lm-TabBar").get_by_text(tab).click()
        )

    def picks(self, name: str, label: str, option: str) -> None:
        self.does(name, lambda: self.box(label).select_option(option))

    def slides(self, name: str, pixels: int) -> int:
        """Drag the handle; returns the new value."""
        place = self.page.locator(".noUi-handle").bounding_box()
        x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2

        def drag():
            self.page.mouse.move(x, y)
            self.page.mouse.down()
            self.page.mouse.move(x + pixels, y, steps=5)
            self.page.mouse.up()

        self.does(name, drag)
        return int(self.page.locator(".widget-slider .widget-readout").inner_text())

    def plays(self) -> None:
        """Start the first player by its own button."""
        self.page.evaluate(f"{PLAYERS}.forEach(player => player.pause())")
        self.page.locator(".audioxai audio").first.click(position={"x": 16, "y": 16})
        self.page.wait_for_function(f"!{PLAYERS}[0].paused && {PLAYERS}[0].currentTime > 0")
        self.page.locator(".widget-tab").scroll_into_view_if_needed()

    def chooses(self, path: Path) -> None:
        """Give a file in the upload button's dialog."""
        with self.page.expect_file_chooser() as chooser:
            self.page.locator(".widget-upload").click()
        self.does("file chosen", lambda: chooser.value.set_files(path))

    def drops(self, path: Path) -> None:
        """Drop a file on the upload button, as from a desktop's file manager."""
        place = self.page.locator(".widget-upload").bounding_box()
        devtools = self.page.context.new_cdp_session(self.page)
        file = {"items": [], "files": [str(path)], "dragOperationsMask": 1}

        def drop():
            for step in ("dragEnter", "dragOver", "drop"):
                event = {"type": step, "x": place["x"] + 9, "y": place["y"] + 9, "data": file}
                devtools.send("Input.dispatchDragEvent", event)

        self.does("file dropped", drop)


def use_prepared(hand: Hand) -> None:
    hand.picks("prepared Grad-CAM", "Method", "Grad-CAM")
    assert f"Grad-CAM, {hand.box('Mask').input_value()}" in hand.said()
    hand.plays()
    clip = hand.options("Clip")[1]
    hand.picks("prepared clip", "Clip", clip)
    assert clip.rpartition("(")[2].strip(")") in hand.said()


def use_live(hand: Hand) -> None:
    hand.opens("Live")
    clips = hand.options("Clip")
    assert len(clips) == 4 and clips[3] == OWN_FILE
    for method, pixels, clip in (("Saliency", 40, clips[1]), ("Grad-CAM", -20, clips[2])):
        hand.picks(f"live {method}", "Method", method)
        area = hand.slides(f"{method} area", pixels)
        assert (
            area != 20
            and f"{method}, largest {area} %" in hand.said()
            and f"kept area {area}.0 %" in hand.said()
        )
        hand.picks(f"{method} mask", "Mask", "topK_30")
        assert f"{method}, topK_30" in hand.said()
        hand.picks(f"{method} mask by area", "Mask", BY_AREA)
        hand.picks(f"{method} clip", "Clip", clip)
        assert clip in hand.said()


def use_file(hand: Hand, give, path: Path, waveform: np.ndarray) -> None:
    """``give`` is how the file comes in; the players have its sound and parts of it."""
    give(path)
    assert path.name in hand.said() and hand.box("Clip").input_value() == OWN_FILE
    whole, kept, removed = map(decoded, hand.sounds())
    assert np.corrcoef(whole, waveform)[0, 1] > 0.95
    assert kept.any() and removed.any()


def decoded(source: str) -> np.ndarray:
    """Samples of what a player holds."""
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert rate == 32000
    return samples


def test_the_explorer_of_notebook_06_in_jupyterlab(study, tmp_path, monkeypatch):
    """Prepared and live explanations and own files are heard; prints the seconds from change to sound."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    write_notebook(notebooks)
    monkeypatch.setenv("AUDIOXAI_RESULTS", str(tmp_path / "results"))
    remember_latest(study.results)
    with jupyterlab(notebooks, tmp_path / "results") as address, chromium() as browser:
        visit = Visit(browser, height=1000, server=address)
        run_notebook(visit.page, address)
        hand = Hand(visit.page, tmp_path)
        use_prepared(hand)
        use_live(hand)
        for seed, give in ((3, hand.chooses), (4, hand.drops)):
            path = tmp_path / f"mine_{seed}.wav"
            soundfile.write(path, chirps(32000, seed), 32000)
            use_file(hand, give, path, chirps(32000, seed))
        hand.picks("file, Saliency", "Method", "Saliency")
        assert visit.outside == [] and len(visit.context.pages) == 1
    print(
        "seconds until heard:", ", ".join(f"{name} {seconds:.2f}" for name, seconds in hand.seconds.items())
    )
