"""EfficientAT: front ends against slow oracles; the network by names, numbers and gradients; the probe."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio
from torch import nn
from torchaudio.compliance import kaldi

from audioxai_utils.models import efficientat, efficientat_frontend, probe
from audioxai_utils.models.efficientat import EfficientAT, load_efficientat, read_audioset_labels
from audioxai_utils.models.efficientat_frontend import EfficientATMel, StftToMel

SHARED = Path(__file__).resolve().parents[3] / "shared"
WEIGHTS = SHARED / "models" / "efficientat_mn04" / "mn04_as_mAP_432.pt"
LABELS = WEIGHTS.with_name("class_labels_indices.csv")


def random_network(width=0.05, n_classes=5):
    """A narrow network in float64 whose batch norms have statistics of their own, in evaluation mode."""
    torch.manual_seed(0)
    network = EfficientAT(n_classes, width).double()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
    return network.eval()


def noise(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def central_difference(function, x, direction, step=1e-5):
    with torch.no_grad():
        return float(function(x + step * direction) - function(x - step * direction)) / (2 * step)


def gradient_along(function, x, direction):
    x = x.clone().requires_grad_()
    return float((torch.autograd.grad(function(x), x)[0] * direction).sum())


@pytest.fixture
def float64_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# The front end


def test_filters_are_torchaudios_kaldi_filters(float64_by_default):
    filters = efficientat_frontend.kaldi_mel_filters()
    theirs, _ = kaldi.get_mel_banks(128, 1024, 32000.0, 0.0, 15000.0, 100.0, -500.0, 1.0)  # no bin at 16 kHz
    assert torch.allclose(filters[:, :-1], theirs, rtol=0, atol=1e-12)
    assert (filters[:, -1] == 0).all() and (filters.sum(1) > 0).all()


def slow_mel(x):
    """The front end of one waveform by its definition: a sum over samples for every bin of every frame."""
    y = [x[t] - 0.97 * x[t - 1] for t in range(1, len(x))]
    n, out = len(y), []
    corners = [1127 * math.log(1 + 15000 / 700) * i / 129 for i in range(130)]
    hann = [0.5 - 0.5 * math.cos(2 * math.pi * i / 799) for i in range(800)]
    bins = np.arange(513)
    for frame in range(n // 320 + 1):
        spectrum = np.zeros(513, complex)
        for i in range(800):
            t = abs(frame * 320 - 400 + i)  # reflected at the start
            t = t if t < n else 2 * (n - 1) - t  # and at the end
            spectrum += hann[i] * y[t] * np.exp(-2j * np.pi * bins * i / 1024)
        power, column = np.abs(spectrum) ** 2, []
        for low, centre, high in zip(corners, corners[1:], corners[2:]):
            total = 0.0
            for k in range(513):
                mel = 1127 * math.log(1 + k * 31.25 / 700)
                total += power[k] * max(0, min((mel - low) / (centre - low), (high - mel) / (high - centre)))
            column.append((math.log(total + 1e-5) + 4.5) / 5)
        out.append(column)
    return torch.tensor(out, dtype=torch.float64).T


def test_front_end_is_its_definition():
    waveform = 0.1 * noise(1, 1400)
    mel = EfficientATMel()(waveform)
    assert mel.shape == (1, 1, 128, 5)
    assert torch.allclose(mel[0, 0], slow_mel(waveform[0].tolist()), rtol=0, atol=1e-9)


def test_front_end_silence_is_its_floor():
    front_end = EfficientATMel()
    mel = front_end(torch.zeros(2, 160000))
    assert mel.shape == (2, 1, 128, 500)
    assert torch.allclose(mel, torch.tensor(front_end.floor), atol=1e-6)
    assert front_end.floor_db == pytest.approx(-50)


def test_front_end_gradient():
    front_end, weights = EfficientATMel(), noise(1, 1, 128, 7, seed=2)
    waveform, direction = 0.1 * noise(2, 2000), noise(2, 2000, seed=3)

    def function(x):
        return (front_end(x) * weights).sum()

    slope = central_difference(function, waveform, direction, step=1e-6)
    assert gradient_along(function, waveform, direction) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize(
    "waveform", [torch.zeros(160000), torch.zeros(1, 1, 2000), torch.zeros(1, 2000).long()]
)
def test_front_end_wants_a_batch_of_waveforms(waveform):
    with pytest.raises(ValueError, match="waveform must be floating and"):
        EfficientATMel()(waveform)


def test_front_end_refuses_what_it_cannot_reflect():
    with pytest.raises(ValueError, match="at least 514 samples; got 513"):
        EfficientATMel()(torch.zeros(1, 513))
    assert EfficientATMel()(torch.zeros(1, 514)).shape == (1, 1, 128, 2)


# From the study's STFT


def study_db(waveform):
    window = torch.hann_window(512, dtype=torch.float64)
    stft = torch.stft(waveform, 512, 256, window=window, return_complex=True)
    return 10 * torch.log10(stft.abs().square().clamp(min=1e-10)).unsqueeze(1)


def test_stft_map_agrees_with_the_front_end_on_noise():
    wide = torchaudio.functional.resample(0.1 * noise(1, 320000), 16000, 32000)
    narrow = torchaudio.functional.resample(wide, 32000, 16000)
    direct, mapped = EfficientATMel()(wide), StftToMel()(study_db(narrow))
    assert direct.shape == (1, 1, 128, 2000) and mapped.shape == (1, 1, 128, 2001)  # none is lost before it
    powers = [torch.exp(5 * mel - 4.5)[0, 0, :93].mean(dim=1) for mel in (direct, mapped)]
    decibels = 10 * torch.log10(powers[1] / powers[0])  # up to 6.4 kHz, below the resampling filters' slope
    assert decibels.abs().max() < 0.25 and abs(float(decibels.mean())) < 0.05


def test_stft_map_of_five_seconds_has_the_front_ends_frames():
    db, waveform = torch.zeros(1, 1, 257, 313), torch.zeros(1, 160000)
    assert StftToMel()(db).shape == EfficientATMel()(waveform).shape == (1, 1, 128, 500)


def test_stft_map_of_a_click_keeps_its_time():
    waveform = torch.zeros(1, 80000, dtype=torch.float64)
    waveform[0, 32000] = 1  # at 2 s
    loudest = int(StftToMel()(study_db(waveform))[0, 0].sum(0).argmax())
    assert abs(loudest - 200) <= 1


def test_each_new_frame_is_the_nearest_old_one():
    for n_frames in (1, 2, 10, 313):
        chosen = efficientat_frontend.nearest_frames(n_frames).tolist()
        assert len(chosen) == len(range(0, 16 * (n_frames - 1) + 1, 10))  # ms
        for place, frame in enumerate(chosen):
            assert frame == min(range(n_frames), key=lambda old: abs(16 * old - 10 * place))


def test_stft_map_of_silence_is_the_floor_and_so_is_what_lies_above_8_khz():
    mapping = StftToMel()
    silent = mapping(torch.full((1, 1, 257, 20), -100.0, dtype=torch.float64))
    assert torch.allclose(silent, torch.tensor(EfficientATMel.floor, dtype=torch.float64), atol=1e-3)
    loud = mapping(torch.full((1, 1, 257, 20), 20.0))
    above = efficientat_frontend.kaldi_mel_filters()[:, :257].sum(1) == 0
    assert 20 < above.sum() < 30
    assert torch.allclose(loud[0, 0, above], torch.tensor(EfficientATMel.floor))
    assert (loud[0, 0, ~above] > 0).all()


def test_stft_map_gradient():
    mapping, weights = StftToMel(), noise(1, 1, 128, 15, seed=2)
    db, direction = -30 + 10 * noise(1, 1, 257, 10), noise(1, 1, 257, 10, seed=3)

    def function(x):
        return (mapping(x) * weights).sum()

    assert gradient_along(function, db, direction) == pytest.approx(
        central_difference(function, db, direction, step=1e-4), rel=1e-6
    )


def test_stft_map_refuses_another_spectrogram():
    with pytest.raises(ValueError, match=r"\(batch, 1, 257, frames\).*got \(1, 1, 64, 501\)"):
        StftToMel()(torch.zeros(1, 1, 64, 501))


# The network

PUBLISHED = {  # a name of each kind in mn04_as_mAP_432.pt
    "features.0.0.weight": (8, 1, 3, 3),
    "features.1.block.1.0.weight": (8, 8, 1, 1),
    "features.2.block.1.0.weight": (24, 1, 3, 3),
    "features.4.block.2.conc_se_layers.0.fc1.weight": (8, 32),
    "features.5.block.2.conc_se_layers.0.fc2.bias": (48,),
    "features.12.block.0.1.running_var": (272,),
    "features.12.block.2.conc_se_layers.0.fc1.weight": (72, 272),
    "features.13.block.1.0.weight": (272, 1, 5, 5),
    "features.16.0.weight": (384, 64, 1, 1),
    "features.16.1.num_batches_tracked": (),
    "classifier.2.weight": (512, 384),
    "classifier.5.bias": (527,),
}


def test_names_and_shapes_are_the_published_ones():
    state = EfficientAT().state_dict()
    assert len(state) == 312 and sum(value.numel() for value in state.values()) == 993485
    assert {name: tuple(state[name].shape) for name in PUBLISHED} == PUBLISHED


def slow_unit(state, name, x, act=None, stride=1, groups=1):
    """Convolution, batch norm (eps .001) and nonlinearity by the formulas, from a state's tensors."""
    weight = state[name + ".0.weight"]
    x = nn.functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
    parts = ("running_mean", "running_var", "weight", "bias")
    mean, variance, gain, offset = (state[f"{name}.1.{part}"].reshape(-1, 1, 1) for part in parts)
    x = (x - mean) / (variance + 0.001) ** 0.5 * gain + offset
    if act == "HS":
        return x * (x + 3).clamp(0, 6) / 6
    return x.clamp(min=0) if act == "RE" else x


