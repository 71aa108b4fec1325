"""The feeder: every window once an epoch, augmented the same way whatever thread reads ahead."""

import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from braindecode_pipe.errors import DataError
from braindecode_pipe.fitting import loop
from braindecode_pipe.fitting.augmenting import Draws
from braindecode_pipe.fitting.examples import batches
from braindecode_pipe.fitting.feeding import Feeder, shuffled_by_chunks
from braindecode_pipe.fitting.views import kept
from braindecode_pipe.fitting.windows import Windows
from braindecode_pipe.recipe import AugmentSection, WindowSection
from braindecode_pipe.store import limit_maps
from braindecode_pipe.train.networks import Inputs
from braindecode_pipe.train.repeats import AverageView

SFREQ, N_SENSORS, N_TIMES, N = 50.0, 5, 20, 40
ALL = AugmentSection(shift_s=0.2, channel_dropout=0.3, noise=0.5, mixup=0.4)


@pytest.fixture(autouse=True)
def _maps_as_before():
    yield
    limit_maps(512 << 20)


@pytest.fixture
def view(make_signal):
    """Forty windows of two people in two recordings."""
    rng = np.random.default_rng(0)
    signals = {n: make_signal(n, rng.normal(3, 2, (N_SENSORS, 800)), SFREQ) for n in "ab"}
    events = pd.DataFrame(
        {"event": [str(i) for i in range(N)], "recording": ["a", "b"] * (N // 2),
         "subject": ["1", "2"] * (N // 2), "onset": rng.uniform(0.5, 15, N), "duration": 0.0}
    )  # fmt: skip
    windows = Windows(signals, events, WindowSection(tmax=N_TIMES / SFREQ))
    return windows.view(windows.rows())


def inputs_of(X, masks=None):
    masks = np.ones((2, N_SENSORS), bool) if masks is None else masks
    mean, scale = np.full((2, N_SENSORS, 1), 3.0), np.full((2, N_SENSORS, 1), 2.0)
    positions = np.zeros((2, N_SENSORS, 2), np.float32)
    return Inputs("conv", X, mean, scale, np.arange(N) % 2, positions, masks)


def feeder(X, augment=None, rows=None, masks=None, **settings):
    targets = torch.from_numpy(np.random.default_rng(1).normal(size=(N, 3)).astype(np.float32))
    rows = np.arange(N) if rows is None else rows
    return Feeder(inputs_of(X, masks), targets, torch.arange(N), rows, augment=augment, **settings)


def epoch(fed, number, order):
    """All of an epoch, copied: a batch is valid until the next."""
    with fed.ahead(number, order) as batches_of_epoch:
        return [
            tuple(t.clone() for t in (*arguments, targets, stimuli))
            for arguments, targets, stimuli in batches_of_epoch
        ]


def same(one, other):
    return all(torch.equal(a, b) for x, y in zip(one, other, strict=True)
               for a, b in zip(x, y, strict=True))  # fmt: skip


@pytest.mark.parametrize("in_memory", [False, True])
def test_without_augmentation_batches_are_the_scaled_windows(view, in_memory):
    X = view[:] if in_memory else view
    rows = np.arange(3, N)
    fed = feeder(X, rows=rows)
    order = batches(len(fed), 8, np.random.default_rng(0), fed.order)
    assert sorted(np.concatenate(order)) == list(range(N - 3))
    found = epoch(fed, 1, order)
    for part, (x, _, _, who, targets, stimuli) in zip(order, found, strict=True):
        own = rows[part]
        assert x.numpy() == pytest.approx((view[own] - 3) / 2, abs=1e-6)
        assert torch.equal(who, torch.from_numpy(own % 2)) and torch.equal(
            targets, fed.targets[own]
        )
        assert stimuli.tolist() == own.tolist()
        arguments, _, _ = fed.batch(part)
        assert torch.equal(arguments[0], x)


def test_an_epoch_is_drawn_again_from_any_batch_on(view):
    order = batches(N, 6, np.random.default_rng(0))
    first = epoch(feeder(view, ALL, seed=5), 2, order)
    assert same(epoch(feeder(view, ALL, seed=5), 2, order), first)
    fed = feeder(view, ALL, seed=np.int64(5))
    epoch(fed, 1, order)
    assert same(epoch(fed, 2, order[4:]), first[4:])
    for other, number in ((feeder(view, ALL, seed=6), 2), (fed, 3)):
        changed = epoch(other, number, order)
        assert not any(torch.equal(a[0], b[0]) for a, b in zip(changed, first))


def test_shift_is_the_window_of_a_shifted_event(view):
    fed = feeder(view, AugmentSection(shift_s=0.2), seed=1)
    rows = np.arange(12)
    (x, *_), = epoch(fed, 4, [rows])  # fmt: skip
    seconds = Draws(1, 4, rows).shifts(0.2)
    assert np.abs(seconds).max() <= 0.2 and len(set(seconds)) == 12
    moved = view.windows.events.copy()
    samples = np.floor(seconds * SFREQ + 0.5)
    moved.loc[:11, "onset"] += samples / SFREQ
    expected = Windows(view.windows._signals, moved, view.windows.window)
    assert expected.valid[:12].all()
    assert x.numpy() == pytest.approx((expected.read(rows) - 3) / 2, abs=1e-6)
    assert len(set(samples)) > 5


def test_windows_of_an_average_are_moved_alike(view):
    trials = [view.rows[[k, k + 2, k + 4]] for k in range(30)]
    averages = AverageView(view.windows, trials)
    seconds = np.linspace(-0.1, 0.1, 30)
    found = averages.read(np.arange(30), shift_s=seconds)
    for k in (0, 7, 29):
        moved = np.stack([view.read([j], shift_s=seconds[[k]])[0] for j in (k, k + 2, k + 4)])
        assert found[k] == pytest.approx(moved.mean(0), abs=1e-6)
    assert not np.allclose(found[0], averages[[0]][0])
    fed = Feeder(
        replace(inputs_of(averages), subjects=np.arange(30) % 2), torch.zeros(30, 2),
        torch.arange(30), np.arange(30), memory=2000,
    )  # fmt: skip
    order = batches(30, 7, np.random.default_rng(0), fed.order)
    x = torch.cat([batch[0] for batch in epoch(fed, 1, order)]).numpy()
    assert x == pytest.approx((averages[np.concatenate(order)] - 3) / 2, abs=1e-6)


def test_noise_and_dropout_have_the_asked_size(make_signal, view):
    masks = np.ones((2, N_SENSORS), bool)
    masks[1, 4] = False
    plain = feeder(view, masks=masks)
    rows = [np.arange(N)]
    x = epoch(plain, 1, rows)[0][0]
    noisy = feeder(view, AugmentSection(noise=0.5), masks=masks)
    added = torch.stack([epoch(noisy, e, rows)[0][0] - x for e in range(20)])
    own = added[:, torch.from_numpy(masks[np.arange(N) % 2])]
    # 76 000 numbers: s.e. of the s.d. is 0.26 %.
    assert float(own.std()) == pytest.approx(0.5, rel=0.012)
    assert abs(float(own.mean())) < 4 * 0.5 / 76_000**0.5
    assert not added[:, 1::2, 4].any()
    silent = feeder(view, AugmentSection(channel_dropout=0.3), masks=masks)
    gone = torch.stack([(epoch(silent, e, rows)[0][0] == 0).all(-1) for e in range(50)])
    share = gone[:, :, :4].float().mean()
    assert float(share) == pytest.approx(0.3, abs=4 * (0.21 / 8000) ** 0.5)
    left = epoch(silent, 0, rows)[0][0]
    assert torch.equal(left[~gone[0]], x[~gone[0]])


def test_mixup_stays_within_people_and_mixes_targets_alike(view):
    fed, rows = feeder(view, AugmentSection(mixup=0.4), seed=2), np.arange(9, 30)
    plain = epoch(feeder(view), 1, [rows])[0]
    mixed = epoch(fed, 1, [rows])[0]
    partner, share = Draws(2, 1, rows).pairs(rows % 2, 0.4)
    assert (rows[partner] % 2 == rows % 2).all() and (partner[partner] == np.arange(21)).all()
    assert (partner == np.arange(21)).sum() == 1  # eleven of one person, ten of the other
    assert share.min() >= 0.5 and len(set(share)) == 21
    for position in (0, 4):
        y = plain[position].numpy()
        w = share.reshape(-1, *[1] * (y.ndim - 1))
        expected = w * y + (1 - w) * y[partner]
        assert mixed[position].numpy() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(mixed[5], plain[5])


def test_one_kind_of_augmentation_does_not_change_the_draws_of_another(view):
    rows = [np.arange(N)]
    shifted = epoch(feeder(view, AugmentSection(shift_s=0.2), seed=3), 1, rows)[0][0]
    both = AugmentSection(shift_s=0.2, channel_dropout=0.3)
    found = epoch(feeder(view, both, seed=3), 1, rows)[0][0]
    heard = ~(found == 0).all(-1)
    assert 0.5 < float(heard.float().mean()) < 0.9
    assert torch.equal(found[heard], shifted[heard])


def test_validation_asks_for_batches_that_are_never_augmented(view):
    fed, rows = feeder(view, ALL), np.arange(5)
    assert torch.equal(fed.batch(rows)[0][0], feeder(view).batch(rows)[0][0])


def test_windows_in_memory_cannot_be_moved(view):
    with pytest.raises(DataError, match="cannot be moved[\\s\\S]*shift_s = 0"):
        feeder(view[:], ALL)
    assert kept(view, 4 * N * N_SENSORS * N_TIMES).shape == view.shape
    assert kept(view, 4 * N * N_SENSORS * N_TIMES - 1) is view


class Broken(Exception):
    pass


def test_errors_of_the_thread_surface_at_their_batch_and_the_thread_ends(view):
    fed = feeder(view)
    read, calls = fed.inputs.X.read, []

    def failing(*args):
        calls.append(1)
        if len(calls) == 3:
            raise Broken("the disk is gone")
        return read(*args)

    fed.inputs.X.read = failing
    seen = 0
    with pytest.raises(Broken, match="disk is gone"), fed.ahead(1, batches(N, 5)) as feed:
        for _ in feed:
            seen += 1
    assert seen == 2
    assert not [t for t in threading.enumerate() if t.name == "feeder"]


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_loop_that_stops_early_ends_the_thread(view, taken):
    fed = feeder(view)
    with pytest.raises(Broken), fed.ahead(1, batches(N, 2)) as feed:
        for _ in range(taken):
            next(feed)
        raise Broken
    assert not [t for t in threading.enumerate() if t.name == "feeder"]
    assert same(epoch(fed, 1, batches(N, 7)), epoch(feeder(view), 1, batches(N, 7)))


def test_reads_at_most_two_ahead(view):
    fed, calls = feeder(view), []
    read = fed.inputs.X.read
    fed.inputs.X.read = lambda *args: calls.append(1) or read(*args)
    with fed.ahead(1, batches(N, 2)) as feed:
        for done in range(1, 6):
            next(feed)
            threading.Event().wait(0.05)
            # One in the loop, two that wait, one that is ready to wait.
            assert done <= len(calls) <= done + 3


def test_order_takes_chunks_in_lots_and_every_row_once():
    rng = np.random.default_rng(0)
    number = rng.integers(0, 40, 2000)
    size = np.full(2000, 10)
    order = shuffled_by_chunks(number, size, 100, rng)  # 400 bytes: eight lots of five chunks
    assert sorted(order) == list(range(2000))
    seen = [set(number[part]) for part in np.split(order, 40)]
    open_at_once = [len(chunks) for chunks in seen]
    assert max(open_at_once) <= 10 and np.median(open_at_once) == 5
    first, last = {}, {}
    for place, chunk in enumerate(number[order]):
        first.setdefault(chunk, place)
        last[chunk] = place
    # A chunk is read within one lot of 2000 / 8 rows, and never again.
    assert max(last[c] - first[c] for c in first) < 2000 / 8 * 1.3
    again = shuffled_by_chunks(number, size, 100, np.random.default_rng(1))
    assert not np.array_equal(order, again)
    place = np.argsort([shuffled_by_chunks(number, size, 100, rng) for _ in range(400)], axis=1)
    # Over epochs no row has a place of its own: 400 uniform places, 4.5 s.e. for 2000 rows.
    assert np.abs(place.mean(0) / 2000 - 0.5).max() < 4.5 / (12 * 400) ** 0.5


def test_order_is_a_full_shuffle_where_all_fits():
    number, size = np.repeat(np.arange(4), 25), np.full(100, 10)
    order = shuffled_by_chunks(number, size, 40, np.random.default_rng(3))
    assert np.array_equal(order, np.random.default_rng(3).permutation(100))


class Stopped(Exception):
    pass


class Flat(torch.nn.Linear):
    """A linear network that leaves positions, masks and people alone."""

    def __init__(self):
        super().__init__(N_SENSORS * N_TIMES, 3)

    def forward(self, x, *_):
        return super().forward(x.flatten(1))


def fit(view, folder=None, stop_after=None, augment=ALL, memory=2000):
    """Weights and log; a memory of 2000 bytes holds no two chunks."""
    torch.manual_seed(0)
    network, seen = Flat(), []

    def on_batch(*_):
        seen.append(1)
        if len(seen) == stop_after:
            raise Stopped

    try:
        found = loop.fit(
            network, feeder(view, augment, np.arange(30), seed=4, memory=memory),
            feeder(view, None, np.arange(30, N)), folder=folder, save_every_s=0,
            on_batch=on_batch, epochs=3, batch_size=8, lr=0.01, seed=3,
        )  # fmt: skip
    except Stopped:
        return None
    return network.state_dict(), found.log


@pytest.mark.parametrize("at", [1, 3, 4, 6, 11])
def test_f10_stopped_with_augmentation_and_reading_ahead_goes_on_bit_for_bit(view, tmp_path, at):
    weights, log = fit(view)
    assert fit(view, tmp_path, at) is None
    torch.rand(3)
    again, log_again = fit(view, tmp_path)
    assert log == log_again
    assert all(torch.equal(weights[k], again[k]) for k in weights)


def test_a_fit_with_other_augmentation_is_another_fit(view, tmp_path):
    fit(view, tmp_path, 5)
    with pytest.raises(Exception, match="belongs to another fit"):
        fit(view, tmp_path, augment=AugmentSection(noise=0.1))


MEMORY = """
import sys
import numpy as np, pandas as pd, psutil, torch
from braindecode_pipe.fitting.examples import batches
from braindecode_pipe.fitting.feeding import Feeder
from braindecode_pipe.fitting.windows import Windows
from braindecode_pipe.recipe import WindowSection
from braindecode_pipe.store import open_signal
from braindecode_pipe.train.networks import Inputs

path, memory = sys.argv[1], int(sys.argv[2])
n = 400
events = pd.DataFrame({"event": [str(i) for i in range(n)], "recording": "a", "subject": "1",
                       "onset": np.linspace(0, 1990, n), "duration": 0.0})
windows = Windows({"a": open_signal(path)}, events, WindowSection(tmax=1.0))
view = windows.view(windows.rows())
inputs = Inputs("conv", view, np.zeros((1, 64, 1)), np.ones((1, 64, 1)), np.zeros(n, int),
                np.zeros((1, 64, 2), np.float32), np.ones((1, 64), bool))
fed = Feeder(inputs, torch.zeros(n, 2), torch.arange(n), np.arange(n), memory=memory)
process = psutil.Process()
before, most, seen = process.memory_info().rss, 0, []
for epoch in (1, 2):
    order = batches(n, 16, np.random.default_rng(epoch), fed.order)
    with fed.ahead(epoch, order) as feed:
        for _, _, stimuli in feed:
            seen += stimuli.tolist()
            most = max(most, process.memory_info().rss)
assert sorted(seen) == sorted(2 * list(range(n)))
print(most - before)
"""


def test_memory_stays_within_its_bound_for_a_store_that_is_larger(make_signal, tmp_path):
    make_signal("a", np.zeros((64, 200_000), np.float32), 100.0)  # 51 MB in four chunks

    def grown(memory):
        command = [sys.executable, "-c", MEMORY, str(tmp_path / "a.zarr"), str(memory)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    # Buffers and small change are the same for both: at most two chunks against all four.
    small, large = grown(17 << 20), grown(1 << 30)
    assert large > 51e6
    assert small < 17 * 2**20 + 16e6
