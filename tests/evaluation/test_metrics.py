"""Metrics against plain loops in float64 and against Quantus."""

import math
import warnings

import numpy as np
import pytest
import torch

from audioxai_utils.evaluation import metrics

D = 6 * 9


def masks():
    """Soft, binary, a single bin, constant, all ones, all zeros."""
    rng = np.random.default_rng(3)
    rows = [
        rng.random((6, 9)),
        (rng.random((6, 9)) > 0.7).astype(float),
        np.eye(6, 9) * 0,
        np.full((6, 9), 0.4),
        np.ones((6, 9)),
        np.zeros((6, 9)),
    ]
    rows[2][2, 3] = 1
    return torch.from_numpy(np.stack(rows)[:, None])


def slow_gini(values, offset):
    ordered = sorted(abs(v) + offset for v in values)
    total = sum(ordered)
    if total == 0:
        return math.nan
    return 1 - 2 * sum(
        v / total * (len(ordered) - i + 0.5) / len(ordered) for i, v in enumerate(ordered, start=1)
    )


def slow_entropy(values):
    total = sum(values)
    return -sum(v / total * math.log(v / total) for v in values if v > 0) if total else math.nan


@pytest.mark.parametrize("protocol, offset", [("paper", 1e-7), ("audited", 0.0)])
def test_sparseness_equals_its_definition(protocol, offset):
    expected = [slow_gini(m.flatten().tolist(), offset) for m in masks()]
    np.testing.assert_allclose(metrics.sparseness(masks(), protocol), expected, atol=1e-12)


def test_complexity_equals_its_definition():
    expected = [slow_entropy(m.flatten().tolist()) for m in masks()]
    np.testing.assert_allclose(metrics.complexity(masks(), "audited"), expected, atol=1e-12)


def test_constant_masks_are_the_worst_not_the_best():
    """Audit 2: the published runs score a constant mask 0, the best value there is."""
    assert metrics.complexity(masks(), "paper")[[3, 4, 5]].tolist() == [0, 0, 0]
    assert metrics.complexity(masks(), "audited")[[3, 4]].tolist() == pytest.approx([math.log(D)] * 2)
    assert math.isnan(metrics.complexity(masks(), "audited")[5]) and math.isnan(
        metrics.sparseness(masks(), "audited")[5]
    )


def test_paper_values_equal_quantus():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from quantus import Complexity, Sparseness

        batch = masks()[:5].float()
        flat = batch.flatten(1).numpy()
        sparse = Sparseness(disable_warnings=True, normalise=False).evaluate_batch(flat, flat.copy())
        entropy = Complexity(disable_warnings=True, normalise=False).evaluate_batch(flat[:3], flat[:3].copy())
    np.testing.assert_allclose(metrics.sparseness(batch), sparse, atol=1e-6)
    np.testing.assert_allclose(metrics.complexity(batch)[:3], entropy, atol=1e-6)


def probabilities(seed):
    return torch.softmax(torch.from_numpy(np.random.default_rng(seed).standard_normal((40, 5))), 1)


def slow_faithfulness(p, kept, removed, rise, c=None):
    c = max(range(len(p)), key=lambda i: p[i]) if c is None else c
    return {
        "FF": p[c] - removed[c],
        "AI": 100.0 if kept[c] > p[c] + rise else 0.0,
        "AG": 100 * max(0.0, kept[c] - p[c]) / (1 - p[c] + 1e-6),
        "FidIn": float(max(range(len(p)), key=lambda i: kept[i]) == c),
        "AD": 100 * max(0.0, p[c] - kept[c]) / (p[c] + 1e-6),
    }


@pytest.mark.parametrize("protocol, rise", [("paper", 0.0), ("audited", 1e-4)])
def test_faithfulness_equals_its_definition(protocol, rise):
    p, kept, removed = (probabilities(seed) for seed in range(3))
    ours = metrics.faithfulness(p, kept, removed, protocol)
    for i in range(len(p)):
        for name, value in slow_faithfulness(
            p[i].tolist(), kept[i].tolist(), removed[i].tolist(), rise
        ).items():
            assert ours[name][i].item() == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("protocol, rise", [("paper", 0.0), ("audited", 1e-4)])
def test_a_given_class_is_scored_clip_by_clip(protocol, rise):
    p, kept, removed = (probabilities(seed) for seed in range(3))
    target = torch.arange(len(p)) % p.shape[1]
    assert 0 < (target == p.argmax(1)).sum() < len(p)
    ours = metrics.faithfulness(p, kept, removed, protocol, target=target)
    for i in range(len(p)):
        slow = slow_faithfulness(p[i].tolist(), kept[i].tolist(), removed[i].tolist(), rise, int(target[i]))
        for name, value in slow.items():
            assert ours[name][i].item() == pytest.approx(value, abs=1e-12), name
    default = metrics.faithfulness(p, kept, removed, protocol)
    for name, values in metrics.faithfulness(p, kept, removed, protocol, p.argmax(1)).items():
        assert torch.equal(values, default[name])


@pytest.mark.parametrize(
    "target", [3, torch.tensor([0]), torch.tensor([0, 5]), torch.tensor([-1, 0]), torch.ones(2)]
)
def test_classes_that_do_not_fit_are_refused(target):
    p = probabilities(0)[:2]
    with pytest.raises(ValueError, match="target must") as error:
        metrics.faithfulness(p, p, p, target=target)
    assert "\n" not in str(error.value)


def test_rounding_is_no_increase_under_the_audited_protocol():
    """Audit 3: a rise in the last digit counts as an increase in the published AI."""
    p = torch.tensor([[0.7, 0.3]], dtype=torch.float64)
    kept = p + torch.tensor([[1e-7, -1e-7]])
    assert metrics.faithfulness(p, kept, p, "paper")["AI"].item() == 100
    assert metrics.faithfulness(p, kept, p, "audited")["AI"].item() == 0


def test_identity_mask_is_perfectly_faithful():
    p = probabilities(0)
    scores = metrics.faithfulness(p, p, torch.full_like(p, 0.2))
    assert scores["FidIn"].min() == 1 and scores["AD"].max() == 0 and scores["AG"].max() == 0
    torch.testing.assert_close(scores["FF"], p.amax(1) - 0.2)


def test_area_and_constancy():
    assert metrics.kept_area(masks())[[2, 3, 4, 5]].tolist() == pytest.approx([1 / D, 0.4, 1, 0])
    assert metrics.is_constant(masks()).tolist() == [False, False, False, True, True, True]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="share one shape"):
        metrics.faithfulness(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(ValueError, match="paper, audited"):
        metrics.complexity(masks(), "both")
