"""What a run needs before its first step: sounds that can be read, a dataset, AudioSet weights.

It is done in the terminal, where a progress bar can be seen, and once for all steps.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import constants
from ..audio import inputs

if TYPE_CHECKING:
    from .command_line import Options

MOST_WORKERS = 8  # processes that write generated sounds; more only wait for the disk


class NotPrepared(RuntimeError):
    """Something could not be made, fetched or read; the message is one line."""


def prepare(options: Options) -> Options:
    """The options with everything they name in place; ``download`` has become a path.

    A dry run makes and fetches nothing.

    Raises
    ------
    NotPrepared
        No network, a wrong checksum, a full disk, a folder with something else in it.
    ValueError
        A noise recording that is not audio.
    """
    _check_recordings(options)
    weights = options.audioset_weights
    try:
        if not options.dry_run:
            _provide_dataset(options.dataset, options.data_root, options.cores)
        if weights == "download":
            weights = str(_provide_weights(options.dry_run))
    except (OSError, ValueError) as error:  # ConnectionError is an OSError
        raise NotPrepared(" ".join(str(error).split())) from error
    return replace(options, audioset_weights=weights)


def _check_recordings(options: Options) -> None:
    scenarios = (scenario for _, scenario in options.conditions)
    for name, path in inputs.recordings(scenarios, options.noise_root, options.noise_files, "--noise-root").items():
        import soundfile

        try:
            with soundfile.SoundFile(path) as file:
                if file.frames:
                    continue
            reason = "it holds no samples"
        except (OSError, soundfile.SoundFileError) as error:
            reason = str(error).rsplit(": ", 1)[-1].splitlines()[0]
        raise ValueError(f"the noise of scenario {name} must be an audio file; {path}: {reason}")


def _provide_dataset(dataset: str, data_root: str, cores: int) -> None:
    """Make the generated dataset, or download the real one where no folder was given and none is there."""
    folder = inputs.dataset_folder(dataset, data_root)
    if dataset == "generated":
        from ..audio.generated.synthesis import generate_dataset

        generate_dataset(folder, n_workers=min(cores, MOST_WORKERS))
    elif not folder.exists():
        from ..audio.downloads import download_esc50

        download_esc50(constants.default_data_root("esc50"))


def _provide_weights(dry_run: bool) -> Path:
    from ..audio.downloads import PANNS_NAME, download_panns_weights

    folder = constants.REPOSITORY / "data"
    return folder / PANNS_NAME if dry_run else download_panns_weights(folder)
