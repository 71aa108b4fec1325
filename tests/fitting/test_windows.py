"""Windows are the samples that a naive reader would take, and the rest is dropped with a reason."""

import numpy as np
import pandas as pd
import pytest

from braindecode_pipe.errors import DataError, EventError, RecipeError
from braindecode_pipe.fitting.windows import Windows
from braindecode_pipe.recipe import WindowSection


def event_table(onsets, recording="a", subject="01", duration=0.0):
    n = len(onsets)
    spread = lambda value: value if isinstance(value, list) else [value] * n  # noqa: E731
    return pd.DataFrame(
        {
            "event": [f"{r}:{i}" for i, r in enumerate(spread(recording))],
            "recording": spread(recording),
            "subject": spread(subject),
            "onset": [float(o) for o in onsets],
            "duration": [float(d) for d in spread(duration)],
        }
    )


def noise(n_sensors, n_times, seed=0):
    return np.random.default_rng(seed).normal(size=(n_sensors, n_times)).astype(np.float32)


def test_reads_the_samples_of_a_naive_reader(make_signal):
    data = noise(3, 1000)
    windows = Windows(
        {"a": make_signal("a", data, 100.0, first_time=2.0)},
        event_table([3.0, 5.004, 11.0]),
        WindowSection(tmin=-0.1, tmax=0.3),
        delay=0.15,
    )
    assert windows.shape == (3, 40)
    found = windows.read(windows.rows())
    for i, onset in enumerate([3.0, 5.0, 11.0]):
        start = round((onset + 0.15 - 0.1 - 2.0) * 100)
        assert np.array_equal(found[i], data[:, start : start + 40])
    assert windows.times == pytest.approx(-0.1 + np.arange(40) / 100)
    assert windows.sfreq == 100.0


def test_order_of_rows_is_kept_and_rows_may_repeat(make_signal):
    windows = Windows(
        {"a": make_signal("a", noise(2, 500), 100.0)}, event_table([1, 2, 3]),
        WindowSection(tmax=0.5),
    )  # fmt: skip
    whole = windows.read([0, 1, 2])
    assert np.array_equal(windows.read([2, 0, 2]), whole[[2, 0, 2]])
    view = windows.view([2, 1])
    assert view.shape == (2, 2, 50)
    assert np.array_equal(view[1:], whole[[1]])
    assert np.array_equal(np.asarray(view.subset(np.array([1, 0]))), whole[[1, 2]])


def test_window_of_the_event_itself_and_mean_over_time(make_signal):
    data = noise(4, 60)
    windows = Windows(
        {"a": make_signal("a", data, 0.4)},
        event_table([15.0, 52.5], duration=[22.5, 10.0]),
        WindowSection(reduce="mean"),
    )
    found = windows.read(windows.rows())
    assert found.shape == (2, 4, 1)
    assert found[0, :, 0] == pytest.approx(data[:, 6:15].mean(1), abs=1e-6)
    assert found[1, :, 0] == pytest.approx(data[:, 21:25].mean(1), abs=1e-6)


def test_windows_of_different_length_need_a_mean(make_signal):
    signals = {"a": make_signal("a", noise(1, 60), 0.4)}
    with pytest.raises(RecipeError, match='different lengths[\\s\\S]*reduce = "mean"'):
        Windows(signals, event_table([15.0, 52.5], duration=[22.5, 10.0]), WindowSection())


@pytest.mark.parametrize("baseline", [(None, 0.0), (-0.2, 0.0), (-0.5, -0.3), (0.0, None)])
def test_baseline_is_subtracted_per_sensor(make_signal, baseline):
    data = noise(2, 400) + np.array([[5.0], [-3.0]], np.float32)
    windows = Windows(
        {"a": make_signal("a", data, 100.0)}, event_table([2.0]),
        WindowSection(tmin=-0.2, tmax=0.4, baseline=baseline),
    )  # fmt: skip
    low = 200 + round(100 * (-0.2 if baseline[0] is None else baseline[0]))
    high = 200 + round(100 * (0.4 if baseline[1] is None else baseline[1]))
    expected = data[:, 180:240] - data[:, low:high].mean(1, keepdims=True)
    assert windows.read([0])[0] == pytest.approx(expected, abs=1e-5)


