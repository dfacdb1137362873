"""Explain a folder of one's own recordings by one command, and write one page.

    python -m audioxai_utils.run.recordings my_model.py:load my_recordings --out why.html

``load`` is a function without arguments that returns an `AudioClassifier`. Files that cannot be read are
lines on the page. It is written at the end; where the classifier fails at a file, it holds those before it.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from ..attributions import METHODS
from ..evaluation.masks import MASKS
from ..gallery.recordings_page import recordings_page
from ..recordings import Recording, explain_folder, explain_recording
from ..study.own_model import load_own

DEFAULTS = {name: each.default for name, each in inspect.signature(explain_recording).parameters.items()}
GIVEN = ("window", "target", "n_reasons", "least", "method", "mask")  # of the command line to the function


def parse(given: list[str] | None = None) -> argparse.Namespace:
    """The command's options; argparse ends the program in one line where they are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m audioxai_utils.run.recordings", description=__doc__.splitlines()[0]
    )
    parser.add_argument("model", help="FILE:FUNCTION that returns an AudioClassifier")
    parser.add_argument("folder", type=Path, help="of sound files of any length")
    parser.add_argument("--out", type=Path, default=Path("recordings.html"), help="the page")
    parser.add_argument("--sounds", type=Path, help="folder for the reasons as WAV")
    parser.add_argument("--target", nargs="+", help="classes that are looked for; default all")
    parser.add_argument("--window", type=float, help="length of a window (s)")
    parser.add_argument("--reasons", type=int, dest="n_reasons", help="windows of a file that are explained")
    parser.add_argument("--least", type=float, help="probability below which none is explained")
    parser.add_argument("--method", choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--mask", choices=list(MASKS), metavar="MASK")
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(**{name: DEFAULTS[name] for name in GIVEN})
    return parser.parse_args(given)


def explained(options: argparse.Namespace, read: list[Path]) -> Iterator[Recording | str]:
    """Recordings of the folder, or why one was not read; each is told of when it is done.

    The paths of those that were read are added to ``read``.
    """
    found = explain_folder(
        load_own(options.model, options.device),
        options.folder,
        **{name: getattr(options, name) for name in GIVEN},
    )
    for each in found:
        if isinstance(each, str):
            print(each, file=sys.stderr)
        else:
            read.append(each.path)
            heard = ", ".join(f"{r.class_name} at {r.sound_start:.1f} s" for r in each.reasons)
            print(f"{each.name}: {heard or 'nothing is explained'}", flush=True)
            if options.sounds:
                each.save_sounds(options.sounds)
        yield each


def main(given: list[str] | None = None) -> int:
    """Write the page; 2 and one line where nothing can be explained, as where no file could be read."""
    options, read = parse(given), []
    try:
        page = recordings_page(explained(options, read), options.out, options.folder.resolve().name)
    except (TypeError, ValueError, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    print(f"The page: {page}")
    if not read:
        print(f"{options.folder}: none of its sound files could be read", file=sys.stderr)
    return 0 if read else 2


if __name__ == "__main__":
    sys.exit(main())
