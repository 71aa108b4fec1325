"""What decoders reach on the small real recordings, beside the figures their READMEs give."""

import numpy as np
import pandas as pd
import pytest
from scipy.signal import detrend

from braindecode_pipe.fitting.delay import estimate_delay
from braindecode_pipe.fitting.windows import Windows
from braindecode_pipe.recipe import WindowSection
from braindecode_pipe.schema import sensor_coords, signal_dataset
from braindecode_pipe.store import open_signal, write_store
from braindecode_pipe.train.decoder import BrainDecoder
from braindecode_pipe.train.selection import inner_score

pytestmark = pytest.mark.data

ALPHAS = [10.0 ** (k / 2) for k in range(-2, 11)]


def haxby(shared_data, folder, out):
    """Signals (detrended, z-scored voxels that vary) and events of the 12 runs."""
    nibabel = pytest.importorskip("nibabel")
    images, tables = {}, []
    for run in range(1, 13):
        stem = shared_data / folder / "sub-01/func" / f"sub-01_task-objectviewing_run-{run:02d}"
        images[f"r{run}"] = np.asarray(nibabel.load(f"{stem}_bold.nii.gz").dataobj, np.float64)
        table = pd.read_csv(f"{stem}_events.tsv", sep="\t")
        table = table[table["trial_type"] != "rest"].reset_index(drop=True)
        table["event"] = [f"r{run}:{i}" for i in range(len(table))]
        tables.append(table.assign(recording=f"r{run}", subject="01"))
    varies = np.min([image.std(-1) for image in images.values()], axis=0) > 0
    names = ["-".join(map(str, place)) for place in np.argwhere(varies)]
    signals = {}
    for name, image in images.items():
        data = detrend(image[varies])
        data = (data / data.std(1, keepdims=True)).astype(np.float32)
        sensors = sensor_coords(names, "voxel", "a.u.")
        attrs = {"data_origin": "recorded", "sfreq": 0.4, "t_r": 2.5}
        dataset = signal_dataset(data, sensors, np.arange(data.shape[1]) * 2.5, attrs)
        write_store(out / f"{name}.zarr", {"": dataset})
        signals[name] = open_signal(out / f"{name}.zarr")
    return signals, pd.concat(tables, ignore_index=True)


@pytest.mark.parametrize(
    ("folder", "r_zero", "accuracy"),
    [("haxby2001-slice", 0.55, 0.70), ("haxby2001-lowres", 0.15, None)],
)
def test_delay_and_ridge_on_haxby(shared_data, tmp_path, folder, r_zero, accuracy):
    signals, events = haxby(shared_data, folder, tmp_path)
    found = estimate_delay(signals, events, 12.0)
    at = dict(zip(found.lags.tolist(), found.correlation.tolist()))
    assert found.delay == 0.0
    assert at[0.0] > r_zero and at[5.0] < 0.75 * at[0.0]
    for left_out in signals:  # no fold may think otherwise
        seen = events[events["recording"] != left_out]
        inside = {name: signal for name, signal in signals.items() if name != left_out}
        assert estimate_delay(inside, seen, 12.0).delay == 0.0
    if accuracy is None:
        return
    windows = Windows(signals, events, WindowSection(reduce="mean"))
    x, groups = windows.read(windows.rows()), events["recording"].to_numpy()
    labels, number = np.unique(events["trial_type"], return_inverse=True)
    y, hits, inner = np.eye(len(labels))[number], [], []
    assert len(y) == 96
    for group in signals:
        test = groups == group
        model = BrainDecoder("ridge", alphas=ALPHAS)
        rest = (x[~test], y[~test], groups[~test])
        inner.append(inner_score(model, *rest, number[~test], np.zeros((~test).sum(), bool)))
        model.fit(*rest)
        hits += (model.predict(x[test]).argmax(1) == number[test]).tolist()
    assert np.mean(hits) >= accuracy
    assert abs(np.mean(inner) - np.mean(hits)) < 0.1


@pytest.mark.parametrize("decoder", ["ridge", "logistic"])
def test_relatedness_of_words_on_n400(shared_data, decoder):
    mne = pytest.importorskip("mne")
    from sklearn.metrics import roc_auc_score

    epochs = mne.read_epochs(shared_data / "n400-words/sub-04_task-n400_epo.fif", verbose="ERROR")
    x = epochs.get_data(tmin=0.2, tmax=0.8).astype(np.float32)
    x = x[..., : x.shape[-1] // 2 * 2].reshape(len(x), x.shape[1], -1, 2).mean(-1)
    related = (epochs.events[:, 2] == epochs.event_id["related"]).astype(int)
    y, fold, scores = np.eye(2)[related], np.arange(len(x)) * 10 // len(x), np.zeros(len(x))
    for k in range(10):
        test = fold == k
        model = BrainDecoder(decoder, alphas=ALPHAS).fit(x[~test], y[~test], fold[~test])
        predicted = model.predict(x[test])
        scores[test] = predicted[:, 1] - predicted[:, 0]
    assert 0.65 <= roc_auc_score(related, scores) <= 0.79
