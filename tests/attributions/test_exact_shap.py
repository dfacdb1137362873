"""Deep SHAP by rules on operations: additive on any network, Shapley values where a formula says them."""

from __future__ import annotations

import pytest
import torch
from exact_networks import (
    NETS,
    SPECTROGRAM,
    Net,
    additivity,
    build,
    draw,
    first_conv,
    one,
    shapley_values,
)
from torch import nn
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from audioxai_utils.attributions.exact import NotExact, exact_deep_shap


@pytest.mark.parametrize("max_rule", ["shapley", "deeplift"])
@pytest.mark.parametrize("name", NETS)
def test_additive(name, max_rule):
    target = torch.tensor([1, 3])
    for dtype, tolerance in {torch.float64: 1e-12, torch.float32: 1e-5}.items():
        net, x, b = build(name, dtype)
        values = exact_deep_shap(net, x, b, target, max_rule=max_rule, chunk_size=3)
        assert values.shape == x.shape and values.dtype == dtype
        assert additivity(net, x, b, target, values).max() <= tolerance


FORMULAS = {
    "product": lambda v: v[:, 0] * v[:, 1],
    "ratio": lambda v: v[:, 0] / v[:, 1],
    "sum of both": lambda v: v[:, 0] * v[:, 1] + v[:, 2] / v[:, 3] + torch.tanh(v[:, 1]),
    "maximum of two": lambda v: v[:, :2].amax(1),
    "minimum of two": lambda v: torch.minimum(v[:, 2], v[:, 3]),
    "decision": lambda v: (v[:, 0] > 0).to(v.dtype) * v[:, 1],
}


@pytest.mark.parametrize("name", FORMULAS)
def test_shapley_values(name):
    x, b = torch.tensor([[1.3, 0.4, 2.0, 0.7], [-0.6, 1.1, 0.5, 1.9]], dtype=torch.float64)
    assert torch.allclose(one(FORMULAS[name], x, b), shapley_values(FORMULAS[name], x, b), rtol=0, atol=1e-14)


def test_maximum_of_four():
    """A tree of pairs is near the Shapley values of four; what goes to one entry alone is not."""
    generator = torch.Generator().manual_seed(0)
    far = {"shapley": [], "deeplift": []}
    for _ in range(20):
        x, b = torch.randn(2, 4, generator=generator, dtype=torch.float64)
        exact = shapley_values(lambda v: v.amax(1), x, b)
        for rule, found in far.items():
            values = one(lambda v: v.amax(1), x, b, max_rule=rule)
            assert torch.isclose(values.sum(), x.max() - b.max(), rtol=0, atol=1e-14)
            found.append(((values - exact).abs().sum() / exact.abs().sum()).item())
    assert sorted(far["shapley"])[10] < 0.2 < sorted(far["deeplift"])[10]


def test_ties_are_stable():
    """Windows of equal entries, as in silence: noise of 1e-7 does not move the values."""
    torch.manual_seed(0)
    net = (
        Net(lambda x, conv: functional.max_pool2d(conv(x), 2).mean((2, 3)), 8, conv=first_conv())
        .double()
        .eval()
    )
    x, b, target = (
        torch.full((1, *SPECTROGRAM), -1.0).double(),
        draw(SPECTROGRAM, 3, torch.float64, 2),
        torch.tensor([0]),
    )
    moved = x + 1e-7 * draw(SPECTROGRAM, 1, torch.float64, 3)
    far = {}
    for rule in ("shapley", "deeplift"):
        values = exact_deep_shap(net, x, b, target, max_rule=rule)
        difference = values - exact_deep_shap(net, moved, b, target, max_rule=rule)
        far[rule] = (difference.abs().max() / values.abs().max()).item()
    assert far["shapley"] <= 1e-4 and far["deeplift"] > 0.01  # deeplift's choice flips: the documented price


def test_equals_shap_on_modules():
    import shap

    net, x, b = build("cnn14", torch.float32)
    values = exact_deep_shap(net, x[:1], b, torch.tensor([2]), max_rule="deeplift")
    reference = torch.from_numpy(shap.DeepExplainer(net, b).shap_values(x[:1])[..., 2])
    assert (values - reference).abs().max() <= 1e-5 * reference.abs().max()


