"""The response delay: planted ones are found, from when things were shown and nothing else."""

import math

import numpy as np
import pandas as pd
import pytest

from braindecode_pipe.errors import DataError
from braindecode_pipe.fitting.delay import estimate_delay


def double_gamma(t):
    """Canonical haemodynamic response: peak at 5 s, undershoot at 15 s."""
    t = np.maximum(t, 0)
    return t**5 * np.exp(-t) / math.gamma(6) - t**15 * np.exp(-t) / math.gamma(16) / 6


def simulate(kernel, t_r, seed, n_sensors=60, n_runs=3, snr=1.0, drift=3.0, onset_step=None):
    """Runs of blocks of 20 s at irregular times; a tenth of the sensors respond."""
    rng = np.random.default_rng(seed)
    runs, tables = [], []
    fine = 0.1
    for run in range(n_runs):
        onset = np.cumsum(rng.uniform(30, 45, 8))
        if onset_step:
            onset = np.round(onset / onset_step) * onset_step
        grid = np.arange(0, onset[-1] + 60, fine)
        shown = ((grid[:, None] >= onset) & (grid[:, None] < onset + 20)).any(1).astype(float)
        response = np.convolve(shown, kernel(grid), "full")[: len(grid)]
        response = response[:: round(t_r / fine)]
        data = rng.normal(size=(n_sensors, len(response)))
        responding = n_sensors // 10
        data[:responding] += snr * response / response.std()
        data += drift * np.linspace(-1, 1, len(response)) * rng.normal(size=(n_sensors, 1)) + 100
        runs.append(data)
        tables.append(
            pd.DataFrame(
                {"recording": f"r{run}", "subject": "01", "onset": onset, "duration": 20.0,
                 "event": [f"r{run}:{i}" for i in range(8)]}
            )
        )  # fmt: skip
    return runs, pd.concat(tables, ignore_index=True)


def shifted(delay):
    return lambda t: (np.abs(t - delay) < 0.05).astype(float)


def open_runs(make_signal, runs, t_r, tag=""):
    return {f"r{i}": make_signal(f"r{i}{tag}", data, 1 / t_r) for i, data in enumerate(runs)}


