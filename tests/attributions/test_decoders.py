"""L-MAC: a decoder finds planted evidence, sees training clips alone, and is the same each time."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from audioxai_utils.attributions import METHODS, decoder_training, register
from audioxai_utils.attributions.decoder import Decoder, feature_layers, features_of
from audioxai_utils.models.cnn14 import Cnn14

SIZES: list[int] = []  # spectrograms in each call of a Halves
RECIPE = decoder_training.Recipe(
    epochs=40, batch_size=8, learning_rate=0.01, mixed=0.3, noise=0.5, second=0.2
)


class Bands(nn.Module):
    """How loud each of two bands of frequency is: a map each, 0 outside its band."""

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        maps = functional.avg_pool2d((db + 60) / 40, 2).repeat(1, 2, 1, 1)  # (n, 2, 16, 20)
        inside = torch.zeros_like(maps[:1])
        inside[:, 0, 2:6], inside[:, 1, 10:14] = 1, 1
        return maps * inside


class Halves(nn.Module):
    """Two classes: which of two bands of frequency is the louder one; nothing else is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.look = Bands()
        self.scale = nn.Parameter(torch.tensor(20.0, dtype=torch.float64))

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        SIZES.append(len(db))
        maps = self.look(db)
        return self.scale * maps.mean(dim=(2, 3))


def band(label: int) -> slice:
    return slice(4, 12) if label == 0 else slice(20, 28)