@pytest.mark.parametrize("name", ["gru", "everything", "cnn14"])
def test_clip_is_explained_by_itself(name):
    net, x, b = build(name)
    both = exact_deep_shap(net, x, b, torch.tensor([1, 2]), chunk_size=2)
    alone = exact_deep_shap(net, x[1:], b, torch.tensor([2]), chunk_size=2)
    assert torch.equal(both[1:], alone)
    whole = exact_deep_shap(net, x, b, torch.tensor([1, 2]), chunk_size=16)
    assert torch.allclose(both, whole, rtol=0, atol=1e-12 * whole.abs().max().item())


def test_target_as_function():
    net, x, b = build("squeeze-excitation")
    values = exact_deep_shap(net, x, b, lambda outputs: outputs[:, 1] - outputs[:, 0])
    columns = [exact_deep_shap(net, x, b, torch.full((2,), column)) for column in (0, 1)]
    assert torch.allclose(values, columns[1] - columns[0], rtol=0, atol=1e-13)


def test_changed_weights_and_branches_are_seen():
    net, x, b = build("squeeze-excitation")
    net.scale = 1.0
    plain = net.forward
    net.forward = lambda rows: plain(rows) * net.scale
    first = exact_deep_shap(net, x, b, torch.tensor([0, 1]))
    net.scale = 3.0
    assert torch.allclose(exact_deep_shap(net, x, b, torch.tensor([0, 1])), 3 * first, rtol=1e-12)


def state_of(net: nn.Module) -> list:
    flags = [
        (module.training, sorted(module.__dict__), len(module._forward_hooks)) for module in net.modules()
    ]
    return [flags, [v.clone() for v in net.state_dict().values()], [p.grad for p in net.parameters()]]


def backend_flags() -> tuple:
    attention = torch.backends.cuda.flash_sdp_enabled(), torch.backends.mha.get_fastpath_enabled()
    return *attention, torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled, torch.is_grad_enabled()


class Counting(nn.Module):
    """Writes a buffer and an attribute at every call; raises at call ``fail``: 2 is in the trace."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.fail, self.n_calls = inner, None, 0
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.n_calls, self.last = self.n_calls + 1, x
        if self.n_calls == self.fail:
            raise OSError("no such file")
        return self.inner(x)


@pytest.mark.parametrize("fail", [None, 1, 2, 3, 4])
def test_model_is_left_as_found(fail):
    net, x, b = build("functional convolution")
    net = Counting(net)
    net.fail = fail
    net.train()
    net.inner.parts["norm"].eval()
    next(net.parameters()).grad = torch.ones_like(next(net.parameters()))
    net.register_forward_hook(lambda *_: None)
    x.requires_grad_()
    before, backends = state_of(net), backend_flags()
    if fail:
        with pytest.raises(OSError, match="no such file"):
            exact_deep_shap(net, x, b, torch.tensor([0, 1]))
    else:
        exact_deep_shap(net, x, b, torch.tensor([0, 1]))
    after = state_of(net)
    assert before[0] == after[0] and backends == backend_flags() and x.grad is None
    assert all(torch.equal(p, q) for p, q in zip(before[1], after[1]))
    assert all(p is q for p, q in zip(before[2], after[2]))


def packed(rows: torch.Tensor) -> torch.Tensor:
    lengths = torch.full((len(rows),), 5)
    sequence = nn.utils.rnn.pack_padded_sequence(rows, lengths, batch_first=True)
    return nn.GRU(3, 4, batch_first=True)(sequence)[1][0]


REFUSED = {
    "topk": lambda rows: rows.flatten(1).topk(3)[0],
    "sort": lambda rows: rows.flatten(1).sort()[0],
    "argmax": lambda rows: rows.flatten(1).argmax(1, keepdim=True) * rows.flatten(1),
    "bernoulli": lambda rows: functional.dropout(rows.flatten(1), 0.5, training=True),
    "_pack_padded_sequence": packed,
    "traced": lambda rows: rows.flatten(1) * (2 if float(rows.detach().numpy().sum()) > 0 else 3),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_operation(name):
    x = torch.ones(1, 5, 3)
    with pytest.raises(NotExact, match=name) as error:
        exact_deep_shap(REFUSED[name], x, -x, torch.tensor([0]))
    assert "\n" not in str(error.value)


def test_values_that_the_trace_did_not_see_are_refused():
    """A factor that changes from call to call stands for a branch on the input's values."""
    factors = iter([1.0] * 4 + [2.0] * 50)
    with pytest.raises(NotExact, match="f's own outputs"):
        exact_deep_shap(
            lambda rows: rows * next(factors), torch.ones(1, 3), -torch.ones(1, 3), torch.tensor([0])
        )


