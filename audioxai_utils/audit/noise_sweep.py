"""Where do accuracy and faithfulness give way as the noise gets louder? `snr_sweep` of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from .. import constants
from ..attributions import METHODS
from ..audio import inputs
from ..audio.datasets import load_noise
from ..audio.noise import alpha_for_snr, mix
from ..evaluation import bootstrap
from ..evaluation.masks import build_masks
from ..evaluation.metrics import faithfulness
from ..evaluation.scoring import MaskScorer
from ..study.attribute import n_at_once
from ..study.clips import split_clips
from ..words import SCENARIO_LABELS, percent

if TYPE_CHECKING:
    from ..study.clips import Clips
    from ..study.condition import Condition

SWEPT_METRICS = ("FF", "FidIn", "AD")


def snr_sweep(
    condition: Condition,
    noise_scenarios: Sequence[str] | None = None,
    best: pd.DataFrame | None = None,
    methods: Sequence[str] | None = None,
    snr_db: Sequence[float] | None = None,
    n_clips: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Test accuracy, and faithfulness of each method's best mask, as the interferer gets louder or softer.

    Parameters
    ----------
    condition : Condition
        A clean one, whose clips are mixed.
    noise_scenarios : sequence of str, optional
        By default all of the project and the run's own. ``clean`` is skipped: the clean clips are always a
        row, at infinite SNR.
    best : DataFrame, optional
        From ``tables.best_masks``: the mask of each method under the audited protocol, from the
        scenario's own condition or, where that was not run, the clean one, else any. Without it accuracy
        alone.
    methods : sequence of str, optional
        Explained anew at every SNR, on the clips that the study explains and for the predicted class; by
        default the study's own as far as ``best`` has them, else all of ``best``.
    snr_db : sequence of float, optional
        Clip-to-noise ratios, by default the profile's; the study's 0.6/0.4 mixture is +3.52 dB.
    n_clips : int, optional
        Of those clips, spread over the classes, by default the profile's. Accuracy takes the whole test
        split.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        spectrogram_type, noise_scenario, snr_db, method, mask ("" for accuracy), metric (accuracy in
        per cent of the test clips; FF, FidIn, AD, audited), n, mean, low, high (95 %, bootstrap over
        clips).
    """
    if condition.noise_scenario != "clean":
        raise ValueError(f"condition must be a clean one, whose clips are mixed; got {condition.title}")
    study, rate = condition.study, condition.classifier.sample_rate
    test, explained = (
        split_clips(study, rate, "test"),
        condition.clips.first(n_clips or study.settings.sizes.n_swept),
    )
    noise_scenarios = noise_scenarios or list(
        dict.fromkeys([*constants.NOISE_SCENARIOS, *study.noise_scenarios])
    )
    mixtures = _mixtures(condition, noise_scenarios, snr_db or study.settings.sizes.snr_db)
    methods = _swept(best) if methods is None else methods
    options, rows = {method: condition.method_options(method) for method in methods}, []
    for number, (scenario, snr, noise) in enumerate(mixtures, 1):
        p = condition.classifier.probabilities(_mixed(test, noise, snr))
        right = (condition.classifier.reading.predicted(p).cpu() == test.labels).double()
        right[test.labels < 0] = torch.nan  # whose label is not known
        values = {("", "", "accuracy"): 100.0 * right.numpy()}
        if best is not None:
            waveform = _mixed(explained, noise, snr)
            scorer = condition.classifier.scorer(waveform)
            for method, its in options.items():
                mask = _best_mask(best, condition.spectrogram_type, scenario, method)
                values |= _faithfulness(condition, scorer, waveform, method, mask, its)
        names = {"spectrogram_type": condition.spectrogram_type, "noise_scenario": scenario, "snr_db": snr}
        rows += [{**names, **_summary(key, each, seed)} for key, each in values.items()]
        study.progress("clip-to-noise ratios", number, len(mixtures))
    return pd.DataFrame(rows)


def _swept(best: pd.DataFrame | None) -> list[str]:
    found = [] if best is None else list(dict.fromkeys(best["method"]))
    return [method for method in constants.STUDY_METHODS if method in found] or found


