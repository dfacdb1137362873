"""Training: it learns, it restores the true best epoch, it repeats itself, it augments as it says."""

import dataclasses

import pytest
import torch

from audioxai_utils.models.cnn14 import Cnn14
from audioxai_utils.models.training import (
    _optimizers,
    augment,
    channels_last_convolutions,
    train_classifier,
)
from audioxai_utils.study.profiles import PROFILES

SIZES = dataclasses.replace(
    PROFILES["smoke"], epochs=4, batch_size=8, learning_rate=0.05, schedule="constant", averaging=0.0
)


class Linear(torch.nn.Module):
    """The smallest classifier that tells the two classes apart."""

    n_classes = 2

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(64, 2).double()
        torch.nn.init.zeros_(self.linear.weight)

    def forward(self, db):
        return self.linear(db.mean(3).squeeze(1) / 10 + 5)


def tones(n, seed):
    """Two classes that differ in which half of the bins is loud."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    db = torch.randn(n, 1, 64, 80, generator=generator, dtype=torch.float64) - 60
    db[labels == 0, :, :32] += 20
    db[labels == 1, :, 32:] += 20
    return db, labels


@pytest.fixture(scope="module")
def run():
    torch.manual_seed(1)
    return train_classifier(Linear(), tones(32, 0), tones(16, 1), SIZES, seed=3)


def test_it_learns_and_keeps_a_row_per_epoch(run):
    assert run.history["epoch"].tolist() == [1, 2, 3, 4]
    assert set(run.history.columns) == {
        "epoch",
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
    }
    assert run.history["validation_loss"].is_monotonic_decreasing
    assert run.history["validation_accuracy"].iloc[-1] == 1
    assert not run.model.training


def test_the_weights_are_those_of_the_best_epoch(run):
    """Audit 11: without copying the weights one gets the last epoch."""
    db, labels = tones(16, 1)
    accuracy = (run.model(db).argmax(1) == labels).double().mean().item()
    assert accuracy == run.history["validation_accuracy"].max()
    assert run.best_epoch == run.history["epoch"][run.history["validation_accuracy"].argmax()]


def test_an_early_best_epoch_is_restored_though_later_ones_are_worse():
    """Validation labels are exchanged, so that every thing learnt makes validation worse."""
    db, labels = tones(16, 1)
    torch.manual_seed(2)
    run = train_classifier(Linear(), tones(32, 0), (db, 1 - labels), SIZES, seed=5)
    assert run.best_epoch == 1
    assert run.history["validation_loss"].is_monotonic_increasing
    restored = torch.nn.functional.cross_entropy(run.model(db), 1 - labels).item()
    assert restored == pytest.approx(run.history["validation_loss"].iloc[0])
    assert restored < run.history["validation_loss"].iloc[-1]


def test_the_same_seed_gives_the_same_weights(run):
    torch.manual_seed(1)
    again = train_classifier(Linear(), tones(32, 0), tones(16, 1), SIZES, seed=3)
    for (name, one), other in zip(run.model.state_dict().items(), again.model.state_dict().values()):
        torch.testing.assert_close(one, other, msg=name)


def test_augmentation_shifts_crops_masks_and_mixes():
    torch.manual_seed(0)
    db, labels = tones(6, 0)
    one_hot = torch.nn.functional.one_hot(labels, 2).double()
    plain = dataclasses.replace(SIZES, time_shift=False, crop=1.0, mixup=0.0)
    masked, same = augment(db, one_hot, plain)
    changed = (masked != db).double().mean((1, 2, 3))
    assert (
        torch.equal(same, one_hot) and changed.max() > 0 and changed.max() <= (10 * 80 + 20 * 64) / (64 * 80)
    )
    cropped, _ = augment(db, one_hot, dataclasses.replace(plain, time_shift=True, crop=0.5))
    assert cropped.shape == (6, 1, 64, 40)
    short, _ = augment(db[..., :60], one_hot, dataclasses.replace(plain, time_shift=True, crop=0.3))
    assert short.shape[3] == 32  # what five poolings need
    _, soft = augment(db, one_hot, dataclasses.replace(plain, mixup=0.4))
    torch.testing.assert_close(soft.sum(1), torch.ones(6, dtype=torch.float64))
    assert ((soft > 0) & (soft < 1)).any()


def test_the_paper_profile_is_the_published_one():
    paper = PROFILES["paper"]
    assert (paper.width, paper.epochs, paper.batch_size, paper.learning_rate) == (1.0, 20, 32, 1e-4)
    assert (paper.schedule, paper.mixup, paper.time_shift, paper.dropout, paper.averaging) == (
        "constant",
        0,
        False,
        1,
        0,
    )
    assert (paper.n_clips, paper.lime_samples, paper.background_clips, paper.iid_masks) == (
        None,
        1000,
        None,
        False,
    )


def test_the_paper_optimiser_is_adam_at_a_constant_rate():
    optimiser = _optimizers(Linear(), PROFILES["paper"], n_steps=10)
    assert type(optimiser) is torch.optim.Adam and optimiser.param_groups[0]["lr"] == 1e-4


def test_masks_are_stripes_of_the_published_width():
    """At most 10 bins and 20 frames, whole rows and columns, the same for the whole batch under the paper's
    profile.
    """
    torch.manual_seed(0)
    db = torch.full((4, 1, 64, 80), -50.0)
    plain = dataclasses.replace(PROFILES["paper"])
    for _ in range(20):
        masked, _ = augment(db.clone(), torch.eye(4), plain)
        zero = masked[:, 0] == 0
        rows, columns = zero.all(2), zero.all(1)  # (clips, bins), (clips, frames)
        assert rows.sum(1).max() < 10 and columns.sum(1).max() < 20
        assert torch.equal(zero, rows[:, :, None] | columns[:, None, :])
        assert (rows == rows[0]).all() and (columns == columns[0]).all()


def test_averaged_weights_are_what_is_validated_and_kept():
    """With a decay of 0.9 the kept weights lag behind the last ones, and their accuracy is the one in the
    history.
    """
    torch.manual_seed(1)
    plain = train_classifier(Linear(), tones(32, 0), tones(16, 1), SIZES, seed=3)
    torch.manual_seed(1)
    sizes = dataclasses.replace(SIZES, averaging=0.9)
    averaged = train_classifier(Linear(), tones(32, 0), tones(16, 1), sizes, seed=3)
    assert averaged.model.linear.weight.norm() < plain.model.linear.weight.norm()
    db, labels = tones(16, 1)
    loss = torch.nn.functional.cross_entropy(averaged.model(db), labels).item()
    assert loss == pytest.approx(averaged.history["validation_loss"][averaged.best_epoch - 1])


def nearly_the_same_twice(reproducible):
    """Weights after four epochs of Cnn14 from a start, and from one that differs in the twelfth digit."""
    sizes = dataclasses.replace(SIZES, reproducible=reproducible, learning_rate=4e-3, crop=0.5)
    states = []
    for nudge in (0.0, 1e-12):
        torch.manual_seed(1)
        model = Cnn14(64, 2, width=1 / 32).double()
        with torch.no_grad():
            model.head.weight.mul_(1 + nudge)
        states.append(train_classifier(model, tones(32, 0), tones(16, 1), sizes, seed=3).model.state_dict())
    return [(states[0][name] - states[1][name]).abs().max().item() for name in states[0]]


def test_the_reproducible_profile_forgets_rounding_that_stays_otherwise():
    assert max(nearly_the_same_twice(reproducible=False)) > 1e-14
    assert max(nearly_the_same_twice(reproducible=True)) == 0


def gradients(model, db, labels):
    model.zero_grad()
    logits = model(db)
    torch.nn.functional.cross_entropy(logits, labels).backward()
    return [logits.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


def test_channels_last_convolutions_change_no_logit_and_no_gradient_and_are_undone():
    torch.manual_seed(0)
    model = Cnn14(64, 2, width=1 / 16, dropout=0.0).train()
    db, labels = (part[:4] for part in tones(8, 0))
    plain = gradients(model, db.float(), labels)
    orders = []
    with channels_last_convolutions(model):
        handle = model.conv_block2.conv2.register_forward_pre_hook(
            lambda _, inputs: orders.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
        )
        ordered = gradients(model, db.float(), labels)
        handle.remove()
    assert orders == [True]
    for one, other in zip(plain, ordered, strict=True):
        assert float((one - other).abs().max()) <= 1e-4 * float(one.abs().max() + 1e-3)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert model.conv_block2.conv2.weight.is_contiguous()


class Normed(Linear):
    """The same behind a batch norm."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(1).double()

    def forward(self, db):
        return super().forward(self.norm(db / 60))


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_batch_norms_keep_their_statistics_and_train_their_weights(frozen):
    model, sizes = Normed(), dataclasses.replace(SIZES, frozen_norms=frozen)
    trained = train_classifier(model, tones(32, 0), tones(16, 1), sizes, seed=3).model.norm
    assert torch.equal(trained.running_mean, torch.zeros(1).double()) == frozen
    assert (trained.num_batches_tracked.item() == 0) == frozen
    assert not torch.equal(trained.weight, torch.ones(1).double())


def test_gain_is_one_level_a_clip_and_nothing_is_blanked_where_it_is_not_asked_for():
    db, labels = tones(40, 0)
    one_hot = torch.nn.functional.one_hot(labels, 2).double()
    plain = dataclasses.replace(SIZES, time_shift=False, crop=1.0, mixup=0.0, masked=False)
    assert torch.equal(augment(db, one_hot, plain)[0], db)
    louder, _ = augment(db, one_hot, dataclasses.replace(plain, gain_db=6.0))
    gain = (louder - db).flatten(1)
    torch.testing.assert_close(gain, gain[:, :1].expand_as(gain))
    assert gain.abs().max() <= 6 and gain.min() < -3 and gain.max() > 3
