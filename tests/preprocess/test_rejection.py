"""Autoreject over pieces: planted bursts are bad, a planted jumping channel is interpolated."""

from __future__ import annotations

import sys

import mne
import numpy as np
import pytest

from braindecode_pipe.errors import DataError, PositionError, RecipeError
from braindecode_pipe.preprocess.rejection import (
    Span,
    fit_global,
    fit_local,
    span_variables,
    spans_of,
)
from braindecode_pipe.preprocess.steps import Log

SFREQ = 120
BURSTS = [7, 8, 25, 41]
JUMPS = [3, 15, 33, 52]
N_PIECES = 60


@pytest.fixture(scope="module")
def raw():
    """60 s of 20 electrodes (simulated); bursts in all, jumps of one channel, one bad channel."""
    from braindecode_pipe.simulate.forward import make_head, sensor_info
    from braindecode_pipe.simulate.noise import make_noise
    from braindecode_pipe.simulate.settings import Settings

    settings = Settings(n_eeg=20, sfreq=SFREQ)
    head = make_head(settings, "01")
    info = sensor_info(settings, "eeg", head)
    noise = make_noise(settings, "eeg", "01", head, info)
    rng = np.random.default_rng(0)
    data = noise.draw(N_PIECES * SFREQ, SFREQ, rng)
    for at in BURSTS:
        data[:, at * SFREQ + 20 : at * SFREQ + 80] += 1e-4 * rng.normal(size=(20, 60))
    for at in JUMPS:
        data[11, at * SFREQ + 40 : at * SFREQ + 60] += 4e-4
    data[4] *= 100
    raw = mne.io.RawArray(data, info, verbose="error")
    raw.info["bads"] = [raw.ch_names[4]]
    return raw


def _cut(raw):
    return raw.get_data().reshape(20, N_PIECES, SFREQ).transpose(1, 0, 2)


def test_global_thresholds_find_the_planted_pieces(raw):
    log = Log()
    rejection = fit_global(raw, 1.0, 0, log)
    reasons = rejection.judge(_cut(raw))
    bad = [i for i, reason in enumerate(reasons) if reason]
    assert set(BURSTS) | set(JUMPS) <= set(bad)
    assert len(bad) <= len(BURSTS) + len(JUMPS) + 2  # measured: none too many
    assert reasons[JUMPS[0]].startswith(f"{raw.ch_names[11]} 0.000")
    assert log.steps[0].startswith("autoreject (global) on 60 pieces of 1 s: eeg ")
    good = [i for i in range(20) if i != 4]
    for i, piece in enumerate(_cut(raw)):
        over = max(np.ptp(piece[good], axis=1)) > rejection.thresholds["eeg"]
        assert over == bool(reasons[i])


@pytest.fixture(scope="module")
def local(raw):
    log = Log()
    return fit_local(raw, 1.0, 0, log), log


def test_local_rejection_tells_bad_pieces_from_bad_channels(raw, local):
    rejection, log = local
    reasons, repaired = rejection.judge(_cut(raw))
    bad = [i for i, reason in enumerate(reasons) if reason]
    assert set(BURSTS) <= set(bad) and len(bad) <= len(BURSTS) + 1  # measured: none too many
    for i in JUMPS:
        assert raw.ch_names[11] in repaired[i]
    assert "19 channels over their thresholds" in reasons[BURSTS[0]]
    assert all(not names for names, reason in zip(repaired, reasons) if reason)
    assert log.steps[0].startswith("autoreject (local) on 60 pieces")


def test_the_matrix_of_a_piece_is_the_interpolation_of_mne(raw, local):
    rejection, _ = local
    name = raw.ch_names[11]
    piece = _cut(raw)[JUMPS[0]]
    found = rejection.matrix((name,)) @ piece
    expected = mne.io.RawArray(piece, raw.info.copy(), verbose="error").drop_channels(
        raw.info["bads"]
    )
    expected.info["bads"] = [name]
    expected.interpolate_bads(verbose="error")
    rows = [i for i in range(20) if i != 4]
    np.testing.assert_allclose(found[rows], expected.get_data(), atol=1e-15)
    np.testing.assert_allclose(found[4], piece[4])
    assert np.ptp(found[11]) < 0.5 * np.ptp(piece[11])
    assert rejection.matrix((name,)) is rejection.matrix((name,))


def test_equal_seeds_give_equal_thresholds(raw):
    first, second = (fit_global(raw, 2.0, 3, Log()).thresholds for _ in range(2))
    assert first == second


def test_pieces_do_not_cross_edges_and_are_bounded(raw, monkeypatch):
    from braindecode_pipe.preprocess import rejection

    cut = raw.copy()
    cut.set_annotations(mne.Annotations([10.5, 30.25], [0, 1.0], ["EDGE boundary", "BAD_x"]))
    # 10 + 19 + 1 (of the span itself) + 28
    assert len(rejection._pieces(cut, 1.0, ("eeg",), 400)) == 58
    assert len(rejection._pieces(cut, 1.0, ("eeg",), 20)) == 20


def test_spans():
    reasons = ["", "a", "b", "", "c"]
    spans = spans_of([0, 100, 200, 300, 400], 100, 50.0, reasons)
    assert spans == [Span(2.0, 4.0, "autoreject: a"), Span(8.0, 2.0, "autoreject: c")]
    variables = span_variables([*spans, Span(0.5, 0.1, "annotated: BAD")])
    assert variables["span_onset"][1].tolist() == [0.5, 2.0, 8.0]
    assert variables["span_reason"][1].tolist()[0] == "annotated: BAD"
    assert span_variables([])["span_reason"][1].shape == (0,)


def test_errors_of_rejection(raw, monkeypatch):
    with pytest.raises(DataError, match="too little of the recording(.|\n)*3 pieces"):
        fit_global(raw, 20.0, 0, Log())
    nowhere = mne.io.RawArray(raw.get_data(), mne.create_info(20, SFREQ, "eeg"), verbose="error")
    with pytest.raises(PositionError, match="20 without"):
        fit_local(nowhere, 1.0, 0, Log())
    with pytest.raises(DataError, match="too few channels of a type"):
        fit_local(raw.copy().pick(raw.ch_names[:6]), 1.0, 0, Log())
    monkeypatch.setitem(sys.modules, "autoreject", None)
    with pytest.raises(RecipeError, match=r"autoreject needs a package(.|\n)*pipe\[artifacts\]"):
        fit_global(raw, 1.0, 0, Log())
