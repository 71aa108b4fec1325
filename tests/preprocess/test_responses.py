"""Single-trial betas from a BIDS folder to the store and back (simulated)."""

from __future__ import annotations

import nibabel
import numpy as np
import pandas as pd
import pytest
from nilearn.maskers import NiftiMasker

from braindecode_pipe import preprocess
from braindecode_pipe.plan import build
from braindecode_pipe.preprocess import hrf
from braindecode_pipe.preprocess.sensors import to_img
from braindecode_pipe.recipe import PlanSection, PreprocessSection, SplitSection
from braindecode_pipe.schema import validate
from braindecode_pipe.store import (
    is_committed,
    open_signal,
    open_store,
    store_hash,
    verify_store,
)

T_R, N_TIMES, N_STIMULI, N_REPEATS = 2.0, 150, 10, 3
RESPONDING = 24  # of the 60 voxels


@pytest.fixture(scope="module")
def study(tmp_path_factory, write_bold, make_bold, bold_affine):
    """Root, recording, its events by the plan, and what was planted (n_trials, n_voxels) [%].

    Thirty trials of ten pictures and a button press that presents nothing; Glover's response, 3 %
    at its peak, white noise of 0.3 % and none in 36 of the 60 voxels.
    """
    root = tmp_path_factory.mktemp("bids")
    rng = np.random.default_rng(0)
    _, brain = make_bold(1)
    shown = np.concatenate([rng.permutation(N_STIMULI) for _ in range(N_REPEATS)])
    onset = 6.0 + 9.0 * np.arange(len(shown)) + rng.integers(0, 2, len(shown))
    frame_times = T_R * np.arange(N_TIMES)
    kernel = hrf.with_peak(hrf.canonical("glover", frame_times), 1.0, frame_times)
    planted = np.zeros((len(shown), int(brain.sum())))
    planted[:, :RESPONDING] = rng.normal(3, 1, (N_STIMULI, RESPONDING))[shown]
    courses = hrf.regressors(onset, np.ones(len(onset)), kernel, frame_times)
    percent = courses @ planted + 0.3 * rng.normal(size=(N_TIMES, brain.sum()))
    data = np.zeros((*brain.shape, N_TIMES), np.float32)
    data[brain] = (rng.uniform(800, 1200, brain.sum()) * (1 + percent / 100)).T
    name = write_bold(root, data, T_R, sidecar={"RepetitionTime": T_R})
    nibabel.save(nibabel.Nifti1Image(brain.astype(np.uint8), bold_affine), root / "mask.nii.gz")
    kinds = [f"picture{k}" for k in shown]
    table = pd.DataFrame({"onset": onset, "duration": 1.0, "trial_type": kinds})
    table.loc[len(table)] = [100.25, 0.0, "button"]
    table = table.sort_values("onset")
    events = root / name.replace("_bold.nii.gz", "_events.tsv")
    table.to_csv(events, sep="\t", index=False)
    section = PlanSection.model_validate({"stimuli": {"trial_type": {"drop": ["button"]}}})
    plan = build(section, SplitSection(by="none"), root).plan
    # A plan without split has no stimuli: they are named here as a split would name them.
    named = plan.events["trial_type"].where(plan.events["trial_type"] != "button", "")
    return root, plan.recordings.iloc[0].to_dict(), plan.events.assign(stimulus_x=named), planted


@pytest.fixture(scope="module")
def stored(study, tmp_path_factory):
    """``stored(responses, name)`` -> path of the store of those betas, made once."""
    root, recording, events, _ = study
    folder, made = tmp_path_factory.mktemp("out"), {}

    def make(responses, name="a", **settings):
        path = folder / f"{responses}-{name}.zarr"
        if path not in made:
            bold = {"mask": "mask.nii.gz", "responses": responses}
            section = PreprocessSection.model_validate({"bold": bold})
            preprocess.run(
                section, recording, root, path, allow_truncated=False, data_origin="simulated",
                events=events, **settings,
            )  # fmt: skip
            made[path] = path
        return path

    return make


METHODS = ("lsa", "lss", "glmsingle")


