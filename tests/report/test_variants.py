"""Seeds and pieces of the window on a page."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from braindecode_pipe.report.study import of_whole_window
from braindecode_pipe.report.variants import seeds_table, time_curves
from braindecode_pipe.report.wording import decoder_name


def record(decoder, value, **more):
    return {"metric": "top1", "decoder": decoder, "value": value, "chance": 0.25, "subject": "all",
            "ci_low": value - 0.1, "ci_high": value + 0.1, "ci_level": 0.95, **more}  # fmt: skip


def evaluation(records):
    verdict = {"metric": "top1", "text": "x"}
    return SimpleNamespace(records=records, verdict=verdict)


CURVE = [
    record(f"{d}.t{b:g}to{b + 0.2:g}", v, base_decoder=d, window_begin=b, window_end=b + 0.2,
           window_centre=b + 0.1, p_value_curve=p)
    for d, offset in (("ridge", 0.0), ("conv", 0.1))
    for b, v, p in ((0.2, 0.6 + offset, 0.01), (0.0, 0.3 + offset, 0.4))
]  # fmt: skip
SEEDS = record("conv.seeds", 0.5, base_decoder="conv", n_seeds=3, sd=0.05, value_min=0.45,
               value_max=0.55)  # fmt: skip


def test_seeds_are_a_table_of_their_own():
    (table,) = seeds_table(evaluation([record("conv", 0.5), SEEDS]))
    assert table.caption == "Top-1 accuracy over seeds"
    assert table.rows == (("convolutional network", "3", "50.0 %", "5.0 %", "45.0 – 55.0 %",
                           "25.0 %"),)  # fmt: skip


def test_pieces_are_a_curve_in_the_order_of_time():
    (figure,) = time_curves(evaluation([record("ridge", 0.5), *CURVE, SEEDS]))
    assert figure.alt == (
        "Top-1 accuracy by time: ridge best with 60.0 % at 0.3 s; convolutional network best with "
        "70.0 % at 0.3 s"
    )
    assert "each read 200 ms" in figure.caption and "whole curve" in figure.caption
    picture = np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"))
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):  # a line each
        assert (np.abs(picture.astype(int) - colour).sum(-1) < 12).sum() > 200
    (again,) = time_curves(evaluation([CURVE[i] for i in (1, 0, 3, 2)]))
    assert again == figure


def test_without_seeds_and_pieces_there_is_nothing():
    plain = evaluation([record("ridge", 0.5)])
    assert list(seeds_table(plain)) == list(time_curves(plain)) == []
    assert of_whole_window([record("ridge", 0.5), *CURVE, SEEDS]) == [record("ridge", 0.5)]


@pytest.mark.parametrize(
    ("label", "name"),
    [("conv", "convolutional network"), ("conv.s1", "convolutional network, seed 2"),
     ("conv.t-0.1to0.15", "convolutional network, -0.1 to 0.15 s"), ("ridge.x", "ridge.x"),
     ("conv.seeds", "convolutional network, all seeds"), ("v1.s2", "v1, seed 3")],
)  # fmt: skip
def test_labels_are_written_out(label, name):
    assert decoder_name(label) == name
