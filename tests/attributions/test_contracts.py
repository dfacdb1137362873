"""What every registered method, mask and metric promises; a new one is tested here without a line of its own."""

import copy

import pytest
import torch
from picture_sound import sound_of
from tiny_decoder import tiny_decoders
from torch import nn

from audioxai_utils import constants
from audioxai_utils.attributions import METHODS
from audioxai_utils.evaluation import masks, metrics

QUICK = {"n_samples": 8, "n_masks": 8, "n_steps": 4}  # for methods that have such an option
TARGET = torch.tensor([1, 2, 0])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    layers = (
        nn.BatchNorm2d(1),
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((4, 2)),
        nn.Flatten(),
        nn.Linear(32, 3),
    )
    model = nn.Sequential(*layers).double()
    model[0].running_mean.fill_(-40.0)
    model[0].running_var.fill_(200.0)
    return model  # in training mode, as a caller may leave it


def clips(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 24, 40, generator=generator, dtype=torch.float64) * 15 - 40


@pytest.fixture(scope="module")
def needs(model, tmp_path_factory) -> dict:
    """What some methods cannot do without."""
    return {
        "background": clips(3, 9),
        "decoder": tiny_decoders(model, clips(4, 8), tmp_path_factory.mktemp("decoder")),
    }


def options_of(name: str, needs: dict, db: torch.Tensor) -> dict:
    """Little work, and what the method cannot do without on these clips."""
    options = {option: value for option, value in QUICK.items() if option in METHODS.options(name)}
    if name == "occlusion":
        options["window"] = (8, 10)
    return (
        options
        | {
            option: needs[option][name] if option == "decoder" else needs[option]
            for option in METHODS.required(name)
        }
        | METHODS.taken(name, **sound_of(db))
    )


@pytest.mark.parametrize("name", list(METHODS))
def test_a_method_is_of_its_input_s_shape_repeats_and_looks_at_one_clip_at_a_time(name, model, needs):
    db = clips(3, 1)
    given, options = db.clone(), options_of(name, needs, db)
    together = METHODS[name](model, db, TARGET, **options)
    assert together.shape == db.shape and together.dtype == db.dtype and torch.isfinite(together).all()
    assert torch.equal(db, given) and not together.requires_grad
    torch.testing.assert_close(METHODS[name](model, db, TARGET, **options), together, rtol=1e-9, atol=1e-12)
    for clip in range(3):
        one = db[clip : clip + 1]
        alone = METHODS[name](model, one, TARGET[clip : clip + 1], **options_of(name, needs, one))
        torch.testing.assert_close(alone, together[clip : clip + 1], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name", list(METHODS))
def test_a_method_leaves_the_model_as_it_was(name, model, needs):
    given = copy.deepcopy(model)
    before = copy.deepcopy(given.state_dict())
    db = clips(1, 2)
    METHODS[name](given, db, TARGET[:1], **options_of(name, needs, db))
    assert given.training and all(
        torch.equal(before[key], value) for key, value in given.state_dict().items()
    )
    for module in given.modules():
        assert not module._forward_hooks and not module._backward_hooks and not module._forward_pre_hooks
    assert all(parameter.requires_grad and parameter.grad is None for parameter in given.parameters())


@pytest.mark.parametrize("protocol", constants.PROTOCOLS)
@pytest.mark.parametrize("name", list(masks.MASKS))
def test_a_mask_lies_in_the_unit_interval_and_is_a_clip_s_own(name, protocol):
    values = torch.cat([clips(2, 3) + 40, torch.zeros(1, 1, 24, 40), -clips(1, 4).abs()])
    together = masks.build_masks(values, protocol)[name]
    assert together.shape == values.shape and torch.isfinite(together).all()
    assert together.min() >= 0 and together.max() <= 1
    for clip in range(4):
        alone = masks.build_masks(values[clip : clip + 1], protocol)[name]
        torch.testing.assert_close(alone, together[clip : clip + 1])


def split_of(rows: slice, protocol: str) -> metrics.Split:
    generator = torch.Generator().manual_seed(7)
    p, kept, removed = (
        torch.rand(5, 3, generator=generator, dtype=torch.float64).softmax(1) for _ in range(3)
    )
    mask = (torch.rand(5, 1, 6, 8, generator=generator, dtype=torch.float64) > 0.6).double()
    return metrics.Split(p[rows], kept[rows], removed[rows], p.argmax(1)[rows], mask[rows], protocol)


@pytest.mark.parametrize("protocol", constants.PROTOCOLS)
@pytest.mark.parametrize("name", list(metrics.METRICS))
def test_a_metric_is_one_number_per_clip_and_the_clip_s_own(name, protocol):
    metric = metrics.METRICS[name]
    together = metric.rule(split_of(slice(None), protocol))
    assert together.shape == (5,) and not torch.isinf(together).any() and metric.better in metrics.BETTER
    for clip in range(5):
        alone = metric.rule(split_of(slice(clip, clip + 1), protocol))
        torch.testing.assert_close(alone, together[clip : clip + 1], equal_nan=True)


def test_the_seven_are_registered_with_their_directions():
    assert set(metrics.STUDY) == set(constants.STUDY_METRICS)
    lower = {name for name in metrics.STUDY if metrics.METRICS[name].better == "lower"}
    assert lower == set(constants.LOWER_IS_BETTER)


def test_bad_metrics_are_refused():
    with pytest.raises(ValueError, match="better must be one of higher, lower"):
        metrics.register_metric("new", lambda split: split.p, "up")
    for name in ("FF", "area"):
        with pytest.raises(ValueError, match="registered already, or is the name of another column"):
            metrics.register_metric(name, lambda split: split.p)
    metrics.register_metric("of_test", lambda split: split.p)
    try:
        with pytest.raises(
            ValueError, match=r"metric 'of_test' must return one number per clip, \(5,\); got \(5, 3\)"
        ):
            metrics.further_scores(split_of(slice(None), "paper"))
    finally:
        del metrics.METRICS["of_test"]
