"""Seeds and pieces of a unit, and what happens beside its fit: resume, progress, TensorBoard."""

import logging
import sys
import types

import numpy as np
import pytest

from braindecode_pipe import store
from braindecode_pipe.errors import InputError
from braindecode_pipe.fitting import loop
from braindecode_pipe.recipe import NetworkSection, TrainSection, Variant, WindowSection
from braindecode_pipe.train import run
from braindecode_pipe.train.course import Course
from braindecode_pipe.train.curves import writer_class

NETWORK = {"mlp": NetworkSection(hidden=8)}


def section(**changes):
    base = {"windows": WindowSection(tmax=8.0), "network": NETWORK, "lr": 1e-2, "epochs": 4,
            "batch_size": 8}  # fmt: skip
    return TrainSection(**{**base, **changes})


def fit(study, name, decoder="mlp", sec=None, **arguments):
    out = study.folder / f"{name}.zarr"
    run(sec or section(), "object", decoder, 0, study.plan, study.signals, study.embedding, out,
        **arguments)  # fmt: skip
    return out


def test_a_store_says_of_which_seed_and_piece_it_is(make_study):
    study = make_study()
    sec = section(select=True)
    found = {
        name: store.open_store(fit(study, name, decoder, sec, **arguments))
        for name, decoder, arguments in [
            ("first", "mlp", {}), ("second", "mlp", {"seed": 1}),
            ("piece", "mlp", {"window": (2.0, 6.0)}), ("linear", "ridge", {"window": (2.0, 6.0)}),
        ]
    }  # fmt: skip
    said = {
        name: tuple(data.attrs[k] for k in ("decoder", "base_decoder", "role", "seed", "window"))
        for name, data in found.items()
    }
    assert said == {
        "first": ("mlp", "mlp", "decoder", 0, [0.0, 8.0]),
        "second": ("mlp.s1", "mlp", "seed", 1, [0.0, 8.0]),
        "piece": ("mlp.t2to6", "mlp", "piece", 0, [2.0, 6.0]),
        "linear": ("ridge.t2to6", "ridge", "piece", None, [2.0, 6.0]),
    }
    # Only what can be selected is scored for it.
    assert [name for name, data in found.items() if "inner_score" in data.attrs] == ["first"]
    assert found["first"].attrs["n_times"] == 4 and found["piece"].attrs["n_times"] == 2
    values = [data["prediction"].values for data in found.values()]
    assert not np.array_equal(values[0], values[1]) and not np.array_equal(values[0], values[2])
    assert store.read_file(study.folder / "second.zarr", "model.json").decode().count('"seed": 1')


class Stopped(BaseException):
    """As a signal would."""


@pytest.mark.parametrize("select", [False, True])
def test_a_unit_that_was_stopped_goes_on_to_the_same_bytes(make_study, monkeypatch, select):
    study, sec = make_study(), section(select=select)
    whole = fit(study, "whole", sec=sec, folder=study.folder / "whole.fit")
    assert not (study.folder / "whole.fit").exists()
    real, batches, last = loop.fit, [], [26 if select else 5]

    def counted(*args, on_batch=None, **kwargs):
        def count(*position):
            batches.append(position)
            if len(batches) in last:
                raise Stopped

        return real(*args, on_batch=count, **{**kwargs, "save_every_s": 0.0})

    monkeypatch.setattr(loop, "fit", counted)
    with pytest.raises(Stopped):
        fit(study, "stopped", sec=sec, folder=study.folder / "stopped.fit")
    assert list((study.folder / "stopped.fit").rglob("checkpoint-*"))
    again = fit(study, "stopped", sec=sec, folder=study.folder / "stopped.fit")
    assert store.store_hash(again) == store.store_hash(whole)
    assert not (study.folder / "stopped.fit").exists()
    done, last[0] = len(batches), 0
    batches.clear()
    fit(study, "anew", sec=sec)
    assert done == len(batches) + 1  # the batch that was stopped before it was saved, twice


def test_a_unit_that_fails_keeps_its_folder(tmp_path):
    folder = tmp_path / "x.fit"
    with pytest.raises(ValueError), Course(Variant("mlp", 0), folder) as course:  # noqa: PT011
        assert course.keep("a", lambda where: 0.1 + 0.2) == 0.1 + 0.2
        raise ValueError
    with Course(Variant("mlp", 0), folder) as course:
        assert course.keep("a", lambda where: 1 / 0) == 0.1 + 0.2
    assert not folder.exists()


def test_progress_is_told_as_it_goes(make_study, caplog):
    study = make_study(validation=True)
    with caplog.at_level(logging.INFO, "braindecode_pipe.train"):
        out = fit(study, "out", sec=section(epochs=2))
    log = store.read_table(out, "log")
    texts = [record.getMessage() for record in caplog.records]
    epochs = [text for text in texts if text.startswith("loss")]
    assert epochs[1] == (
        f"loss {log['train_loss'][1]:.3g}, top-1 {100 * log['validation_top1'][1]:.0f} %, "
        "epoch 2 of 2: object mlp sub-01_run-0"
    )
    batch = [text for text in texts if text.startswith("batch 2 of 2")]
    assert len(batch) == 2 and "(loss" in batch[1]


def test_curves_go_to_whatever_writer_is_there(make_study, monkeypatch, tmp_path):
    written = {}

    class Writer:
        def __init__(self, folder):
            self.points = written.setdefault(folder, [])

        def add_scalar(self, tag, value, step):
            self.points.append((tag, step, value))

        def flush(self):
            self.points.append("flushed")

        def close(self):
            self.points.append("closed")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=Writer))
    study = make_study()
    out = fit(study, "out", sec=section(epochs=2), tensorboard=tmp_path / "curves")
    fit(study, "linear", "ridge", tensorboard=tmp_path / "never")
    losses = store.read_table(out, "log")["train_loss"]
    assert written == {
        str(tmp_path / "curves"): [
            ("loss/train", 1, losses[0]), "flushed", ("loss/train", 2, losses[1]), "flushed",
            "closed",
        ]
    }  # fmt: skip


def test_without_a_writer_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match=r"pip install 'braindecode-pipe\[tensorboard\]'"):
        writer_class()
