"""Single-trial betas beside Nilearn's ``run_glm`` on the series that was masked once.

``python tests/benchmarks/bench_betas.py [--quick] [FOLDER]``. One thread. The peer makes the design
of Nilearn's example "Beta-Series Modeling" for every trial and fits it by ordinary least squares;
candidate and peer read the same float32 series, and their betas are compared. ``--quick`` has 8
trials and 8000 voxels. Simulated data. The figures depend on the machine, their ratios less so.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

T_R = 2.0


def sizes(quick: bool) -> tuple[int, int, int]:
    """Trials, volumes, voxels (those of a mask in 64 x 64 x 36)."""
    return (8, 120, 8000) if quick else (80, 500, 52_000)


def design(n_trials: int, n_times: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    step = T_R * n_times / (n_trials + 3)
    return pd.DataFrame(
        {
            "event": [f"r:{i:05d}" for i in range(n_trials)],
            "onset": 6 + step * np.arange(n_trials) + rng.uniform(0, 2, n_trials),
            "duration": 1.0,
            "trial_type": np.where(np.arange(n_trials) % 2, "face", "house"),
            "stimulus_picture": [f"s{i % (n_trials // 4)}" for i in range(n_trials)],
        }
    )


def series(n_times: int, n_voxels: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((n_times, n_voxels), dtype=np.float32)
    return 1000 + 10 * values


def confounds(n_times: int) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((n_times, 6))


def ours(folder: Path, responses: str, quick: bool) -> np.ndarray:
    # Imports are not what is measured; the peer has made them too.
    import nilearn.glm.first_level.design_matrix  # noqa: F401

    from braindecode_pipe.preprocess import betas, scratch
    from braindecode_pipe.recipe import BoldSection

    n_trials, n_times, n_voxels = sizes(quick)
    section = BoldSection.model_validate({"responses": responses})
    with (
        scratch.Scratch(folder / "x.zarr", (n_times, n_voxels), np.float32) as source,
        open(folder / "series.f32", "rb") as file,
    ):
        for row in range(n_times):
            source.write(row, 0, np.fromfile(file, np.float32, n_voxels)[None])
        before, start = memory(), time.perf_counter()
        with betas.run(
            source, np.ones(n_voxels, bool), section, design(n_trials, n_times),
            confounds(n_times), None, T_R, 0.0, folder / "x.zarr", [],
        ) as found:  # fmt: skip
            report(start, before)
            return found.values.read()


def nilearn(folder: Path, responses: str, quick: bool) -> np.ndarray:
    from nilearn.glm.first_level import make_first_level_design_matrix, run_glm

    n_trials, n_times, n_voxels = sizes(quick)
    y = np.fromfile(folder / "series.f32", np.float32).reshape(n_times, n_voxels)
    events = design(n_trials, n_times)[["onset", "duration", "trial_type"]]
    frame_times, found = T_R * np.arange(n_times), []
    before, start = memory(), time.perf_counter()
    y = 100 * (y / y.mean(axis=0) - 1)
    for row in range(n_trials if responses == "lss" else 1):
        table = events.copy()
        if responses == "lss":
            table.loc[row, "trial_type"] = "single"
        else:
            table["trial_type"] = [f"t{i:03d}" for i in range(n_trials)]
        matrix = make_first_level_design_matrix(frame_times, table, add_regs=confounds(n_times))
        labels, result = run_glm(y, matrix.to_numpy(), noise_model="ols")
        names = ["single"] if responses == "lss" else [f"t{i:03d}" for i in range(n_trials)]
        found += [result[labels[0]].theta[matrix.columns.get_loc(name)] for name in names]
    report(start, before)
    return np.stack(found)


def memory() -> float:
    """Resident memory now [MB]."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize() / 2**20


def report(start: float, before: float) -> None:
    """Seconds, and memory [MB] at the peak of the process beyond ``before``: an upper bound."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(time.perf_counter() - start, peak - before)


def measure(folder: Path, who: str, responses: str, quick: bool) -> tuple[float, float]:
    """Seconds and memory [MB] beyond what was resident, of one fresh process."""
    command = [sys.executable, __file__, "--folder", str(folder), "--who", who,
               "--responses", responses, *(["--quick"] if quick else [])]  # fmt: skip
    line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(line[0]), float(line[1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("place", nargs="?")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path, help="used by the processes that are measured")
    parser.add_argument("--who", choices=["ours", "nilearn"])
    parser.add_argument("--responses", choices=["lsa", "lss", "glmsingle"])
    given = parser.parse_args()
    if given.who:
        work = ours if given.who == "ours" else nilearn
        found = work(given.folder, given.responses, given.quick)
        np.save(given.folder / f"{given.who}-{given.responses}.npy", found)
        return
    n_trials, n_times, n_voxels = sizes(given.quick)
    print(f"{n_trials} trials, {n_times} volumes, {n_voxels} voxels, 6 confounds, one thread")
    with tempfile.TemporaryDirectory(dir=given.place) as temporary:
        folder = Path(temporary)
        series(n_times, n_voxels).tofile(folder / "series.f32")
        for responses in ("lsa", "lss"):
            # Interleaved, so that other work on the machine meets both.
            first = measure(folder, "ours", responses, given.quick)
            peer = measure(folder, "nilearn", responses, given.quick)
            second = measure(folder, "ours", responses, given.quick)
            mine, theirs = (np.load(folder / f"{who}-{responses}.npy") for who in
                            ("ours", "nilearn"))  # fmt: skip
            error = np.abs(mine - theirs).max() / np.abs(theirs).max()
            best = min(first[0], second[0])
            print(
                f"{responses}: ours {first[0]:.2f} and {second[0]:.2f} s, {second[1]:.0f} MB; "
                f"run_glm {peer[0]:.2f} s, {peer[1]:.0f} MB; ratio {best / peer[0]:.3f}; "
                f"largest difference {error:.1e}"
            )
        seconds, extra = measure(folder, "ours", "glmsingle", given.quick)
        print(f"glmsingle: {seconds:.2f} s, {extra:.0f} MB")


if __name__ == "__main__":
    main()
