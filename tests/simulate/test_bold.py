from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from braindecode_pipe.simulate import Settings, simulate_tiny
from braindecode_pipe.simulate.bold import make_brain, response_courses
from braindecode_pipe.simulate.latents import N_LATENTS

NAME = "sub-01_task-concepts_run-{}"


def read_run(root, run="01"):
    """Voxels ``(n_voxels, n_volumes)``, confounds, events, image."""
    name = NAME.format(run)
    folder = root / "derivatives" / "fmriprep" / "sub-01" / "func"
    image = nib.load(folder / f"{name}_space-T1w_desc-preproc_bold.nii.gz")
    mask = nib.load(folder / f"{name}_space-T1w_desc-brain_mask.nii.gz")
    np.testing.assert_allclose(mask.affine, image.affine)
    confounds = pd.read_csv(folder / f"{name}_desc-confounds_timeseries.tsv", sep="\t")
    events = pd.read_csv(
        root / "sub-01" / "func" / f"{name}_events.tsv", sep="\t", keep_default_na=False
    )
    return image.get_fdata()[mask.get_fdata() > 0], confounds, events, image


def nuisance(confounds):
    names = [c for c in confounds if c.startswith(("cosine", "trans", "rot"))]
    names = [c for c in names if "derivative" not in c]
    return np.column_stack([np.ones(len(confounds)), confounds[names]])


def residuals(values, regressors):
    return values - (regressors @ np.linalg.lstsq(regressors, values.T, rcond=None)[0]).T


def test_files_are_in_fmriprep_form(study):
    data, confounds, events, image = read_run(study)
    assert image.shape[:3] == (10, 10, 8) and image.shape[3] == len(confounds) == data.shape[1]
    assert image.header.get_zooms() == pytest.approx((3, 3, 3, 2.0))
    folder = study / "derivatives" / "fmriprep" / "sub-01" / "func"
    name = NAME.format("01")
    sidecar = json.loads((folder / f"{name}_space-T1w_desc-preproc_bold.json").read_text())
    assert sidecar["RepetitionTime"] == 2.0 and sidecar["TaskName"] == "concepts"
    assert (folder / f"{name}_space-T1w_boldref.nii.gz").is_file()
    assert events["onset"].iloc[-1] + 16 <= image.shape[3] * 2.0
    lines = (folder / f"{name}_desc-confounds_timeseries.tsv").read_text().splitlines()
    first = dict(zip(lines[0].split("\t"), lines[1].split("\t")))
    assert first["framewise_displacement"] == first["trans_x_derivative1"] == "n/a"
    assert first["trans_x"] != "n/a"
    assert confounds["framewise_displacement"].iloc[1:].ge(0).all()
    top = json.loads((study / "derivatives" / "fmriprep" / "dataset_description.json").read_text())
    assert top["DatasetType"] == "derivative" and top["SimulatedData"] is True


def test_motion_and_drift_are_removed_by_their_confounds(study):
    data, confounds, _, _ = read_run(study)
    slow = np.column_stack([np.ones(len(confounds)), confounds.filter(like="cosine")])
    edge = np.argsort(np.abs(np.load(study / "truth" / "bold_sub-01.npz")["motion"]).sum(1))[-60:]
    still, moved = (residuals(data[edge], x).var() for x in (nuisance(confounds), slow))
    assert still < 0.85 * moved
    clean = residuals(data, nuisance(confounds))
    removed = 1 - clean.var() / (data - data.mean(1, keepdims=True)).var()
    rng = np.random.default_rng(0)
    other = np.column_stack([np.ones(data.shape[1]),
                             rng.standard_normal((data.shape[1], 12))])  # fmt: skip
    by_chance = 1 - residuals(data, other).var() / (data - data.mean(1, keepdims=True)).var()
    assert removed > by_chance + 0.3


def test_planted_maps_are_found_by_a_linear_model(study):
    arrays = np.load(study / "truth" / "bold_sub-01.npz")
    latents = np.load(study / "truth" / "latents.npz")
    row = {file: i for i, file in enumerate(latents["stim_file"])}
    truth = json.loads((study / "truth.json").read_text(encoding="utf-8"))
    delay = truth["planted"]["bold"]["sub-01"]["hrf"]["delay_s"]
    slopes = []
    for run in ("01", "02"):
        data, confounds, events, _ = read_run(study, run)
        design = response_courses(events["onset"], 1.0, delay, data.shape[1], 2.0)
        code = latents["code"][[row[f] for f in events["stim_file"]]]
        pictures = (events["trial_type"] == "picture").to_numpy()
        planted = (code @ arrays["specific"]).T @ design
        planted += np.outer(arrays["common_picture"], pictures @ design)
        planted += np.outer(arrays["common_word"], ~pictures @ design)
        clean, expected = (residuals(x, nuisance(confounds)) for x in (data, planted))
        slopes.append((clean * expected).sum() / (expected**2).sum())
        assert np.corrcoef(clean.ravel(), expected.ravel())[0, 1] > 0.3
    assert np.mean(slopes) == pytest.approx(1, abs=0.1)


def test_snr_is_what_its_definition_says():
    class Latents:
        code = np.random.default_rng(0).standard_normal((40, N_LATENTS))
        block = np.repeat(["visual", "auditory", "semantic"], (18, 6, 8))
        n_pictures = 40

    one, three = (make_brain(Settings(snr=s), "01", Latents) for s in (0.1, 0.3))
    np.testing.assert_allclose(three.specific, 3 * one.specific)
    responses = Latents.code @ three.specific
    assert np.sqrt((responses.var(0) / three.noise_variance).mean()) == pytest.approx(0.3)
    assert not one.specific[:, one.tissue != "grey"].any()
    other = make_brain(Settings(snr=0.3), "02", Latents)
    similarity = np.corrcoef(three.specific.ravel(), other.specific.ravel())[0, 1]
    assert 0.3 < similarity < 0.95


def test_response_peaks_five_seconds_later_and_adds_up():
    fine = response_courses(np.array([0.0]), 0.1, 0.0, 320, 0.1)[0]
    assert fine.max() == pytest.approx(1, abs=1e-3)
    assert 0.1 * fine.argmax() == pytest.approx(5.0, abs=0.2)
    assert fine[200:].min() < 0 and fine[150:].max() < 0.1  # undershoot
    shifted = response_courses(np.array([0.0]), 0.1, 0.5, 320, 0.1)[0]
    np.testing.assert_allclose(shifted[55:], fine[50:-5], atol=1e-3)
    late = response_courses(np.array([4.0]), 0.1, 0.0, 100, 2.0)[0]
    np.testing.assert_allclose(late[2:], response_courses([0.0], 0.1, 0.0, 98, 2.0)[0])
    assert not late[:3].any()


def test_optimal_decoder_is_at_chance_without_signal_and_rises(tmp_path):
    scores = []
    for snr in (0.0, 0.1, 0.6):
        simulate_tiny(tmp_path / str(snr), modalities=("bold",), snr=snr, seed=2)
        truth = json.loads((tmp_path / str(snr) / "truth.json").read_text(encoding="utf-8"))
        scores.append(truth["optimal_decoder"]["bold"]["top1"])
    assert scores[0] == pytest.approx(1 / 20)
    assert scores[0] < scores[1] < scores[2] and scores[2] > 0.8
