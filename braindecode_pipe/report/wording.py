"""How numbers and names are written, the same on every page."""

from __future__ import annotations

import math
import re

NOTHING = "–"
METRICS = {
    "identification_accuracy": "Identification accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "category_accuracy": "Category accuracy",
    "pair_accuracy": "Pair accuracy",
    "event_pair_accuracy": "Pair accuracy of single events",
    "category_map": "Mean average precision of categories",
    "mrr": "Mean reciprocal rank",
    "mean_rank": "Mean rank",
    "median_rank": "Median rank",
    "normalized_rank": "Normalized rank",
    "auc": "AUC",
    "probe_run": "Run told from predictions",
    "probe_session": "Session told from predictions",
    "probe_third_of_run": "Third of the run told from predictions",
}
DATATYPES = {
    "eeg": "EEG",
    "meg": "MEG",
    "ieeg": "intracranial EEG",
    "bold": "fMRI",
    "parcels": "fMRI, parcels",
    "epochs": "epochs",
}
DECODERS = {
    "ridge": "ridge",
    "logistic": "logistic regression",
    "mlp": "multilayer perceptron",
    "mixer": "perceptron with a layer per person",
    "conv": "convolutional network",
    "conv-image": "convolutional network for pictures",
    "nice": "NICE",
    "atm": "ATM",
    "eegnet": "EEGNet",
    "selected": "selected in each fold",
    "prior": "prior (no brain data)",
}


def metric_name(metric: str) -> str:
    """``top5`` -> "Top-5 accuracy"; unknown names as they are."""
    if metric in METRICS:
        return METRICS[metric]
    if metric.startswith("backward_"):
        return f"{metric_name(metric.removeprefix('backward_'))}, stimulus to response"
    top = re.fullmatch(r"(balanced_)?top(\d+)(?:_of_(\d+))?", metric)
    if top:
        name = f"top-{top[2]} accuracy" + (f" among {top[3]}" if top[3] else "")
        return f"Balanced {name}" if top[1] else name.capitalize()
    return metric


def decoder_name(decoder: str) -> str:
    """``conv`` -> "convolutional network", and what follows its dots: seed, piece of the window.

    "ridge on noise" and "probe of ridge" tell what the decoder was given, or that it was probed.
    """
    if decoder.endswith(" on noise"):
        return f"{decoder_name(decoder.removesuffix(' on noise'))}, given noise"
    if decoder.startswith("probe of "):
        return f"linear probe of {decoder_name(decoder.removeprefix('probe of '))}"
    base, *further = decoder.split(".", 1)
    seed = re.fullmatch(r"s(\d+)", "".join(further))
    name = DECODERS.get(base, base)
    if seed:
        return f"{name}, seed {int(seed[1]) + 1}"
    if further == ["seeds"]:
        return f"{name}, all seeds"
    piece = re.fullmatch(r"t(-?[\d.]+)to(-?[\d.]+)", "".join(further))
    if piece:
        return f"{name}, {piece[1]} to {piece[2]} s"
    return DECODERS.get(decoder, decoder)


def is_share(metric: str) -> bool:
    """Whether a metric is a share of something, printed in per cent."""
    return (
        "accuracy" in metric
        or metric.startswith("probe_")
        or re.search(r"top\d+(_of_\d+)?$", metric) is not None
    )


def number(value: object) -> float:
    """A number, NaN for None and for what is none."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def share(value: float, decimals: int = 1) -> str:
    """0.783 -> "78.3 %"."""
    value = number(value)
    return f"{100 * value:.{decimals}f} %" if math.isfinite(value) else NOTHING


def plain(value: object, digits: int = 3) -> str:
    """A number with at most ``digits`` significant digits, integers in full."""
    value = number(value)
    if not math.isfinite(value):
        return NOTHING
    if value == round(value) and abs(value) < 1e7:
        return f"{int(value)}"
    return f"{value:.{digits}g}"


def score(metric: str, value: object) -> str:
    """A value of a metric, in per cent where it is a share."""
    value = number(value)
    if not math.isfinite(value):
        return NOTHING
    if is_share(metric):
        return share(value)
    if metric in ("auc", "normalized_rank"):
        return f"{value:.3f}"
    return plain(value)


def interval(metric: str, low: object, high: object) -> str:
    """ "70.1 – 86.0 %", with the unit once."""
    if not (math.isfinite(number(low)) and math.isfinite(number(high))):
        return NOTHING
    low, high = score(metric, low), score(metric, high)
    return f"{low.removesuffix(' %')} – {high}"


def p_value(value: object) -> str:
    """Two significant digits; very small ones as a bound."""
    value = number(value)
    if not math.isfinite(value):
        return NOTHING
    if value < 1e-4:
        return "< 0.0001"
    return f"{value:.2g}"


def plural(name: str) -> str:
    """ "event" -> "events", "stimulus" -> "stimuli"."""
    return {"stimulus": "stimuli"}.get(name, f"{name}s")


def count(n: int, one: str, many: str = "") -> str:
    """ "1 person", "2 people"."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """Seconds as the unit that a reader thinks in."""
    if not math.isfinite(seconds):
        return NOTHING
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def similarity(value: object) -> str:
    """A score of a candidate with two decimals and a real minus sign."""
    value = number(value)
    if not math.isfinite(value):
        return NOTHING
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text.replace("-", "−")


def datatypes(names: list[str]) -> str:
    """Kinds of recording as people call them."""
    return joined([DATATYPES.get(name, name) for name in names])


def distinct(names: list[str]) -> dict[str, str]:
    """Each name without the parts (between underscores) that all of them begin and end with.

    ``sub-01_task-see_run-01_bold``, ``..._run-02_bold`` -> ``run-01``, ``run-02``.
    """
    parts = {name: name.split("_") for name in dict.fromkeys(names)}
    shortest = min(map(len, parts.values()), default=0)
    first = last = 0
    if len(parts) > 1:
        while first < shortest and len({tuple(p[: first + 1]) for p in parts.values()}) == 1:
            first += 1
        while (
            first + last < shortest - 1
            and len({tuple(p[-last - 1 :]) for p in parts.values()}) == 1
        ):
            last += 1
    return {name: "_".join(p[first : len(p) - last]) or name for name, p in parts.items()}


def joined(names: list[str], most: int = 8) -> str:
    """Names as a list in a sentence, cut after ``most``."""
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