def test_averages_down_to_a_rate_in_near_equal_bins(make_signal):
    data = noise(2, 300)
    windows = Windows(
        {"a": make_signal("a", data, 100.0)}, event_table([1.0]),
        WindowSection(tmax=0.5, sfreq=16.0),
    )  # fmt: skip
    assert windows.n_times == 8
    edges = [0, 6, 13, 19, 25, 31, 38, 44, 50]
    expected = [data[:, 100 + a : 100 + b].mean(1) for a, b in zip(edges, edges[1:])]
    assert windows.read([0])[0] == pytest.approx(np.stack(expected, 1), abs=1e-6)
    assert windows.sfreq == pytest.approx(16.0)
    assert windows.times[0] == pytest.approx(0.025)


def test_cannot_average_up(make_signal):
    with pytest.raises(RecipeError, match="higher rate"):
        Windows({"a": make_signal("a", noise(1, 50), 10.0)}, event_table([1]),
                WindowSection(tmax=1, sfreq=20.0))  # fmt: skip


def test_f19_events_outside_are_dropped_and_counted(make_signal):
    good = np.ones(100, bool)
    good[55] = False
    windows = Windows(
        {"a": make_signal("a", noise(1, 100), 10.0, time_good=good)},
        event_table([-1.0, 0.0, 5.0, 5.6, 9.0, 9.5, np.nan]),
        WindowSection(tmax=1.0),
    )
    assert windows.valid.tolist() == [False, True, False, True, True, False, False]
    assert windows.dropped == {
        "window leaves the recording": 2,
        "window meets bad samples": 1,
        "onset or duration unknown": 1,
    }
    assert windows.rows(np.array([0, 1, 3])).tolist() == [1, 3]
    with pytest.raises(EventError, match="no valid window[\\s\\S]*a:5"):
        windows.read([5])


def test_onset_at_the_last_sample_is_inside(make_signal):
    data = noise(1, 100)
    windows = Windows({"a": make_signal("a", data, 10.0)}, event_table([9.9]), WindowSection())
    assert windows.read([0])[0, 0, 0] == data[0, 99]


def test_nothing_usable_is_an_error(make_signal):
    with pytest.raises(EventError, match="2 x window leaves the recording"):
        Windows({"a": make_signal("a", noise(1, 10), 10.0)}, event_table([5, 6]),
                WindowSection(tmax=1))  # fmt: skip


def test_recordings_without_store_are_counted(make_signal):
    windows = Windows({"a": make_signal("a", noise(1, 50), 10.0)},
                      event_table([1, 1], recording=["a", "b"]), WindowSection(tmax=1))  # fmt: skip
    assert windows.dropped == {"recording has no store": 1}
    with pytest.raises(DataError, match="no signal store"):
        Windows({}, event_table([1]), WindowSection(tmax=1))


def test_sensors_of_one_person_are_matched_by_name(make_signal):
    a, b = noise(3, 50), noise(3, 50, seed=1)
    signals = {
        "a": make_signal("a", a, 10.0, names=["Cz", "Pz", "Oz"]),
        "b": make_signal("b", b, 10.0, names=["Oz", "Fz", "Cz"]),
    }
    windows = Windows(signals, event_table([1, 1], recording=["a", "b"]), WindowSection(tmax=1))
    assert windows.sensors["01"]["sensor"].tolist() == ["Cz", "Oz"]
    found = windows.read([0, 1])
    assert np.array_equal(found[0], a[[0, 2], 10:20])
    assert np.array_equal(found[1], b[[2, 0], 10:20])


