"""The published figures of the study, so that every table can show them beside ours.

The numbers are those of Pak & Teryokhina, "Constructing post-hoc interpretations for audio
classification models" (2025), and of its supplementary results. AI, AG, AD and the accuracies are
per cent, COMP is in nats, the other metrics are shares. The paper's own masks and metrics are meant
(``protocol="paper"``), with the weaknesses that the audited protocol corrects.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import pandas as pd


@cache
def _read(name: str) -> pd.DataFrame:
    with files(__package__).joinpath(name).open(encoding="utf-8") as stream:
        return pd.read_csv(stream)


def published_accuracies() -> pd.DataFrame:
    """Table I: ``spectrogram_type``, train, validation and test accuracy (per cent) and the epoch."""
    return _read("accuracies.csv").copy()


def published_tables() -> pd.DataFrame:
    """Tables II-VI as printed (four decimals): 20 rows, one per condition and method, with its best mask."""
    return _read("tables.csv").copy()


def published_results() -> pd.DataFrame:
    """All published means: 5 conditions x 3 subsets x 4 methods x 14 masks = 840 rows, seven digits.

    Columns are ``spectrogram_type``, ``noise_scenario``, ``subset`` (all, correct, incorrect),
    ``method``, ``mask`` and the seven metrics.
    """
    return _read("results.csv").copy()


@cache
def _read_parquet(name: str) -> pd.DataFrame:
    with files(__package__).joinpath("ours", name).open("rb") as stream:
        return pd.read_parquet(stream)


def our_scores() -> pd.DataFrame:
    """Scores of our own run on real ESC-50: a row for each condition, protocol, clip, method and mask.

    400 clips of fold 5, clean STFT, clean mel and mel in three noises; EfficientAT mn04 with a linear probe;
    saliency, Grad-CAM, LIME with 1,000 neighbours, exact Deep SHAP with 100 references; every metric, scored
    and (audited protocol) heard, rounded to what an interval can tell. Rows with ``control`` all_ones and
    oracle are bounds.
    """
    return _read_parquet("scores.parquet").copy()


def our_controls() -> pd.DataFrame:
    """FF, AD and FidIn of the random and energy masks of equal area that belong to `our_scores`; those of
    topK_30, which keep as much whatever the method, are heard too.
    """
    return _read_parquet("controls.parquet").copy()


def our_methods() -> pd.DataFrame:
    """Scores of the other 19 methods on the clean mel clips of `our_scores`, in the same columns.

    Decoders were trained on folds 1 to 3: L-MAC and its fine-tuning for 10 epochs, L-MAC-TD and L2I for 6.
    Seconds were measured on an H200 that up to 20 processes shared.
    """
    return _read_parquet("methods.parquet").copy()


def our_methods_controls() -> pd.DataFrame:
    """FF, AD and FidIn of the random and energy masks of equal area that belong to five masks of
    `our_methods`: topK_5, topK_30, topK_50, topK_30_pos and bin.
    """
    return _read_parquet("methods_controls.parquet").copy()


def our_cnn14() -> pd.DataFrame:
    """Scores of the study's own network on the clean mel clips of `our_scores`, in the same columns.

    A Cnn14 of a quarter of the width, trained from scratch on folds 1 to 3 (63.75 % on fold 5); ``control``
    is "" for a method's own mask, ``all_ones``, or the random or energy mask of the same area.
    """
    return _read_parquet("cnn14.parquet").copy()


def our_accuracies() -> pd.DataFrame:
    """Accuracies (per cent) of our classifiers on ESC-50: ``spectrogram_type``, ``classifier``, ``seed``,
    ``train_acc``, ``val_acc``, ``test_acc`` and ``n_test`` clips; a probe draws nothing, and has no seed.
    """
    return _read("ours/accuracies.csv").copy()


def our_street() -> pd.DataFrame:
    """What `audit.street.street` gave with the AudioSet tagger mn04: a row for each target and method."""
    return _read("ours/street.csv").copy()


def tagger_methods() -> pd.DataFrame:
    """Many methods on the AudioSet tagger mn04 and ten clips of ESC-50: a row for each, at its best mask.

    Columns are ``method``, processor ``seconds`` of one clip with all masks and scores, ``mask``, means of
    FF, FidIn, AD (per cent) and the kept area, and FF, FidIn and AD of the sound (docs/every-method.md).
    """
    return _read("ours/every_method.csv").copy()


def planted_points() -> pd.DataFrame:
    """What this package measured on planted causes in real ESC-50: a row for each clip and method.

    Columns are ``classifier``, ``plant``, ``swapped``, ``level_db``, ``case``, ``clip``, ``method``, the
    measures of `audit.planted.measures.localised`, and the same of a control's map as ``control_...``.
    """
    return _read_parquet("planted.parquet").copy()


def planted_scores() -> pd.DataFrame:
    """Means over a case's clips of every metric, by ``method``, ``mask`` and ``fill`` on planted causes."""
    return _read_parquet("planted_metrics.parquet").copy()


