"""What a user says of a classifier and does not fit: no wrong number comes of it without a word."""

from __future__ import annotations

import warnings

import any_models
import pytest
import torch
from any_models import CLASSES, RATE, Around, clip, cnn, described, lime
from torch import nn
from torch.nn import functional

from audioxai_utils import METHODS, AudioClassifier, explain, explain_many

pytestmark = pytest.mark.usefixtures("same_weights")


# Names


@pytest.mark.parametrize(
    "classes",
    [
        {2: "siren", 0: "dog", 1: "rain"},
        {"rain": 1, "dog": 0, "siren": 2},
        {"1": "rain", "0": "dog", "2": "siren"},
    ],
    ids=["id2label", "label2id", "of JSON"],
)
def test_a_dict_of_classes_names_the_columns_by_its_numbers(classes):
    """A dict's own order, or its keys, would put one class's name on another's numbers."""
    net = cnn()
    found, plain = (lime(described(net, each), target="rain") for each in (classes, CLASSES))
    assert found.target == plain.target == 1 and found.target_name == "rain"
    torch.testing.assert_close(found.probabilities, plain.probabilities)


@pytest.mark.parametrize(
    "classes, error, words",
    [
        ({"dog", "rain", "siren"}, TypeError, "classes must be a list of names in the order of the outputs"),
        ({"dog": 1, "rain": 2, "siren": 3}, ValueError, "numbers its 3 names from 0 without gaps"),
        ({"dog": 0, "rain": 0, "siren": 2}, ValueError, "numbers its 3 names from 0 without gaps"),
    ],
    ids=["set", "from 1", "twice"],
)
def test_classes_without_an_order_are_refused(classes, error, words):
    with pytest.raises(error, match=words):
        described(cnn(), classes)


def test_a_name_that_two_columns_have_is_asked_about():
    classifier = described(cnn(), ["dog", "rain", "dog"])
    with pytest.raises(ValueError, match=r"'dog' is the name of columns \[0, 2\]; give one by its number"):
        lime(classifier, target="dog")
    assert lime(classifier, target=2).target == 2 and lime(classifier, target="rain").target == 1


# Outputs


def test_one_column_is_no_sigmoid_head_that_is_called_not_siren():
    """Its only column is the siren's; the names of a detector's two columns would call it "not siren"."""
    with pytest.raises(ValueError, match="head='sigmoid' is for several labels; of one column give .*binary"):
        lime(described(cnn(1), ["siren"], head="sigmoid"))


def test_one_logit_without_its_axes_is_the_same_logit():
    net = cnn(1)
    shapes = [Around(net, change) for change in (lambda y: y, lambda y: y[:, 0], torch.squeeze)]
    found = [lime(described(each, ["siren"], head="binary"), target="siren") for each in shapes]
    for each in found[1:]:
        torch.testing.assert_close(each.probabilities, found[0].probabilities)
        torch.testing.assert_close(each.attribution, found[0].attribution)


@pytest.mark.parametrize("lost", [torch.squeeze, lambda y: y[0], lambda y: y.mean(0, keepdim=True)])
@pytest.mark.parametrize("method", ["lime", "saliency"])
def test_an_answer_that_loses_the_axis_of_the_batch_is_refused(lost, method):
    with pytest.raises(ValueError, match="net must return a row for each of its . clips; got . rows"):
        explain(described(Around(cnn(), lost), head="softmax"), clip(), RATE, method=method)


