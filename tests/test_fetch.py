"""Downloads: what arrives is BIDS, is checked again, and nothing else uses the network."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from braindecode_pipe import fetch as module
from braindecode_pipe.errors import CorruptStoreError, InputError
from braindecode_pipe.fetch import FETCHERS, fetch, haxby_to_bids
from braindecode_pipe.plan import build
from braindecode_pipe.recipe import PlanSection, SplitSection


@pytest.fixture
def pymvpa(tmp_path):
    """Two runs of 20 volumes in the layout of PyMVPA's Haxby 2001, with made-up values."""
    rng = np.random.default_rng(0)
    volumes = rng.integers(0, 1000, (4, 4, 3, 40)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volumes, np.eye(4)), tmp_path / "bold.nii.gz")
    nibabel.save(
        nibabel.Nifti1Image(np.ones((4, 4, 3), np.int16), np.eye(4)), tmp_path / "mask.nii.gz"
    )
    run = ["rest"] * 4 + ["face"] * 6 + ["rest"] * 2 + ["house"] * 6 + ["rest"] * 2
    rows = "".join(f"{name} {chunk}\n" for chunk in (0, 1) for name in run)
    (tmp_path / "labels.txt").write_text("labels chunks\n" + rows)
    return tmp_path


def test_haxby_becomes_bids_that_the_plan_reads(pymvpa, tmp_path):
    out = tmp_path / "bids"
    haxby_to_bids(pymvpa / "bold.nii.gz", pymvpa / "labels.txt", pymvpa / "mask.nii.gz", "01", out)
    plan = build(PlanSection(), SplitSection(), out).plan
    assert list(plan.recordings["n_times"]) == [20, 20]
    assert list(plan.events["onset"][:2]) == [10.0, 30.0]
    assert list(plan.events["duration"][:2]) == [15.0, 15.0]
    first = nibabel.load(out / "sub-01/func/sub-01_task-objectviewing_run-02_bold.nii.gz")
    whole = nibabel.load(pymvpa / "bold.nii.gz")
    assert np.array_equal(np.asarray(first.dataobj), np.asarray(whole.dataobj)[..., 20:])


def test_fetched_folders_are_checked_again(tmp_path, monkeypatch):
    calls = []

    def write(argument, out):
        calls.append(argument)
        (out / "a.txt").write_text("a")

    monkeypatch.setitem(FETCHERS, "openneuro", write)
    out = tmp_path / "data"
    assert fetch("openneuro:ds1", out) == out and fetch("openneuro:ds1", out) == out
    assert calls == ["ds1"]
    (out / "a.txt").write_text("b")
    with pytest.raises(CorruptStoreError, match="a.txt"):
        fetch("openneuro:ds1", out)


def test_failures_leave_nothing_and_say_what_to_do(tmp_path, monkeypatch):
    def fail(argument, out):
        (out / "half").write_text("half")
        raise ConnectionError("no route")

    monkeypatch.setitem(FETCHERS, "openneuro", fail)
    with pytest.raises(InputError, match="could not be downloaded"):
        fetch("openneuro:ds1", tmp_path / "data")
    assert not (tmp_path / "data").exists()
    with pytest.raises(InputError, match="haxby2001"):
        fetch("haxby", tmp_path / "data")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="holds something else"):
        fetch("openneuro:ds1", tmp_path / "mine")


def test_only_this_room_imports_network_libraries():
    from pathlib import Path

    package = Path(module.__file__).parent
    words = (
        "urllib.request",
        "import requests",
        "import pooch",
        "snapshot_download",
        "http.client",
    )
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(word in path.read_text(encoding="utf-8") for word in words)
    }
    # The last two with local_files_only.
    assert users <= {"fetch.py", "embed/loading.py", "reconstruct/pretrained.py"}
