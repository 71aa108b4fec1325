"""Strategies for confounds, volumes that are left out of fits, and recordings that are divided."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from nilearn.interfaces.fmriprep import load_confounds
from nilearn.signal import clean

from braindecode_pipe.errors import DataError, LeakageError, MissingFileError, RecipeError
from braindecode_pipe.preprocess import input_files, run
from braindecode_pipe.preprocess.cleaning import Cleaner, process
from braindecode_pipe.preprocess.regression import Projection, fitted_volumes
from braindecode_pipe.preprocess.scratch import Scratch
from braindecode_pipe.recipe import BoldSection, PreprocessSection
from braindecode_pipe.store import open_signal, open_store

STRATEGY = {
    "confounds_strategy": ["motion", "wm_csf", "scrub"],
    "confounds_options": {"motion": "full", "fd_threshold": 0.5, "scrub": 3},
}


@pytest.fixture
def scrubbed(tmp_path, make_bold, write_fmriprep, run_stage):
    """``scrubbed(bold={...})`` -> root, qc, data, brain, Nilearn's confounds and sample mask."""

    def call(n_times=60, data=None, **bold):
        values, brain = make_bold(n_times)
        values = values if data is None else data
        name, _ = write_fmriprep(tmp_path, values, brain)
        out = run_stage(tmp_path, name, tmp_path / "a.zarr", "bold", bold={**STRATEGY, **bold})
        found = load_confounds(
            str(tmp_path / name), strategy=("motion", "wm_csf", "scrub"), motion="full",
            fd_threshold=0.5, scrub=3, demean=False,
        )  # fmt: skip
        return open_store(out).load(), open_store(out, "qc").load(), values, brain, *found

    return call


def test_f25_scrubbed_volumes_keep_their_place_and_teach_nothing(scrubbed):
    root, qc, data, brain, confounds, sample_mask = scrubbed(detrend=False)
    good = root["time_good"].values
    np.testing.assert_array_equal(np.flatnonzero(good), sample_mask)
    assert not good[[0, 1, 20, 30]].any() and good.sum() < 58 and root.sizes["time"] == 60
    np.testing.assert_array_equal(root["time"].values, 2.0 * np.arange(60))
    expected = clean(
        data[brain].T.astype(float), detrend=False, standardize="zscore_sample", filter=False,
        confounds=confounds.to_numpy(), sample_mask=sample_mask,
    ).T  # fmt: skip
    np.testing.assert_allclose(root["signal"].values[:, good], expected, atol=1e-5)
    assert "fitted on" in " ".join(root.attrs["steps"])
    np.testing.assert_array_equal(qc["time_good"].values, good)
    assert qc["motion"].dims == ("time", "motion_parameter")
    assert list(qc["motion_parameter"].values)[3] == "rot_x"
    assert qc["framewise_displacement"].values[20] > 1


def test_f25_what_scrubbed_volumes_hold_changes_no_other(scrubbed, make_bold):
    plain = scrubbed(high_pass=0.02)[0]
    data, _ = make_bold(60)
    bad = np.flatnonzero(~plain["time_good"].values)
    data[..., bad] += 5000
    spoiled = scrubbed(high_pass=0.02, data=data)[0]
    good = plain["time_good"].values
    np.testing.assert_array_equal(
        plain["signal"].values[:, good], spoiled["signal"].values[:, good]
    )
    assert np.abs(spoiled["signal"].values[:, ~good]).mean() > 50


