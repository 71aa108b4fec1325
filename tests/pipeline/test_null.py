"""The null study: without a signal the p-values are uniform, and the verdict says no evidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from braindecode_pipe import pipeline
from braindecode_pipe.recipe import load_recipe
from braindecode_pipe.store import store_attrs

N_NULL, N_PLANTED = 30, 10


@dataclass(frozen=True)
class Study:
    """Verdicts of one study per seed."""

    p: np.ndarray
    value: np.ndarray
    chance: np.ndarray
    n: np.ndarray
    evidence: list[str]


def collect(verdicts) -> Study:
    return Study(
        np.array([v["p"] for v in verdicts]),
        np.array([v["value"] for v in verdicts]),
        np.array([v["chance"] for v in verdicts]),
        np.array([v["n_queries"] for v in verdicts]),
        [v["evidence"] for v in verdicts],
    )


def verdict_of(recipe, data, out) -> dict:
    result = pipeline.run(
        recipe, data, out, until="evaluate", quiet=True, ledger=out.parent / "ledger"
    )
    assert [(row.unit, row.error) for row in result.failed] == []
    return store_attrs(result.rows[-1].path)["verdict"]


def check_null(study: Study) -> None:
    """Uniform p-values, few false alarms, chance on average."""
    # A score of n answers takes few values, so that a p-value in steps may exceed a uniform one:
    # what must not be is small values that come too often.
    assert stats.kstest(study.p, "uniform", alternative="greater").pvalue > 0.001
    assert stats.kstest(study.p, "uniform").pvalue > 0.001
    alarms = study.evidence.count("evidence")
    assert alarms == (study.p <= 0.05).sum()
    assert alarms <= stats.binom.ppf(0.999, len(study.p), 0.05)
    difference = study.value - study.chance
    assert abs(difference.mean()) < 4 * difference.std(ddof=1) / np.sqrt(len(difference))
    assert len(set(study.value)) > 3, "the studies are not copies of one another"


def test_without_signal_there_is_no_evidence(make_study, words, tmp_path):
    verdicts = []
    for seed in range(N_NULL):
        data = make_study(
            tmp_path / f"bids-{seed}", subjects=("01",), runs="12", planted=(), seed=100 + seed
        )
        verdicts.append(verdict_of(words(), data, tmp_path / f"out-{seed}"))
    study = collect(verdicts)
    assert set(study.n) == {40} and set(study.chance) == {0.25}
    check_null(study)
    assert all("No evidence" in v["text"] for v in verdicts if v["evidence"] == "no evidence")


def test_a_planted_signal_is_found(make_study, words, tmp_path):
    verdicts = []
    for seed in range(N_PLANTED):
        data = make_study(
            tmp_path / f"bids-{seed}", subjects=("01",), runs="123", seed=200 + seed, amplitude=3
        )
        verdicts.append(verdict_of(words(), data, tmp_path / f"out-{seed}"))
    study = collect(verdicts)
    assert study.evidence.count("evidence") >= 9
    assert study.value.mean() > 0.4
    assert study.value.mean() < 0.9, "a signal that cannot be missed would prove little"


def simulated(snr: float, n: int, folder, n_pictures: int):
    """Verdicts of the demo's EEG recipe, with a decoder that is quick, on small simulations."""
    from braindecode_pipe.simulate.dataset import simulate_tiny

    recipe = load_recipe(
        "demo_eeg",
        ['train.decoders=["ridge"]', "split.test_folds=0", "evaluate.bootstrap=100",
         "evaluate.permutations=499", 'embed.picture.model="pixels"'],
    )  # fmt: skip
    verdicts = []
    for seed in range(n):
        data = folder / f"bids-{seed}"
        simulate_tiny(data, snr=snr, seed=seed, n_pictures=n_pictures)
        verdicts.append(verdict_of(recipe, data, folder / f"out-{seed}"))
    return verdicts


@pytest.mark.slow
def test_simulated_people_without_response_are_not_decoded(tmp_path):
    verdicts = simulated(0.0, N_NULL, tmp_path, 30)
    check_null(collect(verdicts))
    assert all(v["text"].startswith("Simulated data: ") for v in verdicts)


@pytest.mark.slow
def test_simulated_people_who_respond_are_decoded(tmp_path):
    # Of 24 training pictures too little can be learnt: four studies of five would be decoded.
    found = collect(simulated(1.0, N_PLANTED, tmp_path, 60)).evidence
    assert found.count("evidence") >= 9