def _mixtures(condition: Condition, noise_scenarios: Sequence[str], snr_db: Sequence[float]) -> list[tuple]:
    """(scenario's name, SNR, noise or None), the clean one first."""
    found, study = [("clean", float("inf"), None)], condition.study
    for scenario in noise_scenarios:
        source = study.noise_source(scenario)
        rate, seconds = condition.classifier.sample_rate, study.dataset.seconds
        noise = load_noise(source, rate, study.settings.noise_root, seconds=seconds)
        if noise is not None:
            found += [(inputs.scenario_name(scenario), float(snr), noise) for snr in snr_db]
    return found


def _mixed(clips: Clips, noise: torch.Tensor | None, snr_db: float) -> torch.Tensor:
    """Waveforms (n, samples) of clean clips with noise at a clip-to-noise ratio."""
    return (
        clips.waveforms
        if noise is None
        else mix(clips.waveforms, noise.to(clips.waveforms), alpha_for_snr(snr_db))
    )


def _best_mask(best: pd.DataFrame, spectrogram_type: str, scenario: str, method: str) -> str:
    rows = best[(best["protocol"] == "audited") & (best["method"] == method)]
    rows = rows[rows["spectrogram_type"] == spectrogram_type]
    for name in (scenario, "clean", *rows["noise_scenario"]):
        found = rows["mask"][rows["noise_scenario"] == name]
        if len(found):
            return found.iloc[0]
    raise ValueError(f"best holds no audited mask of {method} for {spectrogram_type}")


def _faithfulness(
    condition: Condition,
    scorer: MaskScorer,
    waveform: torch.Tensor,
    method: str,
    mask: str,
    options: dict,
) -> dict[tuple, np.ndarray]:
    """(method, mask, metric) -> scores (clips,) of a mask, explained anew for the predicted class."""
    classifier, found = condition.classifier, []
    for part, target in zip(waveform.split(n := n_at_once(classifier, method)), scorer.target.split(n)):
        model, batch = classifier.of(part)
        sound = classifier.taken(method, part, batch)
        found.append(METHODS[method](model, batch.db, target, **options, **sound))
    built = build_masks(torch.cat(found), "audited", [mask])[mask]
    scores = faithfulness(scorer.p, *scorer(built), "audited", scorer.target, scorer.threshold)
    return {(method, mask, metric): scores[metric].double().cpu().numpy() for metric in SWEPT_METRICS}


def _summary(key: tuple[str, str, str], values: np.ndarray, seed: int) -> dict:
    """Mean over clips with its 95 % interval."""
    found = bootstrap.means_with_intervals(pd.DataFrame(values), [key[-1]], seed=seed).iloc[0]
    return {**dict(zip(("method", "mask", "metric"), key)), **found, "n": int(found["n"])}


def summary(swept: pd.DataFrame) -> str:
    """What louder noise does to accuracy and fidelity, as Markdown.

    Parameters
    ----------
    swept : DataFrame
        From `snr_sweep`.
    """
    accuracy = swept[swept["metric"] == "accuracy"].set_index("noise_scenario")
    known = pd.notna(accuracy.loc["clean", "mean"])
    clean = f"Accuracy is {accuracy.loc['clean', 'mean']:.0f} % on the clean clips."
    lines = [clean if known else "What is right is not known of these clips."]
    for scenario in accuracy.index.unique().drop("clean"):
        steps = accuracy.loc[[scenario]].sort_values("snr_db")[["mean", "snr_db"]].to_numpy()
        (low, quiet), (high, loud) = steps[0], steps[-1]
        ends = f"{low:.0f} % at {quiet:+.0f} dB, {high:.0f} % at {loud:+.0f} dB"
        ends = ends if known else f"from {quiet:+.0f} to {loud:+.0f} dB"
        text = f"- {SCENARIO_LABELS.get(scenario, scenario)}: {ends}"
        kept = swept[(swept["noise_scenario"] == scenario) & (swept["metric"] == "FidIn")]
        kept = kept.groupby("snr_db")["mean"].mean()
        if len(kept):
            shares = f"{percent(kept.iloc[0])} and {percent(kept.iloc[-1])}"
            text += f"; the best masks keep the class on {shares} of the clips"
        lines.append(f"{text}.")
    lines.append(f"\nThe study's own mixture is at {constants.STUDY_SNR_DB:+.2f} dB.")
    return "\n".join(lines)
