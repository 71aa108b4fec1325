"""The result in one sentence, fixed before the numbers are known in everything but the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from braindecode_pipe.evaluate.metrics import headline_metric

SIGNIFICANCE = 0.05
_ORIGIN = {"simulated": "Simulated data: ", "mixed": "Partly simulated data: "}


def verdict(
    records: Sequence[Mapping[str, Any]],
    decoder: str,
    labels: Sequence[str],
    n_subjects: int,
    leaks: Sequence[str] = (),
) -> dict[str, Any]:
    """What the study shows, from the records of one decoder over everybody.

    Parameters
    ----------
    records : of ``metrics.score``
    decoder : ``selected``, or the first of the recipe
    labels : labels of the candidates; named in the sentence where there are two
    n_subjects : people whose queries were scored
    leaks : names of leaks that were found and allowed

    Returns
    -------
    dict
        text, evidence ("evidence", "no evidence", or None where there is no p-value), decoder,
        metric, value, ci, chance, p, n_queries, n_candidates, n_subjects, data_origin
    """
    record = headline_record(records, decoder)
    p = record["p_value"]
    evidence = None
    if p is not None and not isnan(p):
        evidence = "evidence" if p <= SIGNIFICANCE else "no evidence"
    control = _control_that_does_as_well(records, record)
    if control is not None:
        evidence = "no evidence"
    sentence = _sentence(record, evidence, labels, n_subjects, control)
    return {
        "text": lead_in(record["data_origin"], leaks) + sentence,
        "evidence": evidence,
        "decoder": decoder,
        "metric": record["metric"],
        "value": record["value"],
        "ci": [record["ci_low"], record["ci_high"]],
        "chance": record["chance"],
        "p": p,
        "n_queries": record["n_queries"],
        "n_candidates": record["n_candidates"],
        "n_subjects": n_subjects,
        "data_origin": record["data_origin"],
    }


def headline_record(records: Sequence[Mapping[str, Any]], decoder: str) -> Mapping[str, Any]:
    """The record over everybody that stands for one decoder: see ``headline_metric``."""
    own = {r["metric"]: r for r in records if r["decoder"] == decoder and r["subject"] == "all"}
    n_candidates = max(record["n_candidates"] for record in own.values())
    return own[headline_metric(n_candidates, own)]


def _control_that_does_as_well(
    records: Sequence[Mapping[str, Any]], record: Mapping[str, Any]
) -> tuple[str, float] | None:
    """What the decoder does not exceed though it sees no brain data, and its score.

    The prior: a permutation null keeps the frequencies of the stimuli only on average over a run;
    where they drift within it, frequency alone can pass as decoding. And the decoder on noise.
    """
    named = {"prior": "the prior without brain data",
             f"{record['decoder']} on noise": "the same decoder given noise"}  # fmt: skip
    found = [
        (named[other["decoder"]], other["value"])
        for other in records
        if other["decoder"] in named
        and other["subject"] == "all"
        and other["metric"] == record["metric"]
        and other["value"] > other["chance"]
        and other["value"] >= record["value"]
    ]
    return max(found, key=lambda pair: pair[1], default=None)


def lead_in(data_origin: str, leaks: Sequence[str] = ()) -> str:
    """What every sentence begins with: that data were not all recorded, that the test leaked."""
    leaky = f"Training and test are not apart ({', '.join(leaks)}): " if leaks else ""
    return leaky + _ORIGIN.get(data_origin, "")


def _sentence(
    record: Mapping[str, Any],
    evidence: str | None,
    labels: Sequence[str],
    n_subjects: int,
    control: tuple[str, float] | None,
) -> str:
    auc = record["metric"] == "auc"
    number = _plain if auc else _percent
    count = f"{record['n_candidates']} stimuli"
    if record["n_candidates"] != record["n_candidates_min"]:
        count = "up to " + count
    value, n = number(record["value"]), record["n_queries"]
    if auc:
        both = f"“{labels[0]}” and “{labels[1]}”"
        claim = f"{both} are told apart with AUC {value} over {n} queries"
        plain = f"{both} can be told apart: AUC {value} over {n} queries"
    elif record["metric"] == "pair_accuracy":
        claim = (
            f"The right one of {count} scores above a random other one in {value} "
            f"of comparisons over {n} queries"
        )
        plain = (
            f"the right one of {count} can be found: it scores above a random other one in "
            f"{value} of comparisons over {n} queries"
        )
    else:
        claim = f"Which of {count} was shown is identified in {value} of {n} queries"
        plain = f"it can be identified which of {count} was shown: {value} of {n} queries"
    details = [
        *_ci(record, number),
        f"chance {number(record['chance'])}",
        *([] if evidence is None else [f"p = {format_p(record['p_value'])}"]),
        "1 person" if n_subjects == 1 else f"{n_subjects} people",
        *([] if control is None else [f"{control[0]} {number(control[1])}"]),
    ]
    tail = f" ({', '.join(details)})."
    if evidence == "no evidence":
        return f"No evidence that {plain}{tail}"
    if evidence is None:
        return f"{claim}{tail} Not tested against a null distribution."
    return claim + tail


def _ci(record: Mapping[str, Any], number) -> list[str]:
    low, high = record["ci_low"], record["ci_high"]
    if low is None or isnan(low):
        return []
    level = f"{100 * record['ci_level']:g} % CI"
    if number is _plain:
        return [f"{level} {_plain(low)} to {_plain(high)}"]
    return [f"{level} {_percent(low)[:-2]} to {_percent(high)}"]


def format_p(p: float) -> str:
    """Two significant digits without a leading zero, as journals print it."""
    return f"{p:.2g}".removeprefix("0") if p >= 1e-4 else f"{p:.1e}"


def _percent(value: float) -> str:
    digits = 1 if value < 0.2 else 0
    return f"{round(100 * value, digits):g} %"


def _plain(value: float) -> str:
    return f"{value:.2f}".removeprefix("0") if value < 0.995 else f"{value:.2f}"