def slow_network(state, x):
    """The published network written down from MobileNetV3's Table 1, on a state's tensors alone."""
    strides, first_hardswish = {2: 2, 4: 2, 7: 2, 13: 2}, 7
    x = slow_unit(state, "features.0", x, "HS", stride=2)
    for i in range(1, 16):
        act, came, at = "HS" if i >= first_hardswish else "RE", x, 0
        if i > 1:
            x, at = slow_unit(state, f"features.{i}.block.0", x, act), 1
        x = slow_unit(state, f"features.{i}.block.{at}", x, act, strides.get(i, 1), groups=x.shape[1])
        gate = f"features.{i}.block.{at + 1}.conc_se_layers.0."
        if gate + "fc1.weight" in state:
            hidden = x.mean((2, 3)) @ state[gate + "fc1.weight"].T + state[gate + "fc1.bias"]
            share = hidden.clamp(min=0) @ state[gate + "fc2.weight"].T + state[gate + "fc2.bias"]
            x, at = x / (1 + torch.exp(-share))[:, :, None, None], at + 1
        x = slow_unit(state, f"features.{i}.block.{at + 1}", x)
        x = x + came if x.shape == came.shape else x
    features = slow_unit(state, "features.16", x, "HS").mean((2, 3))
    hidden = features @ state["classifier.2.weight"].T + state["classifier.2.bias"]
    hidden = hidden * (hidden + 3).clamp(0, 6) / 6
    return features, hidden @ state["classifier.5.weight"].T + state["classifier.5.bias"]


