"""The stage tokenize on single recordings: what is fitted, encoded, refused."""

from __future__ import annotations

import importlib.util
import io
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from braindecode_pipe.errors import (
    DataError,
    MissingFileError,
    ModelError,
    RecipeError,
)
from braindecode_pipe.networks.sensors import normalize_signal
from braindecode_pipe.splits import FitScope
from braindecode_pipe.store import (
    is_committed,
    open_signal,
    open_store,
    read_table,
    store_attrs,
    store_hash,
    verify_store,
)
from braindecode_pipe.tokenize.encode import ROWS
from braindecode_pipe.tokenize.measures import CodeCounts, Rebuilding, source_patterns
from braindecode_pipe.tokenize.saved import load_tokenizer, make_network
from braindecode_pipe.tokenize.sensors import SensorArray, SensorWindows, windows_within
from braindecode_pipe.tokenize.stage import encode, fit

_spec = importlib.util.spec_from_file_location(
    "recordings", Path(__file__).with_name("recordings.py")
)
recordings = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(recordings)
NETWORK, SFREQ = recordings.NETWORK, recordings.SFREQ
section, write_recording = recordings.section, recordings.write_recording

EEG, MEG = ["eeg"] * 7, ["mag"] * 4 + ["grad"] * 5
CONTENTS = {"one": "aaaa", "two": "bbbb"}


def scope(**extents) -> FitScope:
    return FitScope("fold-1", (), {name: tuple(own) for name, own in extents.items()})


