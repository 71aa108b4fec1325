"""Masking and labelling of a BOLD series, beside Nilearn's maskers in the same run.

``python tests/benchmarks/bench_bold.py [FOLDER]``: an int16 series of 64 x 64 x 36 x 500 simulated
volumes, 52 000 voxels of a mask or 400 parcels, 24 confounds, trend removed, z-scored; one thread.
Both read the file each time and check what they check: Nilearn the grids and the confounds, this
package beside them the stream to its end, samples that are not finite, and the quality numbers.
Nilearn leaves an array in memory, this package a scratch file, of which the store is written
("whole stage"). Not part of the tests: figures depend on the machine, their ratios less so.
"""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from braindecode_pipe.preprocess import bold, run
from braindecode_pipe.preprocess.bold_sensors import Job, choose_sensors
from braindecode_pipe.preprocess.cleaning import Cleaner, process
from braindecode_pipe.preprocess.confounds import find_confounds
from braindecode_pipe.preprocess.sampling import extract
from braindecode_pipe.preprocess.scratch import Scratch
from braindecode_pipe.preprocess.volumes import Volumes
from braindecode_pipe.recipe import PreprocessSection

SHAPE, N_TIMES, N_VOXELS, N_PARCELS, N_CONFOUNDS = (64, 64, 36), 500, 52_000, 400, 24
T_R = 2.0
BASE = "sub-01_task-x"
NAMES = [f"noise_{i:02d}" for i in range(N_CONFOUNDS)]
CASES = [(kind, suffix) for kind in ("voxels", "parcels") for suffix in (".nii", ".nii.gz")]


def simulate(folder: Path) -> None:
    """A head of smooth signal and drift with noise, as .nii and .nii.gz, and what goes with it."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"), -1)
    radius = (grid**2).sum(axis=-1)
    mask = radius <= np.partition(radius.reshape(-1), N_VOXELS - 1)[N_VOXELS - 1]
    affine = np.diag([-3.0, 3.0, 3.5, 1.0])
    affine[:3, 3] = [96, -96, -63]
    confounds = rng.normal(size=(N_TIMES, N_CONFOUNDS)).cumsum(axis=0)
    confounds /= confounds.std(axis=0)
    weights = rng.normal(size=(N_CONFOUNDS, *SHAPE)).astype(np.float32)
    data = np.empty((*SHAPE, N_TIMES), np.int16)
    for t in range(N_TIMES):
        volume = 20 * rng.standard_normal(SHAPE, dtype=np.float32)
        volume += 4 * np.tensordot(confounds[t].astype(np.float32), weights, axes=1)
        volume[mask] += 1000 + 0.05 * t
        data[..., t] = volume
    seeds = np.argwhere(mask)[rng.choice(mask.sum(), N_PARCELS, replace=False)]
    from scipy.spatial import cKDTree

    labels = np.zeros(SHAPE, np.int16)
    labels[mask] = cKDTree(seeds).query(np.argwhere(mask))[1] + 1
    header = nibabel.Nifti1Header()
    header.set_xyzt_units("mm", "sec")
    header.set_data_dtype(np.int16)
    image = nibabel.Nifti1Image(data, affine, header)
    image.header["pixdim"][4] = T_R
    nibabel.save(image, folder / f"{BASE}_bold.nii")
    with gzip.open(folder / f"{BASE}_bold.nii.gz", "wb", compresslevel=6) as packed:
        packed.write((folder / f"{BASE}_bold.nii").read_bytes())
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), affine), folder / "mask.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels, affine), folder / "atlas.nii.gz")
    pd.DataFrame(confounds, columns=NAMES).to_csv(
        folder / f"{BASE}_desc-confounds_timeseries.tsv", sep="\t", index=False
    )


def row(suffix: str) -> dict[str, str]:
    """A row of the table of recordings."""
    names = dict.fromkeys(["session", "run"], "")
    return {**names, "recording": BASE, "subject": "01", "task": "x", "datatype": "bold",
            "path": f"{BASE}_bold{suffix}", "content_hash": "0" * 64}  # fmt: skip


def section(kind: str) -> PreprocessSection:
    """Settings of this package that do what :func:`nilearn_signals` does."""
    settings = {"sensors": kind, "confounds": NAMES}
    settings |= {"mask": "mask.nii.gz"} if kind == "voxels" else {"atlas": "atlas.nii.gz"}
    return PreprocessSection(bold=settings)


def our_signals(folder: Path, kind: str, suffix: str, fetch: bool) -> np.ndarray | None:
    """From the file to cleaned series and quality numbers; (n_times, n_sensors) with ``fetch``."""
    own, out = section(kind).bold, folder / "ours.zarr"
    path = folder / f"{BASE}_bold{suffix}"
    job = Job(own, row(suffix), path, folder, out, "simulated", None, None)
    with Volumes(path, out, 0, False) as volumes:
        t_r = bold.repetition_time(bold.header_time(volumes.image), {}, None, path)
        confounds = find_confounds(own, path, volumes.declared)
        sampler = choose_sensors(job, volumes, None).sampler
        shape = (volumes.n_times, sampler.n_sensors)
        with Scratch(out, shape, sampler.dtype) as series:
            extract(volumes, sampler, series, None, [])
            good = confounds.time_good
            process(series, Cleaner(own, t_r, confounds.values, good, good))
            return series.read() if fetch else None


def whole_stage(folder: Path, kind: str, suffix: str) -> None:
    """The stage, to the store on disk."""
    run(section(kind), row(suffix), folder, folder / f"store_{kind}.zarr",
        allow_truncated=False, data_origin="simulated")  # fmt: skip


def nilearn_signals(folder: Path, kind: str, suffix: str, exact: bool = False) -> np.ndarray:
    """The same through Nilearn's masker; ``exact`` from the values as float64.

    From a file of integers Nilearn makes float32 means of parcels, whose rounding errors z-scoring
    enlarges by the ratio of mean and standard deviation.
    """
    from nilearn.maskers import NiftiLabelsMasker, NiftiMasker

    how = {"standardize": "zscore_sample", "detrend": True, "t_r": T_R}
    if kind == "voxels":
        masker = NiftiMasker(mask_img=folder / "mask.nii.gz", **how)
    else:
        masker = NiftiLabelsMasker(labels_img=folder / "atlas.nii.gz", **how)
    confounds = pd.read_csv(folder / f"{BASE}_desc-confounds_timeseries.tsv", sep="\t")
    image = str(folder / f"{BASE}_bold{suffix}")
    if exact:
        loaded = nibabel.load(image)
        image = nibabel.Nifti1Image(loaded.get_fdata(), loaded.affine)
    return masker.fit_transform(image, confounds=confounds)


def spent(work) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def peak() -> float:
    """Largest resident memory of this process so far [MB]."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) / 1024


