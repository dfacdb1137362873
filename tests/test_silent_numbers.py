"""Numbers that came out and were not what they were called: thresholds, states, parts that are no sound."""

from __future__ import annotations

import copy
import functools

import any_models
import pytest
import torch
from any_models import CLASSES, RATE, Around, clip, cnn, described, lime
from torch import nn

from audioxai_utils import AudioClassifier, explain
from audioxai_utils.evaluation.masks import MASKS
from audioxai_utils.evaluation.metrics import faithfulness
from audioxai_utils.models.using import Using, modules_used, using

pytestmark = pytest.mark.usefixtures("same_weights")


# When a label is heard


@pytest.mark.parametrize("several", [False, True])
def test_the_threshold_is_that_of_every_probability(several):
    """Of one column of probabilities, and of several labels as one, FidIn followed .5 whatever was asked."""
    net, names = (cnn(), CLASSES) if several else (cnn(1), ["siren"])
    target = ["dog", "siren"] if several else "siren"
    options = {"method": "occlusion", "target": target, "masks": ["bin", "topK_30"]}
    found = [
        explain(described(each, names, head=head, threshold=threshold), clip(), RATE, **options).scores
        for each, head in (
            (Around(net, torch.sigmoid), "probabilities"),
            (net, ["binary", "sigmoid"][several]),
        )
        for threshold in (0.01, 0.99)
    ]
    for scores, heard in zip(found, (1, 0, 1, 0)):
        assert scores["p_kept"].between(0.01, 0.99).all() and scores["FidIn"].eq(heard).all()


def test_a_sure_tagger_s_labels_do_not_exclude_each_other():
    """On this clip they add up to 1.0001, and a label was heard where it was the loudest."""
    net = cnn().eval()
    with torch.no_grad():
        own = net(described(net).pictures(clip()[None]))

    def tagger(db):
        return torch.sigmoid(40 * (net(db) - own) / own.abs().max() + torch.tensor([9.0, -9.0, -9.0]))

    classifier = described(tagger, head="probabilities", threshold=0.9999)
    found = explain(classifier, clip(), RATE, method="occlusion", masks=["bin", "topK_30"])
    assert float(found.probabilities.sum()) == pytest.approx(1, abs=1e-3)
    assert classifier.reading().threshold == 0.9999
    assert found.scores["FidIn"].eq(found.scores["p_kept"] > 0.9999).all()
    exclusive = described(Around(net, lambda y: y.softmax(1)), head="probabilities")
    assert exclusive.reading_after(clip()[None]).threshold is None


# What a network keeps from call to call


class Streaming(nn.Module):
    """It goes on from its last answer while batches have one size, as recurrent networks with a state do."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.state = cnn(), None

    def forward(self, db):
        scores = self.net(db)
        if self.state is None or len(self.state) != len(scores):
            self.state = torch.zeros_like(scores)
        self.state = self.state + scores.detach()
        return self.state + scores


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_state_of_batches_of_one_size_is_refused(one_by_one):
    """A batch of two began anew, so that nothing was noticed, and probabilities were those of the last call."""
    net = Streaming()

    def single(db):
        if len(db) > 1:
            raise ValueError("one clip at a time")
        return db

    classifier = described(Around(net, before=single) if one_by_one else net, head="softmax")
    with pytest.raises(ValueError, match="changes from one call to the next, .* or by a state that it keeps"):
        lime(classifier)


class Positions(nn.Module):
    """It makes weights of the frames when it first meets a length, and keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.weights = cnn(), torch.ones(1)

    def forward(self, db):
        if len(self.weights) != db.shape[3]:
            self.weights = torch.linspace(0.5, 1, db.shape[3])
        return self.net((db + 60) * self.weights - 60)


