"""Fragility against loops: maps that follow the sound, maps that do not, what is left out, and an attack."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from audioxai_utils.audio.spectrograms import get_spectrogram
from audioxai_utils.audit import fragility

CLIPS = 0.1 * torch.sin(torch.arange(160000) * torch.tensor([[0.1], [0.5]]))
MEL = get_spectrogram("mel_db")


class Loudest(nn.Module):
    """Two classes: which half of the rows is louder."""

    def forward(self, picture):
        return torch.stack([half.amax((1, 2, 3)) for half in picture.chunk(2, 2)], 1)


def predict(waveform):
    return Loudest()(MEL.decibels(waveform)).argmax(1)


def explain(name, waveform, target):
    db = MEL.decibels(waveform)
    if name == "level":
        return db
    generator = torch.Generator().manual_seed(int(1e6 * abs(float(waveform.sum()))) % 2**31)
    return (
        torch.ones_like(db) * torch.arange(db.shape[3])
        if name == "still"
        else torch.rand(db.shape, generator=generator)
    )


def level_of(change, clips):
    return (10 * torch.log10(change.square().mean(1) / clips.square().mean(1))).tolist()


def test_noise_has_its_level():
    noise = fragility.with_noise(CLIPS, -40.0, torch.Generator().manual_seed(0)) - CLIPS
    assert level_of(noise, CLIPS) == pytest.approx([-40, -40], abs=1e-3)


def test_maps_are_held_against_themselves_and_clips_that_change_class_are_left_out():
    methods, levels = ("still", "level", "lot"), (-80.0, 40.0)
    found = fragility.fragility(explain, predict, CLIPS, methods, levels=levels, n_draws=2)
    assert len(found) == 3 * 2 * 2 * 2
    first = found[(found["method"] == "level") & (found["level_db"] == -80)].iloc[0]
    noisy = fragility.with_noise(CLIPS, -80.0, torch.Generator().manual_seed(0))
    sides = [MEL.decibels(each)[0].flatten() for each in (CLIPS, noisy)]
    assert first["similar"] == pytest.approx(spearmanr(*sides).statistic, abs=1e-6)
    quiet = found[found["level_db"] == -80]
    assert quiet["held"].all() and not found.loc[found["level_db"] == 40, "held"].all()
    table = fragility.table(found).set_index(["method", "level_db"])
    assert table.loc[("still", -80.0), "similar"] == pytest.approx(1) == table.loc[("still", -80.0), "worst"]
    assert abs(table.loc[("lot", -80.0), "similar"]) < 0.05
    worst = quiet[quiet["method"] == "level"].groupby("clip")["similar"].min().mean()
    assert table.loc[("level", -80.0), "worst"] == pytest.approx(worst)
    assert table.loc[("level", -80.0), "clips"] == 2
    of_an_attack = ["both_noise", "both_attack"]
    assert table[of_an_attack].isna().all(axis=None)
    assert np.isfinite(table.drop(columns=["change", *of_an_attack]).to_numpy(float)).all()


# The attack


class Curved(nn.Module):
    """Two classes; a bin's gradient hangs on its neighbours, behind ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.relu, self.last = nn.Conv2d(1, 8, 5, 2), nn.ReLU(), nn.Linear(8, 2)
        with torch.no_grad():
            for values in self.parameters():
                values.copy_(0.3 * torch.randn(values.shape, generator=generator))

    def forward(self, picture):
        return self.last(self.relu(self.first(picture / 20)).pow(2).mean((2, 3)))


def noisy_tones():
    generator = torch.Generator().manual_seed(1)
    return CLIPS[:, :32000] + 0.02 * torch.randn(2, 32000, generator=generator)


SILENCE = -100.0  # dB, where the path begins


def slope_at(net, picture, target):
    picture = picture.detach().requires_grad_()
    return torch.autograd.grad(net(picture)[range(len(picture)), target].sum(), picture)[0]


def saliency_map(net, picture, target):
    return slope_at(net, picture, target).abs()


def gradcam_map(net, picture, target):
    maps = net.first(picture / 20).detach().requires_grad_()
    score = net.last(net.relu(maps).pow(2).mean((2, 3)))[range(len(picture)), target].sum()
    weights = torch.autograd.grad(score, maps)[0].mean((2, 3), keepdim=True)
    return (weights * maps).detach().sum(1).clamp_min(0)


def path_map(net, picture, target):
    way, shares = picture - SILENCE, (torch.arange(4) + 0.5) / 4
    slopes = [slope_at(net, SILENCE + share * way, target) for share in shares]
    return (way * sum(slopes) / 4).clamp_min(0)


AIMS = {
    "saliency": (saliency_map, fragility.aim_at_saliency),
    "gradcam": (gradcam_map, fragility.aim_at_gradcam),
    "integrated gradients": (path_map, fragility.aim_at_path(SILENCE)),
}


def shares_left(map_of, net, clips, changed, target):
    """Share of the relevance on the tenth of the places where it was largest, clip by clip, before and after."""
    first, after = (map_of(net, MEL.decibels(sound), target).flatten(1) for sound in (clips, changed))
    chosen = first.topk(round(fragility.TOP * first.shape[1]), dim=1).indices
    return [float((each.gather(1, chosen).sum(1) / each.sum(1)).mean()) for each in (first, after)]