def test_people_are_padded_and_masked(make_signal):
    signals = {"a": make_signal("a", noise(2, 50), 10.0), "b": make_signal("b", noise(4, 50), 10.0)}
    table = event_table([1, 2], recording=["a", "b"], subject=["01", "02"])
    windows = Windows(signals, table, WindowSection(tmax=1))
    assert windows.masks.tolist() == [[True, True, False, False], [True] * 4]
    assert windows.subject_index([1, 0]).tolist() == [1, 0]
    assert not windows.read([0])[0, 2:].any()
    assert np.isnan(windows.positions[0, 2:]).all()


def test_no_common_sensor_is_an_error(make_signal):
    signals = {
        "a": make_signal("a", noise(1, 50), 10.0, names=["Cz"]),
        "b": make_signal("b", noise(1, 50), 10.0, names=["Pz"]),
    }
    with pytest.raises(DataError, match="no sensor in common"):
        Windows(signals, event_table([1, 1], recording=["a", "b"]), WindowSection(tmax=1))


def test_f21_different_sampling_rates_are_named(make_signal):
    signals = {"a": make_signal("a", noise(1, 50), 10.0), "b": make_signal("b", noise(1, 50), 20.0)}
    table = event_table([1, 1], recording=["a", "b"])
    with pytest.raises(DataError, match="a: signal at 10.0 Hz[\\s\\S]*b: signal at 20.0 Hz"):
        Windows(signals, table, WindowSection(tmax=1))
    assert Windows(signals, table, WindowSection(tmax=1, reduce="mean")).n_times == 1


def test_not_finite_is_an_error_in_good_sensors_and_zero_in_bad_ones(make_signal):
    data = noise(2, 50)
    data[1, 12] = np.nan
    windows = Windows({"a": make_signal("a", data, 10.0, good=[True, False])}, event_table([1]),
                      WindowSection(tmax=1))  # fmt: skip
    assert not windows.read([0])[0, 1].any()
    assert np.array_equal(windows.read([0])[0, 0], data[0, 10:20])
    windows = Windows({"b": make_signal("b", data, 10.0)}, event_table([1], recording="b"),
                      WindowSection(tmax=1))  # fmt: skip
    with pytest.raises(DataError, match="not finite[\\s\\S]*sensors s1"):
        windows.read([0])


def test_epochs_are_cropped_and_found_by_event(make_response):
    data, times = noise(3, 2 * 60).reshape(3, 2, 60), np.arange(60) / 50 - 0.2
    signal = make_response("a", data, ["a:2", "a:0", "a:9"], times)
    windows = Windows({"a": signal}, event_table([0, 0, 0]), WindowSection(tmin=0.1, tmax=0.5))
    assert windows.valid.tolist() == [True, False, True]
    assert windows.dropped == {"event has no response stored": 1}
    assert np.array_equal(windows.read([0, 2]), data[[1, 0], :, 15:35])
    whole = Windows({"a": signal}, event_table([0]), WindowSection(tmin=-0.2))
    assert whole.shape == (2, 60)
    with pytest.raises(EventError, match="leaves the recording"):
        Windows({"a": signal}, event_table([0]), WindowSection(tmin=0.0, tmax=2.0))


def test_rejected_epochs_are_dropped_and_counted(make_response):
    names = [f"a:{i}" for i in range(4)]
    signal = make_response("a", noise(4, 2), names, good=[True, False, True, True])
    windows = Windows({"a": signal}, event_table([0] * 4), WindowSection(tmax=1, reduce="mean"))
    assert windows.valid.tolist() == [True, False, True, True]
    assert windows.dropped == {"event was rejected": 1}


def test_responses_without_time_are_one_sample(make_response):
    data = noise(4, 5)
    signal = make_response("a", data, [f"a:{i}" for i in range(4)])
    windows = Windows({"a": signal}, event_table([0] * 4), WindowSection(tmax=1, reduce="mean"))
    assert np.array_equal(windows.read([3, 1])[..., 0], data[[3, 1]])