@pytest.mark.parametrize(
    "change, words",
    [
        ({"x": [1.0]}, "x must be a tensor"),
        ({"x": torch.ones(2, 3, dtype=torch.int64)}, "x must be float32 or float64"),
        ({"background": torch.zeros(2, 4)}, "background must be like x"),
        ({"target": torch.tensor([0])}, "one a clip"),
        ({"target": torch.tensor([0, 3])}, "target must be in 0 ... 2"),
        ({"max_rule": "mean"}, "max_rule must be one of"),
        ({"chunk_size": 0}, "chunk_size must be at least 1"),
        ({"f": lambda rows: rows.sum()}, "must be a tensor"),
    ],
)
def test_arguments(change, words):
    given = {
        "f": lambda rows: rows,
        "x": torch.ones(2, 3),
        "background": torch.zeros(2, 3),
        "target": torch.tensor([0, 1]),
    }
    with pytest.raises((ValueError, TypeError), match=words):
        exact_deep_shap(**{**given, **change})


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_recurrent_layers_multiply_as_their_steps_do(kind):
    """Beside a chain of cells, written in operations that have rules of their own."""
    torch.manual_seed(0)
    x, b = (scale * torch.randn(n, 5, 3).double() for n, scale in ((2, 2), (3, 1)))
    layer = getattr(nn, kind.upper())(3, 4, batch_first=True).double()
    last = {"gru": 1, "lstm": 2}[kind]

    def whole(rows):
        outputs, state = layer(rows)
        return torch.cat([outputs.mean(1), *(state if last == 2 else [state])[-1]], 1)

    def step_by_step(rows):
        h = c = rows.new_zeros(1).expand(len(rows), 4)
        outputs = []
        for now in rows.unbind(1):
            given = functional.linear(now, layer.weight_ih_l0, layer.bias_ih_l0)
            own = functional.linear(h, layer.weight_hh_l0, layer.bias_hh_l0)
            if kind == "gru":
                r, z = (given + own)[:, :8].sigmoid().chunk(2, 1)
                new = torch.tanh(given[:, 8:] + r * own[:, 8:])
                h = c = new + z * (h - new)
            else:
                i, f, g, o = (given + own).chunk(4, 1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return torch.cat([torch.stack(outputs).mean(0), c], 1)

    with torch.no_grad():
        torch.testing.assert_close(whole(x), step_by_step(x))
    for column in (1, 6):
        target = torch.full((2,), column)
        found, expected = (exact_deep_shap(f, x, b, target) for f in (whole, step_by_step))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", ["deeplift", "shapley"])
@pytest.mark.parametrize(
    ("size", "options"),
    [
        (8, {"kernel_size": 2}),
        (9, {"kernel_size": 2}),
        (9, {"kernel_size": 2, "ceil_mode": True}),
        (8, {"kernel_size": 3, "stride": 2, "padding": 1}),
        (9, {"kernel_size": (3, 2), "stride": (1, 2), "dilation": (2, 1)}),
        (8, {"kernel_size": 4, "padding": 2, "ceil_mode": True}),
    ],
)
def test_max_pooling_shares_out_each_window(size, options, rule):
    """Beside the same maxima, written as ``amax`` over windows that are indexed one by one."""
    torch.manual_seed(0)
    x, b = (torch.randn(n, 2, size, size).double() for n in (2, 3))
    pool, places = nn.MaxPool2d(**options), torch.arange(2.0 * size * size).double().view(1, 2, size, size)
    cells = [torch.zeros(1, 2, size, size).double() for _ in range(2)]
    n_cells = pool(places)[0, 0].numel()
    pairs = [(i, j) for i in range(size) for j in range(size)]
    held = [[] for _ in range(n_cells)]
    for i, j in pairs:  # an entry that is larger than all shows the cells it lies in
        cells[0].zero_()[0, 0, i, j] = 1
        for cell in pool(cells[0])[0, 0].flatten().nonzero().flatten().tolist():
            held[cell].append(i * size + j)

    def by_hand(rows):
        flat = rows.flatten(2)
        return torch.stack([flat[:, :, cell].amax(2) for cell in held], 2).flatten(1)

    weights = torch.randn(2 * n_cells, 1).double()
    found, expected = (
        exact_deep_shap(lambda rows, f=f: f(rows) @ weights, x, b, torch.tensor([0, 0]), max_rule=rule)
        for f in (lambda rows: pool(rows).flatten(1), by_hand)
    )
    if rule == "shapley":  # a tree of pairs hangs on the order and the padding of a window
        torch.testing.assert_close(found.sum((1, 2, 3)), expected.sum((1, 2, 3)))
    else:
        torch.testing.assert_close(found, expected)


def test_make_fx_of_the_pinned_torch():
    """What the trace builds on: ATen nodes with their values' shapes, whole numbers where the sizes are."""
    graph = make_fx(functionalize(lambda x: x.view(len(x) * 2, -1).mul_(2).sum(1)))(torch.ones(3, 4)).graph
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    assert [node.target.overloadpacket.__name__ for node in nodes][:2] == ["view", "mul"]
    assert nodes[0].args[1] == [6, -1] and tuple(nodes[0].meta["val"].shape) == (6, 2)


@pytest.mark.parametrize("kind", ["ast", "wav2vec2"])
def test_hugging_face(kind):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_labels": 4,
    }
    if kind == "ast":
        config = transformers.ASTConfig(
            patch_size=8, frequency_stride=8, time_stride=8, max_length=24, num_mel_bins=16, **sizes
        )
        net, shape = transformers.ASTForAudioClassification(config), (24, 16)
    else:
        config = transformers.Wav2Vec2Config(
            conv_dim=(8, 8), conv_stride=(8, 8), conv_kernel=(16, 8), num_feat_extract_layers=2,
            num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, classifier_proj_size=8, **sizes
        )  # fmt: skip
        net, shape = transformers.Wav2Vec2ForSequenceClassification(config), (2000,)
    net, target = net.eval(), torch.tensor([1, 3])

    def logits(rows: torch.Tensor) -> torch.Tensor:
        return net(rows).logits

    for dtype, tolerance in {torch.float64: 1e-12, torch.float32: 1e-5}.items():
        net = net.to(dtype)
        x, b = draw(shape, 2, dtype, 1), draw(shape, 3, dtype, 2)
        values = exact_deep_shap(logits, x, b, target)
        assert additivity(logits, x, b, target, values).max() <= tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "function",
    [torch.log, torch.log2, torch.log10, torch.log1p, torch.reciprocal, torch.rsqrt, torch.sqrt],
    ids=lambda f: f.__name__,
)
def test_silence_beside_a_loud_reference_is_no_nan(function, dtype):
    """1e-5 against 1e4 is what a log-mel's offset meets: their ratio less one rounds to -1 in float32."""
    values = torch.tensor([[1e-5], [1e4], [3e-7], [2.0], [1e-12], [1e12]], dtype=dtype)
    offset = 0 if function is torch.log1p else 1e-30

    def f(x):
        return torch.cat([function(x + offset), 2 * function(x + offset)], dim=1)

    target = torch.zeros(len(values), dtype=torch.long)
    for reference in values:
        found = exact_deep_shap(f, values, reference[None], target)
        expected = f(values)[:, :1] - f(reference[None])[:, :1]
        assert found.isfinite().all()
        size = (f(values)[:, :1].abs() + f(reference[None])[:, :1].abs()).double()
        assert ((found - expected).abs() <= 1e-5 * size + 1e-30).all()
