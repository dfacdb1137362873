"""The words for methods, metrics and conditions in figures, tables and pages.

The standard library alone.
"""

from __future__ import annotations

METHOD_LABELS = {
    "saliency": "Saliency",
    "gradcam": "Grad-CAM",
    "lime": "LIME",
    "shap": "SHAP",
    "shap_functional": "SHAP (functional)",
    "random": "Random",
    "energy": "Energy",
    "oracle": "Oracle",
    "integrated_gradients": "Integrated gradients",
    "smoothgrad": "SmoothGrad",
    "gradient_shap": "Gradient SHAP",
    "occlusion": "Occlusion",
    "guided_gradcam": "Guided Grad-CAM",
    "rise": "RISE",
    "slime": "SLIME",
    "slime_hpss": "SLIME (HPSS)",
    "optimised": "Optimised",
    "optimised_20": "Optimised, 20 %",
    "optimised_heard": "Optimised, heard",
    "lmac": "L-MAC",
    "lmac_ft": "L-MAC, fine-tuned",
}
SCENARIO_LABELS = {"clean": "clean", "white": "white noise", "room": "room tone", "horse": "horse"}
SPECTROGRAM_LABELS = {"stft_db": "STFT", "mel_db": "mel"}
METRIC_LABELS = {
    "FF": "FF (fall of p without the kept part)", "AI": "AI (%)", "AG": "AG (%)",
    "FidIn": "FidIn (share of kept class)", "SPS": "SPS (Gini index)", "AD": "AD (%)", "COMP": "COMP (nats)",
}


def percent(share: float, digits: int = 0) -> str:
    """A share in per cent, ``45 %``; ``n/a`` for NaN."""
    return "n/a" if share != share else f"{100 * share:.{digits}f} %"


def method_label(method: str) -> str:
    """The method's printed name."""
    return METHOD_LABELS.get(method, method)


def condition_label(spectrogram_type: str, noise_scenario: str) -> str:
    """A condition of the study in words, such as ``mel, white noise``."""
    kind = SPECTROGRAM_LABELS.get(spectrogram_type, spectrogram_type)
    return f"{kind}, {SCENARIO_LABELS.get(noise_scenario, noise_scenario)}"
