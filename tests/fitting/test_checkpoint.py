"""Checkpoints come back as they were, and are refused when they did not."""

import numpy as np
import pytest
import torch

from braindecode_pipe.errors import ModelError
from braindecode_pipe.fitting.checkpoint import (
    checkpoint_files,
    load_checkpoint,
    read_folder,
    restore_state,
    state_arrays,
)
from braindecode_pipe.networks.convolution import ConvEncoder


def encoder(seed, hidden=6):
    torch.manual_seed(seed)
    return ConvEncoder(3, 2, n_virtual=4, hidden=hidden, depth=2, n_fourier=8)


def test_network_round_trip_is_bit_exact(tmp_path):
    network = encoder(0)
    network(torch.randn(4, 5, 16), torch.rand(5, 2))  # moves the statistics of batch norm
    files = checkpoint_files(state_arrays(network), {"hidden": 6})
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    arrays, config = load_checkpoint(read_folder(tmp_path))
    assert config == {"hidden": 6}
    other = encoder(1)
    restore_state(other, arrays)
    for key, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)


def test_order_of_arrays_and_keys_does_not_change_bytes():
    a, b = np.arange(6.0).reshape(2, 3), np.arange(4)
    one = checkpoint_files({"a": a, "b": b}, {"x": 1, "y": [1, 2]})
    two = checkpoint_files({"b": b, "a": np.asfortranarray(a)}, {"y": [1, 2], "x": 1})
    assert one == two


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_broken_file_is_named(name):
    files = checkpoint_files({"a": np.ones(3)}, {}) | {name: b"\x00broken"}
    with pytest.raises(ModelError, match=f"cannot be read\n  file: {name}"):
        load_checkpoint(files.__getitem__)


def test_other_network_is_refused():
    with pytest.raises(ModelError, match="another network"):
        restore_state(encoder(0, hidden=8), state_arrays(encoder(0)))


def test_config_must_be_json():
    with pytest.raises(ValueError, match="JSON"):
        checkpoint_files({}, {"x": float("nan")})