def test_network_is_the_published_formula():
    network, x = random_network(width=0.4), noise(2, 1, 128, 70)
    with torch.no_grad():
        features, logits = slow_network(network.state_dict(), x)
        assert torch.allclose(network.features(x), features, rtol=1e-9, atol=1e-12)
        assert torch.allclose(network(x), logits, rtol=1e-9, atol=1e-12)
    assert logits.std() > 1e-3 and features.shape == (2, network.n_features)


def test_network_gradient():
    network, x, direction = random_network(), noise(1, 1, 128, 40), noise(1, 1, 128, 40, seed=2)

    def function(x):
        return network(x)[0, 2]

    slope = central_difference(function, x, direction, step=1e-6)
    assert gradient_along(function, x, direction) == pytest.approx(slope, rel=1e-5)


def test_every_nonlinearity_is_called_once_and_nothing_is_changed_in_place():
    network, calls = random_network(), []
    kinds = (nn.ReLU, nn.Hardswish, nn.Sigmoid)
    modules = [module for module in network.modules() if isinstance(module, kinds)]

    def keep(module, args, output):
        calls.append((module, args[0], args[0].clone(), output, output.clone()))

    hooks = [module.register_forward_hook(keep) for module in modules]
    network(noise(1, 1, 128, 40))
    for hook in hooks:
        hook.remove()
    assert len(modules) == len(calls) == len({id(call[0]) for call in calls})
    assert all(torch.equal(a, b) and torch.equal(c, d) for _, a, b, c, d in calls)


