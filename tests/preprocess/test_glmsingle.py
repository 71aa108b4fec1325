"""The GLMsingle-like chain: its parts by naive loops, planted truth, white noise, test safety."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import pytest

from braindecode_pipe.preprocess import betas, denoise, glmsingle, hrf
from braindecode_pipe.preprocess.candidates import Problem, Run
from braindecode_pipe.preprocess.scratch import Scratch
from braindecode_pipe.preprocess.trials import trials_of
from braindecode_pipe.recipe import BoldSection, GlmSection

T_R = 2.0


@dataclass
class Simulated:
    """Simulated BOLD; ``planted`` (n_trials, n_sensors), 0 in the sensors that do not respond."""

    values: np.ndarray
    events: pd.DataFrame
    planted: np.ndarray
    responds: np.ndarray
    peak: np.ndarray


def simulate(
    seed=0, n_stimuli=30, n_repeats=3, n_sensors=80, snr=1.0, structured=1.5, step=4.0
) -> Simulated:
    """Half of the sensors respond, each with times to peak and widths of its own (no library's);
    five AR(1) courses and white noise [% of the mean] are everywhere."""
    rng = np.random.default_rng(seed)
    shown = np.concatenate([rng.permutation(n_stimuli) for _ in range(n_repeats)])
    n = len(shown)
    onset = 6.0 + np.cumsum(step + T_R * rng.integers(0, 2, n))
    n_times = int((onset[-1] + 24) / T_R)
    frame_times = T_R * np.arange(n_times)
    responds = np.arange(n_sensors) < n_sensors // 2
    planted = snr * (1 + rng.standard_normal((n_stimuli, n_sensors)))[shown] * responds
    peak, width = rng.uniform(3.7, 7.8, n_sensors), rng.uniform(0.38, 0.55, n_sensors)
    times = T_R / hrf.OVERSAMPLING * np.arange(800)
    percent = rng.standard_normal((n_times, n_sensors))
    for k in np.flatnonzero(responds):
        shape = hrf._gamma(times, peak[k], width[k] * peak[k])
        shape -= hrf._gamma(times, peak[k] + 10, 4.0) / 6
        kernel = hrf.with_peak(hrf.Kernel("", shape), 1.0, frame_times)
        percent[:, k] += hrf.regressors(onset, np.ones(n), kernel, frame_times) @ planted[:, k]
    courses = rng.standard_normal((n_times, 5)) * 0.8
    for t in range(1, n_times):
        courses[t] += 0.6 * courses[t - 1]
    percent += structured / np.sqrt(5) * courses @ rng.standard_normal((5, n_sensors))
    values = rng.uniform(800, 1200, n_sensors) * (1 + percent / 100)
    events = pd.DataFrame(
        {
            "event": [f"r:{i:05d}" for i in range(n)],
            "onset": onset,
            "duration": 1.0,
            "trial_type": "picture",
            "stimulus_picture": [f"s{k:02d}" for k in shown],
        }
    )
    return Simulated(values.astype(np.float32), events, planted, responds, peak)


@pytest.fixture
def estimate(tmp_path):
    """``estimate(values, events, responses, ...)`` -> betas (n_events, n_sensors), Responses."""

    def call(values, events, responses="glmsingle", *, fit_extents=None, steps=None, **glm):
        section = BoldSection.model_validate({"responses": responses, "glm": glm})
        with Scratch(tmp_path / "x.zarr", values.shape, np.float32) as series:
            series.write(0, 0, values)
            with betas.run(
                series, np.ones(values.shape[1], bool), section, events, None, None, T_R, 0.0,
                tmp_path / "x.zarr", [] if steps is None else steps, fit_extents=fit_extents,
            ) as found:  # fmt: skip
                return found.values.read(), found

    return call


@pytest.fixture
def make_run(tmp_path):
    """``make_run(values, events, fit_extents)`` -> Run with an open scratch file."""
    opened = []

    def make(values, events, fit_extents=None) -> Run:
        series = Scratch(tmp_path / "x.zarr", values.shape, np.float32).__enter__()
        opened.append(series)
        series.write(0, 0, values)
        trials = trials_of(events, GlmSection(), None, None, T_R * np.arange(len(values)), [],
                           fit_extents)  # fmt: skip
        means = values[trials.fit_times].mean(axis=0, dtype=float)
        return Run(series, trials, means, 100 / means)

    yield make
    for series in opened:
        series.__exit__()


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))


def to_planted(found: np.ndarray, data: Simulated, rows: slice | np.ndarray = slice(None)) -> float:
    """Mean correlation with the planted responses, over the sensors that respond."""
    here = data.responds
    return float(correlation(found[:, here], data.planted[rows][:, here]).mean())


def split_half(found: np.ndarray, events: pd.DataFrame) -> np.ndarray:
    """Correlation over stimuli between the first repeat and the mean of the others."""
    number = events.groupby("stimulus_picture").cumcount().to_numpy()
    table = pd.DataFrame(found).assign(s=events["stimulus_picture"].to_numpy(), half=number > 0)
    mean = table.groupby(["half", "s"]).mean()
    return correlation(mean.loc[False].to_numpy(), mean.loc[True].to_numpy())


# Parts


def test_betas_with_components_equal_a_refit(make_run):
    data = simulate(n_sensors=12)
    run = make_run(data.values, data.events)
    kernels = [run.trials.kernels("library")]
    problem = Problem([run], np.ones(12, bool), kernels)
    components = [denoise.noise_components(run.series, ~data.responds, run.trials, 4)]
    index = np.full(12, 6)
    design = run.trials.regressors(kernels[0][6])
    y = data.values / run.means * 100 - 100
    for _, designs, blocks in problem.groups(index, components):
        for n, found in enumerate(designs[0].nested(blocks[0])):
            model = np.column_stack([design, run.trials.nuisance, components[0][:, :n]])
            expected = np.linalg.lstsq(model, y, rcond=None)[0][: design.shape[1]]
            np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert n == 4


def test_joint_ridge_of_two_recordings_equals_that_of_the_stacked_design(make_run):
    """The penalties of a block-diagonal design, from its blocks."""
    runs = [make_run(d.values, d.events) for d in (simulate(seed=0), simulate(seed=1))]
    good = np.ones(80, bool)
    kernels = [run.trials.kernels("glover") for run in runs]
    problem = Problem(runs, good, kernels)
    fraction, alpha, *_ = problem.ridge(np.zeros(80, int), problem.repeats(), None,
                                        np.array([0.3]))  # fmt: skip
    parts, ys = [], []
    for run, (kernel,) in zip(runs, kernels):
        q = np.linalg.qr(run.trials.nuisance)[0]
        x = run.trials.regressors(kernel)
        parts.append(x - q @ (q.T @ x))
        ys.append(run.read(slice(0, 80), np.arange(80), np.arange(len(run.trials.frame_times))))
    x = np.zeros((sum(map(len, parts)), sum(p.shape[1] for p in parts)))
    x[: len(parts[0]), : parts[0].shape[1]] = parts[0]
    x[len(parts[0]) :, parts[0].shape[1] :] = parts[1]
    y = np.concatenate(ys)
    gram, products = x.T @ x, x.T @ y
    whole = np.linalg.solve(gram, products)
    for k in range(0, 80, 9):
        ridge = np.linalg.solve(gram + alpha[k] * np.eye(len(gram)), products[:, k])
        assert np.linalg.norm(ridge) == pytest.approx(0.3 * np.linalg.norm(whole[:, k]), rel=0.01)
    assert (fraction == 0.3).all()


def test_number_of_components_is_the_smallest_that_is_good_enough():
    rise = np.array([0.1, 0.2, 0.298, 0.3, 0.3, 0.25])[:, None] * np.ones(3)
    assert denoise.choose_number(rise) == 2
    assert denoise.choose_number(rise[::-1]) == 1
    assert denoise.choose_number(rise - 5) == 0  # no sensor is predicted at all
    assert denoise.choose_number(np.array([[0.3], [0.2], [0.1]])) == 0
    assert denoise.choose_number(np.full((4, 2), np.nan)) == 0


def test_noise_components_are_those_of_the_pool(make_run):
    data = simulate(n_sensors=40, snr=0.0, structured=30.0)
    run = make_run(data.values, data.events)
    pool = np.arange(40) < 25
    found = denoise.noise_components(run.series, pool, run.trials, 5)
    q = np.linalg.qr(run.trials.nuisance)[0]
    y = data.values[:, pool] - data.values[:, pool].mean(axis=0)
    y = y - q @ (q.T @ y)
    u = np.linalg.svd(y / np.linalg.norm(y, axis=0), full_matrices=False)[0][:, :5]
    clean = found - q @ (q.T @ found)
    np.testing.assert_allclose(np.abs(u.T @ clean), np.eye(5), atol=1e-4)
    # The five courses are in every sensor: outside of the pool they explain most.
    rest = data.values[:, ~pool] - data.values[:, ~pool].mean(axis=0)
    rest = rest - q @ (q.T @ rest)
    explained = ((u.T @ rest) ** 2).sum(axis=0) / (rest**2).sum(axis=0)
    assert explained.min() > 0.9


def test_the_noise_pool_is_bright_and_unpredicted():
    means, score = np.r_[np.full(8, 1000.0), 20.0, 1000.0], np.r_[np.full(4, -0.1), np.full(6, 0.2)]
    score[[8, 3]] = -0.3, np.nan
    good = np.arange(10) != 1
    found = denoise.noise_pool(good, means, score, 0.0)
    assert list(np.flatnonzero(found)) == [0, 2]


# The chain


def test_chain_finds_planted_responses_better_than_lsa_and_lss(estimate):
    data = simulate()
    found, quality = {}, {}
    steps: list[str] = []
    for responses in ("lsa", "lss", "glmsingle"):
        found[responses], result = estimate(data.values, data.events, responses, steps=steps)
        quality[responses] = (
            to_planted(found[responses], data),
            split_half(found[responses], data.events)[data.responds].mean(),
        )
    truth, reliability = quality["glmsingle"]
    assert truth > max(quality["lsa"][0], quality["lss"][0]) + 0.1
    assert reliability > max(quality["lsa"][1], quality["lss"][1]) + 0.1
    qc = {name: values for name, (_, values) in result.qc.items()}
    peaks = np.array(hrf.PEAKS)[qc["hrf_index"] // 2]
    assert np.median(np.abs(peaks - data.peak)[data.responds]) <= 0.5
    assert 3 <= qc["n_noise_components"] <= 8  # five were planted
    assert any(f"{qc['n_noise_components']} of 10 noise components" in step for step in steps)
    median = np.median(qc["ridge_fraction"][data.responds])
    assert median > 2 * np.median(qc["ridge_fraction"][~data.responds])
    assert np.median(qc["r2_repeats"][data.responds]) > 0.1
    assert np.median(qc["r2_repeats"][~data.responds]) < 0.03
    # Shrinkage is undone on average: the slope on the planted responses is near to one.
    x, y = data.planted[:, data.responds], found["glmsingle"][:, data.responds]
    slope = ((x - x.mean(0)) * y).sum() / ((x - x.mean(0)) ** 2).sum()
    assert 0.6 < slope < 1.2


@pytest.mark.parametrize("scale", [2.0**-43, 2.0**20])  # without rounding
def test_chain_does_not_depend_on_the_unit(estimate, scale):
    data = simulate(n_sensors=30)
    values = data.values * np.float32(scale)
    for percent, factor in ((True, 1.0), (False, scale)):
        expected, before = estimate(data.values, data.events, percent=percent)
        found, after = estimate(values, data.events, percent=percent)
        np.testing.assert_array_equal(found, expected * np.float32(factor))
        for name, (_, quality) in before.qc.items():
            np.testing.assert_allclose(after.qc[name][1], quality, rtol=1e-5)


@pytest.mark.parametrize("structured", [0.0, 1.5])
def test_on_noise_nothing_looks_reliable(estimate, structured):
    """Over designs: within one design, repeats that come close in time share noise."""
    found = []
    for seed in range(8):
        data = simulate(seed, snr=0.0, structured=structured, n_sensors=40, n_repeats=2)
        found.append(split_half(estimate(data.values, data.events)[0], data.events).mean())
    assert abs(np.mean(found)) < 4 * np.std(found, ddof=1) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 0.1


def test_memory_does_not_grow_with_the_sensors(make_run, monkeypatch):
    """Beyond a few numbers for each: data and betas are held for a block of them."""
    data = simulate(n_stimuli=40, n_sensors=2)
    rng = np.random.default_rng(0)
    values = 1000 + 10 * rng.standard_normal((len(data.values), 2400), dtype=np.float32)
    monkeypatch.setattr("braindecode_pipe.preprocess.scratch.BLOCK_BYTES", 2**19)
    monkeypatch.setattr("braindecode_pipe.preprocess.candidates.BLOCK_BYTES", 2**17)
    peaks = []
    for n in (600, 2400):
        run = make_run(values[:, :n], data.events)
        tracemalloc.start()
        glmsingle.fit([run], np.ones(n, bool), GlmSection(hrf="glover"), [])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < values.nbytes / 4


def test_shapes_of_the_library_are_found_without_noise(estimate):
    data = simulate(structured=0.0, step=8.0)
    frame_times = T_R * np.arange(len(data.values))
    rng = np.random.default_rng(0)
    planted = rng.integers(0, 20, 80)
    kernels = [hrf.with_peak(shape, 1.0, frame_times) for shape in hrf.library(frame_times)]
    courses = [hrf.regressors(data.events["onset"], data.events["duration"], kernel, frame_times)
               for kernel in kernels]  # fmt: skip
    percent = 0.02 * rng.standard_normal(data.values.shape)
    for k, shape in enumerate(planted):
        percent[:, k] += courses[shape] @ (1 + rng.standard_normal(len(data.events)))
    for responses in ("lsa", "lss", "glmsingle"):
        _, result = estimate(1000 + 10 * percent.astype(np.float32), data.events, responses,
                             hrf="library")  # fmt: skip
        assert (result.qc["hrf_index"][1] == planted).all()


def test_without_repeats_the_chain_says_what_it_does(estimate):
    data = simulate()
    data.events["stimulus_picture"] = [f"t{i}" for i in range(len(data.events))]
    steps: list[str] = []
    found, result = estimate(data.values, data.events, steps=steps)
    assert any(
        "no cross-validation: 0 trials have a repeat" in step and "5 noise components" in step
        for step in steps
    )
    qc = {name: values for name, (_, values) in result.qc.items()}
    assert qc["n_noise_components"] == 5 and (qc["ridge_fraction"] == 1).all()
    assert np.isnan(qc["r2_repeats"]).all() and np.isnan(qc["noise_ceiling"]).all()
    assert "response shape: glover" in steps and "hrf_index" not in qc
    lsa, _ = estimate(data.values, data.events, "lsa", hrf="glover")
    assert to_planted(found, data) > to_planted(lsa, data)
    # The shape that is chosen blindly is the worse one, and has to be asked for.
    library, result = estimate(data.values, data.events, hrf="library")
    assert to_planted(found, data) > to_planted(library, data)
    assert len(np.unique(result.qc["hrf_index"][1])) > 5
    lsa, _ = estimate(data.values, data.events, "lsa", hrf="library")
    plain, _ = estimate(data.values, data.events, hrf="library", fallback_components=0)
    np.testing.assert_allclose(plain, lsa, atol=1e-3)


# What is learned from training data stays with it


def divided(data: Simulated) -> tuple[tuple[tuple[float, float], ...], np.ndarray, np.ndarray]:
    """Extents to learn from, test trials, test volumes: the middle third of a recording."""
    onset = data.events["onset"].to_numpy()
    start, stop = onset[len(onset) // 3] - 0.1, onset[2 * len(onset) // 3] - 0.1
    times = T_R * np.arange(len(data.values))
    inside = (onset >= start) & (onset < stop)
    return ((0.0, start), (stop, times[-1] + T_R)), inside, (times >= start) & (times < stop)


def same(a: glmsingle.Parameters, b: glmsingle.Parameters) -> bool:
    return all(
        np.asarray(getattr(a, f.name)).tobytes() == np.asarray(getattr(b, f.name)).tobytes()
        for f in fields(a)
    )


def test_f36_test_trials_and_their_labels_teach_nothing(make_run, estimate):
    data = simulate()
    extents, test_trials, test_volumes = divided(data)
    good = np.ones(80, bool)
    rng = np.random.default_rng(1)
    expected = glmsingle.fit([make_run(data.values, data.events, extents)], good, GlmSection(), [])
    assert expected.n_components > 0 and (expected.fraction < 1).any()
    corrupt = data.values.copy()
    corrupt[test_volumes] = rng.uniform(1e3, 1e4, (int(test_volumes.sum()), 80))
    labels = data.events.copy()
    labels.loc[test_trials, "stimulus_picture"] = rng.permutation(
        labels.loc[test_trials, "stimulus_picture"].to_numpy()
    )
    for values, events in ((corrupt, data.events), (data.values, labels), (corrupt, labels)):
        found = glmsingle.fit([make_run(values, events, extents)], good, GlmSection(), [])
        assert same(found, expected)
    # And the corruption would have been seen.
    whole = [glmsingle.fit([make_run(values, data.events)], good, GlmSection(), [])
             for values in (data.values, corrupt)]  # fmt: skip
    assert not same(*whole)
    # The quality numbers that a selection of sensors may use, and all betas without labels.
    found, result = estimate(data.values, data.events, fit_extents=extents)
    again, other = estimate(data.values, labels, fit_extents=extents)
    np.testing.assert_array_equal(found, again)
    for name, (_, values) in result.qc.items():
        np.testing.assert_array_equal(values, other.qc[name][1])
    assert result.event_good.all()


def test_nothing_to_learn_from(estimate):
    data = simulate()
    steps: list[str] = []
    found, result = estimate(data.values, data.events, fit_extents=(), steps=steps, hrf="library")
    assert any("no cross-validation" in step for step in steps)
    assert len(np.unique(result.qc["hrf_index"][1])) == 1 and np.isfinite(found).all()
    peak = hrf.PEAKS[result.qc["hrf_index"][1][0] // 2]
    assert peak == 5.0  # the shape nearest to Glover's


def test_runs_teach_each_other(make_run, tmp_path):
    """Repeats in other runs: parameters from two runs, applied to a third."""
    whole = simulate(n_stimuli=30, n_repeats=3, n_sensors=80)
    onset, times = whole.events["onset"].to_numpy(), T_R * np.arange(len(whole.values))
    runs, rows = [], []
    for number in range(3):
        first = onset[30 * number] - 6
        last = onset[30 * number + 29] + 14
        volumes = (times >= first) & (times < last)
        row = np.arange(30 * number, 30 * number + 30)
        events = whole.events.iloc[row].assign(onset=onset[row] - times[volumes][0])
        runs.append(make_run(whole.values[volumes], events))
        rows.append(row)
    good, section, steps = np.ones(80, bool), GlmSection(), []
    found = glmsingle.fit(runs[:2], good, section, steps)
    assert any("chosen by the repeats" in step for step in steps)
    alone = glmsingle.fit(runs[2:], good, GlmSection(hrf="library"), [])
    assert (alone.fraction == 1).all()  # its stimuli repeat in other runs only
    truth = []
    for parameters in (alone, found):
        with Scratch(tmp_path / "y.zarr", (30, 80), np.float32) as values:
            event_good, _ = glmsingle.apply(runs[2], parameters, good, section, values)
            assert event_good.all()
            truth.append(to_planted(values.read(), whole, rows[2]))
    assert truth[1] > truth[0] + 0.05
