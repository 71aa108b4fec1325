"""Quality pages: every panel that was asked for is there or FAILED, whatever the recording is."""

from __future__ import annotations

import dataclasses
import re
from html import unescape
from types import SimpleNamespace

import mne
import numpy as np
import pytest

from braindecode_pipe import preprocess
from braindecode_pipe.recipe import PreprocessSection
from braindecode_pipe.report import build, qc, qc_emeg, qc_index, recording
from braindecode_pipe.report.html import CSP, render
from braindecode_pipe.report.study import Study
from braindecode_pipe.store import delete_store, open_signal

FIRST = "qc/sub-01_run-01.html"
MATCHING = {
    "status": "device", "source": "stim channel", "message": "29 of 30 events have their trigger",
    "n_table": 30, "n_device": 31, "n_matched": 29, "n_without_trigger": 1, "n_extra": 2,
    "offset_s": 3.21, "drift_ms_per_min": 1.7, "residual_sd_s": 0.004, "trial_shift": 0,
    "largest_difference_s": 3.3, "label_agreement": None, "relabelled": 0,
}  # fmt: skip
# What stands on the page of each kind of recording.
EXPECTED = {
    "eeg": ("flat in 90% of its windows dropped", "interpolated", "Places of 32 eeg sensors",
            "Independent components: 2 of 12 removed", "0 eye blink", "Spans that were left out",
            "BAD_jump 2 spans 1.5 s", "Events outside of the recording 2", "50 Hz −20 dB",
            "all good samples of the recording that it scales", "± 1.65 s", "ab12",
            "processed with MNE-Python 1.13.0 in braindecode_pipe", "Ablin P, Cardoso"),
    "meg": ("Places of 24 mag sensors", "Places of 48 grad sensors", "Maps of the mag sensors",
            "Movement between head and helmet", "Head movement"),
    "ieeg": ("Places of 18 seeg sensors", "band-pass resampler, lag below 0.01 ms"),
    "epochs": ("Epochs rejected 4 of 30", "mean over 30 epochs", "Good epochs 86.7 %"),
    "bold": ("Mean image before cleaning", "60.0 % of the grid", "tSNR, median",
             "Framewise displacement: mean", "Head motion relative to the first volume"),
    "parcels": ("without a voxel that has signal: 1 label of the atlas: eye blink", "EEG02 30 %",
                "EEG05 80 %"),
    "betas": ("index of the response shape", "noise ceiling", "Models of 30 events",
              "Epochs rejected 4 of 30"),
}  # fmt: skip


def text_of(html: bytes) -> str:
    """Visible text and alternative texts of a page."""
    body = html.decode().split("</head>")[1]
    body = re.sub(r'alt="([^"]*)"', r"> \1 <i ", body)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def pages_of(inputs) -> dict[str, bytes]:
    return build.quality_pages(Study(inputs))