def mask_front() -> pd.DataFrame:
    """How many clips keep their class at which area: masks optimised for any fill beside others.

    100 clips of ESC-50, clean mel (`benchmarks/mask_front.py`). Columns are ``method``, ``mask``, ``grid``
    and ``noise`` (dB) of `extremal_robust`, the mean ``area``, ``network`` (the explained mn04 with a probe,
    or an ``other`` architecture, asked on the clips on which it agrees), ``fill``, ``n_clips``, FidIn and AD
    with intervals, and ``<metric>_more`` than LIME's ``bin`` mask has on the same clips.
    """
    return _read("ours/mask_front.csv").fillna({"grid": ""}).copy()


def planted_cases() -> pd.DataFrame:
    """Every planted case that was tried, with its proof; ``counts`` says whether it was judged."""
    return _read("ours/planted_cases.csv").copy()


def known_stems() -> pd.DataFrame:
    """What the AudioSet tagger mn04 gave on mixtures of real ESC-50 events: a row for each label and method.

    Columns are ``scene``, ``n_events``, ``category`` of the event, ``label``, ``level_db``, ``p_clip`` and
    ``p_without`` the event, the measures of `audit.stems.measures`, and the event's share of time (``there``)
    and bins (``own_share``).
    """
    return _read_parquet("stems.parquet").copy()


def other_sounds() -> pd.DataFrame:
    """Audited scores on several kinds of sound: a row for each set, clip, method and mask.

    The environment is ESC-50, the clean mel clips of `our_scores`; speech are spoken digits of a speaker who
    is not in the training folds, music notes of instruments. Mel, EfficientAT mn04 with a linear probe, the
    study's methods; all but the environment in the quick profile, with 200 neighbours of LIME and 20
    references of Deep SHAP. Columns are those of `audit.other_sounds.COLUMNS`; rows with ``control`` random
    and energy are of the mask of equal area.
    """
    own = _read_parquet("other_sounds.parquet")
    scores, controls = our_scores(), our_controls()
    scores = scores[(scores["protocol"] == "audited") & (scores["control"] == "")]
    controls = controls[controls["mask"].isin(own.loc[own["control"] != "", "mask"])]
    environment = pd.concat([scores, controls], ignore_index=True).astype({"noise_scenario": object})
    clean_mel = (environment["spectrogram_type"] == "mel_db") & (environment["noise_scenario"] == "clean")
    environment = environment[clean_mel].assign(dataset="environment")
    return pd.concat([environment.reindex(columns=own.columns), own], ignore_index=True)


def other_sounds_sets() -> pd.DataFrame:
    """The sets of `other_sounds`: seconds of a clip, classes, clips, accuracy on the test fold (per cent)."""
    return _read("ours/other_sounds.csv").copy()