class Stateful(nn.Module):
    """It adds to its answer what it said before."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.said = cnn(), 0

    def forward(self, db):
        scores = self.net(db)
        self.said = self.said + scores.detach().mean(0, keepdim=True)
        return scores + self.said


@pytest.mark.parametrize(
    "make",
    [Stateful, lambda: Around(cnn(), before=lambda x: functional.dropout(x, 0.3, training=True))],
    ids=["state", "dropout"],
)
def test_an_answer_that_changes_from_call_to_call_is_called_so(make):
    with pytest.raises(ValueError, match="changes from one call to the next, as by dropout or noise"):
        lime(described(make(), head="softmax"))


@pytest.mark.parametrize("head", [None, "probabilities"])
def test_scores_are_not_read_before_it_is_known_what_they_are(head):
    """Read as sigmoid scores, a softmax model's map by a method that asks was another's."""
    net = cnn() if head is None else Around(cnn(), lambda y: y.softmax(1))
    classifier = described(net, head=head)
    db, target = classifier.pictures(clip()[None]), torch.tensor([1])
    with pytest.raises(
        ValueError, match="scores are not known yet: give head=, or a first sound, classifier.look"
    ):
        classifier.model  # noqa: B018
    classifier.look(clip()[None])
    found = METHODS["lime"](classifier.model, db, target, n_samples=8)
    torch.testing.assert_close(found, lime(classifier, target=1).attribution)


# Numbers


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"threshold": 50}, ValueError, "threshold must be a probability from 0 to 1; got 50"),
        ({"threshold": float("nan")}, ValueError, "threshold must be a probability from 0 to 1; got nan"),
        ({"threshold": "half"}, TypeError, "threshold must be a probability; got 'half'"),
        ({"floor": float("nan")}, ValueError, "floor must be a level in dB; got nan"),
        ({"floor": "-50"}, TypeError, "floor must be a level in dB; got '-50'"),
    ],
)
def test_numbers_that_cannot_be_are_refused(options, error, words):
    """A threshold of 50 (per cent) heard nothing ever, a floor of NaN scored NaN."""
    with pytest.raises(error, match=words):
        described(cnn(), head="sigmoid", **options)


@pytest.mark.parametrize("rate", [0, -16000, 16000.5, float("nan"), "16000"])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises((ValueError, TypeError), match="sample_rate must be a whole number of Hz"):
        AudioClassifier(any_models.WaveNet(), CLASSES, rate)


def test_integers_that_were_taken_for_samples_are_warned_of():
    """90 dB too loud, another class is heard."""
    classifier = described(cnn())
    with pytest.warns(UserWarning, match="has its peak at .* where 1 is full scale; divide 16-bit integers"):
        lime(classifier, (clip() * 2**15).float())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lime(classifier, 3 * clip())


# Clips that a network does not take


def test_a_clip_that_the_network_does_not_take_is_a_line_and_not_the_end_of_a_table():
    """The first clip has the length that it was made for, the second has not."""
    net = nn.Sequential(any_models.Normal(), nn.Flatten(), nn.Linear(32 * 51, 3))
    with pytest.raises(
        ValueError, match=r"does not take what input= makes of the picture \(1, 1, 32, 76\)"
    ) as e:
        lime(described(net, head="softmax"), clip(1.2))
    assert "\n" not in str(e.value) and "the length that it was made for" in str(e.value)
    clips = {"first": clip(), "longer": clip(1.2), "again": clip(seed=1)}
    table = explain_many(described(net, head="softmax"), clips, ["occlusion"], RATE, masks=["bin"])
    refused = table.set_index("clip")["refused"]
    assert refused["first"] == refused["again"] == "" and "shapes cannot be multiplied" in refused["longer"]


# Targets and layers


@pytest.mark.parametrize("output", [None, "scores"])
def test_a_function_that_returns_probabilities_is_warned_of(output):
    """They are read as logits: .26 would be .57."""
    net = Around(cnn(), lambda y: {"scores": y}) if output else cnn()
    classifier = described(net, output=output)
    with pytest.warns(UserWarning, match="it is read as a logit; of a probability p return p.logit()"):
        lime(classifier, target=lambda y: y.softmax(1)[:, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = lime(classifier, target=lambda y: y.softmax(1)[:, 1].logit())
        lime(classifier, target=lambda y: y[:, 1] - y[:, 0])
        lime(classifier, target=lambda y: functional.cosine_similarity(y, torch.ones(1, 3)))
    torch.testing.assert_close(found.probabilities[1], classifier.probabilities(clip()[None])[0, 1])


def test_the_end_of_several_layers_names_is_asked_about():
    """It was the first of them, without a word."""
    blocks = nn.ModuleDict({name: nn.ModuleDict({"conv": nn.Conv2d(1, 1, 3)}) for name in ("low", "high")})

    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks, self.head = blocks, nn.Linear(1, 3)

        def forward(self, db):
            x = self.blocks["low"]["conv"]((db + 60) / 20).abs()
            x = self.blocks["high"]["conv"](x).abs()
            return self.head(x.mean((2, 3)))

    classifier = described(Around(Blocks()), head="softmax")
    with pytest.raises(
        ValueError, match="layer 'conv' is the end of 2 names; say which: .*low.conv, .*high.conv"
    ):
        explain(classifier, clip(), RATE, layer="conv")
    found = [explain(classifier, clip(), RATE, layer=layer).attribution for layer in ("high.conv", None)]
    torch.testing.assert_close(*found)


class Stages(nn.Module):
    """Swin in small: patches, then half as many rows and columns, always (batch, rows, columns, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.first = nn.Conv2d(1, 4, 2, stride=2), nn.LayerNorm(4)
        self.tokens = nn.LayerNorm(4)
        self.merge = nn.Linear(16, 6)
        self.stage = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.GELU())
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, db):
        x = self.first(self.patches((db + 60) / 20).permute(0, 2, 3, 1))
        x = x + self.tokens(x.flatten(1, 2)).view_as(x)  # a norm over tokens, of the first stage alone
        x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
        x = torch.cat([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], 3)
        return self.head(self.norm(self.stage(self.merge(x))).mean((1, 2)))