@pytest.mark.parametrize("responses", METHODS)
def test_betas_follow_the_contract(responses, study, stored):
    _, recording, events, _ = study
    path = stored(responses)
    assert is_committed(path)
    verify_store(path)
    root, qc = open_store(path), open_store(path, "qc")
    validate(root)
    validate(qc)
    presenting = events[events["trial_type"] != "button"]
    assert root["response"].dims == ("event", "sensor") and root["response"].dtype == np.float32
    assert root["event"].values.tolist() == presenting["event"].tolist() and len(events) == 31
    assert root["event_good"].values.all() and root["sensor_good"].values.all()
    assert set(root["kind"].values) == {"voxel"} and np.isfinite(root["position"].values).all()
    attrs = root.attrs
    assert attrs["kind"] == "response" and attrs["data_origin"] == "simulated"
    for name in ("recording", "subject", "run", "content_hash"):
        assert attrs[name] == str(recording[name])
    assert attrs["t_r"] == T_R and "fit_extents" not in attrs
    assert any("one beta per trial, in percent" in step for step in attrs["steps"])
    assert qc["sensor"].values.tolist() == root["sensor"].values.tolist()
    for name in ("r2", "noise_ceiling", "tsnr"):
        assert qc[name].dims == ("sensor",) and np.isfinite(qc[name].values).all()
    chain = {"hrf_index", "ridge_fraction", "r2_repeats", "n_noise_components"}
    assert (chain <= set(qc)) if responses == "glmsingle" else not chain & set(qc)


@pytest.mark.parametrize("responses", METHODS)
def test_planted_betas_are_in_the_store(responses, study, stored):
    *_, planted = study
    signal = open_signal(stored(responses))
    found = np.asarray(signal.read_events(np.arange(len(planted))), float)
    here, other = slice(0, RESPONDING), slice(RESPONDING, None)
    agree = [np.corrcoef(found[:, k], planted[:, k])[0, 1] for k in range(RESPONDING)]
    assert np.mean(agree) > 0.9 and min(agree) > 0.7
    assert np.abs(found[:, other]).mean() < 0.15 * np.abs(found[:, here]).mean()
    ceiling = open_store(stored(responses), "qc")["noise_ceiling"].values
    assert np.median(ceiling[here]) > 80 > 20 > np.median(ceiling[other])


@pytest.mark.parametrize("responses", METHODS)
def test_betas_become_an_image_and_come_back(responses, stored, study, tmp_path):
    root, *_ = study
    signal = open_signal(stored(responses))
    rows = np.array([4, 0, 17])
    values = np.asarray(signal.read_events(rows))
    image = to_img(values.T, signal)
    mask = nibabel.load(root / "mask.nii.gz")
    assert image.shape == (*mask.shape, 3)
    np.testing.assert_array_equal(image.affine, mask.affine)
    assert not image.get_fdata()[mask.get_fdata() == 0].any()
    nibabel.save(image, tmp_path / "betas.nii.gz")
    masker = NiftiMasker(mask_img=mask, standardize=None).fit()
    np.testing.assert_array_equal(masker.transform(tmp_path / "betas.nii.gz"), values)


@pytest.mark.parametrize("responses", METHODS)
def test_equal_work_gives_equal_stores(responses, stored):
    assert store_hash(stored(responses)) == store_hash(stored(responses, "b"))


def test_a_divided_recording_says_what_its_chain_saw(study, stored):
    """What fits may see stands in the store, and the chain learns from that alone."""
    *_, planted = study
    extents = ((0.0, 200.0),)
    path = stored("glmsingle", "divided", fit_extents=extents)
    root, qc = open_store(path), open_store(path, "qc")
    assert root.attrs["fit_extents"] == [[0.0, 200.0]]
    assert root["event_good"].values.all() and root.sizes["event"] == len(planted)
    assert any("chosen by the repeats" in step for step in root.attrs["steps"])
    whole = open_store(stored("glmsingle"), "qc")
    assert not np.array_equal(qc["r2_repeats"].values, whole["r2_repeats"].values)
