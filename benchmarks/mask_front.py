"""At which area does a mask keep the class, whatever fills the rest, and in another network too?

    python benchmarks/mask_front.py results/esc50-paper second.pt --clips 100 --out front.csv

Masks of `extremal_robust` at given areas beside the first bins of LIME, Grad-CAM, the level and a random order at
the same areas, and beside the ``bin`` masks of LIME and Grad-CAM; clean mel of a run whose classifier is trained.
``second.pt`` is the state of a Cnn14 for the same pictures and classes, of any width; it is trained and written
first where it is not there. Every mask is scored by both networks under three fills, and heard; the second one is
asked on the clips on which it agrees. The table is `published.mask_front`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

from audioxai_utils import METHODS, build_masks, open_study
from audioxai_utils.audit.planted.agreement import mean_with_interval
from audioxai_utils.evaluation.masks import apply_mask
from audioxai_utils.evaluation.metrics import faithfulness
from audioxai_utils.evaluation.scoring import decibels, probabilities
from audioxai_utils.evaluation.selection import bin_ranks, first_bins
from audioxai_utils.models.cnn14 import Cnn14
from audioxai_utils.models.inference import inference_copy
from audioxai_utils.models.training import train_classifier
from audioxai_utils.study.condition import Condition
from audioxai_utils.study.profiles import PROFILES

AREAS = (0.385, 0.2, 0.1)  # half of the mean mask of LIME + bin on ESC-50, and less
GRIDS = ((32, 64), (8, 16), (4, 8))
NOISY = 6.0  # dB
BASIS = ("lime", "bin", "", None)  # what the others are paired with
SIZES = PROFILES["medium"]  # of the second network: an eighth of the width, from scratch


def second_network(condition: Condition, path: Path) -> torch.nn.Module:
    """The network of another architecture, for inference."""
    study, db = condition.study, condition.spectrograms
    if not path.is_file():
        sides = [study.split(condition.spectrogram_type, side)[:2] for side in ("train", "validation")]
        torch.manual_seed(study.settings.seed + 1)
        fresh = Cnn14(db.shape[2], len(study.dataset.classes), SIZES.width, SIZES.dropout)
        run = train_classifier(fresh, *sides, SIZES, study.settings.seed + 1, study.device)
        torch.save(run.model.state_dict(), path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    width = state["conv_block1.conv1.weight"].shape[0] / 64
    network = Cnn14(db.shape[2], len(study.dataset.classes), width, 0.0)
    network.load_state_dict(state)
    return inference_copy(network.to(db.device).eval(), db)


def masks_of(condition: Condition) -> Iterator[tuple[tuple, torch.Tensor]]:
    """(method, mask, grid, noise) and masks (n, 1, F, T), one after the other."""
    db, model = condition.spectrograms, condition.classifier.model
    maps = {method: condition.attribute(method).to(db) for method in ("lime", "gradcam")}
    for method, values in maps.items():
        yield (method, "bin", "", None), build_masks(values, "audited", ["bin"])["bin"].to(db)
    uniform = torch.rand(db.shape, generator=torch.Generator().manual_seed(0)).to(db)
    for area in AREAS:
        n_kept = torch.full((len(db),), round(area * db[0].numel()), device=db.device)
        for method, values in {**maps, "level": db, "random": uniform}.items():
            yield (method, "topK", "", None), first_bins(bin_ranks(values), n_kept).to(db)
    settings = [(area, grid, 1.0) for area in AREAS for grid in GRIDS]
    settings += [(AREAS[0], grid, NOISY) for grid in GRIDS[1:]]
    target = model(db).argmax(1)
    for area, grid, noise in settings:
        options = {"background": condition.background(), "area": area, "grid": grid, "noise": noise}
        values = METHODS["extremal_robust"](model, db, target, **options)
        for name, mask in build_masks(values, "audited", ["bin", "minmax"]).items():
            yield ("extremal_robust", name, f"{grid[0]}x{grid[1]}", noise), mask.to(db)


@torch.no_grad()
def front(condition: Condition, second: torch.nn.Module) -> pd.DataFrame:
    """A row for each mask, network and fill: FidIn and AD with intervals, and their differences to `BASIS`."""
    db, scorer = condition.spectrograms, condition.scorer()
    own, other = scorer.model, second
    whole = {"explained": scorer.p, "other": probabilities(other, db)}
    agrees = (whole["other"].argmax(1) == scorer.target).cpu().numpy()
    fills = {
        "silence": scorer.reading.floor,
        "clip minimum": db.amin((1, 2, 3), keepdim=True),
        "training mean": condition.classifier.training_mean.to(db),
    }
    rows, basis = [], {}
    for about, mask in _with_gradients(condition):
        parts = {name: apply_mask(db, mask, fill) for name, fill in fills.items()}
        parts["heard"] = [decibels(sound, scorer.spectrogram) for sound in scorer.sounds(mask)]
        for name, (kept, removed) in parts.items():
            for network, model in (("explained", own), ("other", other)):
                p = probabilities(model, kept), probabilities(model, removed)
                scores = faithfulness(whole[network], *p, "audited", scorer.target)
                asked = agrees if network == "other" else slice(None)
                row = dict(zip(("method", "mask", "grid", "noise"), about)) | {"area": float(mask.mean())}
                row |= {"network": network, "fill": name}
                for metric in ("FidIn", "AD"):
                    values = scores[metric].double().cpu().numpy()[asked]
                    if about == BASIS:
                        basis[network, name, metric] = values
                    more = values - basis[network, name, metric]
                    for words, each in ((metric, values), (f"{metric}_more", more)):
                        row |= dict(zip((words, f"{words}_low", f"{words}_high"), mean_with_interval(each)))
                    row["n_clips"] = len(values)
                rows.append(row)
    return pd.DataFrame(rows)


def _with_gradients(condition: Condition) -> Iterator[tuple[tuple, torch.Tensor]]:
    """`masks_of`, each made with gradients and scored without."""
    masks = masks_of(condition)
    while True:
        with torch.enable_grad():
            found = next(masks, None)
        if found is None:
            return
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", help="results folder of a run whose classifiers are trained")
    parser.add_argument("second", type=Path, help="state of the second network; made where it is not there")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("mask_front.csv"))
    given = parser.parse_args()
    condition = open_study(given.results).condition("mel_db", "clean").first(given.clips)
    table = front(condition, second_network(condition, given.second))
    table.to_csv(given.out, index=False, float_format="%.4g")
    print(table.drop(columns=[name for name in table if name.endswith(("_low", "_high"))]).to_string())


if __name__ == "__main__":
    main()