@pytest.mark.parametrize("aimed_at", AIMS)
def test_an_attack_moves_its_map_further_than_noise_at_the_same_level_and_keeps_the_class(aimed_at):
    net, clips = Curved(), noisy_tones()
    map_of, aim = AIMS[aimed_at]
    target = net(MEL.decibels(clips)).argmax(1)
    changed = fragility.attack(net, MEL, clips, target, -30.0, aim, n_steps=15)
    assert level_of(changed - clips, clips) == pytest.approx([-30, -30], abs=0.05)
    assert torch.equal(net(MEL.decibels(changed)).argmax(1), target)
    noisy = fragility.with_noise(clips, -30.0, torch.Generator().manual_seed(0))
    before, attacked = shares_left(map_of, net, clips, changed, target)
    _, by_noise = shares_left(map_of, net, clips, noisy, target)
    assert attacked < by_noise - 0.2 * (before - by_noise) and attacked < 0.97 * by_noise
    assert isinstance(net.relu, nn.ReLU), "the network itself stays"


@pytest.mark.parametrize("aimed_at", AIMS)
def test_what_an_attack_follows_is_the_map_of_the_method(aimed_at):
    net, picture = Curved(), MEL.decibels(noisy_tones())
    map_of, aim = AIMS[aimed_at]
    target = net(picture).argmax(1)
    relevance = aim(net, picture, target)(picture, target, False)
    torch.testing.assert_close(relevance.flatten(1), map_of(net, picture, target).flatten(1))


class Attentive(nn.Module):
    """Patches as tokens, one layer of attention: fused, it has no second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 16, 16, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, picture):
        tokens = self.patch(picture / 20).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.layer(tokens)).mean(1))


@pytest.mark.parametrize("aimed_at", AIMS)
def test_a_transformer_can_be_attacked(aimed_at):
    torch.manual_seed(0)
    net, clips = Attentive().eval(), noisy_tones()
    target = net(MEL.decibels(clips)).argmax(1)
    changed = fragility.attack(net, MEL, clips, target, -30.0, AIMS[aimed_at][1], n_steps=3)
    assert level_of(changed - clips, clips) == pytest.approx([-30, -30], abs=0.05)
    assert not torch.equal(changed, fragility.with_noise(clips, -30.0, torch.Generator().manual_seed(0)))


def test_a_method_without_a_slope_of_its_own_is_attacked_at_saliency():
    aims = {name: fragility.aim_of(name, Curved(), {}) for name in ("lime", "saliency", "gradcam")}
    assert aims["lime"] is aims["saliency"] is fragility.aim_at_saliency
    assert aims["gradcam"] is fragility.aim_at_gradcam


def test_each_method_is_asked_about_the_attack_on_itself():
    asked = []

    def explained(name, waveform, target):
        asked.append((name, float(waveform[0, 0])))
        return MEL.decibels(waveform)

    attacks = {"a": lambda waveform, target, level: waveform + 1e-3, "b": lambda *given: given[0] + 2e-3}
    found = fragility.fragility(explained, predict, CLIPS, ("a", "b", "c"), levels=(-50.0,), attacks=attacks)
    assert set(found.loc[found["method"] == "c", "change"]) == {fragility.WHITE}
    assert ("a", pytest.approx(1e-3)) in asked and ("b", pytest.approx(2e-3)) in asked
    assert ("a", pytest.approx(2e-3)) not in asked


def test_a_network_without_a_slope_to_follow_is_left_with_noise():
    net, clips = nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), noisy_tones()
    target = net(MEL.decibels(clips)).argmax(1)
    changed = fragility.attack(net, MEL, clips, target, -40.0, n_steps=3)
    assert torch.equal(changed, fragility.with_noise(clips, -40.0, torch.Generator().manual_seed(0)))


def test_the_sentence_names_the_most_and_the_least_alike_and_the_attack():
    rows = [
        ("saliency", fragility.WHITE, 0, 0.6, True),
        ("saliency", fragility.WHITE, 1, 0.2, True),  # which the attack takes out of its class
        ("lime", fragility.WHITE, 0, 0.9, True),
        ("saliency", fragility.ATTACK, 0, 0.1, True),
        ("saliency", fragility.ATTACK, 1, 0.9, False),
        ("saliency", fragility.ATTACK, 2, 0.8, True),  # which the noise takes
    ]
    found = pd.DataFrame(rows, columns=["method", "change", "clip", "similar", "held"]).assign(level_db=-30.0)
    table = fragility.table(found)
    said = fragility.sentence(table)
    alone = found[(found["change"] != fragility.ATTACK) | (found["clip"] == 2)]  # no clip that both leave
    assert fragility.sentence(fragility.table(alone)).endswith("(ρ = 0.40).")
    assert (
        "30 dB below" in said
        and "LIME most alike (ρ = 0.90)" in said
        and "of clips that both leave in their class, an attack takes Saliency from 0.60 to 0.10" in said
    )
    assert fragility.sentence(table[:0]) == ""