@pytest.mark.parametrize("layer", [None, "norm", "stage"])
def test_grad_cam_of_stages_with_their_channels_last(layer):
    """By hand, on the last stage's grid. It was the first convolution's, and a named stage's channels were
    taken for its rows.
    """
    net = Stages().eval()
    found = explain(described(net, head="softmax"), clip(), RATE, layer=layer, target=2, masks=["bin"])
    held = []
    handle = getattr(net, layer or "norm").register_forward_hook(
        lambda module, given, output: held.append(output)
    )
    scores = net(found.batch.db.clone().requires_grad_())
    handle.remove()
    (slopes,) = torch.autograd.grad(scores[0, 2], held[0])  # (1, rows, columns, channels)
    coarse = (slopes.mean((1, 2), keepdim=True) * held[0].detach()).sum(3).unsqueeze(1)
    assert coarse.shape[2:] == (8, 12)
    expected = functional.interpolate(coarse, found.batch.db.shape[2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(found.attribution, expected)


def test_a_single_layer_norm_behind_a_convolution_belongs_to_it():
    """As in ConvNeXt: the convolution's map is shown, as before."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(1, 4, 4, stride=4), nn.LayerNorm(4), nn.Linear(4, 3)

        def forward(self, db):
            x = self.norm(self.conv((db + 60) / 20).permute(0, 2, 3, 1))
            return self.head(functional.gelu(x).mean((1, 2)))

    classifier = described(Block(), head="softmax")
    found, named = (explain(classifier, clip(), RATE, layer=layer).attribution for layer in (None, "conv"))
    torch.testing.assert_close(found, named)


def test_a_map_whose_channels_may_be_either_axis_is_asked_about():
    class Square(Stages):
        def forward(self, db):
            x = functional.adaptive_avg_pool2d(self.patches((db + 60) / 20), (4, 9)).permute(0, 2, 3, 1)
            return self.head(functional.pad(self.block(x), (0, 2)).mean((1, 2)))

    net = Square()
    net.block = nn.Sequential(nn.LayerNorm(4), nn.GELU())  # of (1, 4, 9, 4)
    with pytest.raises(ValueError, match="channels may be its second axis or its last; name one of its"):
        explain(described(net, head="softmax"), clip(), RATE, layer="block")
