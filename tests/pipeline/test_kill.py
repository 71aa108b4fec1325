"""F-01, F-11: a run that is killed ends, after running again, as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from braindecode_pipe import pipeline
from braindecode_pipe.cli import main
from braindecode_pipe.store import is_committed, store_hash, write_hook

KILLER = Path(__file__).with_name("kill_runs.py")
TIMEOUT_S = 120


@pytest.fixture
def study(first, recipe_text, tmp_path):
    """What an interrupted run is compared with, and a folder for it."""
    (tmp_path / "words.toml").write_text(recipe_text)
    folder, _ = first
    return folder / "bids", folder / "out", tmp_path / "out", tmp_path


def start(data: Path, folder: Path, *options: str) -> subprocess.Popen:
    """``braindecode-pipe run`` as a process group of its own."""
    arguments = [
        "run", folder / "words.toml", "--data", data, "--out", folder / "out",
        "--ledger", folder / "ledger", "--quiet", *options,
    ]  # fmt: skip
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "braindecode_pipe", *map(str, arguments)],
            stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def kill(process: subprocess.Popen) -> None:
    """SIGKILL to the process and all that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(TIMEOUT_S)


def committed(out: Path) -> int:
    return sum(1 for _ in out.glob("*/*/*.zarr/COMMITTED"))


def wait_for(condition, process: subprocess.Popen) -> bool:
    """Wait until ``condition()``; False where the process ended before."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if process.poll() is not None:
            return False
        if time.monotonic() > deadline:
            kill(process)
            raise TimeoutError("the run did not get there")
        time.sleep(0.002)
    return True


def leftovers(out: Path) -> list[Path]:
    """What interrupted writers left beside the stores."""
    return [p for p in out.glob("*/*/*") if ".tmp-" in p.name or ".old-" in p.name]


def finish(words, data: Path, folder: Path, **options):
    return pipeline.run(
        words(), data, folder / "out", quiet=True, ledger=folder / "ledger", **options
    )


def test_f01_three_kills_at_random_moments_change_nothing(study, words, stores_in):
    data, reference, out, folder = study
    rng = np.random.default_rng(20240)
    killed = 0
    for share in np.sort(rng.integers(1, 15, 3)):
        process = start(data, folder)
        if wait_for(lambda n=share: committed(out) >= n, process):
            time.sleep(rng.uniform(0, 0.1))
            killed += process.poll() is None
            kill(process)
        # What was finished is whole, and nothing else passes for finished.
        for store in out.glob("*/*/*.zarr"):
            if is_committed(store):
                assert store_hash(store) == store_hash(reference / store.relative_to(out))
    assert killed == 3
    assert finish(words, data, folder).exit_code == 0
    assert stores_in(out) == stores_in(reference)
    assert leftovers(out) == []
    assert finish(words, data, folder).up_to_date


def test_f01_a_kill_with_worker_processes(study, words, stores_in):
    data, reference, out, folder = study
    process = start(data, folder, "--jobs", "2")
    assert wait_for(lambda: committed(out) >= 3, process)
    kill(process)
    assert finish(words, data, folder).exit_code == 0
    assert stores_in(out) == stores_in(reference)
    assert leftovers(out) == []


def test_f11_folds_that_are_trained_are_not_trained_again(first, words, tmp_path, make_study):
    data = make_study(tmp_path / "bids", subjects=("01",), runs="12345")

    class Killed(BaseException):
        """As SIGKILL: nothing in the pipeline may catch it."""

    folds = []

    def hook(event, path):
        parts = path.parts
        if "train" in parts:
            unit = parts[parts.index("train") + 1]
            if unit not in folds:
                folds.append(unit)
            if len(folds) == 4 and event == "fsync":
                raise Killed

    with pytest.raises(Killed), write_hook(hook):
        finish(words, data, tmp_path)
    assert len(folds) == 4
    kept = {p: store_hash(p) for p in (tmp_path / "out").glob("train/*/*.zarr") if is_committed(p)}
    times = {p: (p / "COMMITTED").stat().st_mtime_ns for p in kept}
    assert len(kept) == 3
    result = finish(words, data, tmp_path, until="train")
    assert result.exit_code == 0
    trained = {row.unit: (row.status, row.why) for row in result.rows if row.stage == "train"}
    assert len(trained) == 5
    for unit, (status, why) in trained.items():
        expected = ("cached", "unchanged") if unit in folds[:3] else ("done", "never ran here")
        assert (status, why) == expected, unit
    assert {p: store_hash(p) for p in kept} == kept
    assert {p: (p / "COMMITTED").stat().st_mtime_ns for p in kept} == times


def test_a_second_run_in_the_same_folder_is_refused(study, words, capsys):
    data, _, out, folder = study
    process = start(data, folder)
    try:
        assert wait_for(lambda: committed(out) >= 1, process)
        os.killpg(process.pid, signal.SIGSTOP)  # it goes on running for as long as it is needed
        began = time.monotonic()
        arguments = ["--data", str(data), "--out", str(out), "--quiet"]
        assert main(["run", str(folder / "words.toml"), *arguments]) == 1
        assert time.monotonic() - began < 5
        told = capsys.readouterr().err
        assert "somebody else is writing" in told and "Traceback" not in told
        assert f"pid {process.pid} on host {os.uname().nodename}" in told
    finally:
        kill(process)
    assert finish(words, data, folder).exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["plan", "preprocess", "embed", "train", "evaluate", "report"])
def test_f01_twenty_kills_in_every_stage(stage, study, stores_in):
    data, reference, out, folder = study
    ran = subprocess.run(
        [sys.executable, KILLER, folder / "words.toml", data, out, folder / "ledger", stage,
         "20", "7"],
        capture_output=True, text=True, timeout=900, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (ran.returncode, ran.stdout.strip()) == (0, "20"), ran.stderr
    assert stores_in(out) == stores_in(reference)
    assert leftovers(out) == []