@pytest.mark.parametrize("method", ["lime", "rise", "occlusion", "coughlime", "saliency"])
def test_what_a_network_keeps_can_be_trained_with(method):
    """It was left with tensors of inference mode, on which the user's next training step failed."""
    net = Positions()
    classifier, quick = described(net, head="softmax"), any_models.QUICK
    options = {name: quick[name] for name in any_models.METHODS.taken(method, **quick)}
    for seconds in (0.5, 0.8):
        explain(classifier, clip(seconds), RATE, method=method, masks=["bin"], heard=True, **options)
    assert not net.weights.is_inference()
    net(torch.randn(2, 1, 32, len(net.weights), requires_grad=True)).sum().backward()


# Parts that are no sound to a network


class Peak(nn.Module):
    """It brings every waveform to peak 1; of silence that is 0 / 0."""

    def __init__(self) -> None:
        super().__init__()
        self.net = any_models.WaveNet()

    def forward(self, waveform):
        return self.net(waveform / waveform.abs().amax(2, keepdim=True))


def test_an_answer_that_is_no_number_counts_for_nothing(monkeypatch):
    """FidIn was 1 for the first class, of a part that the network said NaN of."""
    classifier = AudioClassifier(Peak(), CLASSES, RATE, input="(B, 1, N)", head="softmax")
    tone, options = clip(0.3), {"method": "occlusion", "target": 0, "check_gradient": False}
    monkeypatch.setitem(MASKS, "none", lambda values, protocol: 0 * values)
    with pytest.warns(UserWarning, match="answers NaN to what none keep or remove, .*: divide by the peak"):
        scores = explain(classifier, tone, RATE, masks=["none", "bin"], **options).scores
    assert scores.loc["none", ["p_kept", "AI", "AG", "AD", "FidIn"]].isna().all()
    assert scores.loc["bin", ["p_kept", "AI", "FidIn"]].notna().all()


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_metrics_of_no_number_are_no_number(threshold):
    p, nan = torch.tensor([[0.7, 0.3]]), torch.full((1, 2), torch.nan)
    scores = faithfulness(p, nan, p, target=torch.tensor([0]), threshold=threshold)
    assert float(scores["FF"]) == 0 and all(scores[name].isnan() for name in ("AI", "AG", "FidIn", "AD"))
    removed = faithfulness(p, p, nan, target=torch.tensor([0]), threshold=threshold)
    assert removed["FF"].isnan() and float(removed["FidIn"]) == 1


# What a user's functions use


def normed(channels: int) -> nn.Module:
    """A front end or a head that drops and drifts while it is left in training mode, as it is made."""
    return nn.Sequential(nn.BatchNorm1d(channels), nn.Dropout(0.5))


class FrontEnd:
    """A front end as an object, with a module in it."""

    def __init__(self, norm: nn.Module) -> None:
        self.norm = norm

    def __call__(self, waveform):
        return self.norm(waveform.unsqueeze(1))

    def prepare(self, waveform):
        return self(waveform)


def normalised(waveform, norm):
    return norm(waveform.unsqueeze(1))


FRONT_ENDS = {
    "module": lambda norm: nn.Sequential(nn.Unflatten(1, (1, -1)), norm),
    "lambda": lambda norm: lambda waveform: norm(waveform.unsqueeze(1)),
    "partial": lambda norm: functools.partial(normalised, norm=norm),
    "object": FrontEnd,
    "method": lambda norm: FrontEnd(norm).prepare,
}


@pytest.mark.parametrize("kind", FRONT_ENDS)
def test_a_front_end_is_evaluated_and_proved_with_its_network(kind):
    """One in training mode drifted, and was then refused as dropout; a gradient's proof ended at float64."""
    norm, net = normed(1), any_models.WaveNet()
    before = [buffer.clone() for buffer in norm.buffers()]
    classifier = AudioClassifier(net, CLASSES, RATE, input=FRONT_ENDS[kind](norm), head="softmax")
    found = explain(classifier, clip(), RATE, method="saliency", target=1, masks=["bin"])
    assert norm.training and norm[0].training and norm[1].training and found.attribution.any()
    assert all(torch.equal(now, then) for now, then in zip(norm.buffers(), before))
    assert norm[0].weight.dtype == torch.float32
    with torch.no_grad():
        expected = net.eval()(norm.eval()(clip().float()[None, None]))[0].softmax(0)
    torch.testing.assert_close(found.probabilities, expected)


