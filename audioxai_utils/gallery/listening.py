"""The listening test's answers: what was heard, and how clear it was.

`listening_page` writes the test; its readers save CSV files, one per person, with the columns
`COLUMNS`. Listeners are the independent draws: a figure is the mean over listeners of each one's own
mean, and its interval tells how it would vary with other listeners, not with other sounds.

References
----------
.. [1] K. Krippendorff, "Content Analysis", 4th ed., 2019, chapter 12: alpha with missing answers.
.. [2] ITU-T P.800.1 (2016): mean opinion scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..constants import MASK_NAMES, NOISE_SCENARIOS, STUDY_METHODS
from ..evaluation.bootstrap import (
    CONFIDENCE,
    EQUAL,
    FEW,
    N_RESAMPLES,
    column_means,
    interval,
    resampled_means,
)

SOMETHING_ELSE = "something else"  # the answer beside the classes
ORIGINAL = "original"  # "method" of a whole sound, which shows what listeners can tell at best
CLARITY = {1: "not at all", 2: "hardly", 3: "fairly", 4: "well", 5: "perfectly"}
# What the page saves. predicted: class that the model hears in the whole clip (the explained one);
# predicted_part: in the very sound that was played. silent: the test's sounds that were not played, as they
# are silent, per method in words.
TEXTS = (
    "test",
    "participant",
    "sound",
    "clip",
    "category",
    "predicted",
    "predicted_part",
    "spectrogram_type",
    "noise_scenario",
    "method",
    "mask",
    "protocol",
    "heard",
    "silent",
)
WHOLE_NUMBERS = ("seed", "n_trials", "trial", "n_choices", "clear", "plays")
COLUMNS = (
    "test",
    "participant",
    "seed",
    "n_trials",
    "trial",
    "n_choices",
    "sound",
    "clip",
    "category",
    "predicted",
    "predicted_part",
    "spectrogram_type",
    "noise_scenario",
    "method",
    "mask",
    "protocol",
    "heard",
    "clear",
    "plays",
    "seconds",
    "answered",
    "silent",
)
MAY_BE_EMPTY = ("category", "mask", "protocol", "silent")  # of an unlabelled clip, of a whole sound
SOUND = ["test", "sound", "clip", "spectrogram_type", "noise_scenario", "method", "mask", "protocol"]


# Reading


def read_answers(paths: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """Answers of one or many files, or of all ``*.csv`` of a folder.

    A row that is in several files (someone saved twice) counts once.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS`, one row per answer.

    Raises
    ------
    FileNotFoundError
        No such file, or a folder without CSV files.
    ValueError
        A file that is not the page's, or two different answers of one person to one trial; one line.
    """
    if isinstance(paths, (str, Path)):
        folder = Path(paths)
        paths = sorted(folder.glob("*.csv")) if folder.is_dir() else [folder]
        if not paths:
            raise FileNotFoundError(f"{folder}: holds no CSV files; save them there from the listening test")
    frames = [_read_file(Path(path)) for path in paths]
    if not frames:
        raise ValueError("paths must name at least one file of answers; got none")
    answers = pd.concat(frames, ignore_index=True).drop_duplicates(ignore_index=True)
    keys = ["test", "participant", "seed", "n_trials", "trial"]
    doubled = answers[answers.duplicated(keys)]
    if len(doubled):
        row = doubled.iloc[0]
        raise ValueError(
            f"participant {row['participant']!r} has two different answers to trial {row['trial']} "
            f"(seed {row['seed']}); give each participant a code of their own"
        )
    return answers


def _read_file(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of answers")
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, UnicodeDecodeError) as error:  # pandas' parser errors are ValueErrors
        raise ValueError(f"{path}: not a readable CSV file ({str(error).splitlines()[0]})") from error
    frame = frame if "silent" in frame else frame.assign(silent="")  # as pages of before wrote them
    missing = [column for column in COLUMNS if column not in frame]
    if missing:
        raise ValueError(
            f"{path}: lacks the column {', '.join(missing)}; use the file as the listening test saved it"
        )
    if frame.empty:
        raise ValueError(f"{path}: holds no answers")
    _check_conditions(path, frame)
    frame = frame[list(COLUMNS)].astype(dict.fromkeys(WHOLE_NUMBERS, int))
    return frame.assign(seconds=frame["seconds"].astype(float))


def _check_conditions(path: Path, frame: pd.DataFrame) -> None:
    """Refuse conditions that the page cannot have written; names the first one by its line in the file."""
    tests = [(name, frame[name] != "", "text") for name in TEXTS if name not in MAY_BE_EMPTY]
    tests += [(name, frame[name].str.fullmatch(r"\d{1,15}"), "a whole number") for name in WHOLE_NUMBERS]
    tests += [
        ("clear", frame["clear"].isin([str(step) for step in CLARITY]), "a whole number from 1 to 5"),
        ("seconds", frame["seconds"].str.fullmatch(r"\d+(\.\d+)?"), "a number of seconds"),
    ]
    for name, good, expected in tests:
        if not good.all():
            line = int(np.flatnonzero(~good.to_numpy(dtype=bool))[0])
            got = frame[name].iloc[line]
            raise ValueError(f"{path}, line {line + 2}: {name} must be {expected}; got {got!r}")


# Agreement and opinion scores


def agreement(
    answers: pd.DataFrame,
    by: Sequence[str] = ("method", "mask"),
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """How many listeners hear what was there, and whether they agree with each other.

    Parameters
    ----------
    answers : pandas.DataFrame
        From `read_answers`.
    by : sequence of str
        Columns that make a group.

    Returns
    -------
    pandas.DataFrame
        A row per group: ``listeners``, ``sounds``, ``answers``; shares (0 to 1) of the true class (over the
        sounds of which it is known; NaN where it is of none), of the class that the model predicts for the
        whole clip (``predicted``, which is the one explained) and for this very sound (``predicted_part``),
        each with ``_low`` and ``_high`` (95 %, over listeners; NaN for fewer than two, and where fewer than
        six are all alike); ``chance``, what guessing among the choices gives; and
        ``alpha``, Krippendorff's alpha of what was heard (1: all agree, 0: as chance).
    """
    answers = _sorted(answers, by)
    heard = answers["heard"]
    names = {"true_class": "category", "predicted": "predicted", "predicted_part": "predicted_part"}
    values = pd.DataFrame({name: (heard == answers[truth]).astype(float) for name, truth in names.items()})
    values["true_class"] = values["true_class"].where(answers["category"] != "")
    table = _over_listeners(answers, values, by, n_resamples, seed)
    groups = [group for _, group in answers.groupby(list(by), sort=False)]
    table["chance"] = [(1 / group["n_choices"]).mean() for group in groups]
    table["alpha"] = [krippendorff_alpha(_codes(group)) for group in groups]
    return table


def opinion_scores(
    answers: pd.DataFrame,
    by: Sequence[str] = ("method", "mask"),
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean opinion score of clarity, 1 to 5, per group, with its interval over listeners [2]_.

    Returns
    -------
    pandas.DataFrame
        ``listeners``, ``sounds``, ``answers``, ``clear``, ``clear_low``, ``clear_high``.
    """
    answers = _sorted(answers, by)
    return _over_listeners(answers, answers[["clear"]].astype(float), by, n_resamples, seed)


def _sorted(answers: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Answers group after group, in the study's order where it has one."""
    unknown = [name for name in by if name not in answers]
    if unknown or not len(by) or isinstance(by, str):
        raise ValueError(f"by must be a list of columns of the answers; got {unknown or by!r}")
    ranks = {
        name: place for place, name in enumerate((ORIGINAL, *STUDY_METHODS, *NOISE_SCENARIOS, *MASK_NAMES))
    }
    keys = {name: answers[name].map(lambda value: (ranks.get(value, len(ranks)), str(value))) for name in by}
    return answers.loc[pd.DataFrame(keys).sort_values(list(by), kind="stable").index].reset_index(drop=True)


def _over_listeners(
    answers, values: pd.DataFrame, by: Sequence[str], n_resamples: int, seed: int
) -> pd.DataFrame:
    """Counts, and mean over listeners and interval of every column of ``values``, per group.

    All groups share the resamples of listeners, so that what is compared is heard by the same people.
    """
    by = list(by)
    group = answers.groupby(by, sort=False).ngroup()
    sounds = answers.groupby(SOUND, sort=False).ngroup()
    table = answers[by].drop_duplicates(ignore_index=True)
    table["listeners"] = answers["participant"].groupby(group).nunique()
    table["sounds"] = sounds.groupby(group).nunique()
    table["answers"] = group.value_counts()
    for name in values:
        matrix = values[name].groupby([answers["participant"], group]).mean().unstack()  # (listeners, groups)
        matrix = matrix.to_numpy()
        n = (~np.isnan(matrix)).sum(0)
        low, high = interval(resampled_means(matrix, n_resamples, seed), n, CONFIDENCE)
        low, high = np.clip([low, high], *((1, 5) if name == "clear" else (0, 1)))
        alike = (n < FEW) & (high - low < EQUAL)  # a few who agree are not certain
        low[alike] = high[alike] = np.nan
        table[[name, f"{name}_low", f"{name}_high"]] = np.stack([column_means(matrix), low, high], axis=1)
    return table


def in_words(answers: pd.DataFrame | None) -> str:
    """One paragraph (Markdown) on all answers together; for None, how answers are come by."""
    if answers is None:
        return (
            "Nobody has taken the listening test of this run yet. Open `report/gallery/listening.html`, "
            "pass it on "
            "(the folder `report` is all it needs), and put the CSV files that it saves into the folder "
            "`listening` "
            "of this run's results. The next `./run_all.sh` with the same options reads them here."
        )
    kept = answers[answers["method"] != ORIGINAL]
    parts = []
    for name, rows in (
        ("The kept sounds", kept),
        ("The whole sounds", answers[answers["method"] == ORIGINAL]),
    ):
        if len(rows):
            heard, clear = (
                table(rows.assign(all=""), ["all"]).iloc[0] for table in (agreement, opinion_scores)
            )
            parts.append(
                f"{name} ({heard['answers']} answers of {heard['listeners']} listeners to "
                f"{heard['sounds']} sounds): a listener hears "
                + (
                    f"the true class in {heard['true_class']:.0%} of the sounds{_where_known(rows)} and "
                    if np.isfinite(heard["true_class"])
                    else ""
                )
                + f"the class that the model predicts for the whole clip in {heard['predicted']:.0%}, in the "
                "mean over "
                f"listeners; guessing would give {heard['chance']:.0%}. "
                f"Clarity is {clear['clear']:.1f} of 5."
                + (
                    f" Listeners agree with an alpha of {heard['alpha']:.2f}."
                    if np.isfinite(heard["alpha"])
                    else ""
                )
            )
    silent = sorted(set(answers["silent"]) - {""}) if "silent" in answers else []
    if silent:
        parts.append(
            f"Silent, not played and so not judged: {'; '.join(silent)} "
            "(methods are compared on the clips of which they left something to hear)."
        )
    return " ".join(parts)


def _where_known(rows: pd.DataFrame) -> str:
    return " whose class is known" if rows["category"].eq("").any() else ""


def _codes(answers: pd.DataFrame) -> np.ndarray:
    """What each listener heard in each sound as numbers, (sounds, listeners), NaN where not asked."""
    codes = answers.assign(code=pd.factorize(answers["heard"])[0].astype(float))
    return codes.pivot_table(index=SOUND, columns="participant", values="code", aggfunc="first").to_numpy()


def krippendorff_alpha(codes) -> float:
    """Krippendorff's alpha for categories: 1 - observed / expected disagreement [1]_.

    Parameters
    ----------
    codes : (units, raters) array
        Any number per category; NaN where a rater gave no answer.

    Returns
    -------
    float
        NaN where no unit has two answers, or where there is only one category in all of them.
    """
    import krippendorff

    codes = np.asarray(codes, dtype=float)
    if codes.ndim != 2:
        raise ValueError(f"codes must be (units, raters); got shape {codes.shape}")
    answered = codes[(~np.isnan(codes)).sum(1) > 1]  # a single answer can agree with none
    if len(np.unique(answered[~np.isnan(answered)])) < 2:
        return float("nan")
    return float(krippendorff.alpha(answered.T, level_of_measurement="nominal"))
