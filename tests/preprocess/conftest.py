"""Small recordings with planted faults, written byte by byte so that the faults are exact."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from braindecode_pipe.store import open_store

SFREQ = 200.0
NAMES = [
    "Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T7", "C3", "Cz", "C4", "T8", "P7", "P3", "Pz",
    "P4", "P8", "O1", "O2",
]  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """As the executor does: threads of BLAS that wait for one another cost most of the time."""
    import scipy.linalg  # noqa: F401
    import sklearn  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def channel_names() -> list[str]:
    return list(NAMES)


@pytest.fixture(scope="session")
def make_eeg():
    """Spatially correlated noise (n_channels, n_times) [V]: smooth maps of 1/f sources, 20 uV."""

    def make(n_channels: int = 19, n_times: int = 4000, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        n_sources = 6
        spectrum = 1 / np.maximum(np.fft.rfftfreq(n_times, 1 / SFREQ), 1.0)
        white = rng.normal(size=(n_sources, n_times))
        sources = np.fft.irfft(np.fft.rfft(white) * spectrum, n_times)
        place = np.linspace(0, 1, n_channels)[:, None]
        maps = np.exp(-((place - rng.uniform(size=n_sources)) ** 2) / 0.08)
        data = maps @ (sources / sources.std(axis=1, keepdims=True))
        data /= data.std(axis=1, keepdims=True)
        data += 0.1 * rng.normal(size=data.shape)
        return 20e-6 * data * rng.uniform(0.7, 1.4, size=(n_channels, 1))

    return make


@pytest.fixture(scope="session")
def write_brainvision():
    """``write(folder, data [V], names, stem=...)`` -> path of the .vhdr (float32, microvolt)."""

    def write(
        folder: Path,
        data: np.ndarray,
        names: list[str],
        stem: str = "rec",
        markers: list[int] = (),
        sfreq: float = SFREQ,
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        channels = "".join(f"Ch{i}={name},,1,µV\n" for i, name in enumerate(names, 1))
        header = folder / f"{stem}.vhdr"
        header.write_text(
            "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
            f"DataFile={stem}.eeg\nMarkerFile={stem}.vmrk\nDataFormat=BINARY\n"
            f"DataOrientation=MULTIPLEXED\nNumberOfChannels={len(names)}\n"
            f"SamplingInterval={1e6 / sfreq}\n[Binary Infos]\nBinaryFormat=IEEE_FLOAT_32\n"
            f"[Channel Infos]\n{channels}",
            encoding="utf-8",
        )
        marks = "".join(f"Mk{i}=Stimulus,S  1,{at},1,0\n" for i, at in enumerate(markers, 2))
        (folder / f"{stem}.vmrk").write_text(
            "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\n"
            f"Codepage=UTF-8\nDataFile={stem}.eeg\n[Marker Infos]\nMk1=New Segment,,1,1,0\n{marks}",
            encoding="utf-8",
        )
        (folder / f"{stem}.eeg").write_bytes((data.T * 1e6).astype("<f4").tobytes())
        return header

    return write


@pytest.fixture(scope="session")
def write_edf():
    """``write(path, data [V], names)``: 16-bit EDF with records of one second."""

    def write(path: Path, data: np.ndarray, names: list[str], sfreq: int = 200) -> Path:
        n_records = data.shape[1] // sfreq
        n = len(names)

        def fields(width: int, values) -> bytes:
            return b"".join(str(v).ljust(width).encode() for v in values)

        head = (
            b"0".ljust(8) + b"X X X X".ljust(80) + b"Startdate X X X X".ljust(80)
            + b"01.01.0000.00.00" + str(256 * (n + 1)).ljust(8).encode() + b"".ljust(44)
            + str(n_records).ljust(8).encode() + b"1".ljust(8) + str(n).ljust(4).encode()
        )  # fmt: skip
        head += (
            fields(16, names) + fields(80, [""] * n) + fields(8, ["uV"] * n)
            + fields(8, [-500] * n) + fields(8, [500] * n) + fields(8, [-32768] * n)
            + fields(8, [32767] * n) + fields(80, [""] * n) + fields(8, [sfreq] * n)
            + fields(32, [""] * n)
        )  # fmt: skip
        digital = np.rint((data * 1e6 + 500) / 1000 * 65535 - 32768).astype("<i2")
        records = digital[:, : n_records * sfreq].reshape(n, n_records, sfreq).transpose(1, 0, 2)
        path.write_bytes(head + records.tobytes())
        return path

    return write


@pytest.fixture(scope="session")
def row():
    """A row of ``StudyPlan.recordings``."""

    def make(path: str, datatype: str = "eeg", subject: str = "01") -> dict:
        name = Path(path).name.split(".")[0]
        return {
            "recording": name, "subject": subject, "session": "", "task": "x", "run": "1",
            "datatype": datatype, "path": path, "content_hash": "0" * 64,
        }  # fmt: skip

    return make


@pytest.fixture(scope="session")
def run_stage(row):
    """``run_stage(data, path, out, datatype, allow_truncated=..., emeg={}, bold={})`` -> out."""
    from braindecode_pipe.preprocess import run
    from braindecode_pipe.recipe import PreprocessSection

    def call(data, path, out, datatype="eeg", allow_truncated=False, subject="01", **sections):
        run(
            PreprocessSection(**sections), row(path, datatype, subject), data, out,
            allow_truncated=allow_truncated, data_origin="simulated",
        )  # fmt: skip
        return out

    return call


@pytest.fixture(scope="session")
def make_bold():
    """A (6, 7, 5, n_times) series: a bright box in a dark field, and the box."""

    def make(n_times: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        brain = np.zeros((6, 7, 5), bool)
        brain[1:5, 1:6, 1:4] = True
        data = rng.normal(0, 3, (*brain.shape, n_times))
        data[brain] = 1000 + rng.normal(0, 10, (brain.sum(), n_times))
        data[brain] += np.linspace(0, 40, n_times)
        return np.rint(data).astype(np.int16), brain

    return make


@pytest.fixture(scope="session")
def bold_affine() -> np.ndarray:
    affine = np.diag([-3.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = [60, -80, -40]
    return affine


@pytest.fixture(scope="session")
def write_bold(bold_affine):
    """``write(root, data, t_r=2.0, unit="sec", sidecar={...})`` -> path below the root."""
    import nibabel

    def write(
        root: Path,
        data: np.ndarray,
        t_r: float = 2.0,
        unit: str = "sec",
        sidecar: dict | None = None,
        name: str = "sub-01/func/sub-01_task-x_run-1_bold.nii.gz",
    ) -> str:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nibabel.Nifti1Image(data, bold_affine)
        image.header.set_xyzt_units("mm", unit)
        image.header["pixdim"][4] = t_r
        nibabel.save(image, path)
        if sidecar is not None:
            (root / "task-x_bold.json").write_text(json.dumps(sidecar))
        return name

    return write


@pytest.fixture(scope="session")
def confounds_table():
    """A confounds table in fMRIPrep's form with its JSON, simulated: (table, metadata).

    Motion with a jump of 1.2 mm at volumes 20 and 30, its derivatives and squares, tissue signals,
    cosines, anatomical CompCor, and two volumes before the steady state.
    """
    import pandas as pd

    def make(n_times: int = 60, seed: int = 0) -> tuple[pd.DataFrame, dict]:
        rng = np.random.default_rng(seed)
        table = pd.DataFrame(index=range(n_times))
        for name in ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"):
            size = 0.02 if name.startswith("trans") else 0.0003
            table[name] = (size * rng.normal(size=n_times)).cumsum()
        table.loc[20:29, "trans_x"] += 1.2
        for name in ("csf", "white_matter", "global_signal"):
            table[name] = 500 + 5 * rng.normal(size=n_times)
        for name in list(table):
            table[f"{name}_derivative1"] = table[name].diff()
            table[f"{name}_power2"] = table[name] ** 2
            table[f"{name}_derivative1_power2"] = table[f"{name}_derivative1"] ** 2
        change = table[[f"trans_{axis}" for axis in "xyz"]].diff().abs().sum(axis=1)
        turn = table[[f"rot_{axis}" for axis in "xyz"]].diff().abs().sum(axis=1)
        table["framewise_displacement"] = (change + 50 * turn).where(table.index > 0)
        table["std_dvars"] = 1 + 0.05 * rng.normal(size=n_times)
        table.loc[0, "std_dvars"] = np.nan
        table["dvars"] = 20 * table["std_dvars"]
        steps = np.arange(n_times) + 0.5
        for i in range(2):
            table[f"cosine{i:02d}"] = np.cos(np.pi * (i + 1) * steps / n_times)
        metadata = {}
        for i in range(3):
            table[f"a_comp_cor_{i:02d}"] = rng.normal(size=n_times)
            metadata[f"a_comp_cor_{i:02d}"] = {
                "CumulativeVarianceExplained": 0.2 * (i + 1), "Mask": "combined", "Method":
                "aCompCor", "Retained": True, "SingularValue": 3.0 - i, "VarianceExplained": 0.2,
            }  # fmt: skip
        for i in range(2):
            table[f"non_steady_state_outlier{i:02d}"] = (np.arange(n_times) == i).astype(float)
        return table, metadata

    return make


@pytest.fixture(scope="session")
def write_fmriprep(write_bold, bold_affine, confounds_table):
    """``write(root, data, brain)`` -> (path below root of the image, confounds table)."""
    import nibabel

    def write(root: Path, data: np.ndarray, brain: np.ndarray, space: str = "T1w", **how):
        base = "derivatives/fmriprep/sub-01/func/sub-01_task-x_run-1"
        name = write_bold(root, data, name=f"{base}_space-{space}_desc-preproc_bold.nii.gz", **how)
        mask = nibabel.Nifti1Image(brain.astype(np.uint8), bold_affine)
        nibabel.save(mask, root / f"{base}_space-{space}_desc-brain_mask.nii.gz")
        table, metadata = confounds_table(data.shape[3])
        file = root / f"{base}_desc-confounds_timeseries.tsv"
        table.to_csv(file, sep="\t", index=False, na_rep="n/a")
        file.with_suffix(".json").write_text(json.dumps(metadata))
        return name, table

    return write


@pytest.fixture
def study(tmp_path, make_eeg, channel_names, write_brainvision, run_stage):
    """``study(data, **emeg)`` -> (root, qc) of the store of a BrainVision file with ``data``."""

    def call(data=None, names=channel_names, out="out.zarr", **emeg):
        folder = tmp_path / "data"
        values = make_eeg() if data is None else data
        write_brainvision(folder, values, names)
        path = run_stage(folder, "rec.vhdr", tmp_path / out, emeg=emeg)
        return open_store(path), open_store(path, "qc")

    return call