@pytest.fixture(scope="module")
def pages(case, make_quality, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality") / case
    inputs = make_quality(folder, case, matching=MATCHING if case == "eeg" else None)
    return case, pages_of(inputs)


def test_every_array_is_drawn_and_nothing_failed(pages):
    case, files = pages
    text = text_of(files[FIRST])
    assert "FAILED" not in text
    for part in EXPECTED[case]:
        assert part in text, part
    assert len(files[FIRST]) < 3_000_000
    assert CSP in unescape(files[FIRST].decode()) and b"<script" not in files[FIRST]


@pytest.mark.usefixtures("fast_figures")
def test_triggers_against_the_table(make_quality, tmp_path):
    files = pages_of(make_quality(tmp_path / "in", "eeg", matching=MATCHING))
    text = text_of(files[FIRST])
    for part in ("29 of 30 events have their trigger.", "Drift of the clocks 1.7 ms/min",
                 "Residual s.d. 4 ms", "Onsets that are used the device"):  # fmt: skip
        assert part in text
    assert "event table and device disagree" in text_of(files["qc/index.html"])


@pytest.mark.usefixtures("fast_figures")
@pytest.mark.parametrize(
    ("case", "lack", "title", "array"),
    [
        ("eeg", ["ica_map"], "independent components", "ica_map"),
        ("ieeg", ["psd_before", "psd_after"], "spectra", "psd_before"),
        ("eeg", ["amplitude"], "amplitudes", "amplitude"),
        ("meg", ["head_position"], "head movement", "head_position"),
        ("bold", ["carpet"], "carpet", "carpet"),
        ("bold", ["tsnr"], "temporal signal-to-noise ratio", "tsnr"),
        ("bold", ["mean"], "mean image and mask", "mean"),
        ("bold", ["motion"], "head motion", "motion"),
        ("parcels", ["coverage"], "coverage of parcels", "coverage"),
        ("betas", ["r2"], "single-trial responses", "r2"),
    ],
)
def test_what_was_asked_for_and_is_missing_is_failed(
    case, lack, title, array, make_quality, tmp_path
):
    files = pages_of(make_quality(tmp_path / "in", case, lack=lack))
    text = text_of(files[FIRST])
    assert f"FAILED {title}" in text
    assert f"the array {array} in the group qc" in text
    assert text.count("FAILED") == 1 + (title == "spectra")  # and the line noise
    assert str(tmp_path) not in text
    assert f"failed: {title}" in text_of(files["qc/index.html"])


@pytest.mark.usefixtures("fast_figures")
def test_cause_quotes_what_the_log_says(make_quality, tmp_path):
    text = text_of(pages_of(make_quality(tmp_path / "in", "eeg", lack=["ica_map"]))[FIRST])
    assert "found: ICA (picard) on 600 s, ICLabel: 2 of 12 components removed" in text


@pytest.mark.usefixtures("fast_figures")
@pytest.mark.parametrize(
    ("case", "lack", "name"),
    [
        ("eeg", ["ica_map"], "independent components"),
        ("meg", ["head_position"], "head movement"),
        ("bold", ["motion"], "head motion"),
        ("betas", ["r2"], "single-trial responses"),
    ],
)
def test_what_was_not_asked_for_is_one_line(case, lack, name, make_quality, tmp_path):
    files = pages_of(make_quality(tmp_path / "in", case, lack=lack, settings={}))
    text = text_of(files[FIRST])
    assert "FAILED" not in text
    line = re.search(r"Not asked for, or nothing to compare: (.*?)\.", text)[1]
    assert name in line.split("; ")


@pytest.mark.usefixtures("fast_figures")
def test_arrays_are_drawn_even_if_nobody_asked(make_quality, tmp_path):
    files = pages_of(make_quality(tmp_path / "in", "eeg", settings={}))
    assert "2 of 12 removed" in text_of(files[FIRST])


@pytest.mark.usefixtures("fast_figures")
def test_unreadable_store_has_a_page_and_stands_first(make_quality, tmp_path):
    inputs = make_quality(tmp_path / "in", "eeg", n=3)
    delete_store(inputs.signals["sub-01_run-02"])
    files = pages_of(inputs)
    index = files["qc/index.html"].decode()
    order = re.findall(r'href="\./(sub-01_run-\d+)\.html"', index)
    assert order[0] == "sub-01_run-02" and sorted(order) == sorted(inputs.signals)
    assert qc_index.UNREADABLE in text_of(files["qc/index.html"])
    assert "FAILED store of this recording" in text_of(files["qc/sub-01_run-02.html"])
    assert "ORIGIN OF THE DATA UNKNOWN" in text_of(files["qc/sub-01_run-02.html"])


@pytest.mark.usefixtures("fast_figures")
def test_pages_lead_to_each_other(make_quality, tmp_path):
    files = pages_of(make_quality(tmp_path / "in", "bold", n=3))
    middle = files["qc/sub-01_run-02.html"].decode()
    links = re.findall(r'href="([^#"][^"]*)"', middle)
    assert links == ["../report.html", "./index.html", "./sub-01_run-01.html",
                     "./sub-01_run-03.html"]  # fmt: skip
    assert all(f"qc/{link[2:]}" in files for link in links[1:])


def test_equal_stores_give_equal_pages_wherever_they_lie(make_quality, tmp_path):
    made = [pages_of(make_quality(tmp_path / name, "eeg")) for name in ("a", "b")]
    assert made[0] == made[1]
    assert str(tmp_path).encode() not in b"".join(made[0].values())


@pytest.mark.usefixtures("fast_figures")
@pytest.mark.parametrize("case", ["eeg", "parcels", "betas"])
def test_f29_names_of_every_panel_are_text(case, make_quality, tmp_path):
    payload = "<img src=x onerror=alert(1)>\"' onclick=x {{7*7}}</style>"
    matching = {**MATCHING, "message": payload, "source": payload}
    files = pages_of(make_quality(tmp_path / "in", case, payload=payload, matching=matching))
    for html in files.values():
        text = html.decode()
        assert "<img src=x" not in text and "FAILED" not in text
        assert not re.search(r"<[^>]* on\w+=", re.sub(r'"[^"]*"', '""', text))
        assert payload in " ".join(unescape(re.sub(r"<[^>]*>", " ", text)).split())


def test_a_recording_called_index_keeps_its_page():
    assert build.page_name("index") != "index.html"
    assert build.page_name("Index") != "Index.html"
    assert build.page_name("sub-01") == "sub-01.html"


@pytest.mark.usefixtures("fast_figures")
@pytest.mark.parametrize(("peak", "wrong"), [(0.4, True), (5.0, False), (None, False)])
def test_response_lag_is_drawn_and_judged(peak, wrong, make_quality, tmp_path, monkeypatch):
    message = "Response peaks 0.4 s after onset, expected 4-7 s: onsets may be shifted"
    lags = np.linspace(0, 12, 25)
    found = SimpleNamespace(
        kind="bold", lags=lags, curve=np.exp(-((lags - 5) ** 2)), band=np.full(25, 0.1), lag=peak,
        expected=(4.0, 7.0), n_events=30, shifted=wrong,
        message=message if wrong else "no clear response",
    )  # fmt: skip
    monkeypatch.setattr(recording.Recording, "lag", found)
    files = pages_of(make_quality(tmp_path / "in", "bold"))
    text = text_of(files[FIRST])
    assert (message in text) is wrong
    assert ("not where it is expected" in text) is wrong
    assert "expected 4 to 7 s" in text and "FAILED" not in text
    assert ("response lag 0.4 s" in text_of(files["qc/index.html"])) is wrong


@pytest.mark.usefixtures("fast_figures")
def test_response_lag_that_breaks_is_failed(make_quality, tmp_path, monkeypatch):
    def broken(self):
        raise RuntimeError("no lag")

    monkeypatch.setattr(recording.Recording, "lag", property(broken))
    files = pages_of(make_quality(tmp_path / "in", "bold"))
    assert "FAILED response lag RuntimeError: no lag" in text_of(files[FIRST])


def test_worst_recordings_come_first():
    def line(name, **values):
        return qc_index.Overview(name, "eeg", 10, 0, 1.0, **values)

    lines = [line("a"), line("b", gravity=0.2), line("c", gravity=2.0, concerns=("lag",)),
             line("d")]  # fmt: skip
    study = SimpleNamespace(name="s", data_origin="recorded")
    page = qc_index.index_page(study, lines)
    (table,) = page.sections[1].blocks
    assert [row[0].text for row in table.rows] == ["c", "b", "a", "d"]
    assert "Response lag" not in [c.name for c in table.columns]  # none is known
    facts = page.sections[0].blocks[0].facts
    assert next(f.value for f in facts if f.name == "Need a look") == "1 of 4"
    assert b"../report.html" in render(page)


def test_mean_over_epochs_reads_blocks(make_quality, tmp_path, monkeypatch):
    inputs = make_quality(tmp_path / "in", "epochs")
    signal = open_signal(next(iter(inputs.signals.values())))
    whole = np.nanmean(np.asarray(signal.read_events(np.arange(signal.n_events)), float), axis=0)
    seen = []
    monkeypatch.setattr(qc_emeg, "BLOCK_BYTES", 8 * 7 * whole.size)
    read = type(signal).read_events
    monkeypatch.setattr(type(signal), "read_events",
                        lambda self, rows: seen.append(len(rows)) or read(self, rows))  # fmt: skip
    np.testing.assert_allclose(qc_emeg._mean_epoch(signal), whole)
    assert seen == [7, 7, 7, 7, 2]


@pytest.mark.usefixtures("fast_figures")
def test_datatype_is_that_of_the_store_where_the_plan_is_lost(make_quality, tmp_path):
    inputs = make_quality(tmp_path / "in", "bold")
    lost = dataclasses.replace(inputs, plan=tmp_path / "gone.zarr")
    found = recording.Recording(Study(lost), "sub-01_run-01")
    assert found.is_bold
    text = text_of(render(qc.qc_page(found)))
    assert "FAILED event timing" in text and "Temporal signal-to-noise ratio" in text


def test_bipolar_pairs_are_no_lost_contacts(make_quality, tmp_path):
    """Eight contacts on two shafts, one of them bad, become six pairs (simulated)."""
    names = [f"{shaft}{number}" for shaft in ("LA", "RH") for number in range(1, 5)]
    info = mne.create_info(names, 200.0, "seeg")
    for i, channel in enumerate(info["chs"]):
        channel["loc"][:3] = [0.03 * (-1) ** (i // 4), 0.01, 0.0035 * (i % 4)]
    rng = np.random.default_rng(0)
    data = 1e-5 * rng.normal(size=(8, 6000))
    data[1] *= 100
    mne.io.RawArray(data, info, verbose="error").save(tmp_path / "x_raw.fif", verbose="error")
    inputs = make_quality(tmp_path / "in", "ieeg", n=1)
    (path,) = inputs.signals.values()
    delete_store(path)
    row = dict.fromkeys(("subject", "session", "task", "run"), "") | {
        "recording": "sub-01_run-01", "datatype": "ieeg", "path": "x_raw.fif", "content_hash": "",
    }  # fmt: skip
    emeg = {"reference": "bipolar", "bads": "keep", "l_freq": 1.0, "h_freq": None, "sfreq": None}
    preprocess.run(
        PreprocessSection.model_validate({"emeg": emeg}), row, tmp_path, path,
        allow_truncated=False, data_origin="simulated",
    )  # fmt: skip
    text = text_of(pages_of(inputs)[FIRST])
    assert "FAILED" not in text
    assert "LA1-LA2 seeg LA2: " in text and "LA2-LA3 seeg LA2: " in text
    assert " dropped" not in text and "6 seeg; 2 bad; 8 in bipolar pairs" in text
    assert "6 sensors of kind seeg; 2 bad." in text
    told = "not of the same sensors. Not in the result: 8 sensors in bipolar pairs. Only in the "
    assert f"Before and after are {told}result: 6 sensors." in text
