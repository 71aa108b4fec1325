"""Single-trial betas: equal to Nilearn's; what the volumes cannot tell is named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import make_first_level_design_matrix, run_glm

from braindecode_pipe.errors import DataError, EventError, RecipeError
from braindecode_pipe.preprocess import betas, hrf
from braindecode_pipe.preprocess.scratch import Scratch
from braindecode_pipe.recipe import BoldSection

N_TIMES, N_SENSORS, T_R = 160, 30, 2.0


def make_events(n: int = 24, n_stimuli: int = 8, step: float = 12.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    shown = np.concatenate([rng.permutation(n_stimuli) for _ in range(-(-n // n_stimuli))])[:n]
    return pd.DataFrame(
        {
            "event": [f"r:{i:05d}" for i in range(n)],
            "onset": 6.0 + step * np.arange(n) + rng.uniform(0, 2, n),
            "duration": rng.choice([0.0, 1.0, 2.5], n),
            "trial_type": np.where(shown % 2, "face", "house"),
            "stimulus_picture": [f"s{k}" for k in shown],
        }
    )


def make_series(n_times: int = N_TIMES, n_sensors: int = N_SENSORS, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    drift = np.cumsum(rng.standard_normal((n_times, n_sensors)), axis=0)
    noise = 8 * rng.standard_normal((n_times, n_sensors))
    return (1000 + rng.uniform(-200, 200, n_sensors) + drift + noise).astype(np.float32)


@pytest.fixture
def estimate(tmp_path):
    """``estimate(values, events, responses, ...)`` -> betas (n_events, n_sensors), Responses."""

    def call(values, events, responses="lsa", *, good=None, confounds=None, time_good=None,
             first_time=0.0, fit_extents=None, steps=None, **glm):  # fmt: skip
        section = BoldSection.model_validate({"responses": responses, "glm": glm})
        good = np.ones(values.shape[1], bool) if good is None else good
        with Scratch(tmp_path / "x.zarr", values.shape, np.float32) as series:
            series.write(0, 0, values)
            with betas.run(
                series, good, section, events, confounds, time_good, T_R, first_time,
                tmp_path / "x.zarr", [] if steps is None else steps, fit_extents=fit_extents,
            ) as found:  # fmt: skip
                return found.values.read(), found

    return call


def nilearn_betas(values, events, kept, frame_times, confounds, hrf_model, separate):
    """Nilearn's example "Beta-Series Modeling", trial by trial, with ``run_glm``."""
    y = values.astype(float)[kept]
    y = 100 * (y / y.mean(axis=0) - 1)
    found = []
    for row in range(len(events)):
        table = events[["onset", "duration", "trial_type"]].copy()
        if separate:
            table.loc[row, "trial_type"] = "single"
        else:
            table["trial_type"] = [f"t{i:03d}" for i in range(len(table))]
        design = make_first_level_design_matrix(
            frame_times, table, hrf_model=hrf_model, add_regs=confounds, high_pass=0.01
        )
        labels, result = run_glm(y, design.to_numpy()[kept], noise_model="ols")
        theta = result[labels[0]].theta
        if not separate:
            return theta[[design.columns.get_loc(f"t{i:03d}") for i in range(len(table))]]
        found.append(theta[design.columns.get_loc("single")])
    return np.stack(found)


@pytest.mark.filterwarnings("ignore:The following conditions contain events with null duration")
@pytest.mark.parametrize("first_time", [0.0, 6.0])
@pytest.mark.parametrize("hrf_model", ["spm", "glover"])
@pytest.mark.parametrize("responses", ["lsa", "lss"])
def test_betas_equal_nilearn(estimate, responses, hrf_model, first_time):
    events, values = make_events(), make_series()
    rng = np.random.default_rng(3)
    confounds = rng.standard_normal((N_TIMES, 4)) * [1e-4, 1, 1e3, 1]
    time_good = rng.random(N_TIMES) > 0.05
    frame_times = first_time + T_R * np.arange(N_TIMES)
    expected = nilearn_betas(
        values, events, np.flatnonzero(time_good), frame_times, confounds, hrf_model,
        responses == "lss",
    )  # fmt: skip
    found, result = estimate(
        values, events, responses, confounds=confounds, time_good=time_good,
        first_time=first_time, hrf=hrf_model,
    )  # fmt: skip
    assert result.event_good.all() and result.events == list(events["event"])
    error = np.abs(found - expected).max(axis=1) / np.abs(expected).max(axis=1)
    assert error.max() < 1e-5


def naive_lss(design, nuisance, others):
    """Weights of the trial in one model per trial; ``others`` (n_events, n) sums the fellows."""
    weights = []
    for row in range(design.shape[1]):
        rest = others.copy()
        rest[row] = 0
        columns = design @ rest
        columns = columns[:, np.abs(columns).max(axis=0) > 0]
        model = np.column_stack([design[:, row], columns, nuisance])
        weights.append(np.linalg.pinv(model)[0])
    return np.stack(weights)


