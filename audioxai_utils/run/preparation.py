"""What a run needs before its first step: sounds that can be read, a dataset, AudioSet weights.

It is done in the terminal, where a progress bar can be seen, and once for all steps.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .. import constants
from ..audio import inputs
from ..constants import TAGGER
from ..study.settings import FILE, Settings
from . import machine

RATE = 32_000  # Hz, at which a noise is tried
TAKES_WEIGHTS = ("quick", "medium")  # profiles that take the pretrained tagger where it is at hand
FROM_SCRATCH_NOTICE = (
    "run_all.sh: no --pretrained, so that the paper profile trains a Cnn14 of full width from scratch "
    f"(minutes of a GPU, else many hours); --pretrained {TAGGER} download takes an AudioSet network"
)
MOST_WORKERS = 8  # processes that write generated sounds; more only wait for the disk


class NotPrepared(RuntimeError):
    """Something could not be made, fetched or read; the message is one line."""


def prepare(settings: Settings, dry_run: bool = False) -> Settings:
    """The settings with everything they name in place; ``download`` has become a path.

    A dry run makes and fetches nothing.

    Raises
    ------
    NotPrepared
        No network, a wrong checksum, a full disk, a folder with something else in it.
    ValueError
        A noise recording that is not audio.
    """
    _check_recordings(settings)
    settings = _with_weights_at_hand(settings)
    if settings.pretrained is None and not settings.model and settings.profile == "paper":
        print(FROM_SCRATCH_NOTICE)
    try:
        if not dry_run:
            _provide_dataset(settings)
        if settings.weights == "download":
            path = _weights_file(settings.network, missing_ok=dry_run)
            settings = replace(settings, pretrained=(settings.network, str(path)))
    except (OSError, ValueError) as error:  # ConnectionError is an OSError
        raise NotPrepared(" ".join(str(error).split())) from error
    return settings


def _check_recordings(settings: Settings) -> None:
    for name, path in settings.recordings().items():
        from ..audio.audio_files import read_waveform, shown

        try:
            if read_waveform(path, RATE).any():
                continue
            reason = f"{shown(path)}: silent in its first {constants.DURATION:g} s"
        except (OSError, ValueError) as error:
            reason = str(error)
        raise ValueError(f"the noise of scenario {name} must be an audio file that can be heard; {reason}")


def _provide_dataset(settings: Settings) -> None:
    """Make the generated dataset, or download the real one where no folder was given and none is there."""
    folder = inputs.dataset_folder(settings.dataset, settings.data_root)
    if settings.dataset == constants.OWN:
        return
    if settings.dataset == "generated":
        from ..audio.generated.synthesis import generate_dataset

        generate_dataset(folder, n_workers=min(settings.cores or machine.cores(), MOST_WORKERS))
    elif not folder.exists():
        from ..audio.downloads import download_esc50

        download_esc50(constants.default_data_root("esc50"))


def _with_weights_at_hand(settings: Settings) -> Settings:
    """Quick and medium studies of ESC-10 and ESC-50 take the pretrained tagger once it was downloaded.

    The probe takes seconds, and its figures mean more than those of a small Cnn14 from scratch. A run that
    was started without it goes on without it.
    """
    meant = settings.profile in TAKES_WEIGHTS and settings.dataset in ("esc10", "esc50")
    if settings.pretrained is not None or settings.model or not meant:
        return settings
    path, started = _weights_file(TAGGER, missing_ok=True), settings.results / FILE
    before = Settings.read(settings.results).network if started.is_file() else None
    if not path.is_file() and before == TAGGER:
        raise NotPrepared(
            f"{settings.results} was started with {TAGGER}, whose weights are not at {path} any more; "
            f"--pretrained {TAGGER} fetches them, --pretrained none begins anew without"
        )
    if not path.is_file() or before not in (None, TAGGER):
        return settings
    print(f"run_all.sh: the pretrained {TAGGER} is at hand ({path}); --pretrained none does without it")
    return replace(settings, pretrained=(TAGGER, str(path)))


def _weights_file(network: str, missing_ok: bool) -> Path:
    """Where a network's weights are, downloaded if they are not there and may not be missing."""
    from ..audio.downloads import WEIGHTS, download_weights

    folder = constants.REPOSITORY / "data"
    return folder / WEIGHTS[network].name if missing_ok else download_weights(network, folder)
