"""Time and memory of LIME and Deep SHAP: this package's engines beside the libraries' own paths.

    python benchmarks/explain.py --width 0.25 --clips 2 --samples 1000 --background 100 --threads 2

Both paths explain the same clips with the same model and seed. Each runs in a fresh process
that imports and warms up before it is timed, so that peak memory and time belong to it alone;
its memory is kept as in the study's steps, which speeds up both. `--results` is as in all.py.
The last columns say how far the values differ and, for LIME, which share of the model's own
forward throughput (inference copy, same batch size) the whole explanation reaches.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd
import torch

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])

from measuring import add_options, cost, in_fresh_process, show  # noqa: E402

from audioxai_utils.attributions import METHODS  # noqa: E402
from audioxai_utils.attributions.neighbourhoods import superpixels  # noqa: E402
from audioxai_utils.constants import SPECTROGRAM_TYPES, SPECTROGRAMS  # noqa: E402
from audioxai_utils.evaluation.ranks import spearman  # noqa: E402
from audioxai_utils.models.cnn14 import Cnn14  # noqa: E402
from audioxai_utils.models.efficientat import EfficientAT  # noqa: E402
from audioxai_utils.models.inference import half_precision_copy, inference_copy  # noqa: E402
from audioxai_utils.study.pretrained import NETWORK, picture_model, spectrogram_of  # noqa: E402

LOGITS = 10
N_CALIBRATION = 8


def clips(n: int, arguments: argparse.Namespace, seed: int) -> torch.Tensor:
    """Seeded decaying tones over noise in dB, as the network takes them, (n, 1, F, T)."""
    spectrogram = spectrogram_of(arguments.network, arguments.spectrogram, torch.float32)
    n_bins, n_frames = spectrogram(torch.zeros(1, 5 * spectrogram.sample_rate)).db.shape[2:]
    frequency = torch.arange(n_bins).view(-1, 1) / n_bins
    frame = torch.arange(n_frames) / n_frames
    made = []
    for i in range(n):  # a clip is the same however many there are
        generator = torch.Generator().manual_seed(1000 * seed + i)
        pitch, onset, speed = torch.rand(3, generator=generator)
        tone = 45 * torch.exp(-(((frequency - pitch) / 0.08) ** 2))
        tone = tone * torch.exp(-8 * speed * (frame - onset).clamp_min(0))
        noise = torch.randn(n_bins, n_frames, generator=generator) * 5
        made.append(tone * (frame > onset) + noise - 65 - 20 * frequency)
    return torch.stack(made)[:, None].clamp_min(-100).to(arguments.device)


def build_model(arguments: argparse.Namespace) -> torch.nn.Module:
    """A seeded network whose batch norms are set by generated clips, and whose logits are moderate."""
    torch.manual_seed(arguments.seed)
    if arguments.network == NETWORK:
        network = EfficientAT(LOGITS, arguments.width)
        model = picture_model(network, arguments.spectrogram, torch.nn.Linear(network.n_features, LOGITS))
    else:
        model = Cnn14(SPECTROGRAMS[arguments.spectrogram].n_bins, LOGITS, arguments.width)
    model.to(arguments.device)
    for module in model.modules():
        if hasattr(module, "momentum"):
            module.momentum = 1.0  # take the statistics of the one batch that follows
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        model.train()(clips(N_CALIBRATION, arguments, arguments.seed + 1))
    return model.eval()


def options_of(path: str, arguments: argparse.Namespace) -> tuple[str, dict]:
    """Method and options of "lime fast", "lime bfloat16", "shap reference", ..."""
    method, engine = path.split()
    if method == "shap":
        background = clips(arguments.background, arguments, arguments.seed + 2)
        return method, {"engine": engine, "background": background}
    if engine == "bfloat16":
        return method, {"engine": "fast", "n_samples": arguments.samples, "dtype": torch.bfloat16}
    return method, {"engine": engine, "n_samples": arguments.samples}


def warmed_up(path: str, arguments: argparse.Namespace) -> tuple:
    """Method, its options, model, clips and targets, after imports and first calls."""
    torch.set_num_threads(arguments.threads)
    model = build_model(arguments)
    db = clips(arguments.clips, arguments, arguments.seed)
    with torch.no_grad():
        target = torch.cat([model(clip[None]) for clip in db]).argmax(dim=1)
    method, options = options_of(path, arguments)
    small = {"background": options["background"][:2]} if method == "shap" else {"n_samples": 20}
    if arguments.device != "cpu" and options["engine"] == "fast":
        small = {}  # a GPU loads its kernels at the first batch of each size; the library's have ten rows
    METHODS[method](model, db[:1], target[:1], **{**options, **small})
    superpixels.cache_clear()  # those of the first clip are to be timed too
    return METHODS[method], options, model, db, target


def measure(path: str, arguments: argparse.Namespace) -> dict:
    """What explaining all clips in one call of one path costs, and the values."""
    method, options, model, db, target = warmed_up(path, arguments)
    found = cost(lambda: method(model, db, target, **options), arguments.device)
    return found | {"path": path, "values": found["values"].double().cpu()}


def measure_forward(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds and processor seconds a clip of the model and its inference copy, in LIME's batches."""
    from audioxai_utils.numerics import at_once

    torch.set_num_threads(arguments.threads)
    size = at_once(None, torch.device(arguments.device))
    batch = clips(size, arguments, arguments.seed)
    model = build_model(arguments)
    found = {}
    fused = inference_copy(model, batch)
    copied = half_precision_copy(fused, batch) or fused
    paths = {"model": model, "inference copy": copied}
    if arguments.bfloat16:
        paths["bfloat16"] = inference_copy(model, batch, torch.bfloat16)
    n_batches = max(3, min(arguments.samples * arguments.clips // size, 60))

    @torch.inference_mode()
    def run(network: torch.nn.Module, n: int) -> None:
        for _ in range(n):
            network(batch)

    for name, network in paths.items():
        run(network, 1)
        spent = cost(lambda network=network: run(network, n_batches), arguments.device)
        found[name] = {key: spent[key] / n_batches / size for key in ("seconds", "cpu_seconds")}
    return found


def compare(method: str, arguments: argparse.Namespace, forward: dict) -> list[dict]:
    """One row per engine of a method, with the ratio to the library's path."""
    few = argparse.Namespace(**vars(arguments) | {"clips": min(arguments.clips, arguments.reference_clips)})
    engines = ["reference", "fast", *(["bfloat16"] if method == "lime" and arguments.bfloat16 else [])]
    results = []
    for engine in engines:
        given = few if engine == "reference" else arguments
        found = in_fresh_process(measure, f"{method} {engine}", given)
        results.append(found | {key: found[key] / given.clips for key in ("seconds", "cpu_seconds")})
    library, rows = results[0], []
    for result in results:
        pairs = list(zip(result["values"], library["values"]))
        row = {
            "path": result["path"],
            "s/clip": result["seconds"],
            "CPU s/clip": result["cpu_seconds"],
            "ratio": library["seconds"] / result["seconds"],
            "CPU ratio": library["cpu_seconds"] / result["cpu_seconds"],
            "peak MB": result["peak_mb"],
            "difference": max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs),
            "Spearman": min(spearman(a, b) for a, b in pairs),
        }
        if method == "lime":
            own = forward["bfloat16" if result["path"].endswith("bfloat16") else "inference copy"]
            row["of forward"] = arguments.samples * own["seconds"] / result["seconds"]
            row["of forward (CPU)"] = arguments.samples * own["cpu_seconds"] / result["cpu_seconds"]
        rows.append(row)
    return rows


def parse(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=["lime", "shap"], choices=["lime", "shap"])
    parser.add_argument("--spectrogram", default="mel_db", choices=SPECTROGRAM_TYPES)
    parser.add_argument("--network", default="cnn14", choices=["cnn14", NETWORK])
    parser.add_argument("--width", type=float, help="of the network (default: cnn14 0.25, mn04 0.4)")
    parser.add_argument("--clips", type=int, default=2, help="explained in one call")
    parser.add_argument("--reference-clips", type=int, default=2, help="of them by the library, one by one")
    parser.add_argument("--samples", type=int, default=200, help="LIME's neighbours")
    parser.add_argument("--background", type=int, default=100, help="Deep SHAP's background clips")
    parser.add_argument("--bfloat16", action="store_true", help="also LIME in bfloat16")
    add_options(parser)
    arguments = parser.parse_args(given)
    arguments.width = arguments.width or (0.4 if arguments.network == NETWORK else 0.25)
    return arguments


def main() -> None:
    arguments = parse()
    forward = in_fresh_process(measure_forward, arguments)
    words = (
        f"{name} {1e3 * s['seconds']:.2f} (CPU {1e3 * s['cpu_seconds']:.2f})" for name, s in forward.items()
    )
    print(f"forward, ms a clip: {', '.join(words)}", flush=True)
    table = pd.DataFrame([row for method in arguments.methods for row in compare(method, arguments, forward)])
    setting = (
        f"{arguments.spectrogram}, {arguments.network} width {arguments.width:g}, {arguments.clips} clips, {arguments.samples} LIME "
        f"samples, {arguments.background} background clips"
    )
    if torch.device(arguments.device).type == "cuda":
        setting += "; LIME's fast engine in float16, the libraries' paths in full float32"
    show({"explain": table}, setting, arguments)


if __name__ == "__main__":
    main()
