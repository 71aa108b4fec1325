"""How near decoders come to the optimum, on simulated trials whose optimal decoder is known.

``python tests/benchmarks/bench_optimum.py [--quick]``. A stimulus is a code of 8 numbers on the
sphere. Every number drives a topography over 16 sensors with a bump at a latency of its own; the
noise is ongoing activity with a 1/f spectrum and noise of the sensors. Nobody can beat maximum
likelihood with the known responses and covariances, and gains are chosen so that its top-1 among
100 unseen stimuli, from single trials, is about .2, .5 and .8. Decoders see one trial of each of
``n_train`` other stimuli and aim at

* *linear*: the code itself;
* *non-linear*: products of neighbouring numbers of the code, of which no linear map of the
  response knows anything.

Printed: top-1 of ridge and of the network of Defossez et al. (2023), smaller than in the paper, as
shares of the optimum, with intervals by bootstrap over tested stimuli (trials of one stimulus
stay together, and decoder and optimum are drawn together). With gain 0 nothing is planted.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from braindecode_pipe.simulate.noise import background_autocovariance, draw_background
from braindecode_pipe.simulate.optimal import Whitener, identify
from braindecode_pipe.train.decoder import BrainDecoder

N_CODE, N_SENSORS, N_TIMES, SFREQ = 8, 16, 24, 48.0
N_CANDIDATES, N_REPEATS = 100, 10
# As in the paper but for widths and depth; nothing is dropped, the noise is regulariser enough.
NETWORK = {"n_virtual": 16, "hidden": 64, "depth": 4, "n_fourier": 128, "dilation_cycle": 2,
           "spatial_dropout": 0.0}  # fmt: skip


@dataclass(frozen=True)
class World:
    """What is known to the optimal decoder."""

    responses: np.ndarray  # (N_CODE, N_SENSORS, N_TIMES) of a unit of each number of the code
    background: np.ndarray
    positions: np.ndarray

    @classmethod
    def make(cls, rng: np.random.Generator) -> World:
        """Topographies, bumps and the noise's covariance."""
        time_s = np.arange(N_TIMES) / SFREQ
        peaks = rng.uniform(0.1, 0.5, N_CODE)
        bumps = np.cos(np.clip((time_s - peaks[:, None]) / 0.1, -0.5, 0.5) * np.pi) ** 2
        topographies = rng.standard_normal((N_CODE, N_SENSORS))
        angle = np.linspace(0, 2 * np.pi, N_SENSORS, endpoint=False)
        radius = np.where(np.arange(N_SENSORS) % 2, 0.25, 0.45)
        return cls(
            topographies[:, :, None] * bumps[:, None, :],
            rng.standard_normal((N_SENSORS, 4)),
            np.stack([0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)], 1),
        )

    def trials(self, code: np.ndarray, gain: float, rng: np.random.Generator) -> np.ndarray:
        """Single trials ``(n, N_SENSORS, N_TIMES)`` float32."""
        n = len(code)
        series = draw_background(4 * n, N_TIMES, SFREQ, rng).reshape(n, 4, N_TIMES)
        noise = self.background @ series + rng.standard_normal((n, N_SENSORS, N_TIMES))
        return (gain * np.tensordot(code, self.responses, 1) + noise).astype(np.float32)

    def optimum(self, x: np.ndarray, code: np.ndarray, shown: np.ndarray, gain: float):
        """Whether maximum likelihood finds the stimulus, ``(n,)``."""
        lags = np.abs(np.subtract.outer(np.arange(N_TIMES), np.arange(N_TIMES)))
        whitener = Whitener.of(
            self.background, np.ones(N_SENSORS),
            background_autocovariance(N_TIMES, SFREQ, _period(N_TIMES))[lags],
            np.zeros((N_TIMES, 0)),
        )  # fmt: skip
        templates = gain * self.responses
        filters = np.stack([whitener.inverse(t) for t in templates])
        gram = np.tensordot(filters, templates, ((1, 2), (1, 2)))
        u = np.tensordot(x.astype(float), filters, ((1, 2), (1, 2)))
        better, equal = identify(u, (gram + gram.T) / 2, code, shown).T
        return (better == 0) / (1 + equal)


def _period(n_times: int) -> int:
    """Length over which ``draw_background`` is periodic."""
    from scipy import fft

    return fft.next_fast_len(n_times, real=True)


