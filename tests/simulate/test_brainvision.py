from __future__ import annotations

import mne
import numpy as np

from braindecode_pipe.simulate.brainvision import write_brainvision


def test_file_is_read_back(tmp_path):
    data = 1e-5 * np.random.default_rng(0).standard_normal((3, 500))
    header = tmp_path / "x.vhdr"
    write_brainvision(header, data, ["Fp1", "A,B", "Oz"], 250.0, [(10, 1), (499, 12)])
    raw = mne.io.read_raw_brainvision(header, verbose="error")
    assert raw.ch_names == ["Fp1", "A,B", "Oz"] and raw.info["sfreq"] == 250.0
    np.testing.assert_allclose(raw.get_data(), data, rtol=1e-6, atol=1e-13)
    marks = [(a["onset"], a["description"]) for a in raw.annotations][-2:]
    assert marks == [(10 / 250, "Stimulus/S  1"), (499 / 250, "Stimulus/S 12")]


def test_same_data_same_bytes(tmp_path):
    data = np.random.default_rng(0).standard_normal((2, 100))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_brainvision(tmp_path / name / "x.vhdr", data, ["A", "B"], 200.0, [(5, 1)])
    for suffix in (".vhdr", ".vmrk", ".eeg"):
        one, other = ((tmp_path / n / "x").with_suffix(suffix).read_bytes() for n in "ab")
        assert one == other
