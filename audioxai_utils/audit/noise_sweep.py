"""Where do accuracy and faithfulness give way as the noise gets louder? :func:`snr_sweep` of a trained classifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch

from .. import constants
from ..evaluation import bootstrap
from ..study import pipeline, study
from ..attributions import METHODS
from ..audio.datasets import load_noise
from ..evaluation.masks import apply_mask, build_masks
from ..evaluation.metrics import faithfulness
from ..audio.noise import alpha_for_snr, mix
from ..evaluation.scoring import probabilities

SNR_DB = (-6.0, -3.0, 0.0, 3.0, 6.0, 9.0, 12.0)
SWEPT_METRICS = ("FF", "FidIn", "AD")


def snr_sweep(
    settings: study.Settings,
    classifier: study.Classifier,
    noise_scenarios: Sequence[str],
    snr_db: Sequence[float] = SNR_DB,
    best: pd.DataFrame | None = None,
    methods: Sequence[str] = constants.STUDY_METHODS,
    n_clips: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Test accuracy, and faithfulness of each method's best mask, as the interferer gets louder or softer.

    Parameters
    ----------
    noise_scenarios : sequence of str
        ``clean`` among them is skipped: the clean clips are always a row, at infinite SNR.
    snr_db : sequence of float
        Clip-to-noise ratios; the study's 0.6/0.4 mixture is +3.52 dB.
    best : DataFrame, optional
        From ``tables.best_masks``: the mask of each method under the audited protocol, from the
        scenario's own condition or, where that was not run, the clean one, else any. Without it accuracy alone.
    methods : sequence of str
        Explained anew at every SNR, on the clips that the study explains and for the predicted class.
    n_clips : int, optional
        Of those clips, spread over the classes; default all. Accuracy takes the whole test split.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        spectrogram_type, noise_scenario, snr_db, method, mask ("" for accuracy), metric (accuracy in
        per cent of the test clips; FF, FidIn, AD, audited), n, mean, low, high (95 %, bootstrap over
        clips).
    """
    spectrogram = classifier.spectrogram
    test = study.split_clips(settings, spectrogram.sample_rate, "test")
    explained = study.first_clips(study.explained_clips(settings, spectrogram.sample_rate, "clean"), n_clips)
    options = {method: pipeline.method_options(settings, classifier, method) for method in methods}
    labels, rows = test.frame["label"].to_numpy(), []
    for scenario, snr, noise in _conditions(settings, spectrogram.sample_rate, noise_scenarios, snr_db):
        p = probabilities(classifier.folded, _decibels(classifier, _mixed(test, noise, snr)))
        values = {("", "", "accuracy"): 100.0 * (p.argmax(1).cpu().numpy() == labels)}
        if best is not None:
            waveform = _mixed(explained, noise, snr)
            for method, its in options.items():
                mask = _best_mask(best, spectrogram.name, scenario, method)
                values |= _faithfulness(classifier, waveform, method, mask, its)
        names = {"spectrogram_type": spectrogram.name, "noise_scenario": scenario, "snr_db": snr}
        rows += [{**names, **_summary(key, each, seed)} for key, each in values.items()]
    return pd.DataFrame(rows)


def _conditions(settings, sample_rate: int, noise_scenarios, snr_db) -> Iterator[tuple]:
    """(scenario's name, SNR, noise or None), the clean one first."""
    yield "clean", float("inf"), None
    for scenario in noise_scenarios:
        argument = study.scenario_argument(settings, scenario)
        noise = load_noise(argument, sample_rate, settings.noise_root or None)
        if noise is not None:
            yield from ((study.scenario_name(scenario), float(snr), noise) for snr in snr_db)


def _mixed(clips: study.Clips, noise: torch.Tensor | None, snr_db: float) -> torch.Tensor:
    """Waveforms (n, samples) of clean clips with noise at a clip-to-noise ratio."""
    return clips.waveforms if noise is None else mix(clips.waveforms, noise.to(clips.waveforms), alpha_for_snr(snr_db))


def _decibels(classifier: study.Classifier, waveform: torch.Tensor) -> torch.Tensor:
    """dB spectrograms (n, 1, F, T), on the classifier's device."""
    parts = waveform.to(next(classifier.model.parameters()).device, classifier.dtype).split(study.LOAD_CHUNK)
    return torch.cat([classifier.spectrogram.decibels(part) for part in parts])


def _best_mask(best: pd.DataFrame, spectrogram_type: str, scenario: str, method: str) -> str:
    rows = best[(best["protocol"] == "audited") & (best["method"] == method)]
    rows = rows[rows["spectrogram_type"] == spectrogram_type]
    for name in (scenario, "clean", *rows["noise_scenario"]):
        found = rows["mask"][rows["noise_scenario"] == name]
        if len(found):
            return found.iloc[0]
    raise ValueError(f"best holds no audited mask of {method} for {spectrogram_type}")


def _faithfulness(
    classifier: study.Classifier, waveform: torch.Tensor, method: str, mask: str, options: dict
) -> dict[tuple, np.ndarray]:
    """(method, mask, metric) -> scores (clips,) of a mask, explained anew for the predicted class."""
    db = _decibels(classifier, waveform)
    p = probabilities(classifier.folded, db)
    target = p.argmax(1)
    size = pipeline.AT_ONCE.get(db.device.type, 1)
    attribution = torch.cat([
        METHODS[method](classifier.model, *clips, **options, **pipeline.clip_options(classifier, method, sound))
        for *clips, sound in zip(db.split(size), target.split(size), waveform.split(size))
    ])
    kept, removed = apply_mask(db, build_masks(attribution, "audited", [mask])[mask])
    parts = (probabilities(classifier.folded, part) for part in (kept, removed))
    scores = faithfulness(p, *parts, "audited")
    return {(method, mask, metric): scores[metric].double().cpu().numpy() for metric in SWEPT_METRICS}


def _summary(key: tuple[str, str, str], values: np.ndarray, seed: int) -> dict:
    """Mean over clips with its 95 % interval."""
    n, mean = int((~np.isnan(values)).sum()), bootstrap.column_means(values)
    yes = {"accuracy": 100.0, **constants.YES_OR_NO}.get(key[-1])
    if yes:
        low, high = (yes * bound for bound in bootstrap.share_interval(mean / yes, n))
    else:
        low, high = bootstrap.interval(bootstrap.resampled_means(values, seed=seed), n)
    numbers = {"mean": float(mean[0]), "low": float(low[0]), "high": float(high[0])}
    return {**dict(zip(("method", "mask", "metric"), key)), "n": n, **numbers}