@pytest.mark.parametrize("scale", [1e-13, 1e6])
def test_scale_of_the_signal_only_scales_windows(make_signal, scale):
    data = noise(2, 100)
    section = WindowSection(tmax=1, baseline=(None, 0.3), sfreq=5.0)
    one = Windows({"a": make_signal("a", data, 10.0)}, event_table([1]), section).read([0])
    two = Windows({"b": make_signal("b", data * scale, 10.0)}, event_table([1], recording="b"),
                  section).read([0])  # fmt: skip
    assert two / scale == pytest.approx(one, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("sfreq", [100.0, 128.0])
def test_pieces_are_parts_of_the_whole_window_less_its_baseline(make_signal, sfreq):
    """Against a naive cut: event onset, delay, then samples counted from the window's first."""
    data = noise(3, 1400)
    onsets, delay = [1.0, 3.01, 5.5], 0.137
    section = WindowSection(tmin=-0.1, tmax=0.5, baseline=(-0.2, None))
    signals = {"a": make_signal("a", data, sfreq, first_time=0.25)}
    for begin, end in [(-0.1, 0.15), (0.0, 0.25), (0.25, 0.5), (0.4, 0.52)]:
        windows = Windows(signals, event_table(onsets), section, delay, (begin, end))
        found = windows.read(windows.rows())
        first, last = (round((edge + 0.1) * sfreq) for edge in (begin, min(end, 0.5)))
        assert windows.shape == (3, last - first)
        assert windows.times == pytest.approx(begin + np.arange(last - first) / sfreq)
        for row, onset in enumerate(onsets):
            start = round((onset + delay - 0.1 - 0.25) * sfreq)
            low, high = start + round(-0.1 * sfreq), start + round(0.6 * sfreq)
            naive = data[:, start + first : start + last] - data[:, low:high].mean(1)[:, None]
            assert found[row] == pytest.approx(naive, abs=1e-6)
    whole = Windows(signals, event_table(onsets), section, delay)
    parts = [Windows(signals, event_table(onsets), section, delay, piece).read([0, 1, 2])
             for piece in [(-0.1, 0.1), (0.1, 0.3), (0.3, 0.5)]]  # fmt: skip
    assert np.array_equal(np.concatenate(parts, axis=2), whole.read([0, 1, 2]))


def test_all_pieces_keep_the_same_events(make_signal):
    """An event whose window leaves the recording has no early piece either."""
    signals = {"a": make_signal("a", noise(2, 500), 100.0)}
    section = WindowSection(tmax=1.0)
    for piece in [(0.0, 0.2), (0.8, 1.0)]:
        windows = Windows(signals, event_table([1.0, 4.5]), section, piece=piece)
        assert windows.rows().tolist() == [0]
        assert windows.dropped == {"window leaves the recording": 1}


def test_responses_without_time_have_no_pieces(make_response):
    signals = {"a": make_response("a", noise(2, 3), ["a:0", "a:1"])}
    with pytest.raises(RecipeError, match="responses without time have no pieces"):
        Windows(signals, event_table([1, 2]), WindowSection(tmax=1.0), piece=(0.0, 0.5))


def test_pieces_of_responses_are_cut_from_the_epoch(make_response):
    times = np.arange(60) / 100 - 0.1
    data = np.random.default_rng(0).normal(size=(2, 3, 60)).astype(np.float32)
    signals = {"a": make_response("a", data, ["a:0", "a:1"], times)}
    section = WindowSection(tmin=0.0, tmax=0.4, baseline=(-0.1, 0.0))
    found = Windows(signals, event_table([1, 2]), section, piece=(0.1, 0.3)).read([0, 1])
    naive = data[:, :, 20:40] - data[:, :, :10].mean(2, keepdims=True)
    assert found == pytest.approx(naive, abs=1e-6)
