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
    "extremal": "Extremal perturbation",
    "extremal_20": "Extremal perturbation, 20 %",
    "extremal_heard": "Extremal perturbation, heard",
    "extremal_robust": "Extremal perturbation, any fill",
    "lmac": "L-MAC",
    "lmac_ft": "L-MAC, fine-tuned",
    "lmac_td": "L-MAC-TD",
    "coughlime": "CoughLIME",
    "audiolime": "audioLIME",
    "segments": "Segments",
    "l2i": "L2I",
}
SCENARIO_LABELS = {"clean": "clean", "white": "white noise", "room": "room tone", "horse": "horse"}
NETWORK_LABELS = {"cnn14": "Cnn14", "mn04": "EfficientAT mn04"}
SPECTROGRAM_LABELS = {"stft_db": "STFT", "mel_db": "mel", "own": "own"}
METRIC_LABELS = {
    "FF": "FF (fall of p without the kept part)",
    "AI": "AI (%)",
    "AG": "AG (%)",
    "FidIn": "FidIn (share of kept class)",
    "SPS": "SPS (Gini index)",
    "AD": "AD (%)",
    "COMP": "COMP (nats)",
}
COLUMN_LABELS = {
    "spectrogram_type": "spectrogram",
    "noise_scenario": "noise",
    "train_acc": "training (%)",
    "val_acc": "validation (%)",
    "test_acc": "test (%)",
    "not_better_than": "not better than",
    "snr_db": "SNR (dB)",
    "seconds": "s a clip",
    "n_compared": "derivatives",
    "relative_error": "relative error",
    "own_type_error": "own type's error",
    "additivity_error": "additivity error",
    "p_winner_changes": "another wins",
    "r2": "R²",
    "r2_fresh": "R² on fresh copies",
    "spearman": "Spearman's ρ",
    "spearman_low": "lowest ρ",
    "n_clips": "clips",
    "n_samples": "copies",
    "n_superpixels": "superpixels",
    "mass": "relevance mass",
    "pointing": "pointing game",
    "source_share": "source's share of the energy",
    "si_sdr_gain": "SI-SDR gain (dB)",
    "COMP_rel": "COMP / ln d",
    "better_heard": "better, heard",
    "undecided_heard": "undecided, heard",
    "worse_heard": "worse, heard",
}

# How each mask is made of an attribution L, as matplotlib writes it; L+ is max(0, L), q_a the a-quantile.
MASK_FORMULAS = {
    "minmax": r"$(L - \min L)\,/\,(\max L - \min L)$",
    "sigmoid": r"$\sigma(L)$",
    "bin": r"$L > 0$",
    "topK_5": r"$L \geq q_{0.95}(L)$",
    "topK_30": r"$L \geq q_{0.7}(L)$",
    "topK_50": r"$L \geq q_{0.5}(L)$",
    "minmax_pos": r"$L^+\,/\,\max L^+$",
    "sigmoid_pos": r"$\sigma(L^+)$",
    "pos_thresh_25": r"$L^+\,/\,\max L^+ \geq 0.25$",
    "pos_thresh_50": r"$L^+\,/\,\max L^+ \geq 0.5$",
    "pos_thresh_75": r"$L^+\,/\,\max L^+ \geq 0.75$",
    "topK_5_pos": r"$L^+ \geq q_{0.95}(L^+)$",
    "topK_30_pos": r"$L^+ \geq q_{0.7}(L^+)$",
    "topK_50_pos": r"$L^+ \geq q_{0.5}(L^+)$",
}
# Where the audited protocol departs from that; d is the number of bins.
AUDITED_FORMULAS = {
    "sigmoid": r"$\sigma(L\,/\,\mathrm{std}\,L)$",
    "sigmoid_pos": r"$\sigma(L^+\,/\,\mathrm{std}\,L)$",
    "topK_5": r"$0.05\,d$ largest of $L$",
    "topK_30": r"$0.3\,d$ largest of $L$",
    "topK_50": r"$0.5\,d$ largest of $L$",
    "topK_5_pos": r"$0.05\,d$ largest, $L > 0$",
    "topK_30_pos": r"$0.3\,d$ largest, $L > 0$",
    "topK_50_pos": r"$0.5\,d$ largest, $L > 0$",
}


def percent(share: float, digits: int = 0) -> str:
    """A share in per cent, ``45 %``; ``n/a`` for NaN."""
    return "n/a" if share != share else f"{100 * share:.{digits}f} %"


def method_label(method: str) -> str:
    """The method's printed name."""
    return METHOD_LABELS.get(method, method)


def mask_formula(mask: str, protocol: str = "paper") -> str:
    """How a mask is made of an attribution under a protocol, as matplotlib writes it; "" where unknown."""
    return (AUDITED_FORMULAS if protocol == "audited" else {}).get(mask, MASK_FORMULAS.get(mask, ""))


def column_label(column: str) -> str:
    """The printed name of a column or a measure; scores of what is heard say so."""
    return COLUMN_LABELS.get(column, column.replace("_heard", ", heard"))


def combination_label(names: str) -> str:
    """A method and mask in print: ``gradcam + bin`` is Grad-CAM + bin."""
    method, plus, mask = names.partition(" + ")
    return method_label(method) + plus + mask


def rho_words(rho: float) -> str:
    """A rank correlation in a sentence; there is none where one of its two sides is constant."""
    return f"ρ = {rho:.2f}" if rho == rho else "no ρ (one of the two is constant)"


def scenario_label(noise_scenario: str) -> str:
    """A noise scenario's printed name."""
    return SCENARIO_LABELS.get(noise_scenario, noise_scenario)


def condition_label(spectrogram_type: str, noise_scenario: str) -> str:
    """A condition of the study in words, such as ``mel, white noise``."""
    kind = SPECTROGRAM_LABELS.get(spectrogram_type, spectrogram_type)
    return f"{kind}, {scenario_label(noise_scenario)}"
