"""Which row of a table is which trigger: planted losses, shifts and drifts are found."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from braindecode_pipe.plan.matching import align, fit_clock, label_shift


def onsets(n, seed=0, low=0.6, high=0.8):
    return np.cumsum(np.random.default_rng(seed).uniform(low, high, n))


def cheapest(table, device, tolerance):
    """The cost of the best pairing, over all of them."""
    best = np.inf
    for size in range(1, min(len(table), len(device)) + 1):
        for rows in itertools.combinations(range(len(table)), size):
            for columns in itertools.combinations(range(len(device)), size):
                best = min(best, cost_of(list(zip(rows, columns)), table, device, tolerance))
    return best


def cost_of(pairs, table, device, tolerance):
    (first, start), (last, end) = pairs[0], pairs[-1]
    cost = first + 0.25 * start
    for (i, j), (k, m) in itertools.pairwise(pairs):
        step = ((device[m] - device[j]) - (table[k] - table[i])) / tolerance
        cost += min(step**2, 4.0) + (k - i - 1) + 0.25 * (m - j - 1)
    near = sum(min(abs(device[j] - table[i]), 1.0) for i, j in pairs)
    return cost - last - 0.25 * end + 0.2 / max(len(table), len(device)) * near


@pytest.mark.parametrize("seed", range(4))
def test_alignment_is_the_cheapest_of_all(seed):
    rng = np.random.default_rng(seed)
    table = onsets(5, seed)
    device = np.sort(np.r_[np.delete(table, 2) + 1.0, rng.uniform(0, 4, 1)])
    pairs = [tuple(pair) for pair in align(table, device)]
    found = cost_of(pairs, table, device, 0.02)
    assert found == pytest.approx(cheapest(table, device, 0.02), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_lost_and_extra_triggers_are_found(seed):
    rng = np.random.default_rng(seed)
    table = onsets(300, seed)
    device = 31.0 + table * (1 + 12e-6) + rng.normal(0, 1e-4, 300)
    kept = np.ones(300, bool)
    kept[rng.choice(300, 15, replace=False)] = False
    kept[100:140] = False  # the trigger box was unplugged for a while
    extra = rng.uniform(device[0], device[-1], 15)
    seen = np.sort(np.r_[device[kept], extra])
    number = {row: int(np.flatnonzero(seen == device[row])[0]) for row in np.flatnonzero(kept)}
    pairs = align(table, seen)
    right = sum(number.get(row) == at for row, at in pairs)
    assert right >= 0.99 * kept.sum() and len(pairs) <= kept.sum() + 3
    clock = fit_clock(table[pairs[:, 0]], seen[pairs[:, 1]])
    assert clock.drift == pytest.approx(12e-6, rel=0.05)
    assert clock.offset == pytest.approx(31.0, abs=1e-3)
    assert clock.residual_sd == pytest.approx(1e-4, rel=0.3)


@pytest.mark.parametrize("drift", [12e-6, -50e-6])
def test_f20_drift_is_fitted_to_five_percent(drift):
    table = onsets(1000)
    device = np.round((0.5 + table * (1 + drift)) * 1000) / 1000
    device[::50] += 0.3  # triggers that came late do not pull the line
    clock = fit_clock(table, device)
    assert clock.drift == pytest.approx(drift, rel=0.05)


def test_f20_a_shift_by_one_trial_is_found_by_intervals():
    device = onsets(100)
    late = np.r_[device[1:], device[-1] + 0.7]  # every row holds the onset of the next trial
    pairs = align(late, device)
    assert len(pairs) == 99 and (pairs[:, 1] - pairs[:, 0] == 1).all()


def test_equal_intervals_pair_what_is_at_equal_times():
    table = 1 + 0.7 * np.arange(50)
    assert align(table, table[1:])[0].tolist() == [1, 0]
    assert align(table, table[:-1])[0].tolist() == [0, 0]
    pairs = align(table, np.delete(table, 20))
    assert len(pairs) == 49 and 20 not in pairs[:, 0]


def test_strangers_lie_on_no_clock():
    table, device = onsets(100, 1), onsets(100, 2)
    pairs = align(table, device)
    clock = fit_clock(table[pairs[:, 0]], device[pairs[:, 1]])
    residual = np.abs(device[pairs[:, 1]] - clock(table[pairs[:, 0]]))
    assert (residual < 0.04).sum() < 50


def test_nothing_pairs_with_nothing():
    assert align(np.zeros(0), np.ones(3)).shape == (0, 2)
    assert fit_clock(np.zeros(0), np.zeros(0)).offset == 0.0
    assert fit_clock([1.0], [3.0]).offset == 2.0


@pytest.mark.parametrize("shift", [-3, -1, 0, 1, 2])
@pytest.mark.parametrize("finer", [False, True])
def test_f20_labels_tell_a_shift(shift, finer):
    rng = np.random.default_rng(0)
    code = rng.integers(1, 3, 200)
    label = np.roll(code, -shift)  # label i belongs to code i + shift
    names = [f"{x}{rng.integers(5)}" if finer else str(x) for x in label]
    found = label_shift(np.array(names, object), code.astype(str))
    assert found.shift == shift and found.agreement >= 0.99


def test_labels_without_relation_to_codes_tell_no_shift():
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        found.append(label_shift(rng.integers(0, 2, 30), rng.integers(0, 2, 30)).shift)
    assert not any(found)
    assert label_shift(["a"] * 5, ["1"] * 5).shift == 0


def test_a_few_wrong_codes_are_no_shift():
    code = np.random.default_rng(1).integers(1, 3, 200)
    wrong = code.copy()
    wrong[:8] = 3 - wrong[:8]
    found = label_shift(code.astype(str), wrong.astype(str))
    assert found.shift == 0 and found.agreement == pytest.approx(0.96)