def test_gradcam_layer_is_the_last_convolution_called_and_has_a_map():
    network, called = random_network(), []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, args, out: called.append((module, out.shape[2:])))
    network(noise(1, 1, 128, 500))
    assert called[-1] == (network.gradcam_layer, (4, 16)) and network.feature_axes == ("frequency", "time")


@pytest.mark.parametrize("shape", [(1, 1, 40, 128), (1, 128, 40), (1, 2, 128, 40)])
def test_network_refuses_other_axes(shape):
    with pytest.raises(ValueError, match=r"log_mel must be \(batch, 1, 128, frames\)"):
        random_network()(torch.zeros(shape, dtype=torch.float64))


# Files


def test_a_saved_network_comes_back(tmp_path):
    network = EfficientAT(3, 0.1)
    torch.save(network.state_dict(), tmp_path / "net.pt")
    loaded = load_efficientat(tmp_path / "net.pt", width=0.1)
    assert loaded.n_classes == 3 and not any(module.training for module in loaded.modules())
    x = noise(1, 1, 128, 40).float()
    assert torch.equal(loaded(x), network.eval()(x))


def spoiled(change):
    state = EfficientAT(3, 0.1).state_dict()
    change(state)
    return state


@pytest.mark.parametrize(
    "content, message",
    [
        (
            lambda: spoiled(lambda state: state.pop("features.0.1.bias")),
            r"lacks features.0.1.bias \(1 in all\)",
        ),
        (
            lambda: spoiled(lambda state: state.update(more=torch.zeros(1))),
            r"has an unknown more \(1 in all\)",
        ),
        (lambda: EfficientAT(3, 0.4).state_dict(), "no EfficientAT mn checkpoint of width 0.1, it lacks"),
        (
            lambda: EfficientAT(3, 0.11).state_dict(),
            r"shape \(56, 8, 1, 1\), at width 0.1 it is \(48, 8, 1, 1\)",
        ),
        (lambda: [1, 2], "expected a dictionary of tensors"),
        (lambda: EfficientAT(3, 0.1), "not a readable PyTorch checkpoint"),
    ],
)
def test_another_checkpoint_is_one_line(tmp_path, content, message):
    torch.save(content(), tmp_path / "net.pt")
    with pytest.raises(ValueError, match=message) as error:
        load_efficientat(tmp_path / "net.pt", width=0.1)
    assert "\n" not in str(error.value) and "net.pt" in str(error.value)


def test_a_file_is_checked_when_asked(tmp_path, monkeypatch):
    path = tmp_path / "net.pt"
    torch.save(EfficientAT(3, 0.1).state_dict(), path)
    with pytest.raises(ValueError, match=f"has {path.stat().st_size} bytes, .* has 4066513"):
        load_efficientat(path, width=0.1, check=True)
    monkeypatch.setattr(efficientat, "PUBLISHED", replace(efficientat.PUBLISHED, size=path.stat().st_size))
    with pytest.raises(ValueError, match="SHA-256 [0-9a-f]{64}, expected 899a8c62"):
        load_efficientat(path, width=0.1, check=True)
    with pytest.raises(FileNotFoundError, match="is no file; download https"):
        load_efficientat(tmp_path / "none.pt")