def codes(n: int, rng: np.random.Generator) -> np.ndarray:
    """Codes on the sphere of radius ``sqrt(N_CODE)``."""
    code = rng.standard_normal((n, N_CODE))
    return code * np.sqrt(N_CODE) / np.linalg.norm(code, axis=1, keepdims=True)


def target(code: np.ndarray, kind: str) -> np.ndarray:
    """What decoders aim at."""
    return code if kind == "linear" else code * np.roll(code, -1, axis=1)


def gain_for(world: World, wanted: float, rng: np.random.Generator) -> float:
    """Gain at which the optimal decoder's top-1 is ``wanted``, by bisection."""
    code = codes(N_CANDIDATES, rng)
    shown = np.repeat(np.arange(N_CANDIDATES), 20)
    noise = world.trials(np.zeros((len(shown), N_CODE)), 0.0, rng)
    clean = np.tensordot(code[shown], world.responses, 1)
    low, high = 0.0, 4.0
    for _ in range(16):
        gain = (low + high) / 2
        top1 = world.optimum(noise + gain * clean, code, shown, gain).mean()
        low, high = (gain, high) if top1 < wanted else (low, gain)
    return gain


def hits(estimates: np.ndarray, candidates: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Whether the nearest candidate by cosine is the one shown; ties share."""
    unit = candidates / np.linalg.norm(candidates, axis=1, keepdims=True)
    scores = estimates @ unit.T
    own = scores[np.arange(len(shown)), shown][:, None]
    greater, equal = (scores > own).sum(1), (scores == own).sum(1)
    return np.where(greater == 0, 1 / equal, 0.0)


def interval(own: np.ndarray, best: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """95 % of the ratio of two means, stimuli drawn with their trials."""
    own, best = (v.reshape(N_CANDIDATES, -1).mean(1) for v in (own, best))
    rows = rng.integers(0, N_CANDIDATES, (2000, N_CANDIDATES))
    ratio = own[rows].mean(1) / np.maximum(best[rows].mean(1), 1e-12)
    return tuple(np.quantile(ratio, [0.025, 0.975]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--wanted", type=float, nargs="+", default=[0.2, 0.5, 0.8, 0.0])
    parser.add_argument("--n-train", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    n_train = given.n_train or (10000 if given.quick else 40000)
    world = World.make(np.random.default_rng(0))
    print(f"simulated; {n_train} training trials of as many stimuli; test: {N_REPEATS} trials of "
          f"each of {N_CANDIDATES} other stimuli; chance {1 / N_CANDIDATES:.2f}")  # fmt: skip
    for wanted in given.wanted:
        rng = np.random.default_rng([3, round(100 * wanted)])
        gain = gain_for(world, wanted, np.random.default_rng(1)) if wanted else 0.0
        train, candidates = codes(n_train, rng), codes(N_CANDIDATES, rng)
        shown = np.repeat(np.arange(N_CANDIDATES), N_REPEATS)
        x, test = world.trials(train, gain, rng), world.trials(candidates[shown], gain, rng)
        best = world.optimum(test, candidates, shown, gain) if wanted else np.full(len(shown), 0.01)
        print(f"gain {gain:.3f}: optimum {best.mean():.3f}" if wanted else "nothing planted")
        for kind in ("linear", "non-linear"):
            y, options = target(train, kind), target(candidates, kind)
            for name in ("ridge", "conv"):
                began = time.perf_counter()
                # All epochs are done, with a rate that falls to zero.
                model = BrainDecoder(
                    name, network=NETWORK if name == "conv" else None, epochs=given.epochs, lr=1e-3,
                    weight_decay=0.05, batch_size=128, alphas=np.logspace(0, 6, 7),
                )  # fmt: skip
                layout = {"positions": world.positions[None]} if name == "conv" else {}
                model.fit(x, y, np.arange(n_train) % 5, **layout)
                own = hits(model.predict(test), options, shown)
                low, high = interval(own, best, np.random.default_rng(2))
                print(
                    f"  {kind:10s} {name:5s} top-1 {own.mean():.3f}  of the optimum "
                    f"{own.mean() / best.mean():.2f} [{low:.2f}, {high:.2f}]"
                    f"  {time.perf_counter() - began:5.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    torch.set_num_threads(1)
    with threadpool_limits(1):
        main()
