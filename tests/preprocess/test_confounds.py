"""fMRIPrep's form: mask, confounds, motion, volumes before the steady state."""

from __future__ import annotations

import nibabel
import numpy as np
import pandas as pd
import pytest
from nilearn.signal import clean

from braindecode_pipe.errors import DataError, MissingFileError
from braindecode_pipe.store import open_store


def fmriprep(root, data, affine, write_bold):
    """An image in fMRIPrep's form with its mask and confounds; returns the image's path."""
    base = "derivatives/fmriprep/sub-01/func/sub-01_task-x_run-1"
    name = write_bold(root, data, name=f"{base}_space-T1w_desc-preproc_bold.nii.gz")
    brain = np.zeros(data.shape[:3], np.uint8)
    brain[2:4, 2:5, 1:3] = 1
    nibabel.save(
        nibabel.Nifti1Image(brain, affine), root / f"{base}_space-T1w_desc-brain_mask.nii.gz"
    )
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        rng.normal(size=(40, 6)) * 0.1,
        columns=["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"],
    )
    table["trans_x_derivative1"] = table["trans_x"].diff()
    table["non_steady_state_outlier00"] = (np.arange(40) == 0).astype(int)
    table.to_csv(
        root / f"{base}_desc-confounds_timeseries.tsv", sep="\t", index=False, na_rep="n/a"
    )
    return name, brain.astype(bool), table


def test_fmriprep_form_with_mask_confounds_and_motion(
    tmp_path, make_bold, write_bold, run_stage, bold_affine
):
    data, _ = make_bold()
    name, brain, table = fmriprep(tmp_path, data, bold_affine, write_bold)
    planted = data.astype(np.float32) + 300 * table["trans_x"].to_numpy(np.float32)
    write_bold(tmp_path, planted, name=name)
    chosen = ["trans_x", "trans_x_derivative1"]
    out = run_stage(tmp_path, name, tmp_path / "a.zarr", "bold",
                    bold={"confounds": chosen, "dummy_scans": 2})  # fmt: skip
    root, qc = open_store(out), open_store(out, "qc")
    assert root.sizes["sensor"] == brain.sum() and root.attrs["position_frame"] == "T1w"
    confounds = table[chosen].to_numpy()
    expected = clean(
        planted[brain][:, 2:].T.astype(float), detrend=True, standardize="zscore_sample",
        confounds=confounds[2:], filter=False, t_r=2.0,
    ).T  # fmt: skip
    np.testing.assert_allclose(root["signal"].values, expected, atol=1e-5)
    motion = table["trans_x"].to_numpy()[2:]
    assert max(abs(np.corrcoef(row, motion)[0, 1]) for row in root["signal"].values) < 1e-3
    assert root["time_good"].values.all()  # the unsteady volume is one of the dummy scans
    assert qc["framewise_displacement"].shape == (38,)
    plain = run_stage(tmp_path, name, tmp_path / "b.zarr", "bold")
    assert list(np.flatnonzero(~open_store(plain)["time_good"].values)) == [0]
    assert np.isnan(open_store(plain, "qc")["framewise_displacement"].values[0])


def test_f25_confounds_that_do_not_fit(tmp_path, make_bold, write_bold, run_stage, bold_affine):
    name, _, table = fmriprep(tmp_path, make_bold()[0], bold_affine, write_bold)
    path = next(tmp_path.rglob("*confounds*"))

    def attempt(*columns):
        return run_stage(tmp_path, name, tmp_path / "a.zarr", "bold",
                         bold={"confounds": list(columns)})  # fmt: skip

    with pytest.raises(DataError, match="not in the table(.|\n)*trans_w(.|\n)*trans_"):
        attempt("trans_w")
    table.loc[7, "rot_z"] = np.nan
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    with pytest.raises(DataError, match="confounds are not finite(.|\n)*rot_z"):
        attempt("rot_z")
    table.iloc[:-1].to_csv(path, sep="\t", index=False, na_rep="n/a")
    with pytest.raises(DataError, match="do not fit(.|\n)*40 rows(.|\n)*39 rows"):
        attempt("rot_x")
    path.unlink()
    with pytest.raises(MissingFileError, match="confounds table is not there"):
        attempt("rot_x")
