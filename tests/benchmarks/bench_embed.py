"""Throughput of embeddings as a share of the bare model, and what a filled cache saves.

``python tests/benchmarks/bench_embed.py``. Networks of true size with random weights, one thread.
*Bare* is the network's forward pass over tensors that lie in memory; *ours* reads files, processes
them, pools, checks and writes the table. Both are interleaved; the median of three is printed.
Rates are per CPU second. Goal: ours/bare of at least 0.9 in items per second, and a filled cache
below 1 % of computing.
"""

from __future__ import annotations

import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.io import wavfile

from braindecode_pipe.embed import build_model, run
from braindecode_pipe.embed.packaged import _MINILM_VOCABULARY
from braindecode_pipe.recipe import EmbedSpec

N = {"image": 8, "speech": 8, "text": 64}


def networks(transformers: Any) -> dict[str, tuple[str, Any, Any, dict[str, Any]]]:
    """Name -> kind, network, processor, settings of the table."""
    t = transformers
    square = t.ViTImageProcessorPil(size={"height": 224, "width": 224})
    tokenizer = t.BertTokenizer(str(_MINILM_VOCABULARY.find()), model_max_length=512)
    clip = t.CLIPVisionConfig()
    return {
        "DINOv2-base": ("image", t.Dinov2Model(t.Dinov2Config()), square, {}),
        "CLIP ViT-B/32": ("image", t.CLIPVisionModel(clip), square, {}),
        "wav2vec2-base": ("speech", t.Wav2Vec2Model(t.Wav2Vec2Config()),
                          t.Wav2Vec2FeatureExtractor(), {"layer": [9, 10, 11, 12]}),
        "BERT-base": ("text", t.BertModel(t.BertConfig(vocab_size=30522)), tokenizer, {}),
    }  # fmt: skip


def stimuli(folder: Path, kind: str, seed: int) -> pd.DataFrame:
    """Files of true size: photographs of 500 x 375 as JPEG, 3 s of 44.1 kHz stereo, sentences."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(N[kind]):
        name, label = f"{kind}-{seed}-{k}", f"{kind} {seed} {k}"
        if kind == "image":
            name += ".jpg"
            noise = rng.integers(0, 256, (25, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((500, 375)).save(folder / name, quality=90)
        elif kind == "speech":
            name += ".wav"
            wave = 0.1 * rng.standard_normal((3 * 44100, 2))
            wavfile.write(folder / name, 44100, (wave * 32767).astype(np.int16))
        else:
            words = rng.choice(["the", "dog", "runs", "over", "wet", "grass", "house", "red"], 24)
            label = " ".join(words)
        rows.append((label, name))
    table = pd.DataFrame(rows, columns=["label", "path"])
    return table.assign(stimulus=table["path"], kind=kind, onset=np.nan, offset=np.nan)


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call: other processes on this machine do not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def bare_inputs(kind: str, model: Any, table: pd.DataFrame, folder: Path) -> list[dict[str, Any]]:
    """Tensors of every batch, made beforehand by the library's own processor."""
    import torch

    size = 4 if kind != "text" else 32
    inputs = []
    for start in range(0, len(table), size):
        part = table.iloc[start : start + size]
        if kind == "image":
            pictures = [Image.open(folder / path).convert("RGB") for path in part["path"]]
            inputs.append(dict(model.processor(images=pictures, return_tensors="pt")))
        elif kind == "speech":
            inputs.append({"input_values": torch.randn(len(part), 3 * 16000)})
        else:
            inputs.append(dict(model.processor(list(part["label"]), padding=True,
                                               return_tensors="pt")))  # fmt: skip
    return inputs


def measure(name: str, kind: str, folder: Path, settings: dict[str, Any]) -> None:
    """Print one line."""
    import torch

    size = 4 if kind != "text" else 32
    spec = EmbedSpec(model=str(folder / "model"), batch_size=size, **settings)
    model = build_model(spec.model, batch_size=size, kind=kind, **settings)
    network = model.network
    extra = {"output_hidden_states": True} if settings else {}
    times: dict[str, list[float]] = {"bare": [], "encode": [], "hit": []}
    for seed in range(3):
        table = stimuli(folder, kind, seed)
        batches = bare_inputs(kind, model, table, folder)

        def forward() -> None:
            with torch.inference_mode():
                for batch in batches:  # noqa: B023
                    network(**batch, **extra)

        def stage(out: str) -> None:
            run(name, spec, table, folder, folder / out, data_origin="simulated")  # noqa: B023

        times["bare"].append(seconds(forward))
        items = _items(spec, table, folder, model)
        times["encode"].append(seconds(lambda: model.encode(items)))  # noqa: B023
        if seed == 0:
            whole = seconds(lambda: stage("first.zarr"))
        else:
            stage(f"out{seed}.zarr")
        times["hit"].append(seconds(lambda: stage(f"again{seed}.zarr")))  # noqa: B023
    bare, ours, hit = (statistics.median(times[k]) for k in ("bare", "encode", "hit"))
    print(
        f"{name:14} bare {N[kind] / bare:6.2f}/s  ours {N[kind] / ours:6.2f}/s  share "
        f"{bare / ours:4.2f}   stage, with loading and probes {whole:5.1f} s, filled cache "
        f"{hit:.3f} s ({1000 * hit / N[kind]:.1f} ms an item; {hit / ours:.1%} of computing)"
    )


def _items(spec: EmbedSpec, table: pd.DataFrame, folder: Path, model: Any) -> list[Any]:
    from braindecode_pipe.embed.table import stimulus_items

    return stimulus_items(spec, table, folder, model.reads, "bench")


def main() -> None:
    """All networks, or those whose name holds the first argument."""
    import torch
    import transformers

    transformers.logging.set_verbosity(logging.ERROR)
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    wanted = sys.argv[1].lower() if len(sys.argv) > 1 else ""
    for name, (kind, network, processor, settings) in networks(transformers).items():
        if wanted not in name.lower():
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            os.environ["BRAINDECODE_PIPE_CACHE"] = str(folder / "cache")
            network.save_pretrained(folder / "model")
            processor.save_pretrained(folder / "model")
            measure(name, kind, folder, settings)


if __name__ == "__main__":
    main()
