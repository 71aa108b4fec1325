"""What tokens are worth on a device that nothing was trained on (simulated).

Three caps of electrodes look at the same simulated dipoles: A (BioSemi, 32) and B (every other of
BioSemi's 64), on which a tokenizer and a linear decoder are trained, and C (19 electrodes of the
10-20 system), which both see for the first time. Four stimuli differ in which dipoles they drive.
Beside tokens stand what they rebuild at the electrodes of A, signals interpolated to those by
spherical splines, chance, and, with five minutes of C, a decoder trained on those alone. The
tokenizer never sees C. The share is that of events told right; its standard error is that of
independent events at chance.

``python bench_tokens.py [--seconds 600] [--epochs 16] [--snr 0.3] [--burst] [--folder DIR]``
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import torch

from braindecode_pipe.networks.sensors import normalize_signal
from braindecode_pipe.recipe import TokenizeSection
from braindecode_pipe.schema import sensor_coords, signal_dataset
from braindecode_pipe.splits import FitScope
from braindecode_pipe.store import is_committed, open_signal, read_table, write_store
from braindecode_pipe.tokenize.saved import Tokenizer, load_tokenizer
from braindecode_pipe.tokenize.sensors import SensorArray
from braindecode_pipe.tokenize.stage import encode, fit
from braindecode_pipe.train.decoder import BrainDecoder

SFREQ, WINDOW, N_CLASSES, EVERY_S = 64.0, 64, 4, 1.5
TEN_TWENTY = (
    "Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T7", "C3", "Cz", "C4", "T8", "P7", "P3", "Pz",
    "P4", "P8", "O1", "O2",
)  # fmt: skip
NETWORK = {"width": 64, "n_sources": 8, "n_filters": 8, "ratios": [4, 2], "codebook_size": 128}


def caps() -> dict[str, dict[str, np.ndarray]]:
    """Name of device -> electrode -> place [m], on a sphere of 95 mm."""

    def of(name, chosen=None):
        place = mne.channels.make_standard_montage(name).get_positions()["ch_pos"]
        place = {k: place[k] for k in (chosen or place)}
        middle = np.mean(list(mne.channels.make_standard_montage(name).get_positions()[
            "ch_pos"].values()), axis=0) * np.array([1, 1, 0])  # fmt: skip
        return {k: 0.095 * (v - middle) / np.linalg.norm(v - middle) for k, v in place.items()}

    every = of("biosemi64")
    return {"A": of("biosemi32"), "B": {k: every[k] for k in list(every)[::2]},
            "C": of("colin27_1020", TEN_TWENTY)}  # fmt: skip


class Brain:
    """Dipoles that all devices see: six that oscillate by themselves, four that stimuli drive."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        place = rng.normal(size=(10, 3))
        place[:, 2] = np.abs(place[:, 2])
        self.place = 0.07 * place / np.linalg.norm(place, axis=1, keepdims=True)
        self.moment = rng.normal(size=(10, 3))
        self.drive = np.where(np.eye(N_CLASSES) > 0, 1.5, 0.0) + 0.3 * rng.normal(size=(4, 4))

    def field(self, electrodes: np.ndarray) -> np.ndarray:
        """``q . (p - d) / |p - d|^3`` with average reference, ``(n_electrodes, 10)``."""
        away = electrodes[:, None] - self.place
        field = (away * self.moment).sum(-1) / np.linalg.norm(away, axis=-1) ** 3
        field -= field.mean(0)
        return field / field.std(0)

    def signal(self, electrodes: np.ndarray, seconds: float, snr: float, seed: int, burst: bool):
        """Signals ``(n_electrodes, n_times)`` [V], onsets [s] and stimuli."""
        rng = np.random.default_rng(seed)
        n = round(seconds * SFREQ)
        times = np.arange(n) / SFREQ
        own = np.zeros((10, n))
        for row in own[:6]:
            frequency = rng.uniform(4, 12) + 0.5 * np.cumsum(rng.normal(size=n)) / SFREQ
            row += np.sin(2 * np.pi * np.cumsum(frequency) / SFREQ + rng.uniform(0, 6))
        onset = np.arange(0.5, seconds - 2, EVERY_S)
        label = rng.integers(0, N_CLASSES, len(onset))
        for begin, stimulus in zip(onset, label):
            since = np.maximum(times - begin, 0)
            wave = since / 0.15 * np.exp(1 - since / 0.15)
            if burst:
                wave = wave * np.sin(2 * np.pi * 8 * since)
            own[6:] += snr * self.drive[stimulus][:, None] * wave
        data = self.field(electrodes) @ own
        data += 0.5 * rng.normal(size=data.shape)
        return 1e-5 * data, onset, label


def write(path: Path, cap: dict[str, np.ndarray], data: np.ndarray) -> Path:
    """The recording as a signal store."""
    sensors = sensor_coords(list(cap), "eeg", "V", np.array(list(cap.values())))
    attrs = {"data_origin": "simulated", "sfreq": SFREQ, "first_time": 0.0}
    times = np.arange(data.shape[1]) / SFREQ
    write_store(path, {"": signal_dataset(data.astype(np.float32), sensors, times, attrs)})
    return path


def interpolated(windows: np.ndarray, cap: dict, to: dict) -> np.ndarray:
    """Windows of one cap at the electrodes of another, by mne's spherical splines."""
    names = [f"own-{k}" for k in cap] + [f"to-{k}" for k in to]
    info = mne.create_info(names, SFREQ, "eeg")
    for channel, place in zip(info["chs"], [*cap.values(), *to.values()]):
        channel["loc"][:3] = place
    info["bads"] = names[len(cap) :]
    x = np.concatenate([windows, np.zeros((len(windows), len(to), windows.shape[2]))], axis=1)
    epochs = mne.EpochsArray(x, info, verbose="error").interpolate_bads(
        origin=(0.0, 0.0, 0.0), verbose="error")  # fmt: skip
    return epochs.get_data(copy=False)[:, len(cap) :]