def test_labels(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text('index,mid,display_name\n0,/m/1,"Male speech, man speaking"\n1,/m/2,Dog\n')
    assert read_audioset_labels(path) == ["Male speech, man speaking", "Dog"]
    path.write_text("index,mid,display_name\n1,/m/2,Dog\n")
    with pytest.raises(ValueError, match="must count 0, 1, 2"):
        read_audioset_labels(path)
    path.write_text("mid,name\n/m/2,Dog\n")
    with pytest.raises(ValueError, match="expected columns index, mid, display_name"):
        read_audioset_labels(path)
    with pytest.raises(FileNotFoundError, match="is no file"):
        read_audioset_labels(tmp_path / "none.csv")


# The probe


def clusters(n_classes, n=40, d=6):
    labels = torch.arange(n) % n_classes
    features = noise(n, d) * torch.tensor([1.0, 100, 0.01, 1, 1, 0]) + torch.tensor([0.0, 500, 3, 0, 0, 7])
    features[:, 0] += labels
    return features, labels


@pytest.mark.parametrize("n_classes", [2, 3])
def test_probe_is_the_minimum_of_its_penalised_loss(n_classes):
    """At the optimum of 1/2 |W|^2 + C sum(cross-entropy) on standardised features the gradient is zero."""
    features, labels = clusters(n_classes)
    head = probe.fit_probe(features, labels, c=0.5).double()
    scale = features.std(dim=0, correction=0)
    scale[scale == 0] = 1
    mean = features.mean(dim=0)
    with torch.no_grad():
        weight, bias = head.weight * scale, head.bias + head.weight @ mean
    weight.requires_grad_(), bias.requires_grad_()
    z = (features - mean) / scale
    # scikit-learn penalises, of two classes, the difference of their weights
    penalty = (weight[1] - weight[0]).square().sum() / 2 if n_classes == 2 else weight.square().sum() / 2
    loss = penalty + 0.5 * nn.functional.cross_entropy(z @ weight.T + bias, labels, reduction="sum")
    for gradient in torch.autograd.grad(loss, (weight, bias)):
        assert gradient.abs().max() < 5e-3  # of a loss around 20; the fit ends at 1e-4 of its mean


def test_probed_network_is_head_after_features():
    network, mel = random_network(), EfficientATMel()
    waveforms = 0.1 * noise(6, 4000)
    features = probe.pooled_features(network, waveforms.split(4), mel)
    with torch.no_grad():
        assert torch.allclose(features, network.features(mel(waveforms)), rtol=1e-12)
    head = probe.fit_probe(features, torch.arange(6) % 3).double()
    model = probe.Probed(network, head, mel).eval()
    with torch.no_grad():
        assert torch.allclose(model(waveforms), features @ head.weight.T + head.bias, rtol=1e-9)
    assert model.gradcam_layer is model.network.gradcam_layer and model.feature_axes == ("frequency", "time")
    assert network.classifier[-1].out_features == 5  # the network given is as it was
    assert model.gradcam_layer is not network.gradcam_layer


def test_pooled_features_leave_every_flag_as_it_was():
    network = random_network()
    network.features[3].train()
    before = [module.training for module in network.modules()]
    statistics = network.features[3].block[0][1].running_mean.clone()
    probe.pooled_features(network, [noise(2, 1, 128, 40)])
    assert [module.training for module in network.modules()] == before
    assert torch.equal(network.features[3].block[0][1].running_mean, statistics)
    with pytest.raises(RuntimeError):
        probe.pooled_features(network, [noise(2, 3, 128, 40)])
    assert [module.training for module in network.modules()] == before
    with pytest.raises(ValueError, match="batches is empty"):
        probe.pooled_features(network, [])


@pytest.mark.parametrize(
    "features, labels, message",
    [
        (torch.zeros(4, 2), torch.tensor([0, 1, 0]), r"got \(4, 2\) and \(3,\)"),
        (torch.full((2, 2), math.nan), torch.tensor([0, 1]), "must be finite"),
        (torch.zeros(3, 2), torch.tensor([0, 2, 0]), r"0 to K-1 with none left out and K >= 2; got \[0, 2\]"),
        (torch.zeros(3, 2), torch.tensor([0, 0, 0]), r"K >= 2; got \[0\]"),
    ],
)
def test_probe_refuses(features, labels, message):
    with pytest.raises(ValueError, match=message):
        probe.fit_probe(features, labels)


# The published weights


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="the published weights are not here")
@pytest.mark.parametrize("sample, label", [("cat", "Cat"), ("crow", "Crow"), ("sea_waves", "Waves, surf")])
def test_the_published_network_names_a_sample(sample, label):
    import soundfile

    samples, rate = soundfile.read(SHARED / "data" / "samples" / f"{sample}.wav", dtype="float32")
    waveform = torchaudio.functional.resample(torch.from_numpy(samples)[None], rate, 32000)
    network = load_efficientat(WEIGHTS, check=True)
    with torch.no_grad():
        logits = network(EfficientATMel()(waveform / waveform.abs().max()))
    assert read_audioset_labels(LABELS)[int(logits.argmax())] == label and torch.sigmoid(logits.max()) > 0.5
