"""LRP by zennit's composites beside exact Deep SHAP: do values add up, and is the class in the largest ones?

    pip install -c constraints.txt zennit torchvision
    python benchmarks/lrp.py --clips 20 --threads 1

On the classifier and the clips of a run (`--study`, default the last one). "adds up" is the median over clips of
|sum - promised| / |promised|: the logit for LRP, the logit minus the mean of the references' for Deep SHAP. Masks
keep the largest 10 and 30 % of the bins. Batch norms are folded and pooling is made modules before zennit sees the
network; on one that is not a Cnn14 what is written as a function stays without a rule. `--results` is as in all.py.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import nn

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])

from measuring import add_options, cost, in_fresh_process, show  # noqa: E402

from audioxai_utils.attributions import METHODS  # noqa: E402
from audioxai_utils.evaluation.scoring import score_masks  # noqa: E402
from audioxai_utils.models.cnn14 import Cnn14  # noqa: E402
from audioxai_utils.models.inference import inference_copy  # noqa: E402
from audioxai_utils.numerics import largest  # noqa: E402
from audioxai_utils.study.study import open_study  # noqa: E402

SHARES = (10, 30)  # % of the bins
SHOWN = ("FidIn", "AD", "FidIn_heard", "AD_heard")
RULES = ("epsilon", "epsilon-plus", "epsilon-alpha2-beta1", "epsilon-plus-flat")


class Modular(nn.Module):
    """A Cnn14 whose poolings and sum are modules, which zennit's rules can take hold of."""

    def __init__(self, model: Cnn14) -> None:
        super().__init__()
        from zennit.layer import Sum

        self.model, self.pools = (
            model,
            nn.ModuleList(nn.AvgPool2d(2) for _ in range(5)),
        )  # each is called once
        self.rows, self.mean = nn.AdaptiveAvgPool2d((None, 1)), nn.AdaptiveAvgPool1d(1)
        self.most, self.add = nn.AdaptiveMaxPool1d(1), Sum()

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        m = self.model
        x = m.bn0(db.squeeze(1).contiguous()).transpose(1, 2).unsqueeze(1)
        for i in range(1, 7):
            x = getattr(m, f"conv_block{i}")(x, pool=1)
            x = self.pools[i - 1](x) if i < 6 else x
        x = self.rows(x).squeeze(3)  # (batch, channels, time)
        x = self.add(torch.stack([self.most(x), self.mean(x)], dim=-1))[..., 0]
        return m.head(m.relu(m.fc1(x)))


def lrp(model: nn.Module, db: torch.Tensor, target: torch.Tensor, rule: str) -> torch.Tensor:
    """Relevance (n, 1, F, T) of the logits of classes (n,)."""
    from zennit import composites
    from zennit.attribution import Gradient
    from zennit.rules import Epsilon
    from zennit.types import Linear

    made = {
        "epsilon": lambda: composites.LayerMapComposite(composites.layer_map_base() + [(Linear, Epsilon())]),
        "epsilon-plus": composites.EpsilonPlus,
        "epsilon-alpha2-beta1": composites.EpsilonAlpha2Beta1,
        "epsilon-plus-flat": composites.EpsilonPlusFlat,
    }
    own = functools.partial(torch.nn.functional.one_hot, num_classes=model(db[:1]).shape[1])
    with Gradient(model=model, composite=made[rule]()) as attribute:
        return attribute(db.clone().requires_grad_(), lambda logits: own(target).to(logits) * logits)[
            1
        ].detach()


def ways(condition, db: torch.Tensor, n_references: int) -> dict[str, tuple[Callable, Callable | None]]:
    """Name to what attributes clips (db, target), and what its values should add up to (n,)."""
    model, background = condition.classifier.model.eval(), condition.background()[:n_references]
    folded = inference_copy(model, db[:1])
    prepared = Modular(folded) if isinstance(folded, Cnn14) else folded
    with torch.no_grad():
        error = float((prepared(db) - model(db)).abs().max())
    if error > 1e-3:
        raise ValueError(f"the prepared network's logits differ by {error:g}")

    def above(references: torch.Tensor | None, db: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            own = model(db).gather(1, target[:, None])[:, 0]
            return own if references is None else own - model(references).mean(0)[target]

    mean = background.mean(dim=(0, 3), keepdim=True).expand_as(background[:1]).contiguous()
    logit = functools.partial(above, None)
    found = {f"LRP {rule} (zennit)": (functools.partial(lrp, prepared, rule=rule), logit) for rule in RULES}
    for name, references in (("1 reference", mean), (f"{len(background)} references", background)):
        work = functools.partial(METHODS["shap"], model, background=references, engine="exact")
        found[f"exact Deep SHAP, {name}"] = (work, functools.partial(above, references))
    generator = torch.Generator().manual_seed(0)
    return found | {"random bins": (lambda db, target: torch.rand(db.shape, generator=generator), None)}


def measure(arguments: argparse.Namespace) -> pd.DataFrame:
    """A row a method."""
    torch.set_num_threads(arguments.threads)
    condition = open_study(arguments.study).condition("mel_db", "clean").first(arguments.clips)
    scorer = condition.classifier.scorer(condition.clips.waveforms)
    db, target, rows = scorer.batch.db, scorer.target, []
    for name, (work, promised) in ways(condition, db, arguments.references).items():
        work(db[:1], target[:1])  # what is traced or loaded once
        spent = cost(functools.partial(work, db, target))
        values = spent["values"]
        row = {"method": name, "CPU s/clip": spent["cpu_seconds"] / len(db)}
        if promised is not None:
            total, wanted = values.double().sum(dim=(1, 2, 3)), promised(db, target).double()
            row["adds up to"] = float(((total - wanted) / wanted).abs().median())
        masks = {
            share: largest(values.flatten(1), round(share / 100 * values[0].numel())).view_as(db).to(db)
            for share in SHARES
        }
        means = score_masks(scorer, masks, "audited", heard=True).groupby("mask")[list(SHOWN)].mean()
        rows.append(
            row | {f"{metric} {share} %": means.loc[share, metric] for share in SHARES for metric in SHOWN}
        )
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--references", type=int, default=20, help="reference clips of Deep SHAP")
    parser.add_argument("--study", help="results folder of the run; default the last one")
    add_options(parser)
    arguments = parser.parse_args()
    try:
        import zennit  # noqa: F401
    except ImportError:
        parser.error("needs zennit: pip install -c constraints.txt zennit torchvision")
    table = in_fresh_process(measure, arguments)
    show({"lrp": table}, f"mel_db, clean, {arguments.clips} clips", arguments)


if __name__ == "__main__":
    main()