def told(train: list[tuple[np.ndarray, np.ndarray]], test: tuple[np.ndarray, np.ndarray]) -> float:
    """Share of test windows whose stimulus a ridge decoder tells."""
    x, label = (np.concatenate(part) for part in zip(*train))
    decoder = BrainDecoder("ridge", alphas=tuple(10.0 ** np.arange(0, 8)))
    decoder.fit(x, np.eye(N_CLASSES)[label], np.arange(len(label)) // 10)
    return float((np.asarray(decoder.predict(test[0])).argmax(1) == test[1]).mean())


def rebuilt(tokens: np.ndarray, tokenizer: Tokenizer, array: SensorArray) -> np.ndarray:
    """What tokens ``(n, n_sources * width, n_steps)`` rebuild at the sensors of an array."""
    vectors = torch.from_numpy(tokens).unflatten(1, (tokenizer.n_sources, -1)).transpose(2, 3)
    with torch.no_grad():
        parts = [tokenizer.network.decode(part, array.geometry, array.kinds)
                 for part in vectors.split(64)]  # fmt: skip
    return torch.cat(parts).numpy()


def measure(given: argparse.Namespace, folder: Path) -> None:
    """Simulate the devices, fit the tokenizer where it is not there, and compare."""
    section = TokenizeSection.model_validate(
        {"sfreq": SFREQ, "window_s": 1.0, "network": NETWORK, "epochs": given.epochs, "lr": 4e-3,
         "warmup": 0.0, "weight_decay": 0.0, "patience": given.epochs}
    )  # fmt: skip
    brain, devices = Brain(given.seed), caps()
    paths, events, raw, same = {}, {}, {}, {}
    for number, (name, cap) in enumerate(devices.items()):
        places = np.array(list(cap.values()))
        data, onset, label = brain.signal(places, given.seconds, given.snr, number + 1, given.burst)
        paths[name] = write(folder / f"{name}.zarr", cap, data)
        first = np.round(onset * SFREQ).astype(int)
        windows = np.stack([data[:, f : f + WINDOW] for f in first])
        moved = windows if name == "A" else interpolated(windows, cap, devices["A"])
        raw[name], same[name] = (
            (normalize_signal(torch.from_numpy(x), torch.zeros(x.shape[1], dtype=int)).numpy(),
             label)
            for x in (windows, moved)
        )  # fmt: skip
        names = [f"{name}{i}" for i in range(len(onset))]
        events[name] = pd.DataFrame({"event": names, "onset": onset})
    began, fitted = time.perf_counter(), folder / "fit.zarr"
    if not is_committed(fitted):
        scope = FitScope("AB", (), dict.fromkeys("AB", ((0.0, given.seconds),)))
        fit(section, scope, {n: n for n in "AB"}, {n: paths[n] for n in "AB"}, fitted)
    print(f"tokenizer fitted in {time.perf_counter() - began:.0f} s; perplexity "
          f"{read_table(fitted, 'usage')['perplexity'].round(1).tolist()}")  # fmt: skip
    tokenizer, array = load_tokenizer(fitted), SensorArray.of(open_signal(paths["A"]))
    tokens, again = {}, {}
    for name, own in events.items():
        out = folder / f"codes-{name}.zarr"
        encode(section, fitted, {"recording": name, "content_hash": name}, paths[name], out,
               events=own, extent=(0.0, 1.0))  # fmt: skip
        errors = read_table(out, "errors").set_index("band")["error"]
        print(f"  {name}: error of rebuilding {errors['all']:.2f}")
        signal, label = open_signal(out), raw[name][1]
        tokens[name] = signal.read_events(np.arange(signal.n_events)), label
        again[name] = rebuilt(tokens[name][0], tokenizer, array), label
    report(raw, {"tokens": tokens, "tokens rebuilt at A": again, "splines": same})


def report(raw: dict, routes: dict[str, dict]) -> None:
    """Print the shares of each way from devices to one space."""
    five, n = int(300 / EVERY_S), len(raw["C"][1])

    def parts(pair):
        return [v[:five] for v in pair], [v[five:] for v in pair]

    unseen = {way: told([x["A"], x["B"]], x["C"]) for way, x in routes.items()}
    error = (0.25 * 0.75 / n) ** 0.5
    shown = ", ".join(f"{way} {share:.3f}" for way, share in unseen.items())
    print(f"C unseen, {n} events: {shown}; chance {1 / N_CLASSES:.2f} (s.e. {error:.3f}); "
          f"tokens / splines {unseen['tokens'] / unseen['splines']:.2f}")  # fmt: skip
    if n <= five:
        return
    own, rest = parts(raw["C"])
    alone = told([own], rest)
    shown = ", ".join(
        f"{way} {told([x['A'], x['B'], parts(x['C'])[0]], parts(x['C'])[1]):.3f}"
        for way, x in routes.items()
    )
    print(f"5 minutes of C, {n - five} events: {shown}; signals of C alone {alone:.3f}")
    within = {"signals": raw, **routes}
    shown = ", ".join(f"{way} {told([parts(x['A'])[0]], parts(x['A'])[1]):.3f}"
                      for way, x in within.items())  # fmt: skip
    print(f"5 minutes of A alone, the rest of A: {shown}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--snr", type=float, default=0.3)
    parser.add_argument("--burst", action="store_true", help="responses at 8 Hz, not slow waves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where stores are kept, and a tokenizer is used again")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.folder:
        measure(given, Path(given.folder))
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(given, Path(folder))


if __name__ == "__main__":
    main()
