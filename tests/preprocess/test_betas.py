"""Single-trial betas: equal to Nilearn's; what the volumes cannot tell is named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import compute_regressor, make_first_level_design_matrix, run_glm

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