@pytest.mark.parametrize("kind", ["together", "condition", "alone"])
def test_lss_equals_one_pseudo_inverse_per_trial(kind):
    rng = np.random.default_rng(0)
    frame_times = T_R * np.arange(120)
    onset = np.sort(rng.uniform(0, 210, 20))
    kernel = hrf.canonical("glover", frame_times)
    design = hrf.regressors(onset, np.ones(20), kernel, frame_times)
    nuisance = np.column_stack([np.ones(120), rng.standard_normal((120, 3)) * [1e-6, 1, 1e6]])
    condition = {"together": np.zeros(20), "condition": np.arange(20) % 3,
                 "alone": np.r_[np.zeros(18), 1, 2]}[kind]  # fmt: skip
    others = (condition[:, None] == np.unique(condition)).astype(float)
    scaled = nuisance / np.linalg.norm(nuisance, axis=0)
    found = betas.lss(design, nuisance, condition).weights
    expected = naive_lss(design, scaled, others)
    np.testing.assert_allclose(found, expected, atol=1e-8 * np.abs(expected).max())


def test_lss_others_together_is_a_setting(estimate):
    events, values = make_events(), make_series()
    one_type = events.assign(trial_type="x")
    together, _ = estimate(values, events, "lss", lss_others="together")
    apart, _ = estimate(values, events, "lss")
    np.testing.assert_array_equal(together, estimate(values, one_type, "lss")[0])
    assert np.abs(together - apart).max() > 1e-3
    without, _ = estimate(values, events.drop(columns="trial_type"), "lss")
    np.testing.assert_array_equal(together, without)


@pytest.mark.parametrize("responses", ["lsa", "lss"])
def test_units_of_the_series(estimate, responses):
    """A unit of the series changes nothing in percent, and scales the betas otherwise."""
    events, values = make_events(), make_series()
    percent, result = estimate(values, events, responses)
    raw, _ = estimate(values, events, responses, percent=False)
    np.testing.assert_allclose(percent, 100 * raw / values.mean(axis=0, dtype=float), rtol=1e-5)
    for scale in (2.0**-43, 2.0**20):  # about 1e-13 and 1e6, without rounding
        scaled, other = estimate(values * np.float32(scale), events, responses)
        np.testing.assert_array_equal(scaled, percent)
        np.testing.assert_array_equal(other.qc["r2"][1], result.qc["r2"][1])
        np.testing.assert_array_equal(
            estimate(values * np.float32(scale), events, responses, percent=False)[0],
            raw * np.float32(scale),
        )


def test_planted_betas_are_found(estimate):
    events = make_events(step=10.0)
    frame_times = T_R * np.arange(N_TIMES)
    kernel = hrf.canonical("glover", frame_times)
    design = hrf.regressors(events["onset"], events["duration"], kernel, frame_times)
    planted = np.random.default_rng(5).standard_normal((len(events), N_SENSORS))
    drift = np.cos(np.pi * np.arange(1, 2 * N_TIMES, 2) / (2 * N_TIMES))
    values = 1000 * (1 + (design @ planted + drift[:, None]) / 100)
    found, result = estimate(values.astype(np.float32), events)
    # The mean is that of the whole series, as with Nilearn's signal_scaling=0.
    planted *= 1000 / values.mean(axis=0)
    np.testing.assert_allclose(found, planted, atol=2e-3)
    assert result.qc["r2"][1].min() > 0.999