def grown(folder: Path, who: str, kind: str, suffix: str) -> float:
    """Growth of the peak memory beyond the imports, of one call in a process of its own [MB]."""
    command = [sys.executable, __file__, "--peak", str(folder), who, kind, suffix]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_peak(folder: Path, who: str, kind: str, suffix: str) -> None:
    """Print what :func:`grown` reads."""
    import nilearn.maskers  # noqa: F401
    import scipy.linalg  # noqa: F401

    before = peak()
    if who == "nilearn":
        nilearn_signals(folder, kind, suffix)
    else:
        whole_stage(folder, kind, suffix)
    print(peak() - before)


def compare(folder: Path, repeats: int = 5) -> None:
    """Print one line per case."""
    for kind, suffix in CASES:
        ours = our_signals(folder, kind, suffix, True)
        apart = [np.abs(ours - nilearn_signals(folder, kind, suffix, exact)).max()
                 for exact in (False, True)]  # fmt: skip
        del ours
        works = {
            "nilearn": partial(nilearn_signals, folder, kind, suffix),
            "ours": partial(our_signals, folder, kind, suffix, False),
            "stage": partial(whole_stage, folder, kind, suffix),
        }
        times = {who: np.empty((repeats, 2)) for who in works}
        for i in range(repeats):
            for who, work in works.items():
                times[who][i] = spent(work)
        wall, cpu = ({who: float(np.median(t[:, i])) for who, t in times.items()} for i in (0, 1))
        memory = [grown(folder, who, kind, suffix) for who in ("ours", "nilearn")]
        print(f"{kind} {suffix}: nilearn {wall['nilearn']:.2f} s (CPU {cpu['nilearn']:.2f})")
        for who, text in (("ours", "to the cleaned series"), ("stage", "with the store")):
            print(
                f"  {text}: {wall[who]:.3f} s (CPU {cpu[who]:.3f}), ratio "
                f"{wall[who] / wall['nilearn']:.3f} (CPU {cpu[who] / cpu['nilearn']:.3f})"
            )
        print(f"  largest difference {apart[0]:.1e}, from float64 {apart[1]:.1e}")
        print(f"  peak memory {memory[0]:.0f} MB, nilearn {memory[1]:.0f} MB", flush=True)


def limits(folder: Path) -> None:
    """Print what reading the file, and unpacking it, takes at least."""
    buffer = bytearray(1 << 22)

    def read() -> None:
        with (folder / f"{BASE}_bold.nii").open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    def unpack() -> None:
        with gzip.open(folder / f"{BASE}_bold.nii.gz") as file:
            while file.read(1 << 20):
                pass

    for name, work in (("read .nii", read), ("unpack .nii.gz", unpack)):
        print(f"limit: {name} {np.median([spent(work)[0] for _ in range(3)]):.3f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        measure_peak(Path(sys.argv[2]), *sys.argv[3:])
    else:
        where = sys.argv[1] if len(sys.argv) > 1 else None
        with tempfile.TemporaryDirectory(dir=where) as temporary:
            simulate(Path(temporary))
            with threadpool_limits(1):
                limits(Path(temporary))
                compare(Path(temporary))