def test_f25_events_keep_their_alignment(scrubbed, make_bold, tmp_path):
    data, brain = make_bold(60)
    onset = np.array([14, 70, 104])  # [s]; 20 volumes or more after scrubbed ones
    data = data.astype(np.int16)
    for t in onset:
        data[..., t // 2] += 400
    root = scrubbed(data=data, dummy_scans=2)[0]
    signal = open_signal(tmp_path / "a.zarr")
    assert signal.first_time == 4.0
    sample = np.rint((onset - signal.first_time) * signal.sfreq).astype(int)
    size = np.where(root["time_good"], np.abs(root["signal"].values.mean(axis=0)), 0)
    strongest = np.argsort(size)[-3:]
    assert set(sample) == set(strongest)
    # Sample i is volume i + dummy_scans.
    np.testing.assert_array_equal(signal.times[sample], onset)


def test_detrending_is_linear_in_time_whatever_is_scrubbed(scrubbed, make_bold):
    _, brain = make_bold(60)
    rng = np.random.default_rng(0)
    data = np.zeros((*brain.shape, 60), np.float32)
    data[brain] = 1000 + rng.normal(0, 1, (brain.sum(), 60)) + 20.0 * np.arange(60)
    root = scrubbed(data=data, standardize=False)[0]
    left = root["signal"].values[:, root["time_good"].values]
    assert np.abs(left).max() < 10


def test_strategies_in_plain_columns_too(scrubbed):
    root, *_ = scrubbed(confounds=["global_signal", "csf"])
    line = next(step for step in root.attrs["steps"] if step.startswith("regressed out"))
    assert line.startswith("regressed out: global_signal, csf, ") and line.count("csf") == 1
    assert line.count(",") == 26


def test_compcor_with_its_metadata(tmp_path, make_bold, write_fmriprep, run_stage):
    data, brain = make_bold(60)
    name, _ = write_fmriprep(tmp_path, data, brain)
    bold = {"confounds_strategy": ["compcor", "high_pass", "non_steady_state"],
            "confounds_options": {"n_compcor": 2}}  # fmt: skip
    root = open_store(run_stage(tmp_path, name, tmp_path / "a.zarr", "bold", bold=bold))
    line = next(step for step in root.attrs["steps"] if step.startswith("regressed out"))
    assert line == "regressed out: a_comp_cor_00, a_comp_cor_01, cosine00, cosine01"
    row = {"datatype": "bold", "path": name, "subject": "01", "session": "", "task": "x",
           "run": "1"}  # fmt: skip
    files = [f.name.split("desc-")[1] for f in input_files(PreprocessSection(bold=bold), row,
                                                           tmp_path)]  # fmt: skip
    assert files == ["confounds_timeseries.tsv", "confounds_timeseries.json", "brain_mask.nii.gz"]


def test_strategies_that_cannot_be_followed(tmp_path, make_bold, write_fmriprep, run_stage):
    data, brain = make_bold(60)
    name, table = write_fmriprep(tmp_path, data, brain)

    def attempt(**bold):
        return run_stage(tmp_path, name, tmp_path / "a.zarr", "bold", bold=bold)

    with pytest.raises(DataError, match="strategy(.|\n)*`high_pass` must be included"):
        attempt(confounds_strategy=["compcor"])
    with pytest.raises(RecipeError, match="Nilearn does not have(.|\n)*fd_treshold"):
        attempt(confounds_strategy=["scrub"], confounds_options={"fd_treshold": 0.2})
    with pytest.raises(DataError, match="cannot be followed(.|\n)*(aroma|desc-smooth)"):
        attempt(confounds_strategy=["ica_aroma"])
    with pytest.raises(DataError, match="every volume is scrubbed(.|\n)*fd_threshold"):
        attempt(confounds_strategy=["scrub"],
                confounds_options={"fd_threshold": 1e-6, "std_dvars_threshold": 0})  # fmt: skip
    with pytest.raises(DataError, match="too few volumes to regress(.|\n)*scrub less"):
        few = float(table["framewise_displacement"].quantile(0.3))
        attempt(confounds=list(table.columns[:30]), confounds_strategy=["scrub"],
                confounds_options={"scrub": 0, "fd_threshold": few})  # fmt: skip
    next(tmp_path.rglob("*timeseries.tsv")).unlink()
    with pytest.raises(MissingFileError, match="confounds table is not there"):
        attempt(confounds_strategy=["motion"])


@pytest.mark.parametrize("missing", [[], [0, 1, 17, 18, 40]])
def test_low_pass_equals_nilearn(missing, tmp_path):
    rng = np.random.default_rng(0)
    data, confounds = rng.normal(size=(80, 5)).cumsum(axis=0), rng.normal(size=(80, 3))
    good = np.ones(80, bool)
    good[missing] = False
    section = BoldSection(low_pass=0.1, confounds=["a"])
    with Scratch(tmp_path / "a.zarr", data.shape, np.float64) as series:
        series.write(0, 0, data)
        process(series, Cleaner(section, 2.0, confounds, good, good))
        found = series.read()
    expected = clean(
        data, detrend=True, standardize="zscore_sample", confounds=confounds, low_pass=0.1,
        t_r=2.0, sample_mask=None if not missing else good,
    )  # fmt: skip
    np.testing.assert_allclose(found[good], expected, atol=1e-5)


EXTENTS = ((0.0, 60.0), (90.0, 120.0))


@pytest.fixture
def divided(tmp_path, make_bold, write_fmriprep, row):
    """``divided(data, extents, bold={...})`` -> root of a recording that a split divides."""

    def call(data, extents=EXTENTS, mask=True, **bold):
        _, brain = make_bold(60)
        name, _ = write_fmriprep(tmp_path, data, brain)
        if not mask:
            next(tmp_path.rglob("*brain_mask*")).unlink()
        run(
            PreprocessSection(bold={"confounds": ["trans_y", "csf_derivative1"], "high_pass": 0.02,
                                    **bold}),
            row(name, "bold"), tmp_path, tmp_path / "a.zarr", allow_truncated=False,
            data_origin="simulated", fit_extents=extents,
        )  # fmt: skip
        out = tmp_path / "a.zarr"
        return open_store(out).load(), open_store(out, "qc").load()

    return call


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("settings", [{}, {"standardize": False, "detrend": False}])
def test_f36_the_test_part_changes_nothing_of_the_training_part(
    mask, settings, divided, make_bold, tmp_path
):
    data, brain = make_bold(60)
    plain, qc = divided(data, mask=mask, **settings)
    seen = np.zeros(60, bool)
    seen[:30] = seen[45:] = True
    corrupt = data.copy()
    corrupt[..., ~seen] = np.random.default_rng(1).integers(0, 30000, corrupt[..., ~seen].shape)
    spoiled, _ = divided(corrupt, mask=mask, **settings)
    np.testing.assert_array_equal(plain["sensor"].values, spoiled["sensor"].values)
    np.testing.assert_array_equal(
        plain["signal"].values[:, seen], spoiled["signal"].values[:, seen]
    )
    assert np.abs(plain["signal"].values - spoiled["signal"].values)[:, ~seen].max() > 10
    assert any("that no fold tests on" in step for step in plain.attrs["steps"])
    assert "of which a part is tested on" in qc.attrs["warnings"][-1]


def test_f36_what_the_fit_sees_is_what_nilearn_would_be_given(divided, make_bold, confounds_table):
    data, brain = make_bold(60)
    root, _ = divided(data, high_pass=None, detrend=False)
    table, _ = confounds_table(60)
    confounds = table[["trans_y", "csf_derivative1"]].bfill().to_numpy()
    seen = np.r_[2:30, 45:60]  # volumes 0 and 1 are before the steady state
    expected = clean(data[brain].T.astype(float), detrend=False, standardize="zscore_sample",
                     confounds=confounds, sample_mask=seen, filter=False).T  # fmt: skip
    np.testing.assert_allclose(root["signal"].values[:, seen], expected, atol=1e-5)


def test_f36_what_cannot_be_kept_apart_is_refused(divided, make_bold):
    data, _ = make_bold(60)
    with pytest.raises(LeakageError, match="low-pass filter reaches(.|\n)*split by run"):
        divided(data, low_pass=0.1)
    with pytest.raises(LeakageError, match="too little of a divided recording(.|\n)*split by run"):
        divided(data, extents=((0.0, 14.0),))
    with pytest.raises(LeakageError, match="too little of a divided recording"):
        divided(data, extents=())
    with pytest.raises(DataError, match="no mask can be computed(.|\n)*preprocess.bold.mask"):
        divided(data, extents=(), mask=False)


def test_volumes_that_may_be_seen_lie_wholly_in_an_extent():
    good = np.ones(10, bool)
    good[1] = False
    seen = fitted_volumes(good, 4.0, 0.1 * 3, ((0.0, 4.9), (5.5, 6.4)))
    # Volumes begin at 4.0, 4.3, ... s and last 0.3 s.
    np.testing.assert_array_equal(np.flatnonzero(seen), [0, 2, 5, 6, 7])
    np.testing.assert_array_equal(fitted_volumes(good, 0, 2.0, None), good)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_projection_equals_least_squares_at_any_scale(dtype):
    rng = np.random.default_rng(0)
    regressors = np.hstack([np.ones((60, 1)), rng.normal(size=(60, 4))])
    regressors = np.hstack([regressors, regressors[:, 1:2] - 2 * regressors[:, 3:4],
                            np.zeros((60, 1))])  # fmt: skip
    scale = np.array([1, 1e-13, 1e6, 1, 1e-6, 1, 1])
    fitted = rng.uniform(size=60) > 0.3
    values = rng.normal(size=(60, 7))
    beta = np.linalg.lstsq(regressors[fitted], values[fitted], rcond=None)[0]
    projection = Projection.of(regressors * scale, fitted)
    assert projection.rank == 5
    found = values.astype(dtype)
    projection.remove(found)
    np.testing.assert_allclose(found, values - regressors @ beta, atol=1e-5)


def test_strong_trends_leave_nothing_in_float32(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(200, 3))
    data = noise + 1000 + 50 * np.linspace(-1, 1, 200)[:, None]
    good = np.ones(200, bool)
    with Scratch(tmp_path / "a.zarr", data.shape, np.float32) as series:
        series.write(0, 0, data)
        measured = process(series, Cleaner(BoldSection(), 2.0, None, good, good))
        found = series.read()
    expected = clean(data.astype(np.float32).astype(float), standardize="zscore_sample",
                     filter=False)  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(measured.mean, data.mean(axis=0), rtol=1e-6)
    change = np.diff(data.astype(np.float32), axis=0)
    np.testing.assert_allclose(measured.dvars[1:], np.sqrt((change**2).mean(axis=1)), rtol=1e-3)
    assert np.isnan(measured.dvars[0])


def test_sensors_that_the_regressors_explain_are_not_good(tmp_path):
    good = np.ones(50, bool)
    line = np.linspace(100, 900, 50)
    data = np.stack([line, np.random.default_rng(0).normal(size=50), np.full(50, 7.0)], axis=1)
    for scale in (1e-13, 1.0, 1e6):
        with Scratch(tmp_path / "a.zarr", data.shape, np.float32) as series:
            series.write(0, 0, data * scale)
            measured = process(series, Cleaner(BoldSection(), 2.0, None, good, good))
            found = series.read()
        np.testing.assert_array_equal(measured.good, [False, True, False])
        assert not found[:, [0, 2]].any() and found[:, 1].std(ddof=1) == pytest.approx(1)


def test_drift_is_removed_although_a_confound_resembles_it(tmp_path):
    rng = np.random.default_rng(0)
    drift = np.cos(np.pi * (np.arange(120) + 0.5) * 3 / 120)  # a cosine drift term itself
    other = np.cos(np.pi * (np.arange(120) + 0.5) * 2 / 120)
    signal = rng.normal(size=(4, 120)) + 5 * drift + 5 * other
    section = BoldSection(high_pass=0.02, standardize=False, confounds=["trans_x"])
    motion = (drift + 0.01 * rng.normal(size=120))[:, None]
    good = np.ones(120, bool)
    with Scratch(tmp_path / "a.zarr", (120, 4), np.float32) as series:
        series.write(0, 0, signal.T)
        process(series, Cleaner(section, 2.0, motion, good, good))
        cleaned = series.read().T
    for slow in (drift, other):
        assert np.abs(cleaned @ slow / np.linalg.norm(slow)).max() < 1e-2


def test_f14_smoothing_leaves_out_what_is_not_finite(tmp_path, make_bold, write_bold, run_stage,
                                                     bold_affine):  # fmt: skip
    from nilearn.image import smooth_img

    data, brain = make_bold(40)
    data = data.astype(np.float32)
    mask = nibabel.Nifti1Image(brain.astype(np.uint8), bold_affine)
    nibabel.save(mask, tmp_path / "m.nii.gz")
    how = {"mask": "m.nii.gz", "detrend": False, "standardize": False, "smoothing_fwhm": 5.0}

    def stage(values, out):
        name = write_bold(tmp_path, values)
        return open_store(run_stage(tmp_path, name, tmp_path / out, "bold", bold=how))

    plain = stage(data, "a.zarr")
    spoiled = data.copy()
    spoiled[2, 3, 2, 7] = np.inf
    root = stage(spoiled, "b.zarr")
    names = list(root["sensor"].values)
    bad = names.index("002-003-002")
    assert list(np.flatnonzero(~root["sensor_good"].values)) == [bad]
    rest = np.setdiff1d(np.arange(len(names)), bad)
    # A weighted mean of the others: by the formula, in one volume.
    volume, valid = data[..., 7].astype(float), np.ones(brain.shape)
    volume[2, 3, 2] = valid[2, 3, 2] = 0
    smooth = [smooth_img(nibabel.Nifti1Image(x, bold_affine), 5.0).get_fdata()
              for x in (volume, valid, np.ones(brain.shape))]  # fmt: skip
    expected = (smooth[0] * smooth[2] / smooth[1])[brain]
    np.testing.assert_allclose(root["signal"].values[rest, 7], expected[rest], rtol=1e-5)
    far = [names.index("001-001-001"), names.index("004-005-003")]
    np.testing.assert_allclose(root["signal"].values[far], plain["signal"].values[far], rtol=1e-3)
    assert "without voxels that are not finite" in " ".join(root.attrs["steps"])