def test_events_without_stimulus_are_baseline_or_nuisance(estimate):
    events, values = make_events(), make_series()
    presses = pd.DataFrame(
        {"event": [f"r:{i:05d}" for i in range(90, 96)], "onset": 40.0 * np.arange(6) + 11,
         "duration": 0.0, "trial_type": "press", "stimulus_picture": ""}
    )  # fmt: skip
    both = pd.concat([events, presses]).sort_values("onset", ignore_index=True)
    expected, _ = estimate(values, events)
    found, result = estimate(values, both)
    assert result.events == list(events["event"])
    np.testing.assert_array_equal(found, expected)
    steps: list[str] = []
    found, _ = estimate(values, both, nuisance_events=["press", "cough"], steps=steps)
    frame_times = T_R * np.arange(N_TIMES)
    kernel = hrf.canonical("glover", frame_times)
    course = hrf.regressors(presses["onset"], presses["duration"], kernel, frame_times)
    expected, _ = estimate(values, events, confounds=course.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert "in the model: one regressor for 6 events 'press'" in steps
    assert "in the model: no event of trial type 'cough' without stimulus" in steps


@pytest.mark.parametrize("responses", ["lsa", "lss", "glmsingle"])
def test_what_the_volumes_do_not_determine_is_not_good(estimate, responses):
    events, values = make_events(), make_series()
    events.loc[3, "onset"] = 2 * N_TIMES - 2.0  # at the end of the recording
    time_good = np.ones(N_TIMES, bool)
    lost = int(events.loc[10, "onset"] / T_R)
    time_good[lost : lost + 9] = False
    steps: list[str] = []
    found, result = estimate(values, events, responses, time_good=time_good, steps=steps)
    assert list(np.flatnonzero(~result.event_good)) == [3, 10]
    assert np.isnan(found[[3, 10]]).all() and np.isfinite(np.delete(found, [3, 10], 0)).all()
    assert any("2 of 24 trials have no beta" in step for step in steps)


@pytest.mark.parametrize("responses", ["lsa", "glmsingle"])
def test_trials_at_one_time_cannot_be_told_apart(estimate, responses):
    events, values = make_events(), make_series()
    events.loc[5, ["onset", "duration"]] = events.loc[4, ["onset", "duration"]].to_numpy()
    _, result = estimate(values, events, responses)
    assert list(np.flatnonzero(~result.event_good)) == [4, 5]


@pytest.mark.parametrize("responses", ["lsa", "lss", "glmsingle"])
def test_bad_sensors_are_zeros(estimate, responses):
    events, values = make_events(), make_series()
    good = np.ones(N_SENSORS, bool)
    good[[2, 7]] = False
    values[:, 2] = 0
    values[:, 11] = 900  # constant, though called good
    values[:, 12] -= values[:, 12].mean()  # no mean to relate to
    found, result = estimate(values, events, responses, good=good)
    assert list(np.flatnonzero(~result.sensor_good)) == [2, 7, 11, 12]
    assert not found[:, [2, 7, 11, 12]].any() and found[:, [0, 1]].all()
    assert list(np.flatnonzero(np.isnan(result.qc["r2"][1]))) == [2, 7, 11, 12]
    assert list(np.flatnonzero(np.isnan(result.qc["noise_ceiling"][1]))) == [2, 7, 11, 12]


@pytest.mark.parametrize("responses", ["lsa", "lss", "glmsingle"])
def test_blocks_of_sensors_change_nothing(estimate, monkeypatch, responses):
    events, values = make_events(), make_series()
    whole, expected = estimate(values, events, responses, hrf="library")
    for module in ("scratch", "candidates"):
        monkeypatch.setattr(f"braindecode_pipe.preprocess.{module}.BLOCK_BYTES", 8 * N_TIMES * 7)
    found, result = estimate(values, events, responses, hrf="library")
    np.testing.assert_allclose(found, whole, atol=1e-4)
    np.testing.assert_array_equal(result.qc["hrf_index"][1], expected.qc["hrf_index"][1])


def test_equal_input_gives_equal_bytes(estimate):
    events, values = make_events(), make_series()
    for responses in ("lsa", "lss", "glmsingle"):
        first, second = (estimate(values, events, responses)[0] for _ in range(2))
        assert first.tobytes() == second.tobytes()


def test_errors_say_what_to_do(estimate):
    events, values = make_events(), make_series()
    many = make_events(160, step=1.5)
    for responses in ("lsa", "glmsingle"):
        with pytest.raises(EventError, match="more trials than the volumes(.|\n)*160(.|\n)*lss"):
            estimate(values, many, responses)
    with pytest.raises(EventError, match="no event of the recording presents a stimulus"):
        estimate(values, events.assign(stimulus_picture=""))
    with pytest.raises(RecipeError, match="glm.target(.|\n)*picture(.|\n)*sound"):
        estimate(values, events, target="sound")
    with pytest.raises(DataError, match="raw units(.|\n)*0 of 30(.|\n)*percent = false"):
        estimate(values - values.mean(axis=0), events)
    with pytest.raises(DataError, match="confounds cannot be part(.|\n)*1 values that are no"):
        confounds = np.zeros((N_TIMES, 2))
        confounds[4, 1] = np.nan
        estimate(values, events, confounds=confounds)
    with pytest.raises(DataError, match="too few good volumes"):
        estimate(values, events, time_good=np.arange(N_TIMES) < 2)


def test_confounds_of_volumes_that_are_left_out_do_not_matter(estimate):
    events, values = make_events(), make_series()
    confounds = np.random.default_rng(0).standard_normal((N_TIMES, 2))
    time_good = np.arange(N_TIMES) != 50
    expected, _ = estimate(values, events, confounds=confounds, time_good=time_good)
    values[50], confounds[50] = 1e6, np.nan
    found, _ = estimate(values, events, confounds=confounds, time_good=time_good)
    np.testing.assert_array_equal(found, expected)


def test_noise_ceiling_is_in_the_quality_numbers(estimate):
    events = make_events(48, n_stimuli=16, step=6.0)
    frame_times = T_R * np.arange(N_TIMES)
    kernel = hrf.canonical("glover", frame_times)
    events["duration"] = 1.0
    design = hrf.regressors(events["onset"], events["duration"], kernel, frame_times)
    shown = np.unique(events["stimulus_picture"], return_inverse=True)[1]
    rng = np.random.default_rng(0)
    values = 1000 + 10 * rng.standard_normal((N_TIMES, N_SENSORS))
    values[:, :15] += 300 * design @ rng.standard_normal((16, 15))[shown]
    _, result = estimate(values.astype(np.float32), events)
    ceiling = result.qc["noise_ceiling"][1]
    assert np.median(ceiling[:15]) > 60 and np.median(ceiling[15:]) < 20
    alone = events.assign(stimulus_picture=[f"s{i}" for i in range(48)])
    _, result = estimate(values.astype(np.float32), alone)
    assert np.isnan(result.qc["noise_ceiling"][1]).all()