@pytest.mark.parametrize("t_r", [1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_haemodynamic_delay_is_found(make_signal, t_r, seed):
    runs, events = simulate(double_gamma, t_r, seed)
    found = estimate_delay(open_runs(make_signal, runs, t_r), events, 12.0)
    assert 4.0 <= found.delay <= 6.0
    assert found.correlation.max() == found.correlation[found.lags == found.delay]


@pytest.mark.parametrize("delay", [0.0, 4.0, 8.0])
def test_pure_shift_is_found_exactly(make_signal, delay):
    runs, events = simulate(shifted(delay), 2.0, 0, onset_step=2)
    found = estimate_delay(open_runs(make_signal, runs, 2.0), events, 12.0)
    assert found.delay == delay
    assert found.lags.tolist() == [0, 2, 4, 6, 8, 10, 12]


def test_score_matches_the_naive_computation(make_signal):
    runs, events = simulate(double_gamma, 2.0, 1, n_sensors=40, n_runs=2)
    found = estimate_delay(open_runs(make_signal, runs, 2.0), events, 8.0)
    for lag, score in zip(found.lags, found.correlation):
        total = np.zeros(40)
        for r, data in enumerate(runs):
            n = data.shape[1]
            shown = np.zeros(n)
            for onset in events[events["recording"] == f"r{r}"]["onset"]:
                start = math.floor((onset + lag) / 2 + 0.5)
                shown[start : start + 10] = 1
            design = np.stack([np.ones(n), np.arange(n)], 1)
            clean = lambda v, d=design: v - d @ np.linalg.lstsq(d, v, rcond=None)[0]  # noqa: E731
            c = [np.corrcoef(clean(sensor), clean(shown))[0, 1] for sensor in data]
            total += np.array(c) * n
        total /= sum(data.shape[1] for data in runs)
        assert score == pytest.approx(np.sort(total)[-2:].mean(), abs=1e-5)


@pytest.mark.parametrize("scale", [1e-13, 1e6])
def test_unit_of_the_signal_does_not_matter(make_signal, scale):
    runs, events = simulate(double_gamma, 2.0, 2)
    one = estimate_delay(open_runs(make_signal, runs, 2.0), events, 12.0)
    scaled = open_runs(make_signal, [run * scale for run in runs], 2.0, "scaled")
    two = estimate_delay(scaled, events, 12.0)
    assert two.correlation == pytest.approx(one.correlation, abs=1e-4)


def test_f36_hidden_events_do_not_move_the_estimate(make_signal):
    runs, events = simulate(shifted(4.0), 2.0, 3, n_runs=1, onset_step=2)
    seen, hidden = events.iloc[:5], events.iloc[5:]
    first = estimate_delay(open_runs(make_signal, runs, 2.0), seen, 12.0, hidden)
    spoiled = [run.copy() for run in runs]
    for onset in hidden["onset"]:
        a = math.floor(onset / 2 + 0.5)
        spoiled[0][:, a : a + 16] += 50
    second = estimate_delay(open_runs(make_signal, spoiled, 2.0, "spoiled"), seen, 12.0, hidden)
    assert first.delay == second.delay == 4.0
    assert np.array_equal(first.correlation, second.correlation)
    blind = estimate_delay(open_runs(make_signal, spoiled, 2.0, "blind"), seen, 12.0)
    assert not np.array_equal(first.correlation, blind.correlation)


def test_labels_are_not_among_what_it_reads(make_signal):
    runs, events = simulate(double_gamma, 2.0, 4)
    signals = open_runs(make_signal, runs, 2.0)
    plain = estimate_delay(signals, events, 12.0)
    labelled = events.assign(stimulus=np.arange(len(events)), trial_type="face")
    assert np.array_equal(plain.correlation, estimate_delay(signals, labelled, 12.0).correlation)


def test_flat_sensors_count_as_no_response(make_signal):
    runs, events = simulate(shifted(4.0), 2.0, 5, onset_step=2)
    for run in runs:
        run[30:] = 7.0
    assert estimate_delay(open_runs(make_signal, runs, 2.0), events, 12.0).delay == 4.0


def test_lags_of_fast_signals_stay_few(make_signal):
    runs, events = simulate(shifted(0.0), 0.1, 6, n_sensors=10, n_runs=1)
    found = estimate_delay(open_runs(make_signal, runs, 0.1), events, 12.0)
    assert len(found.lags) <= 61
    assert found.delay == 0.0


def one_event(onset, duration):
    return pd.DataFrame(
        {"event": ["r0:0"], "recording": ["r0"], "subject": ["01"],
         "onset": [onset], "duration": [duration]}
    )  # fmt: skip


def test_stimulation_without_pause_is_an_error(make_signal):
    signal = make_signal("r0", np.random.default_rng(0).normal(size=(3, 50)), 0.5)
    events = pd.DataFrame(
        {
            "event": ["x"],
            "recording": ["r0"],
            "subject": ["01"],
            "onset": [-20.0],
            "duration": [200.0],
        }
    )
    with pytest.raises(DataError, match="without a pause"):
        estimate_delay({"r0": signal}, events, 12.0)


def test_epochs_are_refused(make_response):
    signal = make_response("r0", np.ones((2, 3, 5)), ["r0:0", "r0:1"], np.arange(5) / 10)
    events = pd.DataFrame(
        {
            "event": ["r0:0"],
            "recording": ["r0"],
            "subject": ["01"],
            "onset": [0.0],
            "duration": [1.0],
        }
    )
    with pytest.raises(DataError, match="already cut out"):
        estimate_delay({"r0": signal}, events, 12.0)