def clips(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Quiet noise (n, 1, 32, 40) with the band of the class loud, and the classes."""
    generator = torch.Generator().manual_seed(seed)
    db = torch.randn(n, 1, 32, 40, generator=generator, dtype=torch.float64) * 2 - 60
    labels = torch.arange(n) % 2
    for clip, label in zip(db, labels.tolist()):
        clip[:, band(label)] += 40
    return db, labels


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    found = decoder_training.train_decoder(Halves(), clips(24, 0)[0], RECIPE)
    path = tmp_path_factory.mktemp("decoder") / "halves.pt"
    decoder_training.save_decoder(found, path, n_clips=24)
    return found, path


def test_the_band_that_speaks_is_kept_on_clips_it_has_not_seen(fitted):
    db, labels = clips(6, 9)
    attribution = METHODS["lmac"](Halves(), db, labels, decoder=fitted[1])
    for one, label in zip(attribution[:, 0], labels.tolist()):
        inside = torch.zeros(32, 40, dtype=torch.bool)
        inside[band(label)] = True
        other = torch.zeros(32, 40, dtype=torch.bool)
        other[band(1 - label)] = True
        assert float((one > 0)[inside].double().mean()) > 0.7
        assert float((one > 0)[~inside & ~other].double().mean()) < 0.2
    losses = fitted[0].losses
    assert len(losses) == RECIPE.epochs and losses[-1] < 0.6 * losses[0]


def test_the_class_that_is_asked_for_is_shown_where_both_speak(fitted):
    db = clips(2, 11)[0]
    both = torch.maximum(db[:1], db[1:])
    for label in (0, 1):
        attribution = METHODS["lmac"](Halves(), both, torch.tensor([label]), decoder=fitted[1])[0, 0]
        assert float(attribution[band(label)].mean()) > float(attribution[band(1 - label)].mean()) + 0.2


def test_some_second_classes_are_asked_for():
    logits = torch.tensor([[0.0, 3.0, 2.0]]).repeat(2000, 1)
    target = decoder_training.asked(
        logits, decoder_training.Recipe(second=0.1), torch.Generator().manual_seed(0)
    )
    assert set(target.tolist()) == {1, 2} and float((target == 2).double().mean()) == pytest.approx(
        0.1, abs=0.02
    )
    assert decoder_training.asked(logits, decoder_training.Recipe(second=0.0), torch.Generator()).eq(1).all()


def test_the_loss_is_what_it_says(fitted):
    """One step by hand: -log p(kept) - log(1 - p(removed)) + area + variation, in decibels."""
    recipe = dataclasses.replace(RECIPE, noise=0.0, mixed=0.0, second=0.0)
    db, _ = clips(4, 3)
    model, decoder = Halves(), fitted[0].decoder
    module = decoder_training._make_module(decoder, model, ["look"], recipe, 10, 0)
    loss = float(module.training_step((db,), 0).detach())
    db = decoder_training.augmented(db, recipe, torch.Generator().manual_seed(0))[1]
    coarse = decoder([model.look(db)], model(db).argmax(1))
    mask = functional.interpolate(coarse, (32, 40), mode="bilinear").sigmoid()
    expected = []
    for one, m, z in zip(db, mask, coarse):
        target = int(model(one[None]).argmax())
        kept, removed = (
            model((((one + 100) * part) - 100)[None]).softmax(1)[0, target] for part in (m, 1 - m)
        )
        conditions = z[0].sigmoid()
        variation = (
            (conditions[1:] - conditions[:-1]).abs().sum()
            + (conditions[:, 1:] - conditions[:, :-1]).abs().sum()
        ) / conditions.numel()
        kept, removed, m, variation = (value.detach() for value in (kept, removed, m, variation))
        expected.append(
            -math.log(kept) - math.log(1 - removed) + 2 * float(m.mean()) + 0.5 * float(variation)
        )
    assert loss == pytest.approx(float(np.mean(expected)), rel=1e-9)


def test_features_are_found_behind_parts_that_pool_them_away():
    """As in mn04: what wraps it has one child, that one has two, and only the first one's parts give maps."""
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(nn.Sequential(body, nn.Linear(4, 2)))
    db = torch.randn(2, 1, 16, 20)
    assert feature_layers(model, db) == ["0.0.0", "0.0.1", "0.0.2"]
    assert feature_layers(nn.Sequential(nn.Conv2d(1, 4, 3), body[2:], nn.Linear(4, 2)), db) == ["0"]


def test_the_mask_is_one_pass_of_the_decoder_over_the_features_of_cnn14(tmp_path):
    """By hand: the model's blocks one after the other, their maps turned to (frequency, time)."""
    torch.manual_seed(0)
    model = Cnn14(32, 4, 1 / 32).double().eval()
    db = torch.randn(3, 1, 32, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 12 - 45
    layers = [f"conv_block{i}" for i in range(1, 7)]
    assert feature_layers(model, db) == layers
    decoder = Decoder([maps.shape[1] for maps in features_of(model, db, layers)[1]], 4).double()
    path = tmp_path / "d.pt"
    decoder_training.save_decoder(decoder_training.FittedDecoder(decoder, layers, [1.0], 2.0), path)
    with torch.no_grad():
        target = model(db).argmax(1)
        x, maps = model.bn0(db[:, 0]).transpose(1, 2)[:, None], []
        for i in range(1, 7):
            x = getattr(model, f"conv_block{i}")(x, pool=2 if i < 6 else 1)
            maps.append(x.transpose(2, 3))
        logits = functional.interpolate(decoder(maps, target), (32, 64), mode="bilinear", align_corners=False)
    found = METHODS["lmac"](model, db, target, decoder=path)
    torch.testing.assert_close(found, logits.sigmoid() - 0.5, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(METHODS["lmac"](model, db, target, decoder=str(path), batch_size=1), found)
    assert decoder_training.decoder_info(path)["seconds"] == 2.0


def test_seeds_fix_it_and_nothing_else_is_touched():
    recipe = decoder_training.Recipe(epochs=2, batch_size=4)
    db, model = clips(8, 0)[0], Halves()
    random, weights = torch.get_rng_state(), float(model.scale)
    first, again = (decoder_training.train_decoder(model, db, recipe, seed=3) for _ in range(2))
    other = decoder_training.train_decoder(model, db, recipe, seed=4)
    for name, value in first.decoder.state_dict().items():
        assert torch.equal(value, again.decoder.state_dict()[name])
    assert first.losses == again.losses != other.losses
    assert torch.equal(random, torch.get_rng_state()) and float(model.scale) == weights
    assert (
        model.training
        and model.scale.requires_grad
        and model.scale.grad is None
        and not model.look._forward_hooks
    )


def test_memory_is_bounded_by_the_batch_size(fitted):
    db, labels = clips(10, 5)
    SIZES.clear()
    METHODS["lmac"](Halves(), db, labels, decoder=fitted[1], batch_size=3)
    assert max(SIZES) == 3
    SIZES.clear()
    decoder_training.train_decoder(Halves(), db, decoder_training.Recipe(epochs=1, batch_size=4))
    assert max(SIZES) == 8  # what is kept and what is removed


def test_clips_are_shifted_mixed_and_noised_as_the_recipe_says():
    db = clips(200, 1)[0]
    draw = lambda **changes: decoder_training.augmented(
        db,
        decoder_training.Recipe(**{"mixed": 0.0, "noise": 0.0, **changes}),
        torch.Generator().manual_seed(5),
    )[1]
    shifted = draw()
    clean = decoder_training.augmented(db, decoder_training.Recipe(), torch.Generator().manual_seed(5))[0]
    torch.testing.assert_close(clean, shifted)
    for one, moved in zip(db, shifted):
        fits = [torch.allclose(one.roll(k, dims=-1), moved) for k in range(40)]
        assert sum(fits) == 1
    assert float((draw(noise=2.0) - shifted).std()) == pytest.approx(2.0, rel=0.02)
    mixed = draw(mixed=0.5) - shifted
    assert float(mixed.min()) > -1e-9
    share = (mixed.amax(dim=(1, 2, 3)) > 1e-6).double().mean()
    assert 0.4 < float(share) < 0.6
    # all mixed at equal level: power adds up, so the mean power doubles
    everyone = draw(mixed=1.0, quieter=0.0)
    assert float((10 ** (everyone / 10)).mean() / (10 ** (shifted / 10)).mean()) == pytest.approx(
        2.0, rel=1e-6
    )


# Fine-tuning


class Everything(Bands):
    """How loud it is everywhere, a map before those of the two bands."""

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        # (n, 3, 16, 20)
        return torch.cat([functional.avg_pool2d((db + 60) / 40, 2), super().forward(db)], dim=1)


class Ears(Halves):
    """Halves whose features show what it does not decide by, too."""

    def __init__(self) -> None:
        super().__init__()
        self.look = Everything()

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        SIZES.append(len(db))
        return self.scale * self.look(db)[:, 1:].mean(dim=(2, 3))


TUNING = dataclasses.replace(RECIPE, epochs=15, learning_rate=3e-3, guide=1.0)


def louder_clips(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips with a third loud band, between the two, that the classifier does not look at."""
    db, labels = clips(n, seed)
    db[:, :, 13:19] += 40
    return db, labels


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """A decoder's file after either stage, and what the second one says of itself."""
    folder, db = tmp_path_factory.mktemp("stages"), louder_clips(24, 0)[0]
    paths = folder / "first.pt", folder / "second.pt"
    decoder_training.save_decoder(decoder_training.train_decoder(Ears(), db, RECIPE), paths[0])
    tuned = decoder_training.train_decoder(Ears(), db, TUNING, start=paths[0])
    decoder_training.save_decoder(tuned, paths[1])
    return paths, tuned


def test_fine_tuned_masks_follow_the_energy_and_keep_the_class(stages):
    db, labels = louder_clips(8, 9)
    levels, unheard, kept = [], [], []
    for path, method in zip(stages[0], ("lmac", "lmac_ft")):
        mask = METHODS[method](Ears(), db, labels, decoder=path) + 0.5
        levels.append(np.mean([np.corrcoef(one.flatten(), m.flatten())[0, 1] for one, m in zip(db, mask)]))
        unheard.append(float(mask[:, :, 13:19].mean()))
        kept.append(Ears()((db + 100) * mask - 100).softmax(1).gather(1, labels[:, None]).detach())
    assert levels[1] > levels[0] + 0.1 and levels[1] > 0.7
    assert unheard[0] < 0.1 and unheard[1] > 0.4  # what only the ear wants
    assert float(kept[1].min()) > 0.9


def test_fine_tuning_goes_on_from_the_file_and_seeds_fix_it(stages):
    paths, tuned = stages
    first, content = torch.load(paths[0], weights_only=True), paths[0].read_bytes()
    again = decoder_training.train_decoder(Ears(), louder_clips(24, 0)[0], TUNING, start=str(paths[0]))
    assert paths[0].read_bytes() == content and tuned.layers == first["layers"]
    for name, value in tuned.decoder.state_dict().items():
        assert torch.equal(value, again.decoder.state_dict()[name])
    weights = tuned.decoder.state_dict()
    assert not all(torch.equal(value, weights[name]) for name, value in first["decoder"].items())
    assert tuned.seconds > first["info"]["seconds"] and len(tuned.losses) == TUNING.epochs
    barely = dataclasses.replace(TUNING, epochs=1, learning_rate=1e-9)
    still = decoder_training.train_decoder(Ears(), louder_clips(8, 0)[0], barely, start=paths[0])
    for name, value in still.decoder.state_dict().items():
        torch.testing.assert_close(value, first["decoder"][name], rtol=0, atol=1e-6)


def test_the_guide_is_what_it_says(stages):
    """By hand: cross-entropy with the loud bins in the place of area and variation, where alike and
    predicted.
    """
    recipe = dataclasses.replace(TUNING, guide=2.0, mixed=0.7, quieter=0.0, second=0.4)
    db, model = louder_clips(12, 3)[0], Ears()
    decoder = decoder_training._continued(stages[0][0], db)[0]
    clean, heard = decoder_training.augmented(db, recipe, draws := torch.Generator().manual_seed(0))
    target, predicted = decoder_training.asked(model(heard), recipe, draws), model(heard).argmax(1)
    coarse = decoder([model.look(heard)], target).detach()
    logits = functional.interpolate(coarse, (32, 40), mode="bilinear")
    mask = logits.sigmoid()
    level, kept = np.log1p(10 ** (clean.numpy() / 20)), mask.numpy() * np.log1p(10 ** (heard.numpy() / 20))
    cosines = [float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())) for a, b in zip(level, kept)]
    recipe = dataclasses.replace(recipe, alike=float(np.median(cosines)))
    faithful = decoder_training.objective(model, heard, target, mask, "db").detach()
    size = decoder_training.penalty(mask, coarse, recipe, None)
    expected, kinds = [], set()
    for i in range(12):
        alike, asked = cosines[i] >= recipe.alike, bool(target[i] == predicted[i])
        kinds.add((alike, asked))
        loud, z = level[i] >= 0.35 * level[i].max(), logits[i].numpy()
        guide = 2 * np.logaddexp(0, np.where(loud, -z, z)).mean()  # -log m where it is loud, else -log(1 - m)
        expected.append(float(faithful[i]) + (guide if alike and asked else float(size[i])))
    assert len(kinds) == 4
    found = decoder_training._make_module(decoder, model, ["look"], recipe, 10, 0).training_step((db,), 0)
    assert float(found.detach()) == pytest.approx(np.mean(expected), rel=1e-9)


def test_fine_tuning_is_bounded_by_the_batch_size(stages):
    SIZES.clear()
    recipe = dataclasses.replace(TUNING, epochs=1, batch_size=4)
    decoder_training.train_decoder(Ears(), louder_clips(10, 5)[0], recipe, start=stages[0][0])
    assert max(SIZES) == 8


# Refusals


def test_what_does_not_fit_is_refused_in_one_line(fitted, tmp_path):
    db, labels = clips(2, 0)
    with pytest.raises(
        FileNotFoundError, match="no such file; train one with decoder_training.train_decoder"
    ):
        METHODS["lmac"](Halves(), db, labels, decoder=tmp_path / "none.pt")
    torch.save({"model": 1}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="holds no decoder"):
        METHODS["lmac"](Halves(), db, labels, decoder=tmp_path / "other.pt")
    with pytest.raises(ValueError, match="must have a module that returns maps"):
        decoder_training.train_decoder(nn.Sequential(nn.Flatten(), nn.Linear(32 * 40, 2)).double(), db)
    with pytest.raises(ValueError, match="epochs must be 1 or more; got 0"):
        decoder_training.Recipe(epochs=0)
    with pytest.raises(ValueError, match="learning_rate must be above 0"):
        decoder_training.Recipe(learning_rate=0.0)
    with pytest.raises(ValueError, match="guide must be 0 or more; got -1"):
        decoder_training.Recipe(guide=-1)
    with pytest.raises(FileNotFoundError, match="no such file"):
        decoder_training.train_decoder(Halves(), db, start=tmp_path / "none.pt")
    with pytest.raises(TypeError, match="nothing has no option 'decoder'"):
        register("nothing", recipe=decoder_training.Recipe())(lambda model, db, target: db)


def test_extremal_20_is_extremal_at_a_fifth():
    db, labels = clips(2, 0)
    found = METHODS["extremal_20"](Halves(), db, labels, n_steps=30)
    assert torch.equal(found, METHODS["extremal"](Halves(), db, labels, area=0.2, n_steps=30))
    assert (found > 0).sum(dim=(1, 2, 3)).tolist() == [round(0.2 * 32 * 40)] * 2