BOTH = scope(one=[(0.0, 40.0)], two=[(0.0, 18.0), (25.0, 40.0)])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two devices, and a tokenizer that was fitted to both."""
    folder = tmp_path_factory.mktemp("tokens")
    signals = {
        "one": write_recording(folder / "one.zarr", EEG),
        "two": write_recording(folder / "two.zarr", MEG, seed=1),
    }
    fit(section(), BOTH, CONTENTS, signals, folder / "fit.zarr")
    return folder, signals


def encoded(study, tmp_path, name="one", **options):
    folder, signals = study
    row = {"recording": name, "content_hash": CONTENTS[name]}
    given = {"section": section(), "signal": signals[name], **options}
    encode(tokenizer=folder / "fit.zarr", recording=row, out=tmp_path / "codes.zarr", **given)
    return tmp_path / "codes.zarr"


def test_a_tokenizer_says_what_it_is_and_what_it_saw(study):
    folder, _ = study
    path = folder / "fit.zarr"
    attrs = store_attrs(path)
    assert attrs["kind"] == "tokenizer" and attrs["data_origin"] == "simulated"
    assert attrs["fit_scope"] == BOTH.hash()
    # 40 windows of the first, 18 + 15 of the second; a tenth of each only validates.
    assert (attrs["n_windows"], attrs["n_validation"]) == (36 + 30, 4 + 3)
    assert read_table(path, "log")["epoch"].tolist() == [1, 2]
    assert read_table(path, "usage")["perplexity"].between(1, 16).all()
    tokenizer = load_tokenizer(path, section())
    assert tokenizer.seen == {"aaaa": [[0.0, 40.0]], "bbbb": [[0.0, 18.0], [25.0, 40.0]]}
    assert tokenizer.network.window == 32 and tokenizer.arguments["n_filters"] == 4
    assert not path.with_suffix(".fit").exists()


def test_the_same_fit_gives_the_same_bytes_whatever_lies_outside_its_scope(study, tmp_path):
    folder, signals = study

    def spoil(data, good):
        data[:, round(18 * SFREQ) : round(25 * SFREQ)] = 7e-3

    other = write_recording(tmp_path / "two.zarr", MEG, seed=1, spoil=spoil)
    assert store_hash(other) != store_hash(signals["two"])
    fit(section(), BOTH, CONTENTS, {**signals, "two": other}, tmp_path / "fit.zarr")
    assert store_hash(tmp_path / "fit.zarr") == store_hash(folder / "fit.zarr")

    def seen(data, good):
        data[:, 100] *= 3

    other = write_recording(tmp_path / "seen.zarr", MEG, seed=1, spoil=seen)
    fit(section(), BOTH, CONTENTS, {**signals, "two": other}, tmp_path / "seen-fit.zarr")
    assert store_hash(tmp_path / "seen-fit.zarr") != store_hash(folder / "fit.zarr")


def test_recordings_without_a_good_sensor_do_not_stop_a_fit(study, tmp_path):
    _, signals = study
    lost = write_recording(tmp_path / "lost.zarr", EEG, good=np.zeros(7, bool))
    out = tmp_path / "fit.zarr"
    both = scope(one=[(0.0, 40.0)], lost=[(0.0, 40.0)])
    fit(section(epochs=1), both, {**CONTENTS, "lost": "cccc"},
        {"one": signals["one"], "lost": lost}, out)  # fmt: skip
    attrs = store_attrs(out)
    assert (attrs["recordings"], attrs["left_out"]) == (["one"], ["lost"])
    assert set(load_tokenizer(out).seen) == {"aaaa"}


def test_a_stopped_fit_goes_on_to_the_same_bytes(study, tmp_path, monkeypatch):
    from braindecode_pipe.fitting import loop

    folder, signals = study
    out, whole = tmp_path / "fit.zarr", loop.fit

    def stopped(*arguments, **options):
        def stop(number, n, loss):
            if number == 5:
                raise KeyboardInterrupt

        return whole(*arguments, save_every_s=0.0, on_batch=stop, **options)

    monkeypatch.setattr(loop, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        fit(section(), BOTH, CONTENTS, signals, out)
    assert not is_committed(out) and list(out.with_suffix(".fit").iterdir())
    monkeypatch.setattr(loop, "fit", whole)
    fit(section(), BOTH, CONTENTS, signals, out)
    assert store_hash(out) == store_hash(folder / "fit.zarr")
    assert not out.with_suffix(".fit").exists()


def test_codes_are_those_of_each_window_by_itself(study, tmp_path):
    folder, signals = study
    path = encoded(study, tmp_path, "two")
    verify_store(path)
    dataset = open_store(path, "codes")
    codes = dataset["codes"].values
    # 40 s in windows of 1 s that begin every 0.75 s; 3 sources of 4 steps, of 8 samples each.
    assert codes.dtype == np.int16 and codes.shape == (1 + (1280 - 32) // 24, 3 * 4, 2)
    assert np.allclose(dataset["window_time"].values, 0.75 * np.arange(len(codes)))
    assert dataset.attrs["hop_s"] == 0.75 and dataset["window_good"].values.all()
    network = load_tokenizer(folder / "fit.zarr").network
    signal = open_signal(signals["two"])
    array = SensorArray.of(signal)
    with torch.no_grad():
        for number in range(0, len(codes), 7):
            x = torch.from_numpy(signal.read(24 * number, 24 * number + 32))[None]
            alone = network.encode(normalize_signal(x, array.kinds), array.geometry, array.kinds)
            assert np.array_equal(alone.codes[0].flatten(0, 1).numpy(), codes[number])
    usage = read_table(path, "usage")
    for level in range(2):
        counts = np.bincount(codes[..., level].ravel(), minlength=16)
        share = counts[counts > 0] / counts.sum()
        assert np.isclose(usage["perplexity"][level], np.exp(-(share * np.log(share)).sum()))
        assert np.isclose(usage["used"][level], (counts > 0).mean())


def test_inspect_tells_use_of_codes_and_errors(study, tmp_path):
    from rich.console import Console

    from braindecode_pipe.inspect import inspect_store

    path = encoded(study, tmp_path, "two")
    console = Console(width=200, file=io.StringIO())
    console.print(inspect_store(path))
    text = console.file.getvalue()
    usage, errors = read_table(path, "usage"), read_table(path, "errors")
    assert f"level 2: perplexity {usage['perplexity'][1]:.1f}" in text
    assert f"grad, all (0 to 16 Hz): error of rebuilding {errors['error'].iloc[-1]:.2f}" in text
    assert errors["kind"].tolist() == ["mag"] * 5 + ["grad"] * 5


def test_windows_of_events_are_vectors_of_latent_sensors(study, tmp_path):
    folder, signals = study
    events = pd.DataFrame({"event": ["a", "b", "c", "d"], "onset": [3.0, 39.0, np.nan, 10.5]})
    path = encoded(study, tmp_path, events=events, extent=(-0.5, 1.5))
    signal = open_signal(path)
    assert signal.kind == "response" and signal.event_good.tolist() == [True, False, False, True]
    assert set(signal.sensors["kind"]) == {"latent"} and len(signal.sensors) == 3 * 16
    assert signal.sensors["sensor"].iloc[17] == "source-01/feature-001"
    assert np.allclose(signal.times, -0.5 + 0.25 * np.arange(8)) and signal.sfreq == 4
    values = signal.read_events([0, 1])
    assert np.isfinite(values[0]).all() and np.isnan(values[1]).all()
    network, whole = load_tokenizer(folder / "fit.zarr").network, open_signal(signals["one"])
    array = SensorArray.of(whole)
    for half in range(2):
        x = torch.from_numpy(whole.read(80 + 32 * half, 112 + 32 * half))[None]
        with torch.no_grad():
            tokens = network.encode(normalize_signal(x, array.kinds), array.geometry, array.kinds)
        expected = tokens.vectors[0].permute(0, 2, 1).flatten(0, 1)
        assert torch.allclose(torch.from_numpy(values[0][:, 4 * half : 4 * half + 4]), expected,
                              atol=1e-6)  # fmt: skip


def test_equal_work_gives_equal_bytes_and_bad_samples_are_marked(study, tmp_path):
    one, two = (encoded(study, tmp_path / name) for name in "xy")
    assert store_hash(one) == store_hash(two)

    def spoil(data, good):
        data[2], data[1, 40:60], good[400:410] = 0.0, np.nan, False

    spoiled = write_recording(tmp_path / "spoiled.zarr", EEG, spoil=spoil,
                              good=np.arange(7) != 5)  # fmt: skip
    path = encoded(study, tmp_path, signal=spoiled)
    dataset = open_store(path, "codes")
    start = 24 * np.arange(dataset.sizes["window"])
    assert np.array_equal(dataset["window_good"].values, (start >= 410) | (start + 32 <= 400))
    assert store_attrs(path)["n_sensors"] == 6
    assert np.isfinite(open_store(path, "sources")["pattern"].values).all()


def test_missing_positions_and_single_sensors_run(study, tmp_path):
    signal = write_recording(tmp_path / "nowhere.zarr", EEG, placed=False)
    attrs = store_attrs(encoded(study, tmp_path, signal=signal))
    assert attrs["sensors_without_position"] == 7
    signal = write_recording(tmp_path / "single.zarr", ["mag"], seconds=3.0)
    path = encoded(study, tmp_path, signal=signal)
    assert store_attrs(path)["n_sensors"] == 1
    assert len(set(open_store(path, "codes")["codes"].values.ravel())) > 1


def test_memory_does_not_grow_with_the_recording(study, tmp_path):
    peaks, read = [], []
    for seconds in (120.0, 960.0):
        signal = write_recording(tmp_path / f"{seconds}.zarr", EEG, seconds=seconds)
        opened = open_signal(signal)
        read.append(opened.n_times)
        tracemalloc.start()
        encoded(study, tmp_path / str(seconds), signal=signal)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    grown = read[1] - read[0]
    # What remains per sample: its time and mark (9 bytes) and sums of marks (8), no signals.
    assert peaks[1] - peaks[0] < 60 * grown < 7 * 4 * 3 * grown
    assert ROWS // 7 < 960 / 0.75 / 4


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"sfreq": 64.0}, DataError, "preprocess.emeg.sfreq = 32"),
        ({"sfreq": 16.0}, DataError, "tokenize.sfreq = 16"),
        ({"kinds": ["voxel"] * 3}, DataError, "kind voxel"),
        ({"seconds": 0.5}, DataError, "shorter than a window"),
        ({"good": np.zeros(7, bool)}, DataError, "0 good sensors"),
    ],
)
def test_recordings_that_cannot_become_tokens_are_refused(study, tmp_path, changes, error, text):
    changes = {"kinds": EEG, **changes}
    signal = write_recording(tmp_path / "bad.zarr", **changes)
    with pytest.raises(error, match=text):
        encoded(study, tmp_path, signal=signal)


def test_tokenizers_that_are_not_there_or_do_not_fit_are_refused(study, tmp_path):
    folder, signals = study
    with pytest.raises(MissingFileError, match="(?s)no such folder.*tokenize.folder"):
        load_tokenizer(tmp_path / "nothing")
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(MissingFileError, match="no model.safetensors"):
        load_tokenizer(tmp_path)
    files = load_tokenizer(folder / "fit.zarr").files()
    (tmp_path / "model.safetensors").write_bytes(files["model.safetensors"])
    with pytest.raises(ModelError, match="no tokenizer of sensors"):
        load_tokenizer(tmp_path)
    (tmp_path / "model.json").write_bytes(files["model.json"])
    assert load_tokenizer(tmp_path, section()).n_sources == 3
    with pytest.raises(RecipeError, match=r"(?s)window_s = 1.*window_s = 2"):
        load_tokenizer(tmp_path, section(window_s=2.0))
    with pytest.raises(RecipeError, match=r"(?s)n_filter = 3.*\[tokenize.network\]"):
        make_network(section(network={**NETWORK, "n_filter": 3}))
    with pytest.raises(RecipeError, match="divisor of width"):
        make_network(section(network={**NETWORK, "n_heads": 3}))
    with pytest.raises(DataError, match="too few windows"):
        fit(section(), scope(one=[(0.0, 1.9)]), CONTENTS, {"one": signals["one"]},
            tmp_path / "few.zarr")  # fmt: skip


def test_windows_lie_within_extents_and_good_samples(tmp_path):
    def spoil(data, good):
        good[100] = False

    signal = open_signal(write_recording(tmp_path / "a.zarr", EEG, seconds=8.0, spoil=spoil))
    found = windows_within(signal, [(0.1, 2.2), (2.5, 6.0)], 32)
    # Sample 3 to 70; sample 80 to 192 without sample 100.
    assert found.tolist() == [3, 35, 101, 133]
    assert windows_within(signal, [], 32).tolist() == []


def test_examples_draw_one_window_of_each_run(study):
    _, signals = study
    opened = {name: open_signal(path) for name, path in signals.items()}
    starts = {"one": np.arange(0, 320, 32), "two": np.arange(0, 640, 32)}
    windows = SensorWindows(opened, starts, 32, per_epoch=6)
    assert len(windows) == 6 and windows.edges.tolist() == [0, 5, 10, 15, 20, 25, 30]
    x, geometry, kinds, mask = windows(np.array([0, 3]))
    assert x.shape == (2, 9, 32) and mask.sum(1).tolist() == [7, 9]
    assert not x[0, 7:].any() and not geometry[0, 7:].any()
    torch.manual_seed(0)
    drawn = {round(float(windows(np.array([1]))[0][0, 0, 0]), 6) for _ in range(40)}
    assert len(drawn) == 5
    windows.draws = False
    middle = windows(np.array([1]))[0][0, :7]
    array = SensorArray.of(opened["one"])
    x = torch.from_numpy(opened["one"].read(7 * 32, 8 * 32))
    assert torch.equal(middle, normalize_signal(x[None], array.kinds)[0])


def test_errors_of_rebuilding_by_hand():
    times = np.arange(256) / 128
    slow, fast = np.sin(2 * np.pi * 2 * times), np.sin(2 * np.pi * 10 * times)
    x = torch.tensor(np.stack([slow + fast, slow, np.zeros(256)]))[None].float()
    rebuilt = torch.tensor(np.stack([slow, slow, slow]))[None].float()
    rebuilt[0, 1] = 0.5 * x[0, 1] / x[0, 1].std()
    rebuilt[0, 0] = torch.tensor(slow) / x[0, 0].std()
    errors = Rebuilding(["eeg", "mag", "mag"], 128.0)
    errors.add(x, rebuilt)
    table = errors.table().set_index(["kind", "band"])["error"]
    assert table["eeg", "delta"] == pytest.approx(0, abs=1e-6)
    assert table["eeg", "alpha"] == pytest.approx(1, abs=1e-6)
    assert table["eeg", "all"] == pytest.approx(0.5, abs=1e-6)
    assert table["mag", "delta"] == pytest.approx(0.25, abs=1e-6)


def test_counts_of_codes_add_up_over_blocks():
    codes = np.random.default_rng(0).integers(0, 8, (50, 3, 2))
    whole, parts = CodeCounts(2, 8), CodeCounts(2, 8)
    whole.add(codes)
    for part in np.array_split(codes, 7):
        parts.add(part)
    assert whole.table().equals(parts.table())
    assert whole.table()["codes"].tolist() == [150, 150]


def test_patterns_of_sources_are_what_each_adds():
    """With a decoder that is a matrix, the pattern of a source is its column."""

    class Linear:
        mixing = torch.tensor([[2.0, 0.0], [-1.0, 1.0], [0.0, 3.0]])

        def decode(self, vectors, geometry, kinds):
            return torch.einsum("cs,bstw->bct", self.mixing, vectors)

    vectors = torch.randn(4, 2, 100, 1)
    patterns, share = source_patterns(Linear(), vectors, None, None)
    for source, column in enumerate(Linear.mixing.T.numpy()):
        spread = float(vectors[:, source].std(unbiased=False))
        sign = np.sign(column[np.abs(column).argmax()])
        assert np.allclose(patterns[source], sign * column * spread, atol=1e-5)
    assert share.sum() == pytest.approx(1, abs=0.2)
