"""Electrodes that the tokenizer has not seen, rebuilt: next to neighbours and spherical splines."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from braindecode_pipe.networks.quantizer import usage
from braindecode_pipe.networks.sensors import kind_codes, normalize_signal, sensor_geometry
from braindecode_pipe.networks.tokenizer import BrainTokenizer

_spec = importlib.util.spec_from_file_location("dipoles", Path(__file__).with_name("dipoles.py"))
dipoles = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(dipoles)


def test_the_rivals_know_their_trade():
    """Both follow a field that changes slowly over the head, and see nothing of what is hidden."""
    info = dipoles.montage(32)
    places = dipoles.positions(info)
    hidden = np.arange(32) % 8 == 3
    x = dipoles.recording(dipoles.leadfield(places, 4, 0.3, 0), 20, 1)
    broken = x.copy()
    broken[:, hidden] = 0.0
    for rival, where in ((dipoles.mean_of_neighbours, places), (dipoles.spherical_splines, info)):
        filled = rival(x, where, hidden)
        assert dipoles.correlations(filled, x[:, hidden]) > 0.7
        assert np.allclose(filled, rival(broken, where, hidden))


@pytest.mark.slow
def test_hidden_electrodes_are_rebuilt_better_than_by_neighbours_and_splines(capsys):
    """Simulated: 16 electrodes, three dipoles that stay in place, a quarter hidden.

    After 256 steps on windows of the same dipoles; tested on windows that were not trained on.
    """
    info = dipoles.montage(16)
    places, kinds = dipoles.positions(info), kind_codes(["eeg"] * 16)
    geometry = sensor_geometry(torch.tensor(places).float(), torch.zeros(16, 3), kinds)
    field = dipoles.leadfield(places, 3, 0.8, 0)
    train, test = (
        normalize_signal(torch.tensor(dipoles.recording(field, n, seed)).float(), kinds)
        for n, seed in ((1024, 2), (128, 3))
    )
    torch.manual_seed(0)
    network = BrainTokenizer(window=64, width=64, n_sources=8, n_heads=4, n_filters=8,
                             ratios=(4, 2), codebook_size=128)  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    for _ in range(8):
        for rows in torch.randperm(1024).split(32):
            optimizer.zero_grad()
            network.combine(network.train()(train[rows], geometry, kinds).mean(0)).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()

    scores = {"tokenizer": [], "neighbours": [], "splines": []}
    codes = []
    truth = test.numpy()
    for part in np.array_split(np.random.default_rng(5).permutation(16), 4):
        hidden = np.isin(np.arange(16), part)
        with torch.no_grad():
            seen = torch.from_numpy(~hidden).expand(len(test), -1)
            tokens = network.eval().encode(test, geometry, kinds, seen)
            rebuilt = network.decode(tokens.codes, geometry, kinds).numpy()[:, hidden]
        codes.append(tokens.codes)
        scores["tokenizer"].append(dipoles.correlations(rebuilt, truth[:, hidden]))
        others = dipoles.mean_of_neighbours(truth, places, hidden)
        scores["neighbours"].append(dipoles.correlations(others, truth[:, hidden]))
        others = dipoles.spherical_splines(truth.astype(float), info, hidden)
        scores["splines"].append(dipoles.correlations(others, truth[:, hidden]))
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    perplexity = usage(torch.cat(codes), 128).perplexity
    with capsys.disabled():
        shown = ", ".join(f"{name} {value:.3f}" for name, value in means.items())
        print(f"\ncorrelation at hidden electrodes (simulated): {shown}; perplexity of 128 codes "
              f"{[round(float(p)) for p in perplexity]}")  # fmt: skip
    assert means["tokenizer"] > 0.4
    assert means["tokenizer"] > means["neighbours"] + 0.05
    assert means["tokenizer"] > means["splines"] + 0.05
    assert (perplexity > 0.01 * 128).all()
