"""Reconstruction on simulated EEG: every metric beside noise and shuffled brains, by SNR.

    python tests/benchmarks/bench_reconstruct.py [--snr 1 0.5 0.25] [--set reconstruct.side=64]

Prints one table per SNR, and with several how metrics rise with SNR. All data are simulated.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe import pipeline
from braindecode_pipe.evaluate.reconstruction import rising
from braindecode_pipe.recipe import parse_recipe
from braindecode_pipe.simulate import simulate
from braindecode_pipe.store import open_store, read_file

RECIPE = """\
[study]
name = "reconstruct"
[plan]
datatypes = ["eeg"]
[plan.stimuli.picture]
kind = "image"
column = "picture"
category_column = "category"
[split]
by = "stimulus"
target = "picture"
n_folds = 3
overlap = "purge"
[preprocess.emeg]
notch = [50.0]
l_freq = 0.5
h_freq = 30.0
sfreq = 100.0
scaler = "none"
clamp = "none"
[embed.picture]
model = "efficientnet-lite0"
normalize = "whiten"
components = 40
[train.windows]
tmin = 0.0
tmax = 0.6
sfreq = 20.0
[evaluate]
bootstrap = 0
permutations = 0
[reconstruct]
side = 32
steps = 800
"""


def study(
    folder: Path, snr: float, overrides: tuple[str, ...] = (), **settings: Any
) -> tuple[Path, list[dict[str, Any]]]:
    """Simulate, decode and reconstruct; the store of the stage and its records."""
    options = {"n_subjects": 1, "n_pictures": 150, "n_words": 0, "n_repeats": 6, "n_runs": 2}
    data = folder / f"data-{snr:g}"
    if not data.exists():
        simulate(data, snr=snr, modalities=("eeg",), n_eeg=32, **{**options, **settings})
    result = pipeline.run(
        parse_recipe(RECIPE, "reconstruct.toml", overrides), data, folder / f"out-{snr:g}",
        until="reconstruct", quiet=True, ledger=folder / "ledger",
    )  # fmt: skip
    if result.failed:
        raise SystemExit("\n".join(row.error for row in result.failed))
    [store] = [row.path for row in result.rows if row.stage == "reconstruct"]
    return store, json.loads(read_file(store, "metrics.json"))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--snr", type=float, nargs="+", default=[1.0, 0.5, 0.25])
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        stores, better = [], {}
        for snr in arguments.snr:
            began = time.process_time()
            store, records = study(folder, snr, tuple(arguments.set))
            print(f"simulated EEG, SNR {snr:g}, {records[0]['n_items']} items, "
                  f"{time.process_time() - began:.0f} s of processor")  # fmt: skip
            stores.append(open_store(store, "scores")["scores"].sel(input="brain"))
            better = {r["metric"]: 1 if r["larger_is_better"] else -1 for r in records}
            for r in records:
                print(
                    f"  {r['metric']:28s} {r['value']:6.3f} [{r['ci_low']:.3f}, {r['ci_high']:.3f}]"
                    f" p {r['p_value']:.4f}   noise {r['noise']:6.3f} p {r['p_noise']:.4f}"
                    f"   shuffled {r['shuffled']:6.3f} p {r['p_shuffled']:.4f}"
                )
        for metric, sign in better.items() if len(stores) > 1 else ():
            values = np.stack([sign * s.sel(metric=metric).values for s in stores])
            rho, p = rising(np.array(arguments.snr), values, 2000, np.random.default_rng(0))
            print(f"  rank correlation with SNR: {metric:28s} {rho:6.3f} p {p:.4f}")


if __name__ == "__main__":
    main()
