"""The training loop: what it stops at, what it restores, and that it repeats itself."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from braindecode_pipe.errors import ModelError
from braindecode_pipe.fitting.examples import batches, evaluate, predict
from braindecode_pipe.fitting.loop import fit
from braindecode_pipe.fitting.losses import clip_loss, mse_loss


class ArrayExamples:
    def __init__(self, x, y, stimuli=None):
        self.x, self.y = torch.as_tensor(x).float(), torch.as_tensor(y).float()
        ids = np.arange(len(x)) if stimuli is None else stimuli
        self.stimuli = torch.as_tensor(ids, dtype=torch.int64)

    def __len__(self):
        return len(self.x)

    def batch(self, rows):
        return (self.x[rows],), self.y[rows], self.stimuli[rows]


def linear_problem(n=60, seed=0):
    rng = np.random.default_rng(seed)
    x, w = rng.normal(size=(n, 6)), np.random.default_rng(9).normal(size=(6, 4))
    return ArrayExamples(x, x @ w + 0.1 * rng.normal(size=(n, 4)))


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(6, 4)


def test_batches_hold_every_row_once_and_never_a_single_one():
    for n, size in ((10, 3), (9, 4), (5, 8), (2, 2), (13, 4)):
        parts = batches(n, size, np.random.default_rng(0))
        assert sorted(np.concatenate(parts).tolist()) == list(range(n))
        assert min(map(len, parts)) >= 2
    assert [len(p) for p in batches(13, 5, smallest=3)] == [5, 5, 3]
    assert [len(p) for p in batches(13, 5, smallest=4)] == [5, 8]


def test_learns_a_linear_map_and_logs_each_epoch():
    seen = []
    network = linear()
    result = fit(network, linear_problem(), linear_problem(seed=1), loss="mse", lr=0.05,
                 epochs=60, on_epoch=seen.append)  # fmt: skip
    assert seen == result.log
    assert [r["epoch"] for r in result.log] == list(range(1, len(result.log) + 1))
    assert result.log[-1]["validation_loss"] < 0.1 < 1 < result.log[0]["validation_loss"]
    assert result.log[-1]["validation_top1"] > 0.8


def test_same_seed_same_bytes_and_other_seed_other_bytes():
    def weights(seed):
        network = nn.Sequential(linear(), nn.Dropout(0.5), nn.Linear(4, 4))
        torch.manual_seed(5)
        nn.init.normal_(network[2].weight)
        fit(network, linear_problem(), batch_size=16, epochs=3, seed=seed)
        return network[0].weight.detach().numpy().tobytes()

    assert weights(1) == weights(1)
    assert weights(1) != weights(2)


def test_does_not_disturb_the_random_state_of_the_caller():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    fit(linear_with_dropout(), linear_problem(), epochs=2)
    assert torch.equal(torch.rand(3), expected)


def linear_with_dropout():
    state = torch.get_rng_state()
    network = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.3))
    torch.set_rng_state(state)
    return network


def test_stops_early_and_puts_the_best_weights_back():
    train, validation = linear_problem(), linear_problem(seed=1)
    validation.y = -validation.y  # what training learns makes validation worse
    network = linear()
    result = fit(network, train, validation, loss="mse", lr=0.05, epochs=50, patience=3)
    losses = [r["validation_loss"] for r in result.log]
    assert result.best_epoch == 1 + int(np.argmin(losses))
    assert len(result.log) == result.best_epoch + 3
    found, _ = evaluate(network, validation, mse_loss, 128)
    assert found == pytest.approx(min(losses))


def test_monitor_retrieval_keeps_the_epoch_with_the_best_top1():
    network = linear()
    result = fit(network, linear_problem(), linear_problem(seed=1), lr=0.02, epochs=15,
                 monitor="retrieval", patience=15)  # fmt: skip
    top1 = [r["validation_top1"] for r in result.log]
    assert top1[result.best_epoch - 1] == max(top1)


def test_without_validation_all_epochs_run_and_nan_stands_in_the_log():
    result = fit(linear(), linear_problem(), epochs=4, schedule="cosine")
    assert result.best_epoch == len(result.log) == 4
    assert all(math.isnan(r["validation_loss"]) for r in result.log)


def test_cosine_ends_at_rate_zero():
    network, few = linear(), linear_problem()
    rates = []
    step = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", spy)
        fit(network, few, epochs=5, lr=0.1, batch_size=30, schedule="cosine")
    expected = [0.05 * (1 + math.cos(math.pi * k / 10)) for k in range(10)]
    assert rates == pytest.approx(expected)


def test_retrieval_counts_one_candidate_per_stimulus_and_ties_as_chance():
    y = torch.eye(3)[[0, 0, 1, 2]]
    right = ArrayExamples(y, y, [0, 0, 1, 2])
    assert evaluate(nn.Identity(), right, clip_loss, 128)[1] == 1.0
    collapsed = ArrayExamples(torch.ones(4, 3), y, [0, 0, 1, 2])
    assert evaluate(nn.Identity(), collapsed, clip_loss, 128)[1] == pytest.approx(1 / 3)


def test_predict_is_the_same_in_any_batch_size():
    network, x = linear_with_dropout(), linear_problem().x
    whole = predict(network, lambda rows: (x[rows],), 60)
    assert whole.shape == (60, 4)
    assert np.allclose(whole, predict(network, lambda rows: (x[rows],), 60, batch_size=7))


def test_refuses_one_example_and_nothing_to_predict():
    with pytest.raises(ModelError, match="too few examples"):
        fit(linear(), linear_problem(1))
    with pytest.raises(ModelError, match="nothing to predict"):
        predict(linear(), lambda rows: (), 0)


def test_infinite_loss_is_an_error_that_names_the_epoch():
    train = linear_problem()
    train.x[3] = math.inf
    with pytest.raises(ModelError, match="train_loss is not finite in epoch 1"):
        fit(linear(), train, epochs=2)