@pytest.mark.parametrize("of", ["output", "target", "black box"])
def test_heads_and_networks_in_functions_are_evaluated_too(of):
    net, head = cnn(), nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 3))
    before = [buffer.clone() for buffer in (*net.buffers(), *head.buffers())]
    options = {"method": "lime", "n_samples": 8, "masks": ["bin"], "target": 1}
    if of == "output":
        classifier = described(net, output=head, head="softmax")
    elif of == "target":
        classifier = described(net, head="softmax")
        options["target"] = lambda scores: head(scores)[:, 1] - head(scores)[:, 0]
    else:
        classifier = described(lambda db: head(net(db)), head="softmax")
    found = explain(classifier, clip(), RATE, **options)
    assert all(module.training for module in (*net.modules(), *head.modules()))
    assert all(torch.equal(*pair) for pair in zip((*net.buffers(), *head.buffers()), before))
    with torch.no_grad():
        scores = head.eval()(net.eval()(found.batch.db))[0]
    expected = (scores[1] - scores[0]).sigmoid() if of == "target" else scores.softmax(0)[1]
    torch.testing.assert_close(found.probabilities[1], expected)


def test_a_copied_function_calls_copies_and_the_function_itself_is_as_it_was():
    norm, other = nn.LayerNorm(4).double(), functools.lru_cache(lambda x: x)

    def inner(x):
        return norm(x) if x.dtype == torch.float64 else x

    def outer(x, used=(norm, [inner])):
        return used[1][0](x) + used[0](x)

    whole = using(outer)
    assert isinstance(whole, Using) and modules_used(outer) == [norm] and using(other) is other
    copied, x = copy.deepcopy(whole), torch.randn(2, 4, dtype=torch.float64)
    with torch.no_grad():
        copied.used[0].weight.mul_(3)
        torch.testing.assert_close(copied(x), 3 * whole(x))
        torch.testing.assert_close(whole(x), 2 * norm(x))


def test_silence_has_no_gradient_in_a_model_of_waveforms_and_is_not_called_a_wrong_one():
    net = nn.Sequential(nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 4, 64, stride=16), nn.ReLU(), nn.Flatten())
    net.append(nn.LazyLinear(3))
    classifier = AudioClassifier(net, CLASSES, RATE, head="softmax")
    with pytest.raises(ValueError, match="waveform is silent: a sound of no level has no gradient for sal"):
        explain(classifier, torch.zeros_like(clip()), RATE, method="saliency", masks=["bin"])
    with pytest.warns(UserWarning, match="occlusion is zero everywhere"):
        explain(classifier, torch.zeros_like(clip()), RATE, method="occlusion", masks=["bin"])


@pytest.mark.parametrize("head", [None, "softmax", "sigmoid"])
def test_percentages_get_no_second_softmax(head):
    net = Around(cnn(), lambda y: 100 * y.softmax(1))
    with pytest.raises(ValueError, match="sum to 100, which are percentages: divide them by 100"):
        explain(described(net, head=head), clip(), RATE, method="saliency", masks=["bin"])
    shares = described(net, output=lambda y: y / 100, head="probabilities")
    found = explain(shares, clip(), RATE, method="occlusion", masks=["bin"])
    assert float(found.probabilities.sum()) == pytest.approx(1, abs=1e-5)


def test_weights_that_were_made_in_inference_mode_are_refused_in_a_line():
    with torch.inference_mode():
        net = cnn()
    with pytest.raises(ValueError, match="net's weights were made in torch.inference_mode"):
        described(net, head="softmax")
    classifier = described(cnn(), head="softmax")
    with torch.inference_mode():  # the call alone may stand in it
        found = explain(classifier, clip(), RATE, method="saliency", masks=["bin"])
    assert torch.isfinite(found.attribution).all()
